"""Names of blocks: vLLM's digests to the byte, and what tells two blocks apart."""

from __future__ import annotations

import pickle
from hashlib import sha256
from importlib.util import find_spec
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.hashing import ALGORITHMS, Extras, Hasher, number

PLAIN = Extras()
LORA = Extras(("l1", "/adapters/l1"))

# From vLLM 0.33: two blocks of a chat, the second a child of the first.
FIRST = [1, 336, 201, 53, 35, 59, 30, 30, 420, 201, 43, 356, 410, 201, 421, 201]
SECOND = [201, 42, 379, 417, 3, 32, 32, 2, 201, 1, 294, 85, 390, 201, 420, 201]

# Integers at the edges of CBOR's lengths, and texts long enough for each length of a string.
EDGES = [0, 23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296, 18446744073709551615, 1, 2, 3, 4, 5, 6]
EVERYTHING = Extras(("zürich", "/adapters/" + "z" * 300), "s", [("img", 5, 10)])

# By cbor2 6.2 (canonical), pickle and xxhash 4.1, in blocks of 8 of EDGES: seed 42, no seed, seed 42 and EVERYTHING.
PEERS = {
    "sha256_cbor": (
        [17641939046106432885, 560328752430709769],
        [16161207721250838591, 3427083941802449647],
        [186156794233063968, 6651214854716362299],
    ),
    "sha256": (
        [236985560458223402, 8221033519847648063],
        [6851467087659844821, 9562853266084071557],
        [14064264607368113250, 14710781586950606543],
    ),
    "xxhash_cbor": (
        [6692040772266548699, 4331335153720390561],
        [3350341914301043470, 12370359401333607595],
        [5059567244223914206, 12764372896434549550],
    ),
    "xxhash": (
        [746499383435094519, 5466611705859646008],
        [1363749604182315133, 16515898421321462346],
        [10743892756298491416, 5975724515035003858],
    ),
}
XXHASH = find_spec("xxhash") is not None
HERE = [name for name in ALGORITHMS if XXHASH or not name.startswith("xxhash")]


def numbers(hasher: Hasher, ids, size: int = 16, extras: Extras = PLAIN) -> list[int]:
    return [number(key) for key in hasher.keys(ids, size, extras)]


class VectorTests(SynchronousTestCase):
    def test_sha256_cbor_is_vllms_for_each_block_of_a_chain(self) -> None:
        expected = [8077944509383411236, 8298827221601324490]
        self.assertEqual(numbers(Hasher("sha256_cbor", "42"), FIRST + SECOND), expected)

    def test_each_seed_gives_vllms_own_hash(self) -> None:
        vectors = (
            ("sha256", None, 16660456391528821547),
            ("sha256", "", 16660456391528821547),
            ("sha256", "0", 5857167267591275106),
            ("sha256_cbor", "0", 4807228696911029560),
        )
        for algorithm, seed, expected in vectors:
            self.assertEqual(numbers(Hasher(algorithm, seed), FIRST), [expected])

    def test_a_salted_block_has_vllms_hash(self) -> None:
        hasher = Hasher("sha256_cbor", "42")
        self.assertEqual(numbers(hasher, range(10, 26), extras=Extras(salt="s1")), [1524162662692403770])

    def test_an_adapters_tag_names_it_and_its_path(self) -> None:
        root = sha256(pickle.dumps("42", 5)).digest()
        block = pickle.dumps((root, tuple(FIRST), (("lora", "l1", "/adapters/l1"),)), 5)
        self.assertEqual(Hasher("sha256", "42").keys(FIRST, 16, LORA), [sha256(block).digest()])

    def test_bytes_are_those_of_cbor2_and_pickle_at_every_length(self) -> None:
        for name in HERE:
            seeded, unseeded = Hasher(name, "42"), Hasher(name, None)
            found = numbers(seeded, EDGES, 8), numbers(unseeded, EDGES, 8), numbers(seeded, EDGES, 8, EVERYTHING)
            self.assertEqual(found, PEERS[name], name)

    def test_ids_may_come_as_any_sequence(self) -> None:
        for name in HERE:
            hasher = Hasher(name, "1")
            self.assertEqual(hasher.keys(range(32), 16, PLAIN), hasher.keys([*range(32)], 16, PLAIN))


