"""
A JSON value for a JSON Schema: what a model says that must keep to a form.

Values are built to fit; a validator judges only those of schemas with ``oneOf``, ``not`` and the like, which are drawn
again. Numbers are ``amounts``', strings ``texts``', the meaning of several keywords at once is ``merging``'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable
from random import Random
from typing import Any

from llmdsim.sim.synthesis.amounts import draw_integer, draw_number
from llmdsim.sim.synthesis.documents import SCALARS, Document
from llmdsim.sim.synthesis.merging import Unsatisfiable, both, child, element, holders, key_of, meant, types, without
from llmdsim.sim.synthesis.ranges import Ranges
from llmdsim.sim.synthesis.regexes import matching
from llmdsim.sim.synthesis.schemas import Schema, refusal
from llmdsim.sim.synthesis.texts import LONGEST, WORDS, draw_text

__all__ = ["Ranges", "synthesize"]

Place = tuple[str | int, ...]

ATTEMPTS = 20
DEEP, DEEPEST = 5, 30  # levels of a value: from here on as little as possible; nothing
SOME, MOST = 300, 5000  # values in an answer, from where on as little as possible; steps in all
JUDGING = 5  # steps that a validation counts for
TRIES = 50  # for an element or a name that is not there yet


def synthesize(schema: Any, rng: Random, ranges: Ranges) -> Any:
    """
    A JSON value that validates against a schema (draft 2020-12, earlier forms understood).

    Raises Fault where the schema is malformed, allows nothing, or is too large. Objects keep the schema's order.
    """
    try:
        document = Document(schema)
        return _Drawing(document, rng, ranges).value(document.schema, ())
    except Unsatisfiable as reason:
        raise refusal(f"Unsatisfiable schema: {reason}", _path(reason.place or ())) from None
    except RecursionError:
        raise refusal("the schema is nested too deeply", "$") from None


def _path(place: Place) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[:DEEP]]
    return "".join(["$", *parts, *(["..."] if len(place) > DEEP else [])])


class _Drawing:
    """One value in the making."""

    def __init__(self, document: Document, rng: Random, ranges: Ranges) -> None:
        self._document = document
        self._rng = rng
        self._ranges = ranges
        self._size = 0  # values in what is being drawn
        self._steps = 0  # values and alternatives tried in all
        self._fresh = False  # rather something unusual: the usual did not fit
        self._hopeless: dict[Hashable, str] = {}  # strings that were found to be none, which takes long
        self._kinds: dict[str, Callable[[Schema, Place], Any]] = {
            "null": lambda flat, place: None,
            "boolean": lambda flat, place: rng.random() < 0.5,
            "integer": lambda flat, place: draw_integer(flat, ranges.integers, rng, self._fresh),
            "number": lambda flat, place: draw_number(flat, ranges.numbers, rng, self._fresh),
            "string": self._string,
            "array": self._array,
            "object": self._object,
        }

    def value(self, schema: Schema | bool, place: Place) -> Any:
        """A value for a schema; Unsatisfiable says where none was found."""
        self._step(place)
        self._size += 1
        try:
            if schema is False or len(place) > DEEPEST:
                raise Unsatisfiable("it never ends" if schema else "nothing is allowed")
            asked: Schema = {} if schema is True else schema
            if self._document.needs_judge(asked):
                return self._judged(asked, place)
            return self._picked(self._document.flat(asked), place)
        except Unsatisfiable as reason:
            reason.place = place if reason.place is None else reason.place
            raise

    def _judged(self, schema: Schema, place: Place) -> Any:
        reason, size, fresh = Unsatisfiable("no value was found that fits"), self._size, self._fresh
        for attempt in range(ATTEMPTS):
            self._size, self._fresh = size, fresh or attempt >= ATTEMPTS // 4
            try:
                self._step(place, JUDGING)
                value = self._picked(self._document.flat(schema), place)
                if self._document.accepts(schema, value):
                    return value
            except Unsatisfiable as other:
                reason = other
            finally:
                self._fresh = fresh
        raise reason

    def _picked(self, flat: Schema, place: Place) -> Any:
        """A value for a merged schema, its alternatives chosen one after the other."""
        self._step(place)
        if "enum" in flat:
            return self._member(flat)
        for holder in holders(flat):
            for key in ("anyOf", "oneOf"):
                if key in holder:
                    rest = without(flat, holder, key)
                    return self._any(rest, holder[key], place)
        return self._first(self._types(flat, place), lambda kind: self._typed(kind, flat, place))

    def _any(self, rest: Schema, branches: list[Schema | bool], place: Place) -> Any:
        options = self._rng.sample(branches, len(branches))
        if self._brief(place):
            options.sort(key=self._document.height)
        return self._first(options, lambda branch: self._picked(self._document.merged(rest, branch), place))

    def _first(self, options: list[Any], make: Callable[[Any], Any]) -> Any:
        """What is made of the first option that can be satisfied."""
        reason = Unsatisfiable("there is nothing to choose from")
        for option in options:
            try:
                return make(option)
            except Unsatisfiable as other:
                reason = other
        raise reason

    def _step(self, place: Place, cost: int = 1) -> None:
        self._steps += cost
        if self._steps > MOST:
            raise refusal("the schema is too large", _path(place))

    def _brief(self, place: Place) -> bool:
        return len(place) >= DEEP or self._size > SOME

    def _member(self, flat: Schema) -> Any:
        members = flat["enum"]
        for index in self._rng.sample(range(len(members)), len(members)):
            if self._document.accepts(flat, members[index]):
                return members[index]
        raise Unsatisfiable("no member of enum fits")

    def _types(self, flat: Schema, place: Place) -> list[str]:
        """The types to try, in order."""
        named = types(flat) if "type" in flat or self._fresh else meant(flat)
        found = self._rng.sample(named, len(named))
        if self._brief(place):
            found.sort(key=lambda kind: kind not in SCALARS)
        return found

    def _typed(self, kind: str, flat: Schema, place: Place) -> Any:
        try:
            return self._kinds[kind](flat, place)
        except ValueError as error:
            raise Unsatisfiable(str(error)) from None

    def _string(self, flat: Schema, place: Place) -> str:
        patterns = tuple(holder["pattern"] for holder in holders(flat) if "pattern" in holder)
        asked = int(flat.get("minLength", 0)), int(flat.get("maxLength", LONGEST)), patterns, flat.get("format", "")
        if asked in self._hopeless:
            raise Unsatisfiable(self._hopeless[asked])
        try:
            return draw_text(self._rng, *asked, self._fresh)
        except ValueError as error:
            self._hopeless[asked] = str(error)
            raise

    def _array(self, flat: Schema, place: Place) -> list[Any]:
        groups = [holder for holder in holders(flat) if "contains" in holder]
        needed = max([0, *(int(group.get("minContains", 1)) for group in groups)])
        length = self._ranges.length(flat, needed, self._brief(place), self._rng)
        if length > MOST:
            raise refusal("the schema is too large", _path(place))
        asked = [element(flat, index) for index in range(length)]
        for group in groups:
            for index in self._rng.sample(range(length), int(group.get("minContains", 1))):
                asked[index] = both(asked[index], group["contains"])
        if flat.get("uniqueItems"):
            return self._different(asked, int(flat.get("minItems", 0)), place)
        return [self.value(schema, (*place, index)) for index, schema in enumerate(asked)]

    def _different(self, asked: list[Schema | bool], least: int, place: Place) -> list[Any]:
        """Values of which no two are equal, fewer than asked for where there are no more."""
        values: dict[Hashable, Any] = {}
        for index, schema in enumerate(asked):
            try:
                value = self._other(schema, values, (*place, index))
            except Unsatisfiable:
                if index < least:
                    raise
                break
            values[key_of(value)] = value
        return list(values.values())

    def _other(self, schema: Schema | bool, known: Container[Hashable], place: Place) -> Any:
        fresh = self._fresh
        try:
            for attempt in range(TRIES):
                self._fresh = fresh or attempt >= TRIES // 5
                value = self.value(schema, place)
                if key_of(value) not in known:
                    return value
        finally:
            self._fresh = fresh
        raise Unsatisfiable("there are no more different elements")

    def _object(self, flat: Schema, place: Place) -> dict[str, Any]:
        fields, required = flat.get("properties", {}), dict.fromkeys(flat.get("required", ()))
        least, most = int(flat.get("minProperties", 0)), flat.get("maxProperties", math.inf)
        if max(least, len(required)) > most:
            raise Unsatisfiable(f"maxProperties ({int(most)}) is too small")
        optional = [name for name in fields if name not in required]
        room = 0 if self._brief(place) else most - len(required)
        given = self._ranges.given(optional, room, not place, self._rng)
        value: dict[str, Any] = {}
        for name in [*(name for name in fields if name in required or name in given), *required]:
            if name not in value:
                self._give(value, name, flat, place, name in required)
        for name in optional:
            if len(value) < least and name not in value:
                self._give(value, name, flat, place, False)
        self._extend(value, flat, least, most, place)
        return value

    def _give(self, value: dict[str, Any], name: str, flat: Schema, place: Place, required: bool) -> None:
        try:
            value[name] = self.value(child(flat, name), (*place, name))
        except Unsatisfiable:
            if required:
                raise

    def _extend(self, value: dict[str, Any], flat: Schema, least: int, most: float, place: Place) -> None:
        """Adds properties of names that the schema leaves open: to a map, and where there are too few."""
        count = least
        if not flat.get("properties") and not self._brief(place) and _is_map(flat):
            count = int(min(max(self._rng.randint(*self._ranges.lengths), least), most))
        for _ in range(max(TRIES, 3 * count)):
            if len(value) >= count:
                return
            self._step(place)
            name = self._name(flat, value, place)
            if name not in value and name not in flat.get("properties", {}):
                self._give(value, name, flat, place, False)
                if name not in value and len(value) >= least:
                    return
        if len(value) < least:
            raise Unsatisfiable(f"there are fewer than minProperties ({least}) properties")

    def _name(self, flat: Schema, known: Container[str], place: Place) -> str:
        patterns = list(flat.get("patternProperties", ()))
        if patterns:
            return matching(self._rng.choice(patterns), self._rng)
        names = flat.get("propertyNames", True)
        if names is not True:
            return str(self.value(both({"type": "string"}, names), place))
        word = self._rng.choice(WORDS)
        return f"{word}_{self._rng.randrange(MOST)}" if word in known else word


def _is_map(flat: Schema) -> bool:
    return isinstance(flat.get("additionalProperties"), dict) or bool(flat.get("patternProperties"))
