"""Placeholder until the room is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import attrs

from llmdsim.config import Config


@attrs.frozen(slots=True)
class Tool:
    name: str
    parameters: Mapping[str, Any]


class Call(NamedTuple):
    name: str
    arguments: str


def draw_calls(
    tools: Sequence[Tool], choice: str, named: str | None, parallel: bool, rng: Random, config: Config
) -> list[Call]:
    return []
