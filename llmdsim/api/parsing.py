"""
What vLLM's parsers see in a model's raw text: reasoning, content and tool calls, token by token.

The markup is that of the reasoning parser ``qwen3`` and the tool parser ``hermes``; on the wire all parsers look alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import attrs

from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Form

THINK, THOUGHT = "<think>", "</think>"
CALL, CALLED = "<tool_call>", "</tool_call>"

REASONING, CONTENT, NAME, ARGUMENTS = "reasoning", "content", "name", "arguments"

_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*')
_ARGUMENTS = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*')
_JSON = json.JSONDecoder()


class Region(NamedTuple):
    """A stretch of the raw text that is shown, where, and for which call; what lies in no region is hidden."""

    start: int
    stop: int
    channel: str
    call: int = 0


class Piece(NamedTuple):
    """What one token adds to one channel; the text of NAME is the whole name."""

    channel: str
    text: str
    call: int


@attrs.frozen(slots=True)
class Call:
    """A complete tool call; ``arguments`` is JSON text as the model wrote it."""

    name: str
    arguments: str


@attrs.frozen(slots=True)
class View:
    """
    A raw text as it is shown. ``pieces[i]`` is what token ``i`` shows, often one piece, sometimes none.

    ``reasoning`` and ``content`` are None where there is none; ``thought`` counts reasoning tokens up to each one.
    """

    pieces: Sequence[Sequence[Piece]]
    reasoning: str | None
    content: str | None
    calls: Sequence[Call]
    thought: Sequence[int]


def parse(texts: Sequence[str], *, thinking: bool, tools: bool) -> View:
    """A model's raw text, given by its tokens, as the parsers that are switched on show it."""
    raw = "".join(texts)
    reasoning, rest = _reasoning(raw) if thinking else (None, 0)
    regions = [] if reasoning is None else [reasoning]
    spoken, calls = _calls(raw, rest) if tools else (_content(raw, rest), [])
    regions += spoken
    pieces = _pieces(texts, regions, raw)
    shown = None if reasoning is None else raw[reasoning.start : reasoning.stop] or None
    return View(pieces, shown, _whole_content(raw, rest, spoken, calls), calls, _thought(pieces))


class Views:
    """
    What the plans of one request show, each read once, and again where an abort has cut it.

    ``tools`` says whether calls are looked for; None: where the form has tools to call.
    """

    def __init__(self, form: Form, tools: bool | None = None) -> None:
        self._thinking = form.thinking
        self._tools = bool(form.tools) and form.choice != "none" if tools is None else tools
        self._views: dict[int, tuple[Sequence[str], View]] = {}

    def __call__(self, plan: Plan) -> View:
        texts, view = self._views.get(plan.index, (None, None))
        if view is None or texts is not plan.texts:
            view = parse(plan.texts, thinking=self._thinking, tools=self._tools)
            self._views[plan.index] = plan.texts, view
        return view


def merged(shown: Sequence[Sequence[Piece]]) -> list[Piece]:
    """The pieces of some tokens, with neighbours of one channel made one."""
    pieces: list[Piece] = []
    for piece in (piece for each in shown for piece in each):
        if pieces and pieces[-1].channel == piece.channel != NAME and pieces[-1].call == piece.call:
            pieces[-1] = piece._replace(text=pieces[-1].text + piece.text)
        else:
            pieces.append(piece)
    return pieces


def call_id(plan: Plan, number: int) -> str:
    """The id of one tool call, the same in every form of the answer."""
    digest = blake2b(f"{plan.request.id}-{plan.index}-{number}".encode("utf-8", "replace"), digest_size=8)
    return f"chatcmpl-tool-{digest.hexdigest()}"


def _reasoning(raw: str) -> tuple[Region | None, int]:
    """Where the reasoning is, and where the rest begins; a tool call ends reasoning that nothing else has ended."""
    start = len(THINK) if raw.startswith(THINK) else 0
    end = raw.find(THOUGHT, start)
    if end >= 0:
        return Region(start, end, REASONING), end + len(THOUGHT)
    call = raw.find(CALL, start)
    if call >= 0:
        return (Region(start, call, REASONING) if call > start else None), call
    return Region(start, len(raw), REASONING), len(raw)


def _content(raw: str, start: int) -> list[Region]:
    return [Region(start, len(raw), CONTENT)] if start < len(raw) else []


def _calls(raw: str, start: int) -> tuple[list[Region], list[Call]]:
    """The text before the first call, then each call's name and arguments as far as they go."""
    first = raw.find(CALL, start)
    if first < 0:
        return _content(raw, start), []
    regions = [Region(start, first, CONTENT)] if first > start else []
    calls: list[Call] = []
    at = first
    while at >= 0:
        spoken, call = _call(raw, at + len(CALL), len(calls))
        regions += spoken
        if call is None:
            return regions, []  # vLLM reads all calls or none
        calls.append(call)
        at = raw.find(CALL, spoken[-1].stop)
    return regions, calls


def _call(raw: str, at: int, number: int) -> tuple[list[Region], Call | None]:
    opened = _NAME.match(raw, at)
    name, end = _value(raw, opened.end()) if opened else (None, at)
    if not isinstance(name, str):
        return [], None
    regions = [Region(end - 1, end, NAME, number)]
    colon = _ARGUMENTS.match(raw, end)
    if colon is None:
        return regions, None
    _, stop = _value(raw, colon.end())
    if stop == colon.end():
        return [*regions, Region(colon.end(), len(raw), ARGUMENTS, number)], None
    regions.append(Region(colon.end(), stop, ARGUMENTS, number))
    closed = raw.startswith("}", stop)
    return regions, Call(name, raw[colon.end() : stop]) if closed else None


def _value(raw: str, at: int) -> tuple[Any, int]:
    """A JSON value and where it ends; where there is no complete one, None and ``at``."""
    try:
        return _JSON.raw_decode(raw, at)
    except (ValueError, RecursionError):
        return None, at


def _whole_content(raw: str, rest: int, regions: Sequence[Region], calls: Sequence[Call]) -> str | None:
    """What an answer that does not stream shows as content: where a call was cut off, all are shown raw."""
    if calls:
        return "".join(raw[region.start : region.stop] for region in regions if region.channel == CONTENT) or None
    return raw[rest:] or None


def _pieces(texts: Sequence[str], regions: Sequence[Region], raw: str) -> list[list[Piece]]:
    pieces: list[list[Piece]] = []
    at = number = 0
    for text in texts:
        end = at + len(text)
        shown: list[Piece] = []
        while number < len(regions) and regions[number].start < end:
            region = regions[number]
            shown += _shown(raw, region, max(at, region.start), min(end, region.stop))
            if region.stop > end:
                break
            number += 1
        pieces.append(shown)
        at = end
    return pieces


def _shown(raw: str, region: Region, start: int, stop: int) -> list[Piece]:
    if region.channel == NAME:
        # Its region is the closing quote: the name is sent when it is complete.
        return [Piece(NAME, _name_before(raw, region.stop), region.call)]
    return [Piece(region.channel, raw[start:stop], region.call)] if start < stop else []


def _name_before(raw: str, end: int) -> str:
    opened = list(_NAME.finditer(raw, 0, end))[-1]
    name: str = _JSON.raw_decode(raw, opened.end())[0]
    return name


def _thought(pieces: Sequence[Sequence[Piece]]) -> list[int]:
    count, counts = 0, []
    for shown in pieces:
        count += any(piece.channel == REASONING for piece in shown)
        counts.append(count)
    return counts
