"""Fetching a dataset's file from a real server: whole or not at all, and continued where that is safe."""

from __future__ import annotations

import fcntl
import io
import socket
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.download import DownloadError, check_sqlite, fetch
from llmdsim.test.fileserver import Handler, serving
from llmdsim.test.recordings import answers, write


class DownloadCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        rows = answers(*((f"question {i}", f"answer {i}") for i in range(400)))
        self.content = write(folder / "made.sqlite3", rows).read_bytes()
        self.path = folder / "deeper" / "data.sqlite3"
        self.part, self.note = (self.path.with_name(f"data.sqlite3.part{end}") for end in ("", ".from"))
        self.said: list[str] = []
        self.slept: list[float] = []
        self.server = serving(self, self.content)

    def fetch(self, url: str = "", **options: Any) -> bool:
        options = {"stream": io.StringIO(), "sleep": self.slept.append, **options}
        return fetch(url or self.server.url(), self.path, self.said.append, **options)

    def refused(self, url: str = "", **options: Any) -> str:
        with self.assertRaises(DownloadError) as refusal:
            self.fetch(url, **options)
        text = str(refusal.exception)
        self.assertNotIn("\n", text)
        self.assertFalse(self.path.exists())
        return text

    def files(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())

    def drops(self, *cuts: int) -> None:
        """The connection ends after so many bytes, once each; afterwards it holds."""
        left = list(cuts)

        def act(handler: Handler) -> bool:
            self.server.cut = left.pop(0) if left else 0
            return False

        self.server.act = act


class WholeTests(DownloadCase):
    def test_a_file_is_fetched_into_a_directory_that_is_made_for_it(self) -> None:
        self.assertTrue(self.fetch())
        self.assertEqual((self.path.read_bytes(), self.files()), (self.content, ["data.sqlite3"]))
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o755)
        self.assertEqual(len(self.server.asked), 1)

    def test_an_existing_file_is_kept_without_a_question(self) -> None:
        self.path.parent.mkdir()
        self.path.write_bytes(b"mine")
        self.assertFalse(self.fetch())
        self.assertEqual((self.path.read_bytes(), self.server.asked), (b"mine", []))

    def test_redirects_are_followed_without_the_secrets(self) -> None:
        other = serving(self, self.content)
        self.server.act = lambda handler: handler.say(302, Location=other.url())
        self.fetch(secrets={"Authorization": "Bearer x"})
        (first,), (second,) = self.server.asked, other.asked
        self.assertEqual((first["Authorization"], second["Authorization"]), ("Bearer x", None))

    def test_a_length_need_not_be_told(self) -> None:
        self.server.length = False
        self.fetch()
        self.assertEqual(self.path.read_bytes(), self.content)

    def test_progress_is_said(self) -> None:
        self.fetch()
        self.assertTrue(self.said[0].startswith("Downloading http://127.0.0.1:"))
        self.assertIn("(100 %)", self.said[-1])

    def test_what_somebody_else_fetched_meanwhile_is_taken(self) -> None:
        self.path.parent.mkdir()
        holder = self.part.open("ab")
        self.addCleanup(holder.close)
        fcntl.flock(holder, fcntl.LOCK_EX)

        def done(text: str) -> None:  # the first thing said is that somebody else is at it
            self.said.append(text)
            holder.write(b"theirs")
            holder.flush()
            self.part.replace(self.path)
            holder.close()

        self.assertFalse(fetch(self.server.url(), self.path, done))
        self.assertEqual((self.path.read_bytes(), self.files()), (b"theirs", ["data.sqlite3"]))
        self.assertEqual((len(self.said), self.server.asked), (1, []))


class RefusedTests(DownloadCase):
    def test_a_bad_status_is_told_and_nothing_is_left(self) -> None:
        self.server.act = lambda handler: handler.say(404)
        self.assertEqual(self.refused(), "dataset download bad status: 404 Not Found")
        self.assertEqual(self.files(), [])

    def test_an_empty_file_is_refused(self) -> None:
        self.server.content = b""
        self.assertEqual((self.refused(), self.files()), ("downloaded file is empty", []))

    def test_what_is_no_database_is_refused(self) -> None:
        self.server.content = b"<html>Please log in</html>"
        self.assertEqual((self.refused(), self.files()), ("downloaded file is no SQLite database", []))

    def test_a_database_without_its_end_is_refused(self) -> None:
        for length in (50, 100, 5000, len(self.content) - 1):
            self.server.content = self.content[:length]
            text = "downloaded file is not the whole of an SQLite database"
            self.assertEqual((self.refused(), self.files()), (text, []))

    def test_a_server_that_is_not_there_is_refused_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = f"http://127.0.0.1:{gone.getsockname()[1]}/"
        self.assertRegex(self.refused(url), r"^failed to download file: .*refused")
        self.assertEqual((self.files(), self.slept), ([], []))

    def test_only_the_web_is_asked(self) -> None:
        for url in ("file:///etc/passwd", "ftp://h/x", "data:,x", "x", "http://[bad", "http://", "http://h:x/"):
            self.assertTrue(self.refused(url).startswith("failed to download file: "), url)

    def test_a_place_that_cannot_be_written_is_one_line(self) -> None:
        self.path.parent.write_text("a file")
        with self.assertRaises(DownloadError) as refusal:
            self.fetch()
        self.assertTrue(str(refusal.exception).startswith("failed to download file: "))

    def test_an_interrupt_is_one_line(self) -> None:
        def interrupt(text: str) -> None:
            raise KeyboardInterrupt

        with self.assertRaises(DownloadError) as refusal:
            fetch(self.server.url(), self.path, interrupt, stream=io.StringIO())
        self.assertEqual((str(refusal.exception), self.files()), ("download cancelled by user", []))


