"""
Puts the house together: command line, ranks, sockets, threads.

The one room that knows the reactor, the process's environment and the wall clock.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import attrs
from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorCore, IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.python.usage import Options as UsageOptions

from llmdsim import events, tls
from llmdsim.config import Config, ConfigError, HelpRequested, load
from llmdsim.events import Publisher
from llmdsim.grpc.sniff import GrpcFactory
from llmdsim.sim.author import Source
from llmdsim.sim.memory import unheard
from llmdsim.sim.plan import Tokenizer
from llmdsim.sim.rank import Rank
from llmdsim.source import choose_source
from llmdsim.tokenizer import choose
from llmdsim.web.site import Site, make_site
from llmdsim.web.transport import Endpoint
from llmdsim.web.tree import make_app
from llmdsim.web.unix import UnixEndpoint

log = Logger()

HEARTBEAT = 0.1  # seconds between looks at how late the reactor is
THREADS = 4
MEGABYTE = 1 << 20


class Options(UsageOptions):
    """The command line, from which ``config`` is made; anything wrong with it is one line and exit status 2."""

    config: Config

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the words after ``twistd llmdsim``."""
        try:
            self.config = load(sys.argv[1:] if options is None else options, os.environ)
        except HelpRequested as help:
            sys.stdout.write(f"{help}\n")
            raise SystemExit(0) from None
        except ConfigError as problem:
            _give_up(str(problem), 2)


def makeService(options: Options, reactor: Any = None) -> MultiService:
    """The service tree of all ranks that this process serves."""
    if reactor is None:
        from twisted.internet import reactor
    config = options.config
    seed = time.time_ns() if config.seed is None else config.seed
    service, threads, reader = House(), Threads(reactor), Reader(reactor)
    service.setName("llmdsim")
    threads.setServiceParent(service)
    reader.setServiceParent(service)
    for note in config.notes:
        log.info("{note}", note=note)
    tokenizer = _tokenizer(config)
    source = _source(config, tokenizer, reader)
    for part in config.ranks():
        publisher = _publisher(part, reactor)
        heard = unheard if publisher is None else publisher.note
        part = attrs.evolve(part, seed=seed)
        rank = Rank(part, reactor, time.time, tokenizer, source, threads.offload, heard)
        RankService(rank, reactor, publisher).setServiceParent(service)
    reactor.callWhenRunning(_settle)
    return service


class House(MultiService):
    """All ranks, and the threads that work for them until the last rank has stopped."""

    def stopService(self) -> Deferred[Any]:
        """Stop the ranks together, then the threads."""
        Service.stopService(self)
        threads = [part for part in self if isinstance(part, Threads)]
        stopped = DeferredList([maybeDeferred(part.stopService) for part in self if part not in threads])

        def end(_: object) -> None:
            for part in threads:
                part.stopService()

        return stopped.addCallback(end)


