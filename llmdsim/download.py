"""
Fetches a dataset's file before anything is served, under a temporary name until it is whole.

What an interrupted attempt has left is continued where the server can say that the file is still the same, else it
is thrown away.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import attrs

from llmdsim.progress import Log, Progress, progress

CHUNK = 1 << 18  # bytes
STALLED = 60.0  # seconds without a byte
ATTEMPTS = 5  # that bring nothing new
PAUSE = 1.0  # seconds before the next
MAGIC = b"SQLite format 3\0"
HEADER = 100  # bytes


class DownloadError(Exception):
    """A file that could not be had; its text is one line, for a person."""


class _Dropped(Exception):
    """A connection that ended too early."""


def check_sqlite(path: Path) -> None:
    """Raise DownloadError unless a file is a whole SQLite database, as far as its header tells."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    if not header.startswith(MAGIC):
        raise DownloadError("downloaded file is no SQLite database")
    if len(header) < HEADER or path.stat().st_size < _promised(header):
        raise DownloadError("downloaded file is not the whole of an SQLite database")


def _promised(header: bytes) -> int:
    """The bytes that the header of a database promises; 0 where its writer did not keep count."""
    (page,), (changes, pages), (counted,) = (
        struct.unpack_from(form, header, place) for form, place in ((">H", 16), (">II", 24), (">I", 92))
    )
    size = 65536 if page == 1 else page
    return size * pages if changes == counted else 0


def fetch(
    url: str,
    path: Path,
    log: Log,
    *,
    check: Callable[[Path], None] = check_sqlite,
    secrets: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """
    Have a URL's file at a path; an existing file is kept as it is, and then the answer is False.

    ``check`` raises DownloadError for a file that is not what it should be; ``secrets`` are headers that no redirect
    is told. Redirects are followed; as long as bytes come there is no limit of time. Raises DownloadError.
    """
    if path.exists():
        return False
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{url} is no address of the web")
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _part(path, log) as part:
            if path.exists():  # somebody else was faster
                return False
            log(f"Downloading {url} to {path}")
            _Transfer(url, dict(secrets or {}), part, log, stream or sys.stderr, sleep).run()
            _accept(part, path, check)
    except KeyboardInterrupt:
        raise DownloadError("download cancelled by user") from None
    except (OSError, ValueError) as error:
        raise DownloadError(f"failed to download file: {_reason(error)}") from error
    return True


@attrs.frozen
class _Part:
    """The unfinished file, open and locked, and the note of what it is a part of."""

    path: Path
    file: BinaryIO
    note: Path

    def drop(self) -> None:
        """Throw away what there is."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@contextmanager
def _part(path: Path, log: Log) -> Iterator[_Part]:
    """The unfinished file of a path, which belongs to one process at a time."""
    place = path.with_name(f"{path.name}.part")
    while True:
        with place.open("ab") as file:
            _lock(file, place, log)
            if not place.exists() or not os.path.samestat(os.fstat(file.fileno()), place.stat()):
                continue  # its owner has finished or thrown it away
            part = _Part(place, file, place.with_name(f"{place.name}.from"))
            try:
                yield part
            finally:
                if not part.note.exists():  # nobody could say what it is a part of
                    part.drop()
            return


def _lock(file: BinaryIO, place: Path, log: Log) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(f"Waiting for another process, which is downloading {place}")
        fcntl.flock(file, fcntl.LOCK_EX)


def _accept(part: _Part, path: Path, check: Callable[[Path], None]) -> None:
    part.file.flush()
    try:
        if not part.path.stat().st_size:
            raise DownloadError("downloaded file is empty")
        check(part.path)
    except DownloadError:
        part.drop()
        raise
    os.fsync(part.file.fileno())
    part.path.replace(path)
    part.note.unlink(missing_ok=True)


class _Transfer:
    """One download: as many requests as it takes, each of which continues where the one before was cut off."""

    def __init__(
        self,
        url: str,
        secrets: Mapping[str, str],
        part: _Part,
        log: Log,
        stream: TextIO,
        sleep: Callable[[float], None],
    ) -> None:
        self._url, self._secrets, self._part, self._log, self._stream = url, secrets, part, log, stream
        self._sleep = sleep
        self._version = self._noted()

    def run(self) -> None:
        """Write the part to its end. Raises DownloadError, and OSError."""
        futile = 0
        while True:
            before = self._size()
            try:
                self._attempt()
                return
            except HTTPError as error:
                error.close()
                if error.code < 500:
                    self._part.drop()
                raise DownloadError(f"dataset download bad status: {error.code} {error.reason}") from error
            except (OSError, HTTPException, _Dropped) as error:
                futile = 0 if self._size() > before else futile + 1
                if not self._size() or futile >= ATTEMPTS:
                    raise DownloadError(f"failed to download file: {_reason(error)}") from error
                self._log(f"Download interrupted, trying again: {_reason(error)}")
            self._sleep(PAUSE)

    def _attempt(self) -> None:
        have = self._size() if self._version else 0
        with self._open(have) as answer:
            start = have if answer.status == 206 and _start(answer) == have else 0
            if answer.status == 206 and start != have:
                self._version = ""
                raise _Dropped("the server sent another range than was asked for")
            self._begin(start, answer.headers)
            self._copy(answer, start)

    def _open(self, have: int) -> Any:
        headers = {"Accept-Encoding": "identity", "User-Agent": "llmdsim"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._version}
        request = Request(self._url, headers=headers)
        for name, value in self._secrets.items():
            request.add_unredirected_header(name, value)
        try:
            return urlopen(request, timeout=STALLED)
        except HTTPError as error:
            if error.code != 416:
                raise
            error.close()
            self._version = ""  # more is here than there: begin again
            raise _Dropped("the server has no such range") from error

    def _begin(self, start: int, headers: Any) -> None:
        """Make ready for the bytes from ``start`` on; from 0 on it may be another version of the file."""
        if start:
            return
        self._part.file.truncate(0)
        self._version = _strong(headers)
        if self._version:
            self._part.note.write_text(f"{self._url}\n{self._version}\n", "utf-8")
        else:
            self._part.note.unlink(missing_ok=True)

    def _copy(self, answer: Any, start: int) -> None:
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        shown = progress("Download", total, "B", self._log, self._stream, start)
        try:
            got = start + self._pour(answer, shown)
        finally:
            shown.close()
        if total is not None and got < total:
            raise _Dropped(f"{got} of {total} bytes came")

    def _pour(self, answer: Any, shown: Progress) -> int:
        got = 0
        while chunk := answer.read1(CHUNK):
            self._part.file.write(chunk)
            self._part.file.flush()
            got += len(chunk)
            shown.add(len(chunk))
        return got

    def _size(self) -> int:
        return os.fstat(self._part.file.fileno()).st_size

    def _noted(self) -> str:
        """The version of the file of which an earlier process left a part; empty where there is none."""
        with suppress(OSError, ValueError):
            url, version, _ = self._part.note.read_text("utf-8").split("\n")
            return version if url == self._url else ""
        return ""


def _strong(headers: Any) -> str:
    """What tells this version of a file from any other: its ETag, unless it is a weak one, or its date."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _start(answer: Any) -> int:
    """The first byte of a partial answer, -1 where it does not say."""
    unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return " ".join(str(cause).split()) or type(cause).__name__
