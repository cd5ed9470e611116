"""The dataset tool, from its command line: its three files, what it refuses, and how it goes on after a break."""

from __future__ import annotations

import json
import sqlite3
import sys
from base64 import b64decode
from contextlib import closing
from io import StringIO
from random import Random
from typing import Any

from llmdsim.builder import command
from llmdsim.builder.command import main
from llmdsim.builder.writing import Writer
from llmdsim.dataset import SENTENCES
from llmdsim.huggingface import load
from llmdsim.rows import prompt_hash
from llmdsim.simulated import Simulated
from llmdsim.test.building import ENDINGS, TALK, BuilderCase, conversation
from llmdsim.test.recordings import go_tokens, hash_of
from llmdsim.test.test_huggingface import folder, framed


class OutputTests(BuilderCase):
    def test_each_answer_gives_a_row_for_the_text_and_one_for_the_chat(self) -> None:
        self.input(conversation(*TALK))
        self.build()
        chat = "### user: How are you?\n", "### user: How are you?\n### assistant: Fine.\n### user: Really?\n"
        fine, so = (2, go_tokens("Fine.")), (5, go_tokens("Well, so so."))
        wanted = [
            (hash_of(TALK[0]), *fine),
            (hash_of(chat[0]), *fine),
            (hash_of(TALK[2]), *so),
            (hash_of(chat[1]), *so),
        ]
        self.assertEqual(self.rows(), [(id, hash, raw, count) for id, (hash, count, raw) in enumerate(wanted, 1)])

    def test_the_simulator_finds_every_prompt_again(self) -> None:
        rng = Random(1)
        talks = [[f"{i}.{j} {rng.choice(SENTENCES)}" for j in range(6)] for i in range(40)]
        self.input(*(conversation(*talk) for talk in talks))
        self.build()
        table, tokenizer = self.opened(self.path(".sqlite3")), Simulated()
        for talk in talks:
            for turn in range(0, 6, 2):
                roles = ("user", "assistant") * 3
                messages = [
                    {"role": role, "content": text} for role, text in zip(roles, talk[: turn + 1], strict=False)
                ]
                for ids in (tokenizer.encode(talk[turn]).ids, tokenizer.encode(tokenizer.render(messages)).ids):
                    id = table.rows.draw([prompt_hash(ids) or b""], 500, False, rng)
                    self.assertEqual(table.tokens(id), go_tokens(talk[turn + 1]))

    def test_the_json_twin_has_the_same_rows_and_texts_for_people(self) -> None:
        self.input(conversation(*TALK))
        self.build()
        text = self.path(".json").read_text()
        found = json.loads(text)
        self.assertEqual(text, json.dumps(found, indent=2) + "\n")
        self.assertEqual(list(found[0]), ["prompt_hash", "n_gen_tokens", "gen_tokens", "input_text", "generated"])
        rows = [(b64decode(row["prompt_hash"]), row["gen_tokens"], row["n_gen_tokens"]) for row in found]
        self.assertEqual(rows, [(hash, json.loads(raw), count) for _, hash, raw, count in self.rows()])
        self.assertEqual((found[2]["input_text"], found[2]["generated"]), ("Really?", "Well, so so."))
        chat = "### user:\nHow are you?\n### assistant:\nFine.\n### user:\nReally?\n"
        self.assertEqual((found[3]["input_text"], found[3]["generated"]), (chat, "Well, so so."))

    def test_the_card_tells_how_to_use_it(self) -> None:
        self.input(conversation(*TALK), conversation("a"))
        kwargs = '{"enable_thinking": false}'
        self.build("--table-name", "my table", "--force-dummy-tokenizer", "--default-chat-template-kwargs", kwargs)
        card = self.path(".md").read_text()
        options = f"--model m --force-dummy-tokenizer --default-chat-template-kwargs '{kwargs}'"
        for part in (options, "`in.json`", 'CREATE TABLE "my table"', "records used: 2\n", "generated: 4\n"):
            self.assertIn(part, card)
        self.assertNotIn(str(self.folder), card)

    def test_the_example_on_the_card_is_true(self) -> None:
        self.input(conversation("Say hello.", "Hello world!"))
        self.build()
        example = self.path(".md").read_text().partition("```json\n")[2].partition("```")[0]
        self.assertEqual(json.loads(example), json.loads(self.path(".json").read_text())[0])

    def test_the_table_is_the_older_simulators(self) -> None:
        self.input(conversation(*TALK))
        self.build("--table-name", 'odd "name"')
        with closing(sqlite3.connect(self.path(".sqlite3"))) as file:
            info = file.execute("""PRAGMA table_info("odd ""name""\")""").fetchall()
        kinds = {"id": "INTEGER", "prompt_hash": "BLOB", "gen_tokens": "JSON", "n_gen_tokens": "INTEGER"}
        self.assertEqual({row[1]: row[2] for row in info}, kinds)
        self.assertEqual(len(self.opened(self.path(".sqlite3"), 'odd "name"').rows.ids), 4)

    def test_the_same_input_gives_the_same_bytes(self) -> None:
        self.input(*(conversation(*TALK, str(i), "x") for i in range(300)))
        contents = []
        for _ in range(2):
            self.build()
            contents.append([self.path(ending).read_bytes() for ending in ENDINGS])
            self.assertEqual(self.files(), ["data.json", "data.md", "data.sqlite3"])
            for ending in ENDINGS:
                self.path(ending).unlink()
        self.assertEqual(contents[0], contents[1])

    def test_a_models_own_tokenizer_and_template_are_used(self) -> None:
        template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ more }}"
        place = folder(self, framed(), tokenizer_config={"chat_template": template})
        self.input(conversation("How are you?", "Fine."))
        self.build("--tokenizer", str(place), "--default-chat-template-kwargs", '{"more": "so"}')
        own = load(place)
        chat = own.render([{"role": "user", "content": "How are you?"}], more="so")
        self.assertEqual(chat, "<user>How are you?so")
        ids = [own.encode("How are you?").ids, own.encode(chat, False).ids]
        self.assertEqual([row[1] for row in self.rows()], [prompt_hash(each) for each in ids])
        self.assertEqual(json.loads(self.rows()[0][2])["Tokens"], list(own.encode("Fine.", False).ids))


