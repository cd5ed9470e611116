"""
A command line as vLLM, GNU and Go users write it, cut into flags and loose words.

It knows how many words each flag takes and by which names it goes, but not what the words mean.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

from llmdsim.config.values import BOOLEANS, ConfigError

SWITCH, ONE, DOCUMENT, MANY = "switch", "one", "document", "many"
"""What a flag takes: no word, one word, one word that may also be given member by member, any number of words."""


class Given(NamedTuple):
    """One occurrence of a flag: its own name, its words, and the member it sets (``--flag.member=word``)."""

    name: str
    words: tuple[str, ...]
    path: tuple[str, ...] = ()


class _Sense(NamedTuple):
    name: str
    negated: bool = False
    path: tuple[str, ...] = ()


@attrs.frozen
class Grammar:
    """The flags that exist: name to what it takes, other name to name, short name (no dash) to name."""

    takes: Mapping[str, str]
    aliases: Mapping[str, str] = attrs.Factory(dict)
    shorts: Mapping[str, str] = attrs.Factory(dict)

    def split(self, argv: Sequence[str]) -> tuple[list[Given], list[str]]:
        """
        The flags in the order given, and the words that belong to none.

        Raises ConfigError at the first word that does not fit.
        """
        given: list[Given] = []
        loose: list[str] = []
        words = deque(argv)
        while words:
            word = words.popleft()
            if word == "--":
                loose.extend(words)
                break
            if word.startswith("--"):
                given.append(self._long(word, words))
            elif word.startswith("-") and word != "-":
                given.append(self._short(word, words))
            else:
                loose.append(word)
        return given, loose

    def _long(self, word: str, words: deque[str]) -> Given:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise ConfigError(f"bad flag syntax: {word}")
        sense = self._sense(name)
        return self._given(sense, f"--{name}", value if equals else None, words)

    def _short(self, word: str, words: deque[str]) -> Given:
        name, equals, value = word[1:].partition("=")
        head, *path = name.split(".")
        if re.fullmatch(r"v\d+", name) and "v" in self.shorts:
            return Given(self.shorts["v"], (name[1:],))
        if head not in self.shorts:
            raise ConfigError(f"unknown shorthand flag: {word[1]!r} in {word}")
        sense = _Sense(self.shorts[head], path=tuple(path))
        return self._given(sense, f"-{name}", value if equals else None, words)

    def _given(self, sense: _Sense, shown: str, value: str | None, words: deque[str]) -> Given:
        takes = self.takes[sense.name]
        if takes == SWITCH:
            return Given(sense.name, (_state(sense, shown, value, words),))
        if takes == MANY:
            return Given(sense.name, tuple(filter(None, self._run(words) if value is None else [value])))
        if value is None:
            value = _next(shown, words)
        return Given(sense.name, (value,), sense.path)

    def _run(self, words: deque[str]) -> list[str]:
        """All words up to the next flag."""
        run: list[str] = []
        while words and not self._opens_flag(words[0]):
            run.append(words.popleft())
        return run

    def _opens_flag(self, word: str) -> bool:
        if word.startswith("--"):
            return True
        head = re.split(r"[.=]", word[1:], maxsplit=1)[0]
        return word.startswith("-") and (head in self.shorts or bool(re.fullmatch(r"v\d+", head)))

    def _sense(self, name: str) -> _Sense:
        plain = name.replace("_", "-")
        plain = self.aliases.get(plain, plain)
        if plain in self.takes:
            return _Sense(plain)
        opposite = self._opposite(plain)
        if opposite:
            return _Sense(opposite, negated=True)
        head, *path = name.split(".")
        head = head.replace("_", "-")
        if path and all(path) and self.takes.get(head) == DOCUMENT:
            return _Sense(head, path=tuple(path))
        raise ConfigError(f"unknown flag: --{name}{self._hint(plain)}")

    def _opposite(self, name: str) -> str | None:
        """The switch that this name turns off: ``no-x``, ``disable-x`` of ``enable-x`` and the reverse."""
        prefix, _, rest = name.partition("-")
        turned = {"no": rest, "disable": f"enable-{rest}", "enable": f"disable-{rest}"}.get(prefix)
        return turned if turned and self.takes.get(turned) == SWITCH else None

    def _hint(self, name: str) -> str:
        import difflib  # slow to import, and only a mistake needs it

        near = difflib.get_close_matches(name, self.takes, n=1, cutoff=0.75)
        return f" (did you mean --{near[0]}?)" if near else ""


def _state(sense: _Sense, shown: str, value: str | None, words: deque[str]) -> str:
    """``true`` or ``false``, negation applied; a boolean word that follows a switch is its value."""
    if value is None:
        value = words.popleft() if words and words[0] in BOOLEANS else "true"
    if value not in BOOLEANS:
        raise ConfigError(f'invalid argument "{value}" for "{shown}" flag: expected true or false')
    return str(BOOLEANS[value] is not sense.negated).lower()


def _next(shown: str, words: deque[str]) -> str:
    if not words or words[0].startswith("--"):
        raise ConfigError(f"flag needs an argument: {shown}")
    return words.popleft()
