"""How far a long piece of work is said to be."""

from __future__ import annotations

import io

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.progress import Lines, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class LinesTests(SynchronousTestCase):
    said: list[str]

    def lines(self, total: int | None, unit: str = "records", done: int = 0) -> Lines:
        self.clock, self.said = Clock(), []
        return Lines("Work", total, unit, self.said.append, done, self.clock.seconds)

    def test_every_tenth_is_said_once(self) -> None:
        lines = self.lines(1000)
        for _ in range(1000):
            lines.add(1)
        self.assertEqual(self.said, [f"Work: {100 * i} records of 1000 records ({10 * i} %)" for i in range(1, 11)])

    def test_slow_work_is_heard_of_every_five_seconds(self) -> None:
        lines = self.lines(1000)
        for _ in range(12):
            self.clock.advance(1)
            lines.add(1)
        self.assertEqual(self.said, ["Work: 5 records of 1000 records (0 %)", "Work: 10 records of 1000 records (1 %)"])

    def test_a_big_step_is_one_line(self) -> None:
        self.lines(100).add(75)
        self.assertEqual(self.said, ["Work: 75 records of 100 records (75 %)"])

    def test_without_a_total_only_time_counts(self) -> None:
        lines = self.lines(None, "B")
        lines.add(5 << 20)
        self.assertEqual(self.said, [])
        self.clock.advance(5)
        lines.add(1 << 19)
        self.assertEqual(self.said, ["Work: 5.5 MiB"])

    def test_an_earlier_attempt_counts(self) -> None:
        lines = self.lines(100, done=55)
        lines.add(4)
        lines.add(1)
        self.assertEqual(self.said, ["Work: 60 records of 100 records (60 %)"])

    def test_bytes_are_shown_in_the_unit_that_fits(self) -> None:
        for count, shown in ((12, "12 B"), (2048, "2.0 KiB"), (3 << 30, "3.0 GiB")):
            self.lines(count, "B").add(count)
            self.assertEqual(self.said, [f"Work: {shown} of {shown} (100 %)"])


class BarTests(SynchronousTestCase):
    def test_a_terminal_sees_a_bar_and_the_log_nothing(self) -> None:
        said: list[str] = []
        stream = Terminal()
        bar = progress("Work", 10, "records", said.append, stream, 5)
        bar.add(5)
        bar.close()
        self.assertIn("10/10", stream.getvalue())
        self.assertEqual(said, [])

    def test_anything_else_has_lines(self) -> None:
        self.assertIsInstance(progress("Work", 10, "records", print, io.StringIO()), Lines)
