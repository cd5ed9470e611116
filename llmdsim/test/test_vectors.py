"""Vectors of token sequences: the formula, likeness, labels."""

from __future__ import annotations

import struct
from math import hypot, isclose

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.vectors import TASKS, cosine, embedding, logits, normalized, pooler, softmax

IDS = st.lists(st.integers(-5, 2**32), max_size=40)
VALUES = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)


def by_the_formula(ids: list[int], length: int) -> list[float]:
    known = [max(id, 0) for id in ids]
    first = [2 * (id % 1024) / 1024 - 1 for id in known[:length]]
    return first + [2 * (known[i % len(ids)] % 256) / 256 - 1 for i in range(len(ids), length)]


class EmbeddingTests(SynchronousTestCase):
    @given(IDS, st.integers(1, 100))
    def test_every_element_follows_the_formula_and_is_a_float32(self, ids, length) -> None:
        values = embedding(ids, length)
        self.assertEqual(values, by_the_formula(ids, length) if ids else [0.0] * length)
        self.assertEqual([*struct.unpack(f"{length}f", struct.pack(f"{length}f", *values))], values)

    def test_a_normalized_vector_keeps_its_direction_and_has_length_one(self) -> None:
        values = embedding([7, 700, 70000], 384)
        unit = normalized(values)
        self.assertTrue(isclose(hypot(*unit), 1, rel_tol=1e-6))
        self.assertEqual(cosine(values, unit), 1.0)

    def test_a_vector_of_zeros_can_be_normalized_and_is_like_nothing(self) -> None:
        self.assertEqual(normalized([0.0, 0.0]), [0.0, 0.0])
        self.assertEqual(cosine([0.0, 0.0], [1.0, 0.0]), 0.0)


class LikenessTests(SynchronousTestCase):
    @given(VALUES, VALUES)
    def test_likeness_has_no_direction_and_no_scale(self, one, two) -> None:
        likeness = cosine(one, two)
        self.assertEqual(likeness, cosine(two, one))
        self.assertTrue(-1.000001 <= likeness <= 1.000001)

    def test_opposites_are_minus_one_and_strangers_zero(self) -> None:
        self.assertEqual(cosine([1.0, 2.0], [-2.0, -4.0]), -1.0)
        self.assertEqual(cosine([1.0, 0.0], [0.0, 3.0]), 0.0)


class PoolerTests(SynchronousTestCase):
    def test_probabilities_sum_to_one_and_rank_as_their_logits(self) -> None:
        for ids in ([1], [900, 3], list(range(50))):
            raw, chances = logits(ids, 16), softmax(logits(ids, 16))
            self.assertTrue(isclose(sum(chances), 1, rel_tol=1e-6))
            self.assertEqual(raw[0] > raw[1], chances[0] > chances[1])

    def test_activation_is_what_makes_embeddings_unit_vectors_and_logits_probabilities(self) -> None:
        ids = [5, 6]
        for task, raw, done in (("embed", embedding, normalized), ("classify", logits, softmax)):
            self.assertEqual(pooler(task, 8, False)(ids), raw(ids, 8))
            self.assertEqual(pooler(task, 8, True)(ids), done(raw(ids, 8)))

    def test_a_token_task_has_for_each_token_what_its_task_has_for_that_token_alone(self) -> None:
        for task in TASKS[:2]:
            alone = pooler(task, 8, True)
            self.assertEqual(pooler(f"token_{task}", 8, True)([5, 6]), [alone([5]), alone([6])])