class ChainTests(SynchronousTestCase):
    hasher = Hasher("sha256_cbor", "1")

    def test_what_does_not_fill_a_block_has_no_key(self) -> None:
        self.assertEqual([len(self.hasher.keys(range(n), 8, PLAIN)) for n in (0, 7, 8, 15, 16)], [0, 0, 1, 1, 2])

    def test_a_key_depends_on_all_tokens_before_it(self) -> None:
        one, other = self.hasher.keys([0, *range(1, 16)], 8, PLAIN), self.hasher.keys([9, *range(1, 16)], 8, PLAIN)
        self.assertFalse(set(one) & set(other))

    @given(
        st.lists(st.integers(0, 2**64 - 1), max_size=80),
        st.integers(0, 10),
        st.builds(
            Extras,
            st.none() | st.tuples(st.text(), st.text()),
            st.text(),
            st.lists(st.tuples(st.text(), st.integers(0, 80), st.integers(1, 40))),
        ),
    )
    def test_a_chain_goes_on_where_it_was_left(self, ids, blocks, extras) -> None:
        whole = self.hasher.keys(ids, 8, extras)
        blocks = min(blocks, len(whole))
        parent = whole[blocks - 1] if blocks else None
        rest = self.hasher.keys(ids[blocks * 8 :], 8, extras, parent, blocks)
        self.assertEqual(whole[:blocks] + rest, whole)


class ExtrasTests(SynchronousTestCase):
    hasher = Hasher("sha256_cbor", "1")

    def keys(self, extras: Extras) -> list[bytes]:
        return self.hasher.keys(range(32), 8, extras)

    def test_an_adapter_is_told_of_every_block_and_a_salt_of_the_first(self) -> None:
        self.assertEqual(LORA.shown(16, 3, 2), [["l1"], ["l1"]])
        self.assertEqual(Extras(salt="s1").shown(16, 0, 2), [["s1"], None])
        self.assertEqual(Extras(salt="s1").shown(16, 1, 1), [None])

    def test_media_are_told_of_the_blocks_they_overlap_at_their_place_in_them(self) -> None:
        extras = Extras(media=[("a", 6, 4), ("b", 16, 8)])
        self.assertEqual(extras.shown(8, 0, 4), [[["a", 6]], [["a", -2]], [["b", 0]], None])

    def test_the_order_is_adapter_media_salt(self) -> None:
        self.assertEqual(EVERYTHING.shown(8, 0, 1), [["zürich", ["img", 5], "s"]])

    def test_plain_blocks_have_nothing_to_tell(self) -> None:
        self.assertEqual(PLAIN.shown(16, 0, 2), [None, None])

    def test_another_path_of_an_adapter_gives_other_keys(self) -> None:
        self.assertFalse(set(self.keys(LORA)) & set(self.keys(Extras(("l1", "/elsewhere")))))

    def test_media_leave_the_keys_before_them_alone(self) -> None:
        plain, other = self.keys(PLAIN), self.keys(Extras(media=[("a", 16, 4)]))
        self.assertEqual([a == b for a, b in zip(plain, other, strict=True)], [True, True, False, False])


class AlgorithmTests(SynchronousTestCase):
    def test_an_unknown_algorithm_is_refused_with_those_known(self) -> None:
        error = self.assertRaises(ValueError, Hasher, "md5", None)
        self.assertEqual(
            str(error), "unknown hash algorithm 'md5': it is one of sha256_cbor, sha256, xxhash_cbor, xxhash"
        )

    def test_without_its_package_xxhash_is_refused_and_the_package_named(self) -> None:
        with mock.patch.dict("sys.modules", {"xxhash": None}):
            for name in ("xxhash", "xxhash_cbor"):
                error = self.assertRaises(ValueError, Hasher, name, None)
                self.assertEqual(str(error), f"the hash algorithm {name} needs the Python package xxhash")

    def test_the_number_of_a_digest_is_its_last_eight_bytes(self) -> None:
        self.assertEqual(number(bytes(range(32))), 0x18191A1B1C1D1E1F)
