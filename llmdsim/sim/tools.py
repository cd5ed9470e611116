"""
Which tools the simulated model calls, how often, and with which arguments.

The number of calls is the older simulator's draw; the arguments are ``synthesis``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from llmdsim.config import Config
from llmdsim.faults import bad_value

if TYPE_CHECKING:
    from llmdsim.sim.synthesis.values import Ranges


@attrs.frozen(slots=True)
class Tool:
    """A function that may be called; ``parameters`` is the JSON Schema of its arguments ({}: anything, so none)."""

    name: str
    parameters: Mapping[str, Any]


class Call(NamedTuple):
    """A tool call; ``arguments`` are JSON text as ``json.dumps`` writes it, other scripts unescaped."""

    name: str
    arguments: str


def draw_calls(
    tools: Sequence[Tool], choice: str, named: str | None, parallel: bool, rng: Random, config: Config
) -> list[Call]:
    """
    The calls of one answer; none means a text.

    ``choice`` is none, auto, required or named (then ``named`` is called once); without ``parallel`` there is at most
    one. Raises Fault for a tool that is not there and for arguments that cannot be made.
    """
    if not tools or choice == "none":
        return []
    from llmdsim.sim.synthesis.values import Ranges  # few need it, and it is slow to import

    ranges = Ranges.of(config)
    if choice == "named":
        return [_call(_find(tools, named), rng, ranges)]
    count = 1 if choice == "required" else 0
    while count < len(tools) and rng.random() * 100 < config.tool_call_extra_call_probability:
        count += 1
    count = count if parallel else min(count, 1)
    return [_call(rng.choice(tools), rng, ranges) for _ in range(count)]


def _find(tools: Sequence[Tool], name: str | None) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    raise bad_value("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")


def _call(tool: Tool, rng: Random, ranges: Ranges) -> Call:
    from llmdsim.sim.synthesis.values import synthesize

    value = synthesize({"type": "object", **tool.parameters}, rng, ranges)
    return Call(tool.name, json.dumps(value, ensure_ascii=False))
