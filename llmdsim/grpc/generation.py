"""
Generate: a question in protobuf, and the sinks that speak its answer as messages.

The rank knows the times and the call its client's room; here is what is said between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api.sampling import check_sampling, given, refuse, stops
from llmdsim.grpc.call import Call
from llmdsim.grpc.messages import framed
from llmdsim.grpc.methods import reply
from llmdsim.grpc.vllm_engine_pb2 import GenerateComplete, GenerateRequest, GenerateResponse, GenerateStreamChunk
from llmdsim.sim.plan import Plan
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Prompt, Request

KNOWN_IDS = 1 << 18  # token ids kept in their wire form; beyond that the table starts anew
LONGEST = 64  # bytes of one token's message, and more


class Generation:
    """The method Generate of one rank, for its base model."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    async def answer(self, call: Call, asked: GenerateRequest) -> None:
        """Answer one request. Raises Fault."""
        request = self._request(asked)
        ear = (Chunks if asked.stream else Complete)(call)
        await self._rank.serve(request, ear)
        ear.close()

    def _request(self, asked: GenerateRequest) -> Request:
        rank = self._rank
        # As in a JSON body: zeros that were not given are no values.
        body: dict[str, Any] = {field.name: value for field, value in asked.sampling_params.ListFields()}
        check_sampling(body, rank.config)
        return Request(
            id=asked.request_id or rank.new_id(),
            model=rank.adapters.find(None),
            prompts=(_prompt(asked),),
            max_tokens=body.get("max_tokens"),
            stops=stops(body),
            ignore_eos=given(body, "ignore_eos", False),
            seed=body.get("seed"),
            stream=asked.stream,
        )


def _prompt(asked: GenerateRequest) -> Prompt:
    prompt: Prompt = asked.text or tuple(asked.tokenized.input_ids)
    if not prompt:
        raise refuse("The decoder prompt cannot be empty")
    return prompt


class Complete:
    """A whole answer in one message."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._plan: Plan

    def begin(self, plan: Plan) -> None:
        """Nothing is said before the end."""

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """The plan holds the tokens."""

    def end(self, plan: Plan) -> None:
        """All of it has been spoken."""
        self._plan = plan

    def close(self) -> None:
        """Say it."""
        reply(self._call, _complete(self._plan, self._plan.ids))


class Chunks:
    """One message a token. While the client has no room, tokens are only counted; what follows carries them."""

    __slots__ = ("_call", "_closing", "_heads", "_plan", "_said", "_spoken", "_tail")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._plan: Plan
        self._spoken = 0  # by the rank
        self._said = 0  # to the client
        self._closing = False
        self._heads: tuple[bytes, ...] = ()
        self._tail = b""

    def begin(self, plan: Plan) -> None:
        """Send the head."""
        self._plan = plan
        self._call.open(self.resume)

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Say a slice, or note it while the client is slow."""
        self._spoken = stop
        self.resume()

    def end(self, plan: Plan) -> None:
        """The closing follows when the rank has let go."""

    def close(self) -> None:
        """End, after what is held."""
        self._closing = True
        self.resume()

    def resume(self) -> None:
        """Say as much as there is room for, and one message more, which then waits in the call."""
        call = self._call
        while self._said < self._spoken:
            if call.blocked:
                return
            start = self._said
            self._said = stop = min(self._spoken, start + 1 + call.room // LONGEST)
            call.send(self._messages(self._plan.ids[start:stop]))
        if self._closing:
            reply(call, _complete(self._plan, ()))

    def _messages(self, ids: Sequence[int]) -> bytes:
        if not self._heads:
            self._heads, self._tail = cut(self._plan)
        heads, tail = self._heads, self._tail
        pieces = [varints[id] for id in ids]  # an aborted answer ends without a token
        return b"".join([heads[len(piece)] + piece + tail for piece in pieces])


def cut(plan: Plan) -> tuple[tuple[bytes, ...], bytes]:
    """What stands around the id in a token's message: before it, by the bytes of the id, and behind it."""
    chunk = GenerateStreamChunk(prompt_tokens=plan.prompt_tokens, completion_tokens=1, cached_tokens=plan.cached_tokens)
    tail = chunk.SerializeToString()
    heads = []
    for size in range(6):
        chunk.token_ids[:] = [(1 << 7 * size) - 1 if size < 5 else (1 << 32) - 1]  # the largest id of so many bytes
        heads.append(framed(GenerateResponse(chunk=chunk))[: -size - len(tail)])
    return tuple(heads), tail


class _Varints(dict[int, bytes]):
    """Token ids in the wire form of protobuf: a vocabulary is small, so nearly every token is a look-up."""

    def __missing__(self, id: int) -> bytes:
        if len(self) >= KNOWN_IDS:
            self.clear()
        data, left = bytearray(), id
        while left > 127:
            data.append(left & 127 | 128)
            left >>= 7
        data.append(left)
        value = self[id] = bytes(data)
        return value


varints = _Varints()


def _complete(plan: Plan, ids: Sequence[int]) -> GenerateResponse:
    return GenerateResponse(
        complete=GenerateComplete(
            output_ids=ids,
            finish_reason=plan.finish,
            prompt_tokens=plan.prompt_tokens,
            completion_tokens=len(ids),
            cached_tokens=plan.cached_tokens,
        )
    )
