"""
The bytes of KV events and of batches of them: vLLM's maps, and the arrays of the older simulator.

Encoded by hand around msgpack's packer, for msgspec's bytes are reproduced and hashes have one fixed width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any

from msgpack import Packer

from llmdsim.sim.cache import Cleared, Removed, Stored

Form = Mapping[type, Callable[[Any], bytes]]  # how each kind of event is encoded

_packer = Packer(unicode_errors="replace")
_pack: Callable[[object], bytes] = _packer.pack
_array: Callable[[int], bytes] = _packer.pack_array_header
_BATCH = Struct(">BBd")


def batch(events: Sequence[bytes], when: float, rank: int) -> bytes:
    """A batch of encoded events, of that time of day in seconds."""
    return b"".join((_BATCH.pack(0x93, 0xCB, when), _array(len(events)), *events, _pack(rank)))


def _words(*words: object) -> bytes:
    return b"".join(map(_pack, words))


def _hash(key: bytes) -> bytes:
    """A block's number: the end of its key, always as uint64, for consumers refuse shorter integers."""
    return b"\xcf" + key[-8:]


def _hashes(keys: Sequence[bytes]) -> bytes:
    return _array(len(keys)) + b"".join([b"\xcf" + key[-8:] for key in keys])


_NIL, _NO_PARENT = _pack(None), b"\xcf" + bytes(8)
_STORED = b"\xde\x00\x0b" + _words("type", "BlockStored", "block_hashes")  # msgspec's head of a map, longer than needed
_PARENT, _IDS, _SIZE, _LORA = map(_words, ("parent_block_hash", "token_ids", "block_size", "lora_id"))
_MEDIUM, _EXTRA = _words("medium", "GPU", "lora_name"), _words("extra_keys")
_KIND = _words("group_idx", 0, "kv_cache_spec_kind", "full_attention")
_REMOVED, _REMOVED_END = (
    b"\x84" + _words("type", "BlockRemoved", "block_hashes"),
    _words("medium", "GPU", "group_idx", 0),
)
_CLEARED = b"\x81" + _words("type", "AllBlocksCleared")


def _stored_map(event: Stored) -> bytes:
    keys, parent, ids, block_size, adapter, adapter_id, extra_keys = event
    head = _STORED, _hashes(keys), _PARENT, _NIL if parent is None else _hash(parent), _IDS, _pack(ids)
    size, lora = (_SIZE, _pack(block_size)), (_LORA, _pack(adapter_id), _MEDIUM, _pack(adapter))
    return b"".join((*head, *size, *lora, _EXTRA, _pack(extra_keys), _KIND))


_STORED_ARRAY, _REMOVED_ARRAY = b"\x99" + _words("BlockStored"), b"\x93" + _words("BlockRemoved")
_CLEARED_ARRAY, _GPU = b"\x91" + _words("AllBlocksCleared"), _words("GPU")


def _stored_array(event: Stored) -> bytes:
    keys, parent, ids, block_size, adapter, adapter_id, _ = event
    head = _STORED_ARRAY, _hashes(keys), _NO_PARENT if parent is None else _hash(parent), _pack(ids)
    return b"".join((*head, _pack(block_size), _pack(adapter_id), _GPU, _pack(adapter), _NIL))


MAPS: Form = {
    Stored: _stored_map,
    Removed: lambda event: _REMOVED + _hashes(event.keys) + _REMOVED_END,
    Cleared: lambda event: _CLEARED,
}
ARRAYS: Form = {
    Stored: _stored_array,
    Removed: lambda event: _REMOVED_ARRAY + _hashes(event.keys) + _GPU,
    Cleared: lambda event: _CLEARED_ARRAY,
}