class Threads(Service):
    """The thread pool for what would block the reactor."""

    def __init__(self, reactor: Any, most: int = THREADS) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, most, "llmdsim")

    def offload(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run a function in a thread; fires with its result."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def startService(self) -> None:
        """Start the pool; threads come when there is work."""
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        """Wait for the work in hand."""
        super().stopService()
        self._pool.stop()


class Reader(Threads):
    """The one thread that reads the files of datasets; ``closing`` are called when it has ended."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, 1)
        self.closing: list[Callable[[], None]] = []

    def stopService(self) -> None:
        """Wait for the work in hand, then let go of the files."""
        super().stopService()
        for close in self.closing:
            close()


class RankService(MultiService):
    """One rank and its port. Stopping waits for its open requests, while the port goes on refusing new ones."""

    def __init__(self, rank: Rank, reactor: IReactorCore, publisher: Publisher | None = None) -> None:
        super().__init__()
        if publisher is not None:
            publisher.setServiceParent(self)
        config = rank.config
        self.setName(f"rank {config.data_parallel_rank}")
        self._rank = rank
        site = make_site(
            make_app(rank),
            clock=rank.clock,
            max_body=config.max_request_body_size_mb * MEGABYTE,
            head_size=config.h11_max_incomplete_event_size,
            head_count=config.h11_max_header_count,
            root_path=config.root_path,
            secure=tls.wanted(config),
        )
        endpoint: IStreamServerEndpoint = Endpoint(reactor, config.host or "", config.port)
        place = f"port {config.port}"
        if config.uds:
            place = config.uds + (f".{config.data_parallel_rank}" if config.data_parallel_rank > 0 else "")
            endpoint = UnixEndpoint(reactor, place)
        Port(endpoint, _factory(config, site, rank), f"rank {config.data_parallel_rank}: {place}").setServiceParent(
            self
        )
        heartbeat = TimerService(HEARTBEAT, Heartbeat(rank))
        heartbeat.clock = rank.clock
        heartbeat.setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        """Drain, then close."""
        drained = self._rank.drain(self._rank.config.shutdown_timeout)
        drained.addCallback(lambda _: MultiService.stopService(self))
        return drained


class Heartbeat:
    """Measures how late the reactor is: the time between two calls, over what was asked for."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._due: float | None = None

    def __call__(self) -> None:
        """One beat."""
        now = self._rank.clock.seconds()
        if self._due is not None:
            self._rank.meters.reactor_lag(max(0.0, now - self._due))
        self._due = now + HEARTBEAT


class Port(Service):
    """A listening port that must be had: where it is busy the process says so and ends."""

    def __init__(self, endpoint: IStreamServerEndpoint, factory: Any, name: str) -> None:
        self._endpoint, self._factory, self._name = endpoint, factory, name
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen, before privileges are shed."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Listen, where nobody did before."""
        super().startService()
        self._listen()

    def stopService(self) -> Deferred[Any]:
        """Close the port."""
        super().stopService()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)

    def _listen(self) -> None:
        if self._port is not None:
            return
        results: list[Any] = []  # our endpoints answer at once; to exit from inside a callback is not possible
        self._endpoint.listen(self._factory).addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            if not isinstance(result.value, CannotListenError):
                result.raiseException()
            _give_up(f"{self._name}: {result.value.socketError}", 1)
        self._port = result
        log.info("{name}: listening", name=self._name)


def _tokenizer(config: Config) -> Tokenizer:
    try:
        return choose(
            model=config.model,
            tokenizer=config.tokenizer,
            force_simulated=config.force_dummy_tokenizer,
            environ=os.environ,
            chat_template=config.chat_template,
            log=lambda text: log.info("{text}", text=text),
        )
    except ValueError as problem:
        _give_up(str(problem), 1)


def _factory(config: Config, site: Site, rank: Rank) -> Any:
    """What a port speaks: HTTP behind TLS, or HTTP and gRPC in clear text."""
    if not tls.wanted(config):
        return site if config.mm_encoder_only else GrpcFactory(site, rank)
    try:
        return tls.secured(config, site)
    except ValueError as problem:
        _give_up(str(problem), 1)


def _publisher(config: Config, reactor: Any) -> Publisher | None:
    try:
        wanted = events.settings(config)
    except ConfigError as problem:
        _give_up(str(problem), 2)
    if wanted is None:
        return None
    from llmdsim.zeromq import Sockets  # ZeroMQ takes its time to import

    return Publisher(wanted, reactor, time.time, Sockets)


def _source(config: Config, tokenizer: Tokenizer, reader: Reader) -> Source:
    try:
        return choose_source(
            config,
            tokenizer,
            run=reader.offload,
            at_end=reader.closing.append,
            log=lambda text: log.info("{text}", text=text),
            warn=lambda text: log.warn("{text}", text=text),
        )
    except ValueError as problem:
        _give_up(str(problem), 1)


def _settle() -> None:
    """What start-up made stays for ever, so the collector need not look at it again in the middle of a stream."""
    gc.collect()
    gc.freeze()


def _give_up(text: str, status: int) -> NoReturn:
    stderr = sys.__stderr__ or sys.stderr  # twistd sends sys.stderr to the log
    stderr.write(f"llmdsim: {text}\n")
    raise SystemExit(status)
