"""
How one row of the table of flags is written, and read back.

A row is an attribute of the configuration: its name, type and default are the attribute's own, ``flag`` adds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from llmdsim.config import fake, values
from llmdsim.config.argv import DOCUMENT as MEMBERS
from llmdsim.config.argv import MANY, ONE, SWITCH

T = TypeVar("T")


def _same(value: Any) -> Any:
    return value


def _list(value: tuple[Any, ...]) -> list[Any] | None:
    return list(value) or None


def _adapters(value: tuple[values.Adapter, ...]) -> list[dict[str, str]] | None:
    return [attrs.asdict(adapter) for adapter in value] or None


def _masked(value: tuple[str, ...]) -> list[str] | None:
    return ["***"] * len(value) or None


@attrs.frozen
class Kind:
    """What a flag takes: a word for people, a reader, how many words, and how its value is shown in JSON."""

    name: str
    read: Callable[[object], Any]
    takes: str = ONE
    show: Callable[[Any], Any] = _same


TOGGLE = Kind("toggle", values.boolean, SWITCH)
INTEGER = Kind("integer", values.integer)
OPTIONAL_INTEGER = Kind("integer", values.optional_integer)
MODEL_LENGTH = Kind("integer", values.model_length)
NUMBER = Kind("number", values.number, show=values.show_number)
TEXT = Kind("text", values.text)
JSON_TEXT = Kind("JSON", values.json_text, MEMBERS)
DURATION = Kind("duration", values.duration, show=values.show_duration)
WORDS = Kind("list", values.words, MANY, _list)
NAMES = Kind("list", values.names, MANY, _list)
FAILURES = Kind("list", values.kinds, MANY, _list)
ADAPTERS = Kind("list", values.adapters, MANY, _adapters)
SECRETS = Kind("list", values.words, MANY, _masked)
DOCUMENT = Kind("JSON", values.document, MEMBERS)
FAKE_METRICS = Kind("JSON", fake.read, MEMBERS, fake.show)
_OF_TYPE = {bool: TOGGLE, int: INTEGER, float: NUMBER, str: TEXT, tuple: WORDS}


def one_of(*choices: object) -> Kind:
    """Text, or an integer, that must be one of the choices."""
    reader = _OF_TYPE[type(choices[0])].read

    def read(raw: object) -> object:
        value = reader(raw)
        if value not in choices:
            raise ValueError("choose from " + ", ".join(map(str, choices)))
        return value

    return Kind("|".join(map(str, choices)), read)


@attrs.frozen
class Flag:
    """
    One row of the table.

    ``live``: may change while serving. ``later``: understood and checked, but its capability comes in a later
    release. ``env``: the environment variable that also sets it, or nothing.
    """

    name: str
    attribute: str
    kind: Kind
    default: Any
    group: str
    help: str
    live: bool
    later: bool
    env: str


def flag(
    default: T,
    group: str,
    help: str,
    *,
    kind: Kind | None = None,
    live: bool = False,
    later: bool = False,
    env: str = "",
) -> T:
    """Declare a row; without a ``kind`` the default's type is the kind."""
    chosen = kind or _OF_TYPE[type(default)]
    row = {"kind": chosen, "group": group, "help": help, "live": live, "later": later, "env": env}
    field: T = attrs.field(default=default, metadata={"flag": row})
    return field


def table(config: type[attrs.AttrsInstance]) -> tuple[Flag, ...]:
    """All rows of a configuration class, in their order."""
    return tuple(
        Flag(field.name.replace("_", "-"), field.name, default=field.default, **field.metadata["flag"])
        for field in attrs.fields(config)
        if "flag" in field.metadata
    )


def by_name(flags: tuple[Flag, ...]) -> Mapping[str, Flag]:
    """The rows under their names."""
    return {row.name: row for row in flags}
