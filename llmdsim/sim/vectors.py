"""
Vectors of token sequences, and what is made of them: embeddings, similarities, labels.

The same tokens always give the same vector; the formula is the older simulator's.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import exp, hypot
from operator import mul

Values = list[float]
Pool = Callable[[Sequence[int]], "Values | list[Values]"]

# An element is 2 * (id mod 1024) / 1024 - 1 as long as there are tokens, then 2 * (id mod 256) / 256 - 1 over again.
_FIRST = [2 * id / 1024 - 1 for id in range(1024)]
_AGAIN = [2 * id / 256 - 1 for id in range(256)]
_SHARPNESS = 2.0  # how far the two labels of a vector lie apart


def embedding(ids: Sequence[int], length: int) -> Values:
    """``length`` values from -1 to below 1, each exact as a float32. Ids below zero count as zero."""
    if not ids:
        return [0.0] * length
    known = [id if id > 0 else 0 for id in ids]
    first = [_FIRST[id & 1023] for id in known[:length]]
    if len(first) == length:
        return first
    again = [_AGAIN[id & 255] for id in known]
    missing = length - len(first)
    return first + (again * (missing // len(again) + 1))[:missing]


def normalized(values: Values) -> Values:
    """The vector at length one, in float32; zeros stay zeros."""
    norm = hypot(*values) or 1.0
    return _float32([value / norm for value in values])


def cosine(one: Values, two: Values) -> float:
    """How alike two vectors of one length are, from -1 to 1, in float32; zeros are like nothing."""
    norms = hypot(*one) * hypot(*two)
    return _float32([sum(map(mul, one, two)) / norms])[0] if norms else 0.0


def logits(ids: Sequence[int], length: int) -> Values:
    """What a classifier of two labels says of a token sequence, before it is made probabilities."""
    values = embedding(ids, length)
    mean = _SHARPNESS * sum(values) / len(values)
    return _float32([-mean, mean])


def softmax(values: Values) -> Values:
    """Probabilities, in float32."""
    top = max(values)
    powers = [exp(value - top) for value in values]
    return _float32([power / sum(powers) for power in powers])


_KINDS: dict[str, tuple[Callable[[Sequence[int], int], Values], Callable[[Values], Values]]] = {
    "embed": (embedding, normalized),
    "classify": (logits, softmax),
}
TASKS = (*_KINDS, *(f"token_{kind}" for kind in _KINDS))


def pooler(task: str, length: int, activated: bool) -> Pool:
    """
    What makes a token sequence the values that a task of TASKS asks for: one vector, or one for each token.

    ``activated``: embeddings have length one, labels are probabilities.
    """
    kind = task.removeprefix("token_")
    measure, activation = _KINDS[kind]

    def whole(ids: Sequence[int]) -> Values:
        values = measure(ids, length)
        return activation(values) if activated else values

    return whole if kind == task else lambda ids: [whole((id,)) for id in ids]


def _float32(values: Values) -> Values:
    return array("f", values).tolist()
