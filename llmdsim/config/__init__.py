"""
The configuration: one frozen value, and how it comes from the command line, the environment and a YAML file.

The rows of the table of flags are in ``simulator_flags`` and ``vllm_flags``; everything else derives from them.
``python -m llmdsim.config`` writes the reference of all flags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from llmdsim.config import fake, live, sources
from llmdsim.config.checks import check
from llmdsim.config.fake import Function
from llmdsim.config.flags import Flag, by_name, table
from llmdsim.config.values import Adapter, ConfigError
from llmdsim.config.vllm_flags import VllmFlags

__all__ = [
    "FLAGS",
    "Adapter",
    "Config",
    "ConfigError",
    "Flag",
    "Function",
    "HelpRequested",
    "dump",
    "help_text",
    "load",
]

_PORT = re.compile(r"(?<=:)\d+$")
_EVENTS_ENDPOINT = "tcp://*:5557"


class HelpRequested(Exception):
    """Somebody asked for help or the version: its text is the answer."""


@attrs.frozen
class Config(VllmFlags):
    """
    Every setting, one attribute a flag (``_`` for ``-``); durations in seconds.

    Attributes that are no flags come from the environment. ``notes`` are lines to log once at start.
    """

    notes: tuple[str, ...] = ()
    pod_name: str = ""
    pod_namespace: str = ""
    pod_ip: str = ""
    dev_mode: bool = False
    allow_runtime_lora: bool = False
    responses_store: bool = False
    max_n: int = 16384
    side_channel_host: str = ""
    side_channel_port: int = 5600

    def __attrs_post_init__(self) -> None:
        derived = {
            "served_model_name": self.served_model_name or (self.model,),
            "max_cpu_loras": self.max_cpu_loras or self.max_loras,
            "render_url": self.render_url.rstrip("/"),
        }
        if self.num_gpu_blocks_override is not None:
            derived["kv_cache_size"] = self.num_gpu_blocks_override
        for attribute, value in derived.items():
            object.__setattr__(self, attribute, value)

    @property
    def display_name(self) -> str:
        """The first served name."""
        return self.served_model_name[0]

    def evolve(self, **changes: Any) -> Config:
        """A copy with other values for some attributes. Raises ConfigError."""
        changed = attrs.evolve(self, **changes)
        check(changed)
        return changed

    def amend(self, members: Mapping[str, Any]) -> Config:
        """A copy with the changes of a POST /admin/config document. Raises ConfigError."""
        return self.evolve(**live.changes(_BY_NAME, self.fake_metrics, members))

    def for_rank(self, rank: int) -> Config:
        """
        The configuration of one rank of a loaded configuration: its ports, its endpoints, its number.

        With ``--data-parallel-rank`` there is only that rank, and it keeps the HTTP port.
        """
        lone = self.data_parallel_rank >= 0
        number = self.data_parallel_rank if lone else rank
        return attrs.evolve(
            self,
            data_parallel_rank=number,
            port=self.port if lone else self.port + number,
            zmq_endpoint=_shifted(self.zmq_endpoint, number),
            kv_events_replay_endpoint=_shifted(self.kv_events_replay_endpoint, number),
            kv_events_config=_shifted_events(self.kv_events_config, number),
        )

    def ranks(self) -> tuple[Config, ...]:
        """The configurations of all ranks that this process serves."""
        count = 1 if self.data_parallel_rank >= 0 else self.data_parallel_size
        return tuple(map(self.for_rank, range(count)))


FLAGS: tuple[Flag, ...] = table(Config)
_BY_NAME = by_name(FLAGS)
_GRAMMAR = sources.grammar(_BY_NAME)


def _shifted(endpoint: str, rank: int) -> str:
    return _PORT.sub(lambda port: str(int(port[0]) + rank), endpoint)


def _shifted_events(config: Mapping[str, Any] | None, rank: int) -> Mapping[str, Any] | None:
    """vLLM's own shift of ``--kv-events-config``; the default endpoint becomes explicit."""
    if config is None:
        return None
    shifted = {"endpoint": _EVENTS_ENDPOINT, **config}
    for key in ("endpoint", "replay_endpoint"):
        endpoint = shifted.get(key)
        if isinstance(endpoint, str):
            inproc = endpoint.startswith("inproc://")
            shifted[key] = f"{endpoint}_dp{rank}" if inproc else _shifted(endpoint, rank)
    return shifted


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """
    The configuration that the words of a command line (without the program's name) and the environment ask for.

    Raises ConfigError with one line, and HelpRequested.
    """
    given, loose = _GRAMMAR.split(argv)
    _answer({one.name for one in given})
    said = sources.command_line(_BY_NAME, given, loose)
    written = sources.yaml_file(_BY_NAME, said.values.get("config", ""))
    settings = {**written.values, **sources.environment(_BY_NAME, environ), **said.values}
    if settings.get("fake_metrics") is not None:
        settings["fake_metrics"] = fake.complete(settings["fake_metrics"])
    config = Config(**settings, **sources.surroundings(environ), notes=_notes(said, written, settings))
    check(config)
    return config


def _answer(asked: set[str]) -> None:
    if "help" in asked:
        raise HelpRequested(help_text())
    if "version" in asked:
        from llmdsim import __version__

        raise HelpRequested(__version__)


def _notes(said: sources.Settings, written: sources.Settings, settings: Mapping[str, Any]) -> tuple[str, ...]:
    later = [row.name for row in FLAGS if row.later and settings.get(row.attribute, row.default) != row.default]
    lines = {
        "accepted and ignored": _dashed(said.ignored + written.ignored),
        "removed or deprecated, ignored": _dashed(said.retired + written.retired),
        "accepted, without effect until a later release": _dashed(later),
        "unknown keys of the configuration file, ignored": written.unknown,
        "words that belong to no flag, ignored": said.unknown,
    }
    return (*(f"{what}: {', '.join(names)}" for what, names in lines.items() if names), *_encoder_notes(settings))


def _dashed(names: list[str]) -> list[str]:
    return [f"--{name}" for name in dict.fromkeys(names)]


def _encoder_notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    if not settings.get("mm_encoder_only"):
        return ()
    echo = ("--mm-encoder-only: echo mode is ignored",) if settings.get("mode") == "echo" else ()
    dataset = ("--mm-encoder-only: the dataset is not downloaded",) if settings.get("dataset_url") else ()
    return echo + dataset


def dump(config: Config) -> dict[str, Any]:
    """The configuration as GET /admin/config shows it: flat, keys sorted, durations as Go prints them, keys masked."""
    shown = {
        row.name: row.kind.show(getattr(config, row.attribute)) for row in FLAGS if row.name not in ("config", "v")
    }
    if config.data_parallel_size > 1:
        del shown["port"]
    shown.update(
        DisplayModelName=config.display_name,
        IP=config.pod_ip,
        PodName=config.pod_name,
        PodNameSpace=config.pod_namespace,
        VllmDevMode=config.dev_mode,
    )
    return dict(sorted(shown.items()))


def help_text() -> str:
    """All flags under their headings, as wide as the terminal."""
    from llmdsim.config.reference import usage

    return usage(FLAGS)