class ContinuedTests(DownloadCase):
    def ranges(self) -> list[str | None]:
        return [headers["Range"] for headers in self.server.asked]

    def test_a_dropped_connection_is_continued(self) -> None:
        self.drops(1000, 4000)
        self.fetch()
        self.assertEqual((self.path.read_bytes(), self.files()), (self.content, ["data.sqlite3"]))
        self.assertEqual(self.ranges(), [None, "bytes=1000-", "bytes=5000-"])
        self.assertEqual(len(self.slept), 2)

    def test_as_long_as_bytes_come_nothing_is_given_up(self) -> None:
        self.drops(*[1000] * 12)
        self.fetch()
        self.assertEqual((self.path.read_bytes(), len(self.server.asked)), (self.content, 13))

    def test_without_a_version_a_dropped_one_begins_again(self) -> None:
        for tag in ("", 'W/"weak"'):
            self.server.tag = tag
            self.server.asked.clear()
            self.drops(1000)
            self.fetch()
            self.assertEqual((self.path.read_bytes(), self.ranges()), (self.content, [None, None]))
            self.path.unlink()

    def test_another_version_begins_again(self) -> None:
        def act(handler: Handler) -> bool:
            self.server.cut = 0 if len(self.server.asked) > 1 else 1000
            self.server.tag = f'"{len(self.server.asked)}"'
            return False

        self.server.act = act
        self.fetch()
        self.assertEqual((self.path.read_bytes(), self.ranges()), (self.content, [None, "bytes=1000-"]))

    def test_an_attempt_that_was_killed_is_continued_by_the_next_process(self) -> None:
        self.path.parent.mkdir()
        self.part.write_bytes(self.content[:3000])
        self.note.write_text(f'{self.server.url()}\n"one"\n')
        self.fetch()
        self.assertEqual((self.path.read_bytes(), self.ranges()), (self.content, ["bytes=3000-"]))
        self.assertEqual(self.files(), ["data.sqlite3"])

    def test_what_is_left_of_another_address_or_of_nobody_is_thrown_away(self) -> None:
        for note in (None, f'{self.server.url("other")}\n"one"\n', "nonsense"):
            self.path.parent.mkdir(exist_ok=True)
            self.part.write_bytes(b"x" * 3000)
            if note is not None:
                self.note.write_text(note)
            self.fetch()
            self.assertEqual((self.path.read_bytes(), self.files()), (self.content, ["data.sqlite3"]))
            self.path.unlink()
        self.assertEqual(self.ranges(), [None] * 3)

    def test_a_part_longer_than_the_file_begins_again(self) -> None:
        self.path.parent.mkdir()
        self.part.write_bytes(self.content + b"more")
        self.note.write_text(f'{self.server.url()}\n"one"\n')
        self.server.act = lambda handler: "Range" in handler.headers and handler.say(416)
        self.fetch()
        self.assertEqual(self.path.read_bytes(), self.content)

    def test_a_server_that_sends_another_range_is_asked_for_all(self) -> None:
        def act(handler: Handler) -> bool:
            if "Range" not in handler.headers:
                self.server.cut = 0 if len(self.server.asked) > 1 else 1000
                return False
            return bool(handler.say(206, **{"Content-Range": "bytes 0-9/10"}))

        self.server.act = act
        self.fetch()
        self.assertEqual((self.path.read_bytes(), self.ranges()), (self.content, [None, "bytes=1000-", None]))

    def test_attempts_that_bring_nothing_are_given_up_and_the_part_is_kept(self) -> None:
        self.drops(1000, *[-1] * 9)
        self.server.content = self.content[:1000] + b"x"
        self.assertRegex(self.refused(), "^failed to download file: 1000 of 1001 bytes came$")
        self.assertEqual(self.files(), ["data.sqlite3.part", "data.sqlite3.part.from"])
        self.assertLess(len(self.server.asked), 9)


class CheckTests(SynchronousTestCase):
    def test_a_database_whose_writer_did_not_count_its_pages_is_taken(self) -> None:
        path = write(Path(self.mktemp()), ())
        raw = bytearray(path.read_bytes())
        struct.pack_into(">I", raw, 28, 10**6)
        struct.pack_into(">I", raw, 92, 0)
        path.write_bytes(raw)
        check_sqlite(path)

    def test_pages_of_every_size_are_counted(self) -> None:
        for size in (512, 65536):
            path = Path(self.mktemp())
            with closing(sqlite3.connect(path)) as file:
                file.execute(f"PRAGMA page_size = {size}")
                file.execute("CREATE TABLE t (x)")
            check_sqlite(path)
            path.write_bytes(path.read_bytes()[:-1])
            with self.assertRaises(DownloadError):
                check_sqlite(path)
