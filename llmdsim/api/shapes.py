"""
Checks of arrays, objects and unions, made of other checks, with pydantic's errors in pydantic's order.

Nothing is copied unless a part of it was coerced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

from llmdsim.api.invalid import Error, Loc, problem, rejected
from llmdsim.api.scalars import Check, never, text

Branch = tuple[tuple[str, ...], Check]  # what a union adds to the location of a member's errors, and the member
Refuse = Callable[[Loc, Any], Error]
AllPlain = Callable[[list[Any]], bool]


def no_list(loc: Loc, value: object) -> Error:
    """What a list says to anything else."""
    return problem("list_type", loc, "Input should be a valid list", value)


def no_dict(loc: Loc, value: object) -> Error:
    """What a dict and a TypedDict say to anything else."""
    return problem("dict_type", loc, "Input should be a valid dictionary", value)


def no_model(loc: Loc, value: object) -> Error:
    """What a pydantic model says to anything else under FastAPI."""
    msg = "Input should be a valid dictionary or object to extract fields from"
    return problem("model_attributes_type", loc, msg, value)


def no_dataclass(name: str) -> Refuse:
    """What the dataclass of this name says to anything else."""

    def refuse(loc: Loc, value: object) -> Error:
        msg = f"Input should be a dictionary or an instance of {name}"
        return problem("dataclass_type", loc, msg, value, class_name=name)

    return refuse


def listing(item: Check, least: int = 0, most: int | None = None, all_plain: AllPlain = never) -> Check:
    """An array of ``least`` to ``most`` items, which need no closer look where ``all_plain`` says so."""

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not list:
            errors.append(no_list(loc, value))
            return value
        if most is not None and len(value) > most:
            return _measured(value, item, most, loc, errors)
        if len(value) < least:
            errors.append(_too_short(value, loc, least, "List"))
            return value
        return value if all_plain(value) else _each(value, item, loc, errors)

    return check


def sequence(item: Check, least: int) -> Check:
    """A ``collections.abc.Sequence``, which words its errors in another way than a list."""

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is str:
            msg = "'str' instances are not allowed as a Sequence value"
            errors.append(problem("sequence_str", loc, msg, value, type_name="str"))
        elif type(value) is not list:
            msg = "Input should be an instance of Sequence"
            errors.append(problem("is_instance_of", loc, msg, value, **{"class": "Sequence"}))
        elif len(value) < least:
            errors.append(_too_short(value, loc, least, "Value"))
        else:
            return _each(value, item, loc, errors)
        return value

    return check


def lazy(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """An iterable: pydantic looks at its items only when somebody takes them."""
    if type(value) not in (list, dict, str):
        errors.append(problem("iterable_type", loc, "Input should be iterable", value))
    return value


def mapping(item: Check) -> Check:
    """An object whose values all pass ``item``."""

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not dict:
            errors.append(no_dict(loc, value))
            return value
        changed = {}
        for key, old in value.items():
            new = item(old, (*loc, key), errors)
            if new is not old:
                changed[key] = new
        return {**value, **changed} if changed else value

    return check


def record(fields: Mapping[str, Check], required: frozenset[str], refuse: Refuse, closed: bool) -> Check:
    """
    An object with these fields, in the order of their declaration.

    Keys that are no field are kept unlooked at, unless the object is ``closed``.
    """

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not dict:
            errors.append(refuse(loc, value))
            return value
        found: dict[str, list[Error]] = {}
        changed: dict[str, Any] = {}
        wrong: list[Error] = []
        for key, old in value.items():
            field = fields.get(key)
            if field is None:
                continue
            new = field(old, (*loc, key), wrong)
            if new is not old:
                changed[key] = new
            if wrong:
                found[key], wrong = wrong, []
        if found or not required <= value.keys():
            _in_order(fields, required, found, value, loc, errors)
        if closed:
            errors.extend(_extra(value, fields, loc))
        return {**value, **changed} if changed else value

    return check


def optional(check: Check) -> Check:
    """``None``, or what passes ``check``."""

    def checked(value: Any, loc: Loc, errors: list[Error]) -> Any:
        return None if value is None else check(value, loc, errors)

    return checked


def union(branches: Sequence[Branch]) -> Check:
    """What passes any member: the first that takes the value as it is, else the first that can coerce it."""
    plain = any(member is text for _, member in branches)

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if plain and type(value) is str:
            return value
        wrong: list[Error] = []
        taken: list[Any] = []
        for label, member in branches:
            mine: list[Error] = []
            new = member(value, loc + label, mine)
            if mine:
                wrong += mine
            elif new is value:
                return value
            else:
                taken.append(new)
        if taken:
            return taken[0]
        errors += wrong
        return value

    return check


def tagged(name: str, branches: Mapping[str, Check]) -> Check:
    """The one of several objects that the value's field ``name`` tells."""
    expected = ", ".join(map(repr, branches))

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not dict:
            errors.append(no_model(loc, value))
            return value
        if name not in value:
            msg = f"Unable to extract tag using discriminator {name!r}"
            errors.append(problem("union_tag_not_found", loc, msg, value, discriminator=repr(name)))
            return value
        tag = value[name]
        if type(tag) is str and tag in branches:
            return branches[tag](value, (*loc, tag), errors)
        msg = f"Input tag '{tag}' found using {name!r} does not match any of the expected tags: {expected}"
        ctx = {"discriminator": repr(name), "tag": str(tag), "expected_tags": expected}
        errors.append(problem("union_tag_invalid", loc, msg, value, **ctx))
        return value

    return check


