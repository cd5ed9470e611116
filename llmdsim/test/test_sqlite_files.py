"""Which files will do for recorded answers, and what happens where one is broken."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from llmdsim.faults import INTERNAL, Fault
from llmdsim.simulated import Simulated
from llmdsim.sqlite import Locked, Recorded, Unusable, at_once, open_file
from llmdsim.test.recordings import COLUMNS, OPEN, PRESETS, DatasetCase, answers, go_tokens, hash_of


class OpenTests(DatasetCase):
    def refused(self, path: Path, kind: type[Unusable] = Unusable) -> str:
        texts = set()
        for open_it in OPEN:
            with self.assertRaises(kind) as refusal:
                open_it(path, "llmd")
            texts.add(str(refusal.exception))
        (text,) = texts
        self.assertNotIn("\n", text)
        return text.replace(str(path.absolute()), "FILE")

    def test_a_file_must_exist(self) -> None:
        self.assertEqual(self.refused(Path(self.mktemp())), "database file does not exist: FILE")

    def test_a_file_must_be_a_database(self) -> None:
        path = Path(self.mktemp())
        path.write_text("Hello world!")
        self.assertEqual(self.refused(path), "failed to verify database: FILE: file is not a database")

    def test_a_table_must_exist(self) -> None:
        text = "failed to verify database: missing expected column in llmd table: id"
        self.assertEqual(self.refused(self.file((), table="llmdx")), text)
        empty = Path(self.mktemp())
        empty.touch()
        self.assertEqual(self.refused(empty), text)

    def test_every_column_must_exist(self) -> None:
        path = self.file((), columns=COLUMNS.replace("prompt_hash", "hash"))
        self.assertEqual(
            self.refused(path), "failed to verify database: missing expected column in llmd table: prompt_hash"
        )

    def test_every_column_must_be_declared_just_so(self) -> None:
        text = "failed to verify database: column gen_tokens has incorrect type: expected JSON, got TEXT"
        self.assertEqual(self.refused(self.file((), columns=COLUMNS.replace("JSON", "TEXT"))), text)

    def test_further_columns_do_not_matter(self) -> None:
        path = self.file(answers(("hi", "there")), columns=f"{COLUMNS}, note TEXT")
        self.assertEqual([len(self.opened(path, open_it=open_it).rows.ids) for open_it in OPEN], [1, 1])

    def test_a_tables_name_is_only_a_name(self) -> None:
        name = "my table; DROP"
        path = self.file(answers(("hi", "there")), table=name)
        self.assertEqual([len(self.opened(path, name, open_it).rows.ids) for open_it in OPEN], [1, 1])

    def test_a_file_that_somebody_writes_is_locked(self) -> None:
        path = self.file(answers(("hi", "there")))
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            text = "database is locked or has other active connections: FILE: database is locked"
            self.assertEqual(self.refused(path, Locked), text)
        self.opened(path)

    def test_readers_share_a_file_and_leave_it_alone(self) -> None:
        path = self.file(answers(("hi", "there")))
        path.chmod(0o444)
        before = path.read_bytes()
        first, second = (self.opened(path, open_it=open_file) for _ in range(2))
        self.assertEqual([table.tokens(1) for table in (first, second)], [go_tokens("there")] * 2)
        self.assertEqual(path.read_bytes(), before)

    def test_a_file_is_found_again_from_another_directory(self) -> None:
        path = self.file(answers(("hi", "there")))
        table = self.opened(path, open_it=open_file)
        self.assertFalse(path.is_absolute())
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir("/")
        self.assertEqual(table.tokens(1), go_tokens("there"))

    def test_a_copy_in_memory_needs_the_file_no_more(self) -> None:
        path = self.file(answers(("hi", "there")))
        table = self.opened(path)
        path.unlink()
        self.assertEqual(table.tokens(1), go_tokens("there"))


class BrokenTests(DatasetCase):
    def fault(self, source: Recorded) -> str:
        with self.assertRaises(Fault) as fault:
            self.draft(source)
        self.assertEqual(fault.exception.kind, INTERNAL)
        return fault.exception.message

    def test_an_empty_table_is_a_fault_of_each_request(self) -> None:
        self.assertEqual(self.fault(self.source([])), "Dataset is empty")

    def test_a_broken_row_is_a_fault_of_its_requests_only(self) -> None:
        for open_it in OPEN:
            source = self.source([(hash_of("hi"), "{", 1), *answers(("good", "fine"))], open_it)
            self.assertTrue(self.fault(source).startswith("Dataset row 1 is broken: "))
            self.assertEqual(self.said(source, "good"), ("fine", True))

    def test_columns_may_hold_anything(self) -> None:
        rows: list[Any] = [("text", "{", "many"), (5, b"{", 1.5), (1.5, 7, b"\xff")]
        source = self.source([*rows, *answers(("good", "fine"))])
        self.assertEqual(self.said(source, "good"), ("fine", True))
        self.fault(source)

    def test_ids_may_be_anything_too(self) -> None:
        path = self.file(answers(("good", "fine")), columns=COLUMNS.replace(" PRIMARY KEY", ""))
        with closing(sqlite3.connect(path)) as file:
            file.execute("INSERT INTO llmd SELECT 'text', prompt_hash, gen_tokens, n_gen_tokens FROM llmd")
            file.execute("UPDATE llmd SET id = 7 WHERE id IS NULL")
            file.execute("INSERT INTO llmd SELECT NULL, prompt_hash, gen_tokens, n_gen_tokens FROM llmd")
            file.commit()
        for open_it in OPEN:
            self.assertEqual(list(self.opened(path, open_it=open_it).rows.ids), [7])

    def test_a_row_that_is_gone_is_a_fault(self) -> None:
        path = self.file(answers(("hi", "there")))
        table = self.opened(path, open_it=open_file)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("DELETE FROM llmd")
            writer.commit()
        self.assertIn("row 1", self.fault(Recorded(table, PRESETS.compose, Simulated().decode, at_once)))

    def test_a_file_that_is_gone_is_a_fault(self) -> None:
        path = self.file(answers(("hi", "there")))
        table = self.opened(path, open_it=open_file)
        path.unlink()
        fault = self.fault(Recorded(table, PRESETS.compose, Simulated().decode, at_once))
        self.assertEqual(fault, "Dataset cannot be read: unable to open database file")