class Stopped(Writer):
    """Is interrupted before record 501."""

    def rows(self, record: Any) -> Any:
        if record.number > 500:
            raise KeyboardInterrupt
        return super().rows(record)


class AgainTests(BuilderCase):
    def setUp(self) -> None:
        super().setUp()
        self.input(*(conversation(f"question {i}", f"answer {i}") for i in range(600)))

    def interrupt(self, *words: str) -> str:
        undo = self.patch(command, "Writer", Stopped)
        status, said = self.run_tool(*self.words(*words))
        undo.restore()
        self.assertEqual(status, 130)
        self.assertEqual(self.files(), ["data.work"])
        return said

    def tokenized(self, said: str) -> int:
        """How many tenths were worked on."""
        return said.count("Tokenized: ")

    def test_an_interrupted_build_goes_on_and_its_files_are_the_same(self) -> None:
        self.assertEqual(self.tokenized(self.build()), 10)
        wanted = [self.path(ending).read_bytes() for ending in ENDINGS]
        for ending in ENDINGS:
            self.path(ending).unlink()
        self.assertIn("interrupted; the same command goes on from here", self.interrupt())
        self.assertEqual(self.tokenized(self.build()), 4)
        self.assertEqual([self.path(ending).read_bytes() for ending in ENDINGS], wanted)
        self.assertEqual(len(self.files()), 3)

    def test_another_input_or_other_options_begin_again(self) -> None:
        self.interrupt()
        self.assertEqual(self.tokenized(self.build("--max-records", "550")), 10)
        for ending in ENDINGS:
            self.path(ending).unlink()
        self.interrupt()
        self.input(*(conversation(f"question {i}", "another answer") for i in range(600)))
        self.assertEqual(self.tokenized(self.build()), 10)
        self.assertEqual({row[2] for row in self.rows()}, {go_tokens("another answer")})

    def test_a_damaged_work_file_begins_again(self) -> None:
        self.interrupt()
        self.path(".work").write_text("nonsense")
        self.build()
        self.assertEqual(len(self.rows()), 1200)

    def test_a_build_that_ended_between_its_files_writes_them_all(self) -> None:
        self.interrupt()
        self.path(".sqlite3").write_text("half")
        self.build()
        self.assertEqual(len(self.rows()), 1200)


class OptionTests(BuilderCase):
    def wrong(self, *words: str) -> str:
        status, said = self.run_tool(*words)
        self.assertEqual((status, said.count("\n")), (1, 1), said)
        return said.removeprefix("invalid configuration: ").rstrip()

    def test_what_is_wrong_is_said_in_the_older_tools_words_and_order(self) -> None:
        words: list[str] = []
        for more, text in (
            ([], "--model is not defined"),
            (["--model", "m"], "either --hf-repo or --local-path must be specified"),
            (["--hf-repo", "o/n", "--local-path", "x"], "specify only one of --hf-repo or --local-path"),
            (["--local-path", ""], "--hf-repo defined but --file is empty"),
            (["--hf-repo", "", "--local-path", "x"], "--local-path defined but --file is empty"),
            (["--file", "f", "--max-records", "-1"], "--max-records cannot be negative"),
        ):
            words += more
            self.assertEqual(self.wrong(*words), text)

    def test_nothing_that_exists_is_overwritten(self) -> None:
        self.input(conversation("a", "b"))
        for ending in reversed(ENDINGS):
            self.out.mkdir(exist_ok=True)
            self.path(ending).write_text("mine")
            self.assertEqual(self.wrong(*self.words()), f"output file already exists: {self.path(ending)}")
            self.assertEqual(self.path(ending).read_text(), "mine")

    def test_a_tokenizer_that_cannot_be_had_is_one_line(self) -> None:
        self.input(conversation("a", "b"))
        self.assertTrue(self.refused("--tokenizer", "/no/such/place").startswith("tokenizer /no/such/place: "))

    def test_the_render_service_is_not_needed_any_more(self) -> None:
        self.input(conversation("a", "b"))
        self.assertIn("--render-url is ignored", self.build("--render-url", "http://x"))

    def test_help_ends_with_status_0_and_nonsense_with_2(self) -> None:
        self.patch(sys, "stdout", StringIO())
        self.patch(sys, "stderr", StringIO())
        for words, status in ((["--help"], 0), (["--no-such-flag"], 2), (["--chat-template-kwargs", "[]"], 2)):
            with self.assertRaises(SystemExit) as ended:
                main(words)
            self.assertEqual(ended.exception.code, status)
