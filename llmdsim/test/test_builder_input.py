"""What the dataset tool reads, and what it refuses."""

from __future__ import annotations

import json
import os

from llmdsim.test.building import TALK, BuilderCase, conversation
from llmdsim.test.fileserver import serving
from llmdsim.test.test_huggingface import folder, framed


class InputTests(BuilderCase):
    def test_lines_of_json_are_read_too(self) -> None:
        talk = conversation(*TALK)
        self.input(talk, talk, name="in.jsonl")
        self.build(name="in.jsonl")
        self.assertEqual(len(self.rows()), 8)

    def test_only_so_many_records_are_read(self) -> None:
        text = json.dumps([conversation("a", "b")] * 3)[:-1] + ", broken"
        (self.folder / "in.json").write_text(text)
        self.build("--max-records", "3")
        self.assertEqual(len(self.rows()), 6)

    def test_an_odd_last_turn_is_left_out(self) -> None:
        self.input(conversation(*TALK[:3]))
        self.build()
        self.assertEqual(len(self.rows()), 2)

    def test_a_record_counts_until_somebody_else_speaks(self) -> None:
        turns = conversation(*TALK)["conversations"]
        turns[2]["from"] = "system"
        self.input({"conversations": turns}, conversation("a", "b", roles=("gpt", "human")))
        said = self.build()
        self.assertEqual(len(self.rows()), 2)
        self.assertIn("record 1: turns 3 and 4 are of system and gpt, not of human and gpt", said)
        self.assertIn("record 2: turns 1 and 2 are of gpt and human", said)

    def test_what_is_no_conversation_is_refused_with_its_number(self) -> None:
        good = json.dumps(conversation("a", "b"))
        turns = '{"conversations":[{"from":"human","value":%s}]}'
        for bad, text in (
            ("5", "record 2: no object with a list of conversations"),
            ("{}", "record 2: no object with a list of conversations"),
            ('{"conversations":{}}', "record 2: no object with a list of conversations"),
            ('{"conversations":[5]}', "record 2, turn 1: no object with the strings from and value"),
            (turns % "null", "record 2, turn 1: no object with the strings from and value"),
            (turns % r'"a\ud800"', "record 2, turn 1: half a surrogate pair at character 1"),
            ("{", "record 2: not JSON (line 2, column 2)"),
            ("[" * 100000, "record 2: nested too deep"),
        ):
            for frame in ("[%s,\n%s\n]", "%s\n%s\n"):
                (self.folder / "in.json").write_text(frame % (good, bad))
                said = self.refused()
                self.assertEqual(said.partition(" (line")[0], text.partition(" (line")[0])
                self.assertEqual(self.files(), [])

    def test_the_frame_must_be_whole(self) -> None:
        good = json.dumps(conversation("a", "b"))
        for text, problem in (
            (f"[{good} {good}]", "record 1: not followed by a comma or the array's end (line 1, column "),
            (f"[{good}", "record 1: not followed by a comma or the array's end"),
            (f"[{good},]", "record 2: not JSON"),
            (f"[{good}]\nx", "record 1: something is behind the array's end (line 2, column 1)"),
            (f"{good} {good}", "record 1: not followed by the line's end"),
        ):
            (self.folder / "in.json").write_text(text)
            self.assertTrue(self.refused().startswith(problem), text)

    def test_bytes_that_are_no_text_are_refused(self) -> None:
        (self.folder / "in.json").write_bytes(b'["\xff')
        self.assertEqual(self.refused(), "in.json: byte 2 is not UTF-8")

    def test_an_input_without_answers_is_refused(self) -> None:
        for text in ("[]", "", " \n", json.dumps(conversation("a"))):
            (self.folder / "in.json").write_text(text)
            self.assertEqual(self.refused(), "the input has no answer to learn: no rows")
            self.assertEqual(self.files(), [])

    def test_a_missing_input_is_one_line(self) -> None:
        self.assertTrue(self.refused(name="gone.json").endswith("gone.json: No such file or directory"))

    def test_an_exchange_that_cannot_be_tokenized_is_left_out_of_later_prompts_too(self) -> None:
        template = "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
        place = folder(self, framed())
        self.input(conversation("bad", "x", "good", "y"))
        said = self.build("--tokenizer", str(place), "--chat-template", template + "{{ m.content }};{% endfor %}")
        self.assertIn("record 1: an exchange cannot be tokenized, left out: no", said)
        prompts = [row["input_text"] for row in json.loads(self.path(".json").read_text())]
        self.assertEqual(prompts, ["good", "### user:\ngood\n"])

    def test_a_hub_is_asked_for_a_repositorys_file(self) -> None:
        server = serving(self, json.dumps([conversation("a", "b")]).encode())
        os.environ.update(HF_ENDPOINT=server.url("hub"), HF_TOKEN="secret")
        words = ["--hf-repo", "owner/name", "--input-file", "in.json", "--output-path", str(self.out)]
        status, said = self.run_tool("--model", "m", *words, "--output-file", "data")
        self.assertEqual((status, len(self.rows()), len(self.files())), (0, 2, 3), said)
        (asked,) = server.asked
        self.assertNotIn("Authorization", asked)  # that is for huggingface.co only
        self.assertIn("https://huggingface.co/datasets/owner/name", self.path(".md").read_text())
