"""
Characters for the places of a regular expression: what a literal, a dot or a class of the parser's tree may be.

Plain ones wherever there are some: ASCII letters, digits and a few signs, then ASCII, then other scripts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

PLAIN = string.ascii_letters + string.digits + " -_.,!?@#"
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
WIDE = "\t\n\r" + "".join(map(chr, [*range(0xA1, 0x250), *range(0x391, 0x3CA), *range(0x4E00, 0x4E40)]))
SAMPLE = 128  # characters that stand for a long range without ASCII
CATEGORIES = {
    "CATEGORY_DIGIT": (string.digits, r"\d"),
    "CATEGORY_NOT_DIGIT": (string.ascii_letters, r"\D"),
    "CATEGORY_SPACE": (" ", r"\s"),
    "CATEGORY_NOT_SPACE": (PLAIN.replace(" ", ""), r"\S"),
    "CATEGORY_WORD": (string.ascii_letters + string.digits + "_", r"\w"),
    "CATEGORY_NOT_WORD": (" -.,!?@#", r"\W"),
}


def of_class(items: Sequence[Any]) -> str:
    """The characters that stand for a class ``[...]``."""
    if str(items[0][0]) != "NEGATE":
        return "".join(dict.fromkeys("".join(_members(str(name), value) for name, value in items)))
    inside = re.compile("|".join(_test(str(name), value) for name, value in items[1:]), re.DOTALL)
    for pool in (PLAIN, PRINTABLE, WIDE):
        outside = "".join(letter for letter in pool if not inside.match(letter))
        if outside:
            return outside
    return ""


def _members(name: str, value: Any) -> str:
    if name == "CATEGORY":
        return CATEGORIES[str(value)][0]
    first, last = value if name == "RANGE" else (value, value)
    ascii = "".join(map(chr, range(max(first, 0x20), min(last, 0x7E) + 1)))
    points = () if ascii else range(first, last + 1, max(1, (last - first) // SAMPLE))
    return ascii or "".join(chr(point) for point in points if not 0xD800 <= point <= 0xDFFF)


def _test(name: str, value: Any) -> str:
    if name == "CATEGORY":
        return CATEGORIES[str(value)][1]
    first, last = value if name == "RANGE" else (value, value)
    return f"[{re.escape(chr(first))}-{re.escape(chr(last))}]"


LETTERS: dict[str, Callable[[Any], str]] = {
    "LITERAL": lambda value: _members("LITERAL", value),
    "NOT_LITERAL": lambda value: of_class([("NEGATE", None), ("LITERAL", value)]),
    "ANY": lambda value: PLAIN,
    "IN": of_class,
    "FAILURE": lambda value: "",
}
