"""
What the flags say of drawn values: how large numbers are, how long arrays, how often what is optional is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import attrs

from llmdsim.config import Config
from llmdsim.sim.synthesis.merging import Unsatisfiable
from llmdsim.sim.synthesis.schemas import Schema

LONG = 100  # elements, unless the schema or the flags ask for more


@attrs.frozen(slots=True)
class Ranges:
    """Ranges with both ends, and how often (0 to 1) an optional property is given: of the value itself, below it."""

    integers: tuple[int, int]
    numbers: tuple[float, float]
    lengths: tuple[int, int]
    given_on_top: float
    given_below: float

    @classmethod
    def of(cls, config: Config) -> Ranges:
        """The flags' own."""
        return cls(
            (config.min_tool_call_integer_param, config.max_tool_call_integer_param),
            (config.min_tool_call_number_param, config.max_tool_call_number_param),
            (config.min_tool_call_array_param_length, config.max_tool_call_array_param_length),
            config.tool_call_not_required_param_probability / 100,
            config.object_tool_call_not_required_field_probability / 100,
        )

    def length(self, flat: Schema, needed: int, brief: bool, rng: Random) -> int:
        """
        Elements of an array of a merged schema, of which ``needed`` must be there; ``brief``: as few as possible.

        A bound of the schema's takes the place of the flag's. Raises Unsatisfiable.
        """
        prefix = len(flat.get("prefixItems", ()))
        least, most = int(max(flat.get("minItems", 0), needed)), flat.get("maxItems", math.inf)
        if flat.get("items") is False:
            most = min(most, prefix)
        if least > most:
            raise Unsatisfiable(f"minItems ({least}) is greater than maxItems ({int(most)})")
        if brief:
            return least
        low, high = (prefix, prefix) if prefix else self.lengths
        low = least if "minItems" in flat else max(low, least)
        high = max(min(flat.get("maxItems", high), max(high, LONG)), low)
        return rng.randint(int(min(low, most)), int(min(high, most)))

    def given(self, optional: Sequence[str], room: float, on_top: bool, rng: Random) -> set[str]:
        """Those of optional properties that are given, at most ``room``."""
        share = self.given_on_top if on_top else self.given_below
        given = [name for name in optional if rng.random() < share]
        return set(given if len(given) <= room else rng.sample(given, int(room)))
