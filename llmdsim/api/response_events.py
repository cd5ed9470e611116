"""
How one request to the Responses API is answered: its numbered events, or the whole object.

Deltas of plain text are cut once an item; per token only the text and the number go between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api.logprobs import Logprobs
from llmdsim.api.parsing import CONTENT, NAME, REASONING, Piece, View, Views, call_id, merged
from llmdsim.api.parts import dumps, escaped, spans
from llmdsim.api.response_items import OpenCall, OpenItem, OpenMessage, OpenReasoning, outputs
from llmdsim.api.response_object import (
    Ask,
    Item,
    delta_logprobs,
    function_call,
    item_id,
    message,
    raw_messages,
    reasoning,
    reasoning_part,
    response,
    status,
    text_part,
    usage,
    whole_logprobs,
)
from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan

_MARK = "\ufffftext\uffff"
_MARK_BYTES = dumps(_MARK)
_FIRST = 2  # the number after the two events of the opening


class ResponseWriter:
    """
    Events and object of one response; a stream's events are written in order, once.

    ``told`` is the object as it was last told to its client, None before the end.
    """

    def __init__(self, config: Config, ask: Ask, created: int) -> None:
        self._config, self._ask, self._created = config, ask, created
        self._logprobs = None if ask.logprobs is None else Logprobs(ask.logprobs, ask.tokens_as_ids)
        self._interval = max(ask.stream_interval, 1)
        self._parsed = ask.form.thinking or ask.finds_calls
        self._varies = self._parsed or self._logprobs is not None or self._interval > 1
        self._number = _FIRST
        self._open: OpenItem | None = None
        self._cut = b"", b"", b""
        self._output: list[Item] = []
        self._views = Views(ask.form, ask.finds_calls)
        self.told: dict[str, Any] | None = None

    def fresh(self) -> ResponseWriter:
        """A writer that says the same again, from the beginning."""
        return ResponseWriter(self._config, self._ask, self._created)

    def pending(self, status: str, prompt_tokens: int) -> dict[str, Any]:
        """The object before its end."""
        return response(self._ask, self._config, self._created, status, prompt_tokens)

    def opening(self, plan: Plan) -> bytes:
        """The response as created, and as in progress."""
        begun = self.pending("in_progress", plan.prompt_tokens)
        return event("response.created", 0, {"response": begun}) + event("response.in_progress", 1, {"response": begun})

    def chunks(self, plan: Plan, start: int, stop: int) -> bytes:
        """The events of tokens ``start`` to ``stop``; a token that shows nothing has none."""
        if self._varies:
            ranges = spans(start, stop, len(plan.texts), self._interval)
            return b"".join([self._spell(plan, *span) for span in ranges])
        texts = [text for text in plan.texts[start:stop] if text]
        if not texts:
            return b""
        opened = b"" if self._open else self._begin(OpenMessage(self._ask, 0))
        return opened + self._deltas(texts)

    def closing(self, plans: Sequence[Plan]) -> bytes:
        """The end of the last item, then the whole object."""
        plan = plans[0]
        ended = self._end(plan.finish == "length")
        self.told = self._response(plan, self._streamed(plan))
        kind = "incomplete" if self.told["status"] == "incomplete" else "completed"
        return ended + self._event(f"response.{kind}", {"response": self.told})

    def fault(self, fault: Fault) -> bytes:
        """Nothing: vLLM breaks the connection."""
        return b""

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        return dumps(self.finished(plans[0]))

    def finished(self, plan: Plan) -> dict[str, Any]:
        """The object of an answer that was not streamed."""
        self.told = self._response(plan, self._items(plan))
        return self.told

    def _response(self, plan: Plan, output: list[Item]) -> dict[str, Any]:
        counts = usage(plan, self._config, self._thought(plan))
        told = response(self._ask, self._config, self._created, status(plan), plan.prompt_tokens, output, counts)
        if self._ask.body.get("enable_response_messages"):
            told["input_messages"] = raw_messages(plan.prompt.ids, plan.prompt.texts)
            told["output_messages"] = raw_messages(plan.ids, plan.texts)
        return told

    def _items(self, plan: Plan) -> list[Item]:
        ask, view, items = self._ask, self._seen(plan), []
        if view.reasoning is not None and ask.form.show_reasoning:
            items.append(reasoning(item_id("rs", ask, 0), None, [reasoning_part(view.reasoning)]))
        if view.content is not None:
            ending = "incomplete" if plan.finish == "length" else "completed"
            part = text_part(view.content, self._all_logprobs(plan))
            items.append(message(item_id("msg", ask, len(items)), ending, [part]))
        for number, call in enumerate(view.calls):
            id = item_id("fc", ask, len(items))
            items.append(function_call(id, call_id(plan, number), call.name, call.arguments, "completed"))
        return items

    def _streamed(self, plan: Plan) -> list[Item]:
        """The items that were streamed; their deltas told log-probabilities, and the end tells them all."""
        for item in self._output:
            if item["type"] == "message" and self._logprobs is not None:
                item["content"][0]["logprobs"] = self._all_logprobs(plan)
        return self._output

    def _all_logprobs(self, plan: Plan) -> list[Item] | None:
        return None if self._logprobs is None else whole_logprobs(self._logprobs, plan)

    def _thought(self, plan: Plan) -> int:
        """How many tokens were reasoning."""
        return self._seen(plan).thought[-1] if self._ask.form.thinking else 0

    def _seen(self, plan: Plan) -> View:
        if not self._parsed:
            return View((), None, "".join(plan.texts) or None, (), ())
        return self._views(plan)

    def _spell(self, plan: Plan, start: int, stop: int) -> bytes:
        """The events of tokens that are spelled in full."""
        pieces = self._pieces(plan, start, stop)
        return b"".join([self._piece(plan, piece, start, stop) for piece in pieces])

    def _pieces(self, plan: Plan, start: int, stop: int) -> list[Piece]:
        if self._parsed:
            shown = merged(self._seen(plan).pieces[start:stop])
            return [piece for piece in shown if piece.channel != REASONING or self._ask.form.show_reasoning]
        text = "".join(plan.texts[start:stop])
        return [Piece(CONTENT, text, 0)] if text else []

    def _piece(self, plan: Plan, piece: Piece, start: int, stop: int) -> bytes:
        opened = b""
        if self._open is None or not self._open.takes(piece):
            opened = self._end(False) + self._begin(self._item(plan, piece))
        if piece.channel == NAME:
            return opened
        if self._logprobs is None or piece.channel != CONTENT:
            return opened + self._deltas([piece.text])
        return opened + self._delta(piece.text, delta_logprobs(self._logprobs, plan, start, stop))

    def _item(self, plan: Plan, piece: Piece) -> OpenItem:
        number = len(self._output)
        if piece.channel == NAME:
            return OpenCall(self._ask, number, plan, piece)
        return OpenReasoning(self._ask, number) if piece.channel == REASONING else OpenMessage(self._ask, number)

    def _begin(self, item: OpenItem) -> bytes:
        self._open = item
        fields = {**item.place, "logprobs": []} if item.delta == OpenMessage.delta else item.place
        spelled = event(item.delta, -1, {**fields, "delta": _MARK})
        before, rest = spelled.split(_MARK_BYTES)
        middle, after = rest.rsplit(b"-1", 1)
        self._cut = before, middle, after
        return b"".join([self._event(*each) for each in item.opening()])

    def _end(self, cut: bool) -> bytes:
        if self._open is None:
            return b""
        events, self._open = self._open.closing(cut), None
        self._output += outputs(events)
        return b"".join([self._event(*each) for each in events])

    def _deltas(self, texts: list[str]) -> bytes:
        """A delta for each text. The hot path: bare on purpose."""
        before, middle, after = self._cut
        number = self._number
        self._number = number + len(texts)
        self._open.said.extend(texts)  # type: ignore[union-attr]
        if len(texts) == 1:
            return b"%b%b%b%d%b" % (before, escaped[texts[0]], middle, number, after)
        return b"".join([before + escaped[text] + middle + b"%d" % i + after for i, text in enumerate(texts, number)])

    def _delta(self, text: str, logprobs: list[Item]) -> bytes:
        item = self._open
        assert item is not None
        item.said.append(text)
        return self._event(item.delta, {**item.place, "delta": text, "logprobs": logprobs})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        number = self._number
        self._number = number + 1
        return event(kind, number, fields)


def event(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    """One named event; its fields are in alphabetical order, as in the openai package."""
    ordered = dict(sorted({**fields, "sequence_number": number, "type": kind}.items()))
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(ordered))