def then(check: Check, validator: Callable[[Any], str | None]) -> Check:
    """What passes ``check`` and of which the validator, handed the coerced value, has nothing to say."""

    def both(value: Any, loc: Loc, errors: list[Error]) -> Any:
        before = len(errors)
        new = check(value, loc, errors)
        words = None if len(errors) > before else validator(new)
        if words:
            errors.append(rejected(loc, value, words))
        return new

    return both


def _each(value: list[Any], item: Check, loc: Loc, errors: list[Error]) -> list[Any]:
    new = [item(old, (*loc, index), errors) for index, old in enumerate(value)]
    return value if all(map(is_, new, value)) else new


def _measured(value: list[Any], item: Check, most: int, loc: Loc, errors: list[Error]) -> list[Any]:
    """Errors of a long array: pydantic counts only the items that pass, and stops at the first too many."""
    wrong: list[Error] = []
    passed = 0
    for index, old in enumerate(value):
        before = len(wrong)
        item(old, (*loc, index), wrong)
        passed += len(wrong) == before
        if passed > most:
            errors.append(_too_long(value, loc, most))
            return value
    errors.extend(wrong)
    return value


def _too_long(value: list[Any], loc: Loc, most: int) -> Error:
    actual = len(value)
    msg = f"List should have at most {most} item{'s' if most != 1 else ''} after validation, not {actual}"
    return problem("too_long", loc, msg, value, field_type="List", max_length=most, actual_length=actual)


def _too_short(value: list[Any], loc: Loc, least: int, kind: str) -> Error:
    actual = len(value)
    msg = f"{kind} should have at least {least} item{'s' if least != 1 else ''} after validation, not {actual}"
    return problem("too_short", loc, msg, value, field_type=kind, min_length=least, actual_length=actual)


def _in_order(
    fields: Mapping[str, Check],
    required: frozenset[str],
    found: Mapping[str, list[Error]],
    value: Mapping[str, Any],
    loc: Loc,
    errors: list[Error],
) -> None:
    for name in fields:
        if name in found:
            errors += found[name]
        elif name in required and name not in value:
            errors.append(problem("missing", (*loc, name), "Field required", value))


def _extra(value: Mapping[str, Any], fields: Mapping[str, Check], loc: Loc) -> list[Error]:
    msg = "Extra inputs are not permitted"
    return [problem("extra_forbidden", (*loc, key), msg, value[key]) for key in value if key not in fields]
