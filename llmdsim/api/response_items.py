"""
One output item of a streamed response: the events that open and close it, and what every delta between them repeats.

Events are (type, fields) pairs; the writer numbers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api.parsing import ARGUMENTS, CONTENT, REASONING, Piece, call_id
from llmdsim.api.response_object import (
    Ask,
    Item,
    function_call,
    item_id,
    message,
    reasoning,
    reasoning_part,
    text_part,
)
from llmdsim.sim.plan import Plan

Event = tuple[str, dict[str, Any]]

ADDED, DONE = "response.output_item.added", "response.output_item.done"
PART_ADDED, PART_DONE = "response.content_part.added", "response.content_part.done"


class OpenItem:
    """
    An item that is being streamed. ``said`` collects its deltas; ``delta`` is their event's type.

    ``place`` is what every delta says of the item, in alphabetical order as all events do.
    """

    delta: str
    done: str

    def __init__(self, id: str, number: int) -> None:
        self.id, self.number = id, number
        self.said: list[str] = []
        self.place: dict[str, Any] = {"content_index": 0, "item_id": id, "output_index": number}

    def opening(self) -> list[Event]:
        """The events before the first delta."""
        return [self._item(ADDED, self.begun()), (PART_ADDED, {**self.place, "part": self.part("", begun=True)})]

    def closing(self, cut: bool) -> list[Event]:
        """The events after the last delta; ``cut``: the answer ended here at its limit."""
        text = "".join(self.said)
        whole = (PART_DONE, {**self.place, "part": self.part(text)})
        return [(self.done, self.closed(text)), whole, self._item(DONE, self.ended(text, cut))]

    def takes(self, piece: Piece) -> bool:
        """Whether a piece belongs to this item."""
        raise NotImplementedError

    def begun(self) -> Item:
        """The item before its first delta."""
        raise NotImplementedError

    def ended(self, text: str, cut: bool) -> Item:
        """The item with all of its text."""
        raise NotImplementedError

    def part(self, text: str, begun: bool = False) -> Item:
        """Its content part."""
        raise NotImplementedError

    def closed(self, text: str) -> dict[str, Any]:
        """The fields of the event that ends its deltas."""
        return {**self.place, "text": text}

    def _item(self, kind: str, item: Item) -> Event:
        return kind, {"item": item, "output_index": self.number}


class OpenMessage(OpenItem):
    """A message of text."""

    delta, done = "response.output_text.delta", "response.output_text.done"

    def __init__(self, ask: Ask, number: int) -> None:
        super().__init__(item_id("msg", ask, number), number)

    def takes(self, piece: Piece) -> bool:
        """Text goes here."""
        return piece.channel == CONTENT

    def begun(self) -> Item:
        """A message without content."""
        return message(self.id, "in_progress", [])

    def ended(self, text: str, cut: bool) -> Item:
        """The message with its text."""
        return message(self.id, "incomplete" if cut else "completed", [text_part(text, None)])

    def part(self, text: str, begun: bool = False) -> Item:
        """Text; log-probabilities are told by the deltas."""
        return text_part(text, [] if begun else None)

    def closed(self, text: str) -> dict[str, Any]:
        """The text as a whole."""
        return {**self.place, "logprobs": [], "text": text}


class OpenReasoning(OpenItem):
    """What the model thinks."""

    delta, done = "response.reasoning_text.delta", "response.reasoning_text.done"

    def __init__(self, ask: Ask, number: int) -> None:
        super().__init__(item_id("rs", ask, number), number)

    def takes(self, piece: Piece) -> bool:
        """Reasoning goes here."""
        return piece.channel == REASONING

    def begun(self) -> Item:
        """A thought without content."""
        return reasoning(self.id, "in_progress", None)

    def ended(self, text: str, cut: bool) -> Item:
        """The thought; vLLM calls it completed also where it was cut."""
        return reasoning(self.id, "completed", [self.part(text)])

    def part(self, text: str, begun: bool = False) -> Item:
        """Its text."""
        return reasoning_part(text)


class OpenCall(OpenItem):
    """A call of one of the client's functions."""

    delta, done = "response.function_call_arguments.delta", "response.function_call_arguments.done"

    def __init__(self, ask: Ask, number: int, plan: Plan, piece: Piece) -> None:
        super().__init__(item_id("fc", ask, number), number)
        self.name = piece.text
        self._call_id = call_id(plan, piece.call)
        self.place = {"item_id": self.id, "output_index": number}

    def takes(self, piece: Piece) -> bool:
        """Arguments go here: those of another call come after its name."""
        return piece.channel == ARGUMENTS

    def opening(self) -> list[Event]:
        """The call by its name; arguments are no content part."""
        return [self._item(ADDED, self.begun())]

    def closing(self, cut: bool) -> list[Event]:
        """The arguments as a whole."""
        text = "".join(self.said)
        return [(self.done, self.closed(text)), self._item(DONE, self.ended(text, cut))]

    def begun(self) -> Item:
        """The call without arguments."""
        return function_call(self.id, self._call_id, self.name, "", "in_progress")

    def ended(self, text: str, cut: bool) -> Item:
        """The call with its arguments."""
        return function_call(self.id, self._call_id, self.name, text, "incomplete" if cut else "completed")

    def closed(self, text: str) -> dict[str, Any]:
        """Name and arguments."""
        return {**self.place, "arguments": text, "name": self.name}


def outputs(events: Sequence[Event]) -> list[Item]:
    """The finished items among events."""
    return [fields["item"] for kind, fields in events if kind == DONE]
