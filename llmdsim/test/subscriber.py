"""
What a consumer of KV events does, as strictly as vLLM's and llm-d's: sockets that subscribe and ask, and the decoding.
"""

from __future__ import annotations

from typing import Any

import msgpack
import zmq

NOTHING = type(None)
MEMBERS: dict[str, dict[str, Any]] = {
    "BlockStored": {
        "type": str,
        "block_hashes": list,
        "parent_block_hash": (int, NOTHING),
        "token_ids": list,
        "block_size": int,
        "lora_id": (int, NOTHING),
        "medium": str,
        "lora_name": (str, NOTHING),
        "extra_keys": list,
        "group_idx": int,
        "kv_cache_spec_kind": str,
    },
    "BlockRemoved": {"type": str, "block_hashes": list, "medium": str, "group_idx": int},
    "AllBlocksCleared": {"type": str},
}
ELEMENTS: dict[str, tuple[Any, ...]] = {
    "BlockStored": (str, list, int, list, int, (int, NOTHING), str, (str, NOTHING), NOTHING),
    "BlockRemoved": (str, list, str),
    "AllBlocksCleared": (str,),
}


def decode(payload: bytes) -> tuple[float, list[Any], int]:
    """Time, events (maps or arrays) and rank of a batch; fails where vLLM's own decoder, or llm-d's, would."""
    when, events, rank = msgpack.unpackb(payload)
    assert (type(when), type(rank)) == (float, int), (when, rank)
    for event in events:
        (_check_map if isinstance(event, dict) else _check_array)(event, payload)
    return when, events, rank


def _check_map(event: dict[str, Any], payload: bytes) -> None:
    members = MEMBERS[event["type"]]
    assert list(event) == list(members), event
    assert all(isinstance(event[name], kinds) for name, kinds in members.items()), event
    _check_hashes([*event.get("block_hashes", ()), event.get("parent_block_hash")], payload)
    if event["type"] == "BlockStored":
        assert len(event["extra_keys"]) == len(event["block_hashes"]), event
        assert len(event["token_ids"]) == len(event["block_hashes"]) * event["block_size"], event


def _check_array(event: list[Any], payload: bytes) -> None:
    elements = ELEMENTS[event[0]]
    assert len(event) == len(elements), event
    assert all(isinstance(value, kinds) for value, kinds in zip(event, elements, strict=True)), event
    _check_hashes(event[1] if len(event) > 1 else [], payload)
    _check_hashes(event[2:3] if event[0] == "BlockStored" else [], payload)


def _check_hashes(hashes: list[int | None], payload: bytes) -> None:
    for number in hashes:
        assert number is None or b"\xcf" + number.to_bytes(8, "big") in payload, f"{number} is no uint64"


class Client:
    """A socket on the other side, with a context of its own except for inproc endpoints; waits are bounded."""

    def __init__(self, kind: int, endpoint: str, bind: bool = False) -> None:
        inproc = endpoint.startswith("inproc:")
        self._context = zmq.Context.instance() if inproc else zmq.Context()
        self._own = not inproc
        self.socket = self._context.socket(kind)
        self.socket.linger = 0
        if kind == zmq.SUB:
            self.socket.subscribe(b"kv@")
        (self.socket.bind if bind else self.socket.connect)(endpoint)

    @property
    def endpoint(self) -> str:
        """Where it is bound."""
        return str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def hear(self, seconds: float = 0.0) -> list[bytes] | None:
        """The next message, or None where none comes in time."""
        return self.socket.recv_multipart() if self.socket.poll(int(seconds * 1000)) else None

    def close(self) -> None:
        """Close everything."""
        self.socket.close()
        if self._own:
            self._context.term()
