"""
One data-parallel rank: where a request meets planner, seats, latency and pacer.

serve() is the only way in, for every door; leaving early is cancelling it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from random import Random

import attrs
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from llmdsim.config import Config
from llmdsim.faults import UNAVAILABLE, Fault
from llmdsim.sim.admission import Admission
from llmdsim.sim.author import Source
from llmdsim.sim.cache import Event
from llmdsim.sim.fake import Fake
from llmdsim.sim.injection import Injection
from llmdsim.sim.latency import Latency
from llmdsim.sim.lora import Adapters
from llmdsim.sim.memory import Memory, unheard
from llmdsim.sim.metrics import Finished, Load, Meters, meters
from llmdsim.sim.pacing import Pacer, Stream
from llmdsim.sim.plan import Offload, Plan, Planner, Sink, Tokenizer, abort
from llmdsim.sim.request import Request
from llmdsim.sim.scheduler import Scheduler, Seat
from llmdsim.sim.state import State


@attrs.define(slots=True, eq=False)
class _Part:
    """One sequence on its way: its plan, the seat it waits for, and its stream once it speaks."""

    plan: Plan
    seat: Deferred[Seat]
    stream: Stream | None = None
    aborted: bool = False


class Rank:
    """
    The engine of one rank; everything here is its own but the tokenizer and the source.

    ``config`` is the rank's own (``config.for_rank``) with its seed set; ``wall`` tells Unix time in seconds.
    """

    def __init__(
        self,
        config: Config,
        clock: IReactorTime,
        wall: Callable[[], float],
        tokenizer: Tokenizer,
        source: Source,
        offload: Offload,
        note: Callable[[Event], None] = unheard,
    ) -> None:
        seed = config.seed or 0
        rng = Random(seed)
        self.config, self.clock, self.wall, self.tokenizer = config, clock, wall, tokenizer
        self.adapters = Adapters(config.served_model_name, config.lora_modules, config.max_loras)
        self.scheduler = Scheduler(clock, config.max_num_seqs, config.max_waiting_queue_length, self.adapters)
        self.meters = meters(config, self.load, wall)
        self.fake = None if config.fake_metrics is None else Fake(config, self.meters.cache_config, clock.seconds, wall)
        self.admission = Admission(config, self.meters)
        self.latency = Latency(config, rng, lambda: self.scheduler.running)
        self.injection = Injection(config, rng)
        self.memory = Memory(config, self.adapters, self.meters, note, wall)
        self.pacer = Pacer(clock, self.latency.gap, self.meters, self.memory.grow)
        self.state = State(self, self.pacer)
        self.planner = Planner(config, tokenizer, source, offload, rng, self.meters.source_failed)
        self.started = clock.seconds()
        self.open = 0  # requests accepted and not yet answered
        self._serving: dict[str, Sequence[_Part]] = {}
        self._id_base = b"%d-%d-" % (seed, config.port)
        self._ids = 0
        self._rng = rng
        self._drained: Deferred[None] | None = None

    def new_id(self) -> str:
        """Sixteen hex digits, the same sequence again for the same seed and port."""
        self._ids += 1
        return blake2b(self._id_base + b"%d" % self._ids, digest_size=8).hexdigest()

    @property
    def draining(self) -> bool:
        """Whether new requests are refused, because the server is about to stop."""
        return self._drained is not None

    @property
    def ready(self) -> bool:
        """Whether ``startup-duration`` has passed."""
        return bool(self.clock.seconds() - self.started >= self.config.startup_duration)

    def reconfigure(self, config: Config) -> None:
        """Go by a configuration that differs in live settings only; what runs already takes its token gaps from it."""
        self.config = config
        self.latency = Latency(config, self._rng, lambda: self.scheduler.running)
        self.pacer.gap = self.latency.gap
        self.injection = Injection(config, self._rng)
        if self.fake is not None:
            self.fake.update(config.fake_metrics or {})

    @property
    def page(self) -> Meters | Fake:
        """Whose registry clients see: of what happens, or the fake one."""
        return self.fake or self.meters

    async def serve(self, request: Request, sink: Sink) -> None:
        """
        Answer a request into a sink; returns when the last sequence has ended.

        Raises Fault before ``sink.begin`` where the request is refused. Cancelling frees everything in the same turn.
        """
        arrival = self.clock.seconds()
        if self.draining:
            raise Fault(UNAVAILABLE, "server is shutting down")
        self.injection.strike()
        self.open += 1
        try:
            await self.state.enter()
            await self._run(request, sink, arrival)
        except CancelledError:
            self.meters.aborted()
            raise
        finally:
            self.open -= 1
            self._check_drained()

    async def _run(self, request: Request, sink: Sink, arrival: float) -> None:
        try:
            plans = await self.planner.plan(request)
            for plan in plans:
                plan.arrival = arrival
                self.memory.prepare(plan)
            await self._serve(request, self._enter(plans), sink)
            for first in range(0, len(plans), request.n):  # vLLM counts a parent for each prompt
                choices = plans[first : first + request.n]
                self.meters.parent_finished(request.n, max(len(plan.ids) for plan in choices))
        finally:
            self.state.leave()

    def abort(self, ids: Iterable[str] | None = None) -> int:
        """End these requests by the ids that clients see, with or without prefix, or all; how many sequences ended."""
        wanted = None if ids is None else set(ids)
        found = [
            part
            for parts in self._serving.values()
            for part in parts
            if wanted is None or wanted & {part.plan.request.id, part.plan.request.bare_id}
        ]
        going = [part for part in found if part.stream is None or not part.stream.done.called]
        for part in going:
            part.aborted = True
            if part.stream is None:
                part.seat.cancel()
            else:
                part.stream.cut()
        return len(going)

    def reset_cache(self, running: bool = False) -> bool:
        """Forget the prefix cache; False where sequences use it, unless ``running``."""
        if running:
            self.memory.sleep()
            self.memory.wake()
            return True
        return not self.scheduler.running and self.memory.reset()

    def drain(self, limit: float) -> Deferred[None]:
        """Refuse new requests from now on; fires when the open ones have ended, or after ``limit`` seconds."""
        if self._drained is None:
            self._drained = Deferred()
            self._drained.addTimeout(limit, self.clock, onTimeoutCancel=lambda result, _: None)
            self._check_drained()
        return self._drained

    def _check_drained(self) -> None:
        drained = self._drained
        if drained is not None and not self.open and not drained.called:
            drained.callback(None)

    async def _serve(self, request: Request, parts: Sequence[_Part], sink: Sink) -> None:
        self._serving[request.id] = parts
        try:
            await self._speak_all(parts, sink)
        finally:
            if self._serving.get(request.id) is parts:  # clients may use an id twice
                del self._serving[request.id]

    def _enter(self, plans: Sequence[Plan]) -> list[_Part]:
        """Ask for a seat for each plan, or for none: a full queue refuses the whole request."""
        self.admission.admit(plans, self.scheduler.running + self.scheduler.waiting)
        by_priority = self.config.scheduling_policy == "priority"
        parts: list[_Part] = []
        try:
            for plan in plans:
                adapter = plan.request.model.adapter
                priority = plan.request.priority if by_priority else 0
                seat = self.scheduler.enter(adapter, priority, partial(self.memory.reserve, plan))
                parts.append(_Part(plan, seat))
                self.admission.count(plan, 1)
        except Fault:
            for part in parts:
                self._withdraw(part)
            raise
        return parts

    def _withdraw(self, part: _Part) -> None:
        self.memory.release(part.plan)
        part.seat.addCallbacks(self.scheduler.leave, lambda failure: None)
        part.seat.cancel()
        self.admission.count(part.plan, -1)

    async def _speak_all(self, parts: Sequence[_Part], sink: Sink) -> None:
        if len(parts) == 1:
            await self._speak(parts[0], sink)
            return
        speaking = [Deferred.fromCoroutine(self._speak(part, sink)) for part in parts]
        try:
            await gatherResults(speaking, consumeErrors=True)
        except FirstError as first:
            for other in speaking:
                other.cancel()
            first.subFailure.raiseException()

    async def _speak(self, part: _Part, sink: Sink) -> None:
        plan = part.plan
        try:
            seat = await part.seat
        except CancelledError:
            self.admission.count(plan, -1)
            if not part.aborted:
                raise
            self._end_unspoken(plan, sink)
            return
        try:
            plan.scheduled = seat.granted
            remote = plan.request.transfer.do_remote_prefill
            ttft = self.latency.ttft(plan.prompt_tokens, plan.cached_tokens, remote)
            self.memory.offer(plan, ttft)
            sink.begin(plan)
            part.stream = self.pacer.speak(plan, sink, seat.granted + ttft)
            await self._heard(part.stream)
            self.meters.finished(self._finished(plan, seat))
        finally:
            self.memory.release(plan)
            self.scheduler.leave(seat)
            self.admission.count(plan, -1)

    async def _heard(self, stream: Stream) -> None:
        try:
            await stream.done
        except BaseException:
            self.pacer.drop(stream)
            raise

    def _end_unspoken(self, plan: Plan, sink: Sink) -> None:
        abort(plan, 0)
        sink.begin(plan)
        sink.tokens(plan, 0, 1)
        sink.end(plan)

    def _finished(self, plan: Plan, seat: Seat) -> Finished:
        return Finished(
            reason=plan.finish,
            prompt_tokens=plan.prompt_tokens,
            cached_tokens=plan.cached_tokens,
            generated=len(plan.ids),
            max_tokens=plan.limit,
            arrival=plan.arrival,
            queued=seat.queued,
            scheduled=seat.granted,
            first=plan.first or self.clock.seconds(),
            last=plan.last or self.clock.seconds(),
            now=self.clock.seconds(),
        )

    def load(self) -> Load:
        """What the gauges show."""
        scheduler, state = self.scheduler, self.state
        return Load(
            running=scheduler.running,
            waiting=scheduler.waiting + state.hanging,
            deferred=scheduler.deferred(),
            kv_usage=self.memory.usage(),
            sleep_level=state.level,
        )
