"""
Prefill and decode on different instances: what ``kv_transfer_params`` ask for, and what a prefill answers.

Nothing is moved. The answer is that of vLLM's NixlConnector; blocks are counted, and their ids made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

import attrs

from llmdsim.config import Config

LEASE = 30.0  # seconds, vLLM's kv_lease_duration


@attrs.frozen(slots=True)
class Transfer:
    """
    What a request says of other instances: that one will decode it, or that one has prefilled it.

    ``blocks`` counts the full blocks that the other instance has of the prompt.
    """

    do_remote_decode: bool = False
    do_remote_prefill: bool = False
    blocks: int = 0

    @classmethod
    def read(cls, params: object) -> Transfer:
        """
        What ``kv_transfer_params`` say; what is none of their types says nothing.

        Block ids are vLLM's (a list of integers for each KV group) or the older simulator's (strings in one list).
        """
        if not isinstance(params, Mapping):
            return cls()
        return cls(
            bool(params.get("do_remote_decode")),
            bool(params.get("do_remote_prefill")),
            _count(params.get("remote_block_ids")),
        )


HERE = Transfer()  # prefilled and decoded on this instance


def _count(ids: object) -> int:
    if not isinstance(ids, list):
        return 0
    groups = [group for group in ids if isinstance(group, list)] or [ids]
    return max(sum(type(id) in (int, str) for id in group) for group in groups)


class Connector:
    """
    The KV connector of one rank; ``wall`` tells Unix time in seconds, ``blocks`` how many its cache has (0: none).

    A strict server has none without ``kv-transfer-config``, as vLLM.
    """

    def __init__(self, config: Config, wall: Callable[[], float], blocks: int) -> None:
        self._configured = bool(config.kv_transfer_config)
        self._open = self._configured or not config.strict
        self._wall, self._size = wall, config.block_size
        self._blocks, self._given = blocks, 0
        self._lease = _lease(config)
        self._place = _place(config)
        self._sizes = {
            "tp_size": max(config.tensor_parallel_size, 1),
            "dcp_size": 1,
            "pp_size": config.pipeline_parallel_size,
        }

    def asked(self, transfer: Transfer) -> bool:
        """Whether a request's prompt is looked up elsewhere: a configured connector is asked for every one."""
        return self._configured or (self._open and transfer.do_remote_prefill)

    def external(self, transfer: Transfer, prompt_tokens: int, cached_tokens: int) -> int:
        """How many tokens of a prompt come from another instance, where so many are cached here; never the last."""
        if not self._open or not transfer.do_remote_prefill:
            return 0
        full = min(transfer.blocks, max(prompt_tokens - 1, 0) // self._size)
        return max(full * self._size - cached_tokens, 0)

    def answer(self, transfer: Transfer, request_id: str, prompt_tokens: int, wait: float) -> dict[str, Any] | None:
        """The ``kv_transfer_params`` of a prefill that ends in ``wait`` seconds; None where none was asked for."""
        if not self._open or not transfer.do_remote_decode:
            return None
        engine, host, port = self._place
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": self._ids(prompt_tokens // self._size),
            "remote_engine_id": engine,
            "remote_request_id": request_id,
            "remote_host": host,
            "remote_port": port,
            **self._sizes,
            "remote_num_tokens": prompt_tokens,
            "remote_blocks_expiry_time": self._wall() + wait + self._lease,
            "remote_registration_generation": 0,
            "transfer_mode": "pull",
        }

    def _ids(self, count: int) -> list[list[int]]:
        """Block ids for each KV group, of which a cache has one: in turn, but never 0, vLLM's null block."""
        if not self._blocks:
            return []
        first, usable = self._given, max(self._blocks - 1, 1)
        self._given += count
        return [[1 + i % usable for i in range(first, first + count)]]


def _lease(config: Config) -> float:
    """How many seconds a prefill's blocks wait for their reader."""
    extra = (config.kv_transfer_config or {}).get("kv_connector_extra_config")
    lease = extra.get("kv_lease_duration") if isinstance(extra, Mapping) else None
    return lease if isinstance(lease, (int, float)) else LEASE


def _place(config: Config) -> tuple[str, str, int]:
    """Where decoders find a rank: the id of its engine, host and port of its side channel."""
    host = config.side_channel_host or config.pod_ip or config.host or "localhost"
    rank = max(config.data_parallel_rank, 0)
    given = (config.kv_transfer_config or {}).get("engine_id")
    engine = given if isinstance(given, str) and given else _engine(config, host)
    suffix = f"_dp{rank}" if config.data_parallel_size > 1 else ""
    return engine + suffix, host, config.side_channel_port + rank


def _engine(config: Config, host: str) -> str:
    """An id like vLLM's, the same again for the same seed, pod and port."""
    name = f"{config.seed}|{config.pod_name}|{host}|{config.port}"
    return str(UUID(bytes=blake2b(name.encode(), digest_size=16).digest(), version=4))
