"""
Vectors as bytes, in vLLM's ``embed_dtype`` and ``endianness``.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import copysign, ldexp
from typing import Any

Values = Sequence[float]


def octets(values: Values, dtype: str, endianness: str) -> bytes:
    """The values one behind the other; ``native`` is the byte order of this machine."""
    packed = _DTYPES[dtype](values)
    if endianness not in ("native", sys.byteorder):
        packed.byteswap()
    return packed.tobytes()


def _float32(values: Values) -> array[Any]:
    return array("f", values)


def _float16(values: Values) -> array[Any]:
    return array("H", struct.pack(f"={len(values)}e", *values))


def _bfloat16(values: Values) -> array[Any]:
    # The upper half of a float32, rounded to the nearest even.
    whole = struct.unpack(f"={len(values)}I", _float32(values).tobytes())
    return array("H", [(bits + 0x7FFF + (bits >> 16 & 1)) >> 16 for bits in whole])


def _scale(fraction_bits: int, bias: int, count: int) -> list[float]:
    """The finite values of an eight-bit float by their codes, the sign left out."""
    one = 1 << fraction_bits
    parts = [divmod(code, one) for code in range(count)]
    return [ldexp(low + (one if high else 0), (high or 1) - bias - fraction_bits) for high, low in parts]


def _float8(scale: list[float]) -> Callable[[Values], array[Any]]:
    def pack(values: Values) -> array[Any]:
        return array("B", [_code(abs(value), scale) | (0x80 if copysign(1, value) < 0 else 0) for value in values])

    return pack


def _code(size: float, scale: list[float]) -> int:
    """The code of the value nearest to ``size``; of two as near, the even one."""
    above = min(bisect_left(scale, size), len(scale) - 1)
    below = max(above - 1, 0)
    gap = (size - scale[below]) - (scale[above] - size)
    return below if gap < 0 or (gap == 0 and below % 2 == 0) else above


_DTYPES: dict[str, Callable[[Values], array[Any]]] = {
    "float32": _float32,
    "float16": _float16,
    "bfloat16": _bfloat16,
    "fp8_e4m3": _float8(_scale(3, 7, 127)),
    "fp8_e5m2": _float8(_scale(2, 15, 124)),
}
