from __future__ import annotations

from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.eventform import ARRAYS, MAPS, Form, batch
from llmdsim.sim.cache import Cleared, Event, Removed, Stored
from llmdsim.test.subscriber import decode

SALTED: list[dict[str, Any]] = [
    {"type": "BlockRemoved", "block_hashes": [14569378454499228861], "medium": "GPU", "group_idx": 0},
    {"type": "BlockRemoved", "block_hashes": [4079072582420826813], "medium": "GPU", "group_idx": 0},
    {
        "type": "BlockStored",
        "block_hashes": [1524162662692403770, 17774011044804557193],
        "parent_block_hash": None,
        "token_ids": list(range(10, 42)),
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [["s1"], None],
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    },
]
NEXT: dict[str, Any] = {
    "type": "BlockStored",
    "block_hashes": [8298827221601324490],
    "parent_block_hash": 8077944509383411236,
    "token_ids": [201, 42, 379, 417, 3, 32, 32, 2, 201, 1, 294, 85, 390, 201, 420, 201],
    "block_size": 16,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
    "extra_keys": [None],
    "group_idx": 0,
    "kv_cache_spec_kind": "full_attention",
}
ADAPTED = {**SALTED[2], "lora_id": 1, "lora_name": "l1", "extra_keys": [["l1"], [["image", -3]]]}

# What vLLM 0.33 published: time, events, and how its message begins.
RECORDED: tuple[tuple[float, list[dict[str, Any]], str], ...] = (
    (
        1795248829.0689547,
        [NEXT],
        "93cb41dac054af4469c191de000ba474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657391cf732b5b6393e38dcab170",
    ),
    (
        1795248832.5949552,
        SALTED,
        "93cb41dac054b02613bf9384a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391cfca30d48332a7fcbda66d65",
    ),
    (
        1795248865.9240477,
        [{"type": "AllBlocksCleared"}],
        "93cb41dac054b87b23999181a474797065b0416c6c426c6f",
    ),
)


def key(number: int) -> bytes:
    """A digest that events tell as this number."""
    return b"d" * 24 + number.to_bytes(8, "big")


def told(event: dict[str, Any]) -> Event:
    """What the cache tells, where vLLM publishes this."""
    keys = [key(number) for number in event.get("block_hashes", ())]
    if event["type"] != "BlockStored":
        return Removed(keys) if keys else Cleared()
    parent = event["parent_block_hash"]
    adapter = event["lora_name"], event["lora_id"], event["extra_keys"]
    return Stored(keys, None if parent is None else key(parent), event["token_ids"], event["block_size"], *adapter)


def published(form: Form, events: list[Event], when: float = 1.5, rank: int = 0) -> bytes:
    """The bytes of a batch."""
    return batch([form[type(event)](event) for event in events], when, rank)


def in_msgspecs_way(value: object) -> bytes:
    """msgpack, but that msgspec's head of a map of eleven members is two bytes longer."""
    return msgpack.packb(value).replace(b"\x8b\xa4type", b"\xde\x00\x0b\xa4type")


class MapTests(SynchronousTestCase):
    def test_the_bytes_are_vllms(self) -> None:
        for when, events, beginning in RECORDED:
            found = published(MAPS, [told(event) for event in events], when)
            self.assertEqual(found[: len(beginning) // 2].hex(), beginning)
            self.assertEqual(found, in_msgspecs_way([when, events, 0]))

    def test_an_adapter_has_a_number_and_a_name(self) -> None:
        found = published(MAPS, [told(ADAPTED)])
        self.assertEqual(found, in_msgspecs_way([1.5, [ADAPTED], 0]))
        self.assertEqual(decode(found), (1.5, [ADAPTED], 0))

    def test_small_hashes_are_as_wide_as_all(self) -> None:
        event = {**NEXT, "block_hashes": [7], "parent_block_hash": 0}
        self.assertEqual(decode(published(MAPS, [told(event)])), (1.5, [event], 0))

    def test_a_batch_tells_its_rank_and_all_its_events(self) -> None:
        events: list[Event] = [Cleared()] * 20
        when, found, rank = decode(published(MAPS, events, rank=7))
        self.assertEqual((when, len(found), rank), (1.5, 20, 7))

    def test_text_that_no_consumer_could_read_does_not_spoil_a_batch(self) -> None:
        event = {**NEXT, "extra_keys": [["\ud800"]]}
        _, (found,), _ = decode(published(MAPS, [told(event)]))
        self.assertEqual(found["extra_keys"], [["?"]])


class ArrayTests(SynchronousTestCase):
    def test_a_store_has_nine_elements_and_never_extra_keys(self) -> None:
        events = [told(NEXT), told(ADAPTED)]
        ids = NEXT["token_ids"]
        first = ["BlockStored", [8298827221601324490], 8077944509383411236, ids, 16, None, "GPU", None, None]
        second = ["BlockStored", ADAPTED["block_hashes"], 0, list(range(10, 42)), 16, 1, "GPU", "l1", None]
        self.assertEqual(decode(published(ARRAYS, events, rank=2)), (1.5, [first, second], 2))

    def test_what_is_gone_is_told_shortly(self) -> None:
        events: list[Event] = [Removed((key(7),)), Cleared()]
        expected = [["BlockRemoved", [7], "GPU"], ["AllBlocksCleared"]]
        self.assertEqual(decode(published(ARRAYS, events)), (1.5, expected, 0))
