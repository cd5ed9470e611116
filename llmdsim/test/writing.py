"""
What tests of the dialects share: a body asked of a dialect, a plan that answers it, and what its writer writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from llmdsim.api.dialect import Dialect
from llmdsim.config import load
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Request, Tokens

USER = {"role": "user", "content": "Hello"}
PROMPT = Tokens([9, 8, 7], ["a", "b", "c"])
EVENT = re.compile(r"(?:event: (\w+)\n)?data: (.*)\n\n")
WEATHER = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]


def call(arguments: str = '{"location": "Paris"}', name: str = "get_weather") -> str:
    """The markup of one tool call."""
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def letters(text: str) -> list[str]:
    """A text in the smallest tokens, with the end token's."""
    return [*text, ""]


def events(data: bytes) -> list[Any]:
    """The JSON of each event; the end mark as text, a named event with its name before it."""
    text = data.decode()
    found = list(EVENT.finditer(text))
    assert "".join(event[0] for event in found) == text, text
    read = [event[2] if event[2] == "[DONE]" else json.loads(event[2]) for event in found]
    return [(event[1], value) if event[1] else value for event, value in zip(found, read, strict=True)]


@attrs.frozen
class Asked:
    """A request and the writer that answers it."""

    request: Request
    writer: Any

    def plan(self, texts: Sequence[str], index: int = 0, finish: str = "stop", **fields: Any) -> Plan:
        """A sequence of these texts with the ids 1, 2, ..., each token's own text its shown one or ``<end>``."""
        ids, tokens = list(range(1, len(texts) + 1)), [text or "<end>" for text in texts]
        said = {"tokens": tokens, "prompt": PROMPT, **fields}
        return Plan(self.request, index, said.pop("prompt"), list(texts), ids, finish, **said)

    def chunks(self, plan: Plan, cuts: Iterable[int] = ()) -> list[Any]:
        """The events of all tokens of a plan, written in the slices that end at the cuts."""
        ends = sorted({end for end in cuts if 0 < end < len(plan.texts)} | {len(plan.texts)})
        slices = zip([0, *ends], ends, strict=False)
        return events(b"".join([self.writer.chunks(plan, start, stop) for start, stop in slices]))

    def stream(self, *plans: Plan) -> list[Any]:
        """A whole stream, one plan after the other."""
        said = [chunk for plan in plans for chunk in self.chunks(plan)]
        return [*events(self.writer.opening(plans[0])), *said, *events(self.writer.closing(plans))]

    def whole(self, *plans: Plan) -> Any:
        """The answer that does not stream."""
        return json.loads(self.writer.whole(plans))


def ask(kind: Any, body: dict[str, Any], *flags: str) -> Asked:
    """Ask the dialect of this class, on a server of model ``m`` with these flags, at Unix time 7."""
    dialect: Dialect = kind(load(["--model", "m", *flags], {}))
    request = dialect.parse(dialect.check({"model": "m", **body}), "1", Model("m"))
    return Asked(request, dialect.writer(request, 7))
