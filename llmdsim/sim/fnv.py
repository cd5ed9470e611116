"""FNV-1a, the hash that simulated token ids and media identifiers are made with."""

from __future__ import annotations


def fnv1a(text: str) -> int:
    """FNV-1a, 32 bits, of a text's UTF-8 bytes; lone surrogates count as the three bytes they would be."""
    hash = 0x811C9DC5
    for byte in text.encode("utf-8", "surrogatepass"):
        hash = (hash ^ byte) * 0x01000193 & 0xFFFFFFFF
    return hash
