"""Tests for llmdsim.tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.huggingface import HuggingFace
from llmdsim.simulated import Simulated
from llmdsim.test.test_huggingface import folder
from llmdsim.tokenizer import choose, find

CHAT = [{"role": "user", "content": "Hi"}]


class ChooseTests(SynchronousTestCase):
    def setUp(self):
        self.lines: list[str] = []
        self.environ = {"HF_HUB_CACHE": str(Path(self.mktemp()).absolute())}

    def choose(self, model="org/model", tokenizer="", force_simulated=False, chat_template=""):
        return choose(
            model=model,
            tokenizer=tokenizer,
            force_simulated=force_simulated,
            environ=self.environ,
            chat_template=chat_template,
            log=self.lines.append,
        )

    def cached(self, name: str) -> None:
        """Put a tokenizer into the local cache as the hub's own library does."""
        model = Path(self.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text("abc123\n")
        (model / "snapshots").mkdir()
        folder(self).parent.rename(model / "snapshots" / "abc123")

    def refusal(self, **wanted) -> str:
        text = str(self.assertRaises(ValueError, self.choose, **wanted))
        self.assertNotIn("\n", text)
        return text

    def test_a_model_found_nowhere_is_simulated_and_the_log_says_why(self):
        self.assertIsInstance(self.choose(), Simulated)
        (line,) = self.lines
        self.assertIn("org/model is no directory", line)

    def test_the_simulated_one_can_be_forced(self):
        model = str(folder(self).parent)
        self.assertIsInstance(self.choose(model=model, tokenizer=model, force_simulated=True), Simulated)
        self.assertEqual(len(self.lines), 1)

    def test_a_model_may_be_a_directory(self):
        self.assertIsInstance(self.choose(model=str(folder(self).parent)), HuggingFace)

    def test_a_model_in_the_local_cache_is_found_by_its_name(self):
        self.cached("org/model")
        self.assertIsInstance(self.choose(), HuggingFace)

    def test_a_tokenizer_may_be_a_file_a_directory_or_a_cached_name(self):
        self.cached("org/tokenizer")
        path = folder(self)
        for tokenizer in (str(path), str(path.parent), "org/tokenizer"):
            self.assertIsInstance(self.choose(tokenizer=tokenizer), HuggingFace)

    def test_a_tokenizer_found_nowhere_is_refused(self):
        self.assertIn("org/none: no tokenizer.json", self.refusal(tokenizer="org/none"))

    def test_a_broken_tokenizer_is_refused_where_it_was_asked_for(self):
        path = folder(self)
        path.write_text("{\n}")
        self.assertIn("cannot be loaded", self.refusal(tokenizer=str(path)))

    def test_a_broken_tokenizer_of_a_model_is_simulated(self):
        path = folder(self)
        path.write_text("{\n}")
        self.assertIsInstance(self.choose(model=str(path.parent)), Simulated)
        self.assertIn("cannot be loaded", self.lines[0])

    def test_a_chat_template_is_a_path_or_itself(self):
        model, file = str(folder(self).parent), Path(self.mktemp())
        file.write_text("from {{ 'file' }}")
        self.assertEqual(self.choose(model=model, chat_template=str(file)).render(CHAT), "from file")
        self.assertEqual(self.choose(model=model, chat_template="{{ messages[0].content }}").render(CHAT), "Hi")

    def test_a_chat_template_that_is_no_file_or_no_template_is_refused(self):
        model = str(folder(self).parent)
        self.assertIn("looks like a path", self.refusal(model=model, chat_template="nowhere.jinja"))
        self.assertIn("line 1", self.refusal(model=model, chat_template="{% if %}"))


class CacheTests(SynchronousTestCase):
    def test_the_cache_is_where_the_environment_says(self):
        root = Path(self.mktemp()).absolute()
        places = {
            "hub": {"HF_HUB_CACHE": str(root / "hub"), "HF_HOME": "/nowhere"},
            "home/hub": {"HF_HOME": str(root / "home"), "XDG_CACHE_HOME": "/nowhere"},
            "xdg/huggingface/hub": {"XDG_CACHE_HOME": str(root / "xdg"), "HOME": "/nowhere"},
            "user/.cache/huggingface/hub": {"HOME": str(root / "user")},
        }
        for place, environ in places.items():
            model = root / place / "models--m"
            (model / "refs").mkdir(parents=True)
            (model / "refs" / "main").write_text("r")
            (model / "snapshots" / "r").mkdir(parents=True)
            (model / "snapshots" / "r" / "tokenizer.json").write_text("{}")
            self.assertEqual(find("m", environ), model / "snapshots" / "r" / "tokenizer.json")

    def test_no_name_means_no_file(self):
        self.assertIsNone(find("", {"HOME": "/nowhere"}))


class LazyTests(SynchronousTestCase):
    def test_the_simulated_one_needs_neither_tokenizers_nor_jinja2(self):
        code = (
            "import sys; from llmdsim.tokenizer import choose\n"
            "choose(model='m', tokenizer='', force_simulated=False, environ={'HOME': '/nowhere'}, log=str)\n"
            "sys.exit(bool({'tokenizers', 'jinja2', 'huggingface_hub'} & sys.modules.keys()))"
        )
        root = str(Path(__file__).absolute().parents[2])
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode, 0)
