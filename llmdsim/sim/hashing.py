"""
Names of KV blocks: vLLM's chained hashes of token ids and of whatever else tells two prompts apart.

A block's digest covers its parent's digest, its token ids and its extra keys. The CBOR is made by hand, in the bytes of
cbor2's canonical form; the cache decides which blocks there are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from itertools import count, islice, repeat
from struct import Struct
from typing import Any

import attrs

ALGORITHMS = ("sha256_cbor", "sha256", "xxhash_cbor", "xxhash")
UNSEEDED = "vllm-none-hash"  # what vLLM hashes for the parent of first blocks, where no seed is set
KNOWN_CODES = 1 << 18  # encoded integers kept: all of a large vocabulary

Tag = tuple[Any, ...]  # ("lora", name, path), ("mm", identifier, offset in the block), ("cache_salt", salt)
_FIVE, _NINE = Struct(">BI"), Struct(">BQ")
_HEADS = ((1 << 8, 24, Struct(">BB")), (1 << 16, 25, Struct(">BH")), (1 << 32, 26, _FIVE))
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY = 0, 1, 2, 3, 4  # CBOR's major types
_NULL = b"\xf6"
_TRIPLE = b"\x83"


@attrs.frozen(slots=True)
class Extras:
    """
    What enters the keys of a sequence's blocks besides its tokens.

    ``adapter`` is name and path, ``media`` are (identifier, offset, length) in tokens, by offset.
    """

    adapter: tuple[str, str] | None = None
    salt: str = ""
    media: Sequence[tuple[str, int, int]] = ()

    @property
    def plain(self) -> bool:
        """Whether there is nothing besides the tokens."""
        return self.adapter is None and not self.salt and not self.media

    def blocks(self, size: int, first: int) -> Iterator[tuple[Tag, ...]]:
        """What enters the keys of the sequence's blocks, from block number ``first`` on, without end."""
        if self.plain:
            return repeat(())
        return (self._block(number * size, number * size + size) for number in count(first))

    def shown(self, size: int, first: int, blocks: int) -> list[list[Any] | None]:
        """The same of so many blocks, as KV events tell it: name, [identifier, offset], salt; or None."""
        if self.plain:
            return [None] * blocks
        return [list(map(_shown, tags)) or None for tags in islice(self.blocks(size, first), blocks)]

    def _block(self, start: int, stop: int) -> tuple[Tag, ...]:
        """Tags in vLLM's order: the adapter, media that overlap the block of these tokens, the salt in the first."""
        tags: list[Tag] = [] if self.adapter is None else [("lora", *self.adapter)]
        for identifier, offset, length in self.media:
            if offset < stop and start < offset + length:
                tags.append(("mm", identifier, offset - start))
        if self.salt and not start:
            tags.append(("cache_salt", self.salt))
        return tuple(tags)


class Hasher:
    """
    One algorithm with one seed; None and "" stand for vLLM's constant.

    Raises ValueError for an unknown algorithm, and for xxhash ones where that package is missing.
    """

    def __init__(self, algorithm: str, seed: str | None) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"unknown hash algorithm {algorithm!r}: it is one of {', '.join(ALGORITHMS)}")
        self._digest = _digest(algorithm)
        self._encode, start = (_cbor, _text) if algorithm.endswith("_cbor") else (_pickle, _dumps)
        self.root = self._digest(start(seed or UNSEEDED))

    def keys(
        self, ids: Sequence[int], block_size: int, extras: Extras, parent: bytes | None = None, first: int = 0
    ) -> list[bytes]:
        """
        The digests of the full blocks of ``ids``, each chained to the one before; what is left over has none.

        To go on where an earlier call ended, give the last digest as ``parent``, and ``first``, the number in the
        sequence of the block that ``ids`` begin with.
        """
        encode, digest, found = self._encode, self._digest, []
        key = self.root if parent is None else parent
        starts = range(0, len(ids) - block_size + 1, block_size)
        for start, tags in zip(starts, extras.blocks(block_size, first), strict=False):
            key = digest(encode(key, ids[start : start + block_size], tags))
            found.append(key)
        return found


def number(digest: bytes) -> int:
    """The 64 bits of a digest that KV events tell: its last eight bytes, big-endian."""
    return int.from_bytes(digest[-8:], "big")


def _shown(tag: Tag) -> Any:
    return list(tag[1:]) if tag[0] == "mm" else tag[1]


def _digest(algorithm: str) -> Callable[[bytes], bytes]:
    if algorithm.startswith("sha256"):
        return lambda data: sha256(data).digest()
    try:
        digest: Callable[[bytes], bytes] = import_module("xxhash").xxh3_128_digest
    except ImportError as error:
        raise ValueError(f"the hash algorithm {algorithm} needs the Python package xxhash") from error
    return digest


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, 5)  # vLLM takes the highest protocol: 5 on every Python so far


def _pickle(parent: bytes, ids: Sequence[int], tags: tuple[Tag, ...]) -> bytes:
    return _dumps((parent, tuple(ids), tags or None))


def _cbor(parent: bytes, ids: Sequence[int], tags: tuple[Tag, ...]) -> bytes:
    opening = _TRIPLE, _short_head(_BYTES, len(parent)), parent, _short_head(_ARRAY, len(ids))
    return b"".join((*opening, *map(_CODES.__getitem__, ids), _cbor_tags(tags) if tags else _NULL))


@lru_cache(maxsize=256)
def _cbor_tags(tags: tuple[Tag, ...]) -> bytes:
    return _array(_array(_text(part) if isinstance(part, str) else _integer(part) for part in tag) for tag in tags)


def _array(items: Iterator[bytes]) -> bytes:
    encoded = list(items)
    return _head(_ARRAY, len(encoded)) + b"".join(encoded)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return _head(_TEXT, len(encoded)) + encoded


def _integer(value: int) -> bytes:
    return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)


def _head(major: int, value: int) -> bytes:
    """A CBOR item's first bytes, in their shortest form."""
    if value < 24:
        return bytes((major << 5 | value,))
    for limit, code, struct in _HEADS:
        if value < limit:
            return struct.pack(major << 5 | code, value)
    return _NINE.pack(major << 5 | 27, value)


_short_head = lru_cache(maxsize=64)(_head)


class _Codes(dict[int, bytes]):
    """Integers in CBOR, each encoded when first wanted; full, it starts anew."""

    def __missing__(self, value: int) -> bytes:
        if len(self) >= KNOWN_CODES:
            self.clear()
        code = self[value] = _FIVE.pack(26, value) if 0xFFFF < value < 1 << 32 else _integer(value)
        return code


_CODES = _Codes()
