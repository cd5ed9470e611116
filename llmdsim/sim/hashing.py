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
from typing import Any, NamedTuple

import attrs

ALGORITHMS = ("sha256_cbor", "sha256", "xxhash_cbor", "xxhash")
UNSEEDED = "vllm-none-hash"  # what vLLM hashes for the parent of first blocks, where no seed is set

Tag = tuple[Any, ...]  # ("lora", name, path), ("mm", identifier, offset in the block), ("cache_salt", salt)
_TWO, _THREE, _FIVE, _NINE = (Struct(format).pack for format in (">BB", ">BH", ">BI", ">BQ"))  # bytes with a head
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
        self._encoding = _CBOR if algorithm.endswith("_cbor") else _PICKLE
        self._root = self._digest(self._encoding.seed(seed or UNSEEDED))

    def keys(
        self, ids: Sequence[int], block_size: int, extras: Extras, parent: bytes | None = None, first: int = 0
    ) -> list[bytes]:
        """
        The digests of the full blocks of ``ids``, each chained to the one before; what is left over has none.

        To go on where an earlier call ended, give the last digest as ``parent``, and ``first``, the number in the
        sequence of the block that ``ids`` begin with.
        """
        digest, encode, found = self._digest, self._encoding.block, []
        key = self._root if parent is None else parent
        items = self._encoding.items(ids)
        starts = range(0, len(ids) - block_size + 1, block_size)
        for start, tags in zip(starts, extras.blocks(block_size, first), strict=False):
            key = digest(encode(key, items[start : start + block_size], tags))
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


class _Encoding(NamedTuple):
    """How a seed and a block become bytes; ``items`` makes a prompt's ids ready for ``block``, all at once."""

    seed: Callable[[str], bytes]
    items: Callable[[Sequence[int]], Sequence[Any]]
    block: Callable[[bytes, Sequence[Any], tuple[Tag, ...]], bytes]


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, 5)  # vLLM takes the highest protocol: 5 on every Python so far


def _pickle(parent: bytes, ids: Sequence[int], tags: tuple[Tag, ...]) -> bytes:
    return _dumps((parent, ids, tags or None))


def _codes(ids: Sequence[int]) -> list[bytes]:
    """Each id in CBOR; the two commonest lengths are packed right here, a table of them would cost cache misses."""
    return [
        _THREE(25, id) if 0xFF < id < 1 << 16 else _FIVE(26, id) if 0xFFFF < id < 1 << 32 else _integer(id)
        for id in ids
    ]


def _cbor(parent: bytes, codes: Sequence[bytes], tags: tuple[Tag, ...]) -> bytes:
    opening = _TRIPLE, _head(_BYTES, len(parent)), parent, _head(_ARRAY, len(codes))
    return b"".join((*opening, *codes, _cbor_tags(tags) if tags else _NULL))


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


@lru_cache(maxsize=512)
def _head(major: int, value: int) -> bytes:
    """A CBOR item's first bytes, in their shortest form."""
    if value < 24:
        return bytes((major << 5 | value,))
    if value < 1 << 8:
        return _TWO(major << 5 | 24, value)
    if value < 1 << 16:
        return _THREE(major << 5 | 25, value)
    if value < 1 << 32:
        return _FIVE(major << 5 | 26, value)
    return _NINE(major << 5 | 27, value)


_CBOR = _Encoding(_text, _codes, _cbor)
_PICKLE = _Encoding(_dumps, tuple, _pickle)
