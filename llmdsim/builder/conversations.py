"""
Reads conversations in ShareGPT's form, from a JSON array or from lines of JSON.

Whatever has another shape is refused with the number of its record, counted from 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import attrs

from llmdsim.progress import Log

HUMAN, MODEL = ("human", "user"), ("gpt", "assistant")
_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class BadInput(ValueError):
    """An input that cannot be read; its text is one line, for a person."""


@attrs.frozen(slots=True)
class Record:
    """One conversation: its number, and its turns as pairs of role and text."""

    number: int
    turns: Sequence[tuple[str, str]]

    def exchanges(self, log: Log) -> Iterator[tuple[str, str]]:
        """What a human said and what the model answered, turn by turn, as long as they take turns."""
        for place in range(0, len(self.turns) - 1, 2):
            (asker, question), (answerer, answer) = self.turns[place : place + 2]
            if asker not in HUMAN or answerer not in MODEL:
                what = f"turns {place + 1} and {place + 2} are of {asker} and {answerer}, not of human and gpt"
                log(f"record {self.number}: {what}; left out from there on")
                return
            yield question, answer


def read(path: Path, most: int) -> list[Record]:
    """At most so many records of a file. Raises BadInput."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name}: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    values = _array(text) if _at(text, 0) < len(text) and text[_at(text, 0)] == "[" else _sequence(text)
    return [_record(number, value) for number, value in enumerate(islice(values, most), 1)]


def _array(text: str) -> Iterator[Any]:
    """The values of an array, parsed one by one: what comes behind the last one wanted is not looked at."""
    at, number = _at(text, _at(text, 0) + 1), 0
    if not text.startswith("]", at):
        for number in count(1):
            value, at = _parsed(text, at, number)
            yield value
            at = _at(text, at)
            if not text.startswith(",", at):
                break
            at = _at(text, at + 1)
    if not text.startswith("]", at):
        raise BadInput(f"record {number}: not followed by a comma or the array's end{_place(text, at)}")
    at = _at(text, at + 1)
    if at < len(text):
        raise BadInput(f"record {number}: something is behind the array's end{_place(text, at)}")


def _sequence(text: str) -> Iterator[Any]:
    """Values one behind the other, one a line."""
    at, number = _at(text, 0), 1
    while at < len(text):
        value, end = _parsed(text, at, number)
        yield value
        at = _at(text, end)
        if at < len(text) and "\n" not in text[end:at]:
            raise BadInput(f"record {number}: not followed by the line's end{_place(text, end)}")
        number += 1


def _at(text: str, place: int) -> int:
    """The first place from there on that is not blank."""
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place


def _parsed(text: str, at: int, number: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError as error:
        place = error.pos if isinstance(error, json.JSONDecodeError) else at
        raise BadInput(f"record {number}: not JSON{_place(text, place)}") from error
    except RecursionError as error:
        raise BadInput(f"record {number}: nested too deep") from error


def _place(text: str, at: int) -> str:
    return f" (line {text.count(chr(10), 0, at) + 1}, column {at - text.rfind(chr(10), 0, at)})"


def _record(number: int, value: Any) -> Record:
    turns = value.get("conversations") if isinstance(value, dict) else None
    if not isinstance(turns, list):
        raise BadInput(f"record {number}: no object with a list of conversations")
    return Record(number, [_turn(f"record {number}, turn {place}", turn) for place, turn in enumerate(turns, 1)])


def _turn(name: str, turn: Any) -> tuple[str, str]:
    role, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
    if not isinstance(role, str) or not isinstance(text, str):
        raise BadInput(f"{name}: no object with the strings from and value")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{name}: half a surrogate pair at character {error.start}") from error
    return role, text
