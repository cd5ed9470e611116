"""What tests of the dataset tool share."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

from llmdsim.builder.command import main
from llmdsim.test.recordings import DatasetCase

ENDINGS = (".sqlite3", ".json", ".md")
TALK = ("How are you?", "Fine.", "Really?", "Well, so so.")


def conversation(*texts: str, roles: tuple[str, str] = ("human", "gpt")) -> dict[str, Any]:
    """A record in which two take turns."""
    return {"id": "x", "conversations": [{"from": roles[i % 2], "value": text} for i, text in enumerate(texts)]}


class BuilderCase(DatasetCase):
    """Runs the tool in this process, in directories of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.out = self.folder / "out"
        self.patch(os, "environ", {})

    def input(self, *records: Any, name: str = "in.json") -> None:
        """Write the input file: an array, or lines."""
        text = "\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records)
        (self.folder / name).write_text(text)

    def words(self, *words: str, name: str = "in.json") -> list[str]:
        """A whole command line, and further words."""
        where = ["--local-path", str(self.folder), "--input-file", name, "--output-path", str(self.out)]
        return ["--model", "m", *where, "--output-file", "data", *words]

    def run_tool(self, *argv: str) -> tuple[int, str]:
        """Status, and what was said, without the tool's name."""
        err = StringIO()
        self.patch(sys, "stderr", err)
        status = main(argv)
        return status, err.getvalue().replace("llmdsim-dataset: ", "")

    def build(self, *words: str, name: str = "in.json") -> str:
        """What was said by a run that did its work."""
        status, said = self.run_tool(*self.words(*words, name=name))
        self.assertEqual(status, 0, said)
        return said

    def refused(self, *words: str, name: str = "in.json") -> str:
        """The last line of a run that did not."""
        status, said = self.run_tool(*self.words(*words, name=name))
        self.assertEqual(status, 1, said)
        return said.splitlines()[-1]

    def path(self, ending: str) -> Path:
        """One of the files it writes."""
        return self.out / f"data{ending}"

    def rows(self, table: str = "llmd") -> list[Any]:
        """The rows of the database."""
        with closing(sqlite3.connect(self.path(".sqlite3"))) as file:
            return file.execute(f'SELECT * FROM "{table}" ORDER BY id').fetchall()

    def files(self) -> list[str]:
        """All that there is now."""
        return sorted(path.name for path in self.out.iterdir()) if self.out.exists() else []
