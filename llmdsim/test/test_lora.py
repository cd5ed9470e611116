"""Adapters: which are known, which hold a slot, and what loading and unloading change."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import INVALID_INPUT, NOT_FOUND, Fault
from llmdsim.sim.lora import Adapters
from llmdsim.sim.request import Model
from llmdsim.test.support import adapters


def make(slots: int = 1) -> Adapters:
    return Adapters(("base", "alias"), adapters("l1", "l2", "l3"), slots)


class NameTests(SynchronousTestCase):
    def refused(self, call, *arguments):
        fault = self.assertRaises(Fault, call, *arguments)
        return fault.kind, fault.message, fault.param

    def test_every_served_name_and_none_is_the_base_model_under_its_first_name(self) -> None:
        for name in ("base", "alias", None):
            self.assertEqual(make().find(name), Model("base", None))

    def test_an_adapter_answers_under_its_own_name(self) -> None:
        self.assertEqual(make().find("l1"), Model("l1", "l1"))

    def test_an_unknown_model_is_refused_with_the_served_names(self) -> None:
        text = "The model `nope` does not exist. Valid aliases: base, alias."
        self.assertEqual(self.refused(make().find, "nope"), (NOT_FOUND, text, "model"))

    def test_an_empty_name_is_an_unknown_model(self) -> None:
        self.assertEqual(self.refused(make().find, "")[0], NOT_FOUND)

    def test_loading_needs_name_and_path(self) -> None:
        text = "Both 'lora_name' and 'lora_path' must be provided."
        for name, path in (("", "/p"), ("new", "")):
            self.assertEqual(self.refused(make().load, name, path), (INVALID_INPUT, text, None))

    def test_an_adapter_cannot_take_a_served_name(self) -> None:
        text = "The lora adapter 'alias' conflicts with a served base model."
        self.assertEqual(self.refused(make().load, "alias", "/p"), (INVALID_INPUT, text, None))

    def test_an_adapter_is_loaded_twice_only_in_place(self) -> None:
        known = make()
        text = (
            "The lora adapter 'l1' has already been loaded. "
            "If you want to load the adapter in place, set 'load_inplace' to True."
        )
        self.assertEqual(self.refused(known.load, "l1", "/p"), (INVALID_INPUT, text, None))
        known.load("l1", "/p", replace=True)
        self.assertEqual(known.known["l1"].path, "/p")

    def test_a_loaded_adapter_is_found_and_an_unloaded_one_is_not(self) -> None:
        known = make()
        known.load("new", "/p")
        self.assertEqual(known.find("new"), Model("new", "new"))
        known.unload("new")
        self.assertEqual(self.refused(known.find, "new")[0], NOT_FOUND)

    def test_unloading_what_is_not_there_is_refused(self) -> None:
        text = "The lora adapter 'nope' cannot be found."
        self.assertEqual(self.refused(make().unload, "nope"), (NOT_FOUND, text, None))
        text = "'lora_name' needs to be provided to unload a LoRA adapter."
        self.assertEqual(self.refused(make().unload, ""), (INVALID_INPUT, text, None))


class SlotTests(SynchronousTestCase):
    def test_the_base_model_needs_no_slot(self) -> None:
        known = make()
        known.take("l1")
        known.take(None)
        self.assertTrue(known.admits(None))
        known.give(None)

    def test_slots_are_numbered_from_1_and_the_lowest_free_one_is_taken(self) -> None:
        known = make(3)
        for name in ("l1", "l2", "l3"):
            known.take(name)
        self.assertEqual([known.slot(name) for name in ("l1", "l2", "l3")], [1, 2, 3])
        for name in ("l3", "l1"):
            known.unload(name)
            known.give(name)
        known.load("new", "/p")
        known.take("new")
        self.assertEqual((known.slot("new"), known.slot("l2")), (1, 2))

    def test_an_idle_adapter_keeps_its_slot_until_another_needs_it(self) -> None:
        known = make()
        known.take("l1")
        known.give("l1")
        self.assertEqual((known.holds("l1"), known.room()), (True, True))
        known.take("l2")
        self.assertEqual((known.slot("l1"), known.slot("l2")), (None, 1))

    def test_an_adapter_in_use_is_never_evicted(self) -> None:
        known = make(2)
        known.take("l1")
        known.take("l2")
        self.assertFalse(known.admits("l3"))
        known.give("l2")
        known.take("l3")
        self.assertEqual((known.slot("l1"), known.slot("l2"), known.slot("l3")), (1, None, 2))

    def test_an_adapter_is_in_use_until_its_last_sequence_ends(self) -> None:
        known = make()
        known.take("l1")
        known.take("l1")
        known.give("l1")
        self.assertFalse(known.admits("l2"))
        known.give("l1")
        self.assertTrue(known.admits("l2"))

    def test_an_idle_adapter_that_is_unloaded_frees_its_slot_at_once(self) -> None:
        known = make()
        known.take("l1")
        known.give("l1")
        known.unload("l1")
        self.assertIsNone(known.slot("l1"))

    def test_a_running_adapter_that_is_unloaded_frees_its_slot_at_its_last_end(self) -> None:
        known = make()
        known.take("l1")
        known.take("l1")
        known.unload("l1")
        known.give("l1")
        self.assertEqual((known.slot("l1"), known.admits("l2")), (1, False))
        known.give("l1")
        self.assertEqual((known.slot("l1"), known.admits("l2")), (None, True))

    def test_one_that_is_loaded_again_while_it_runs_keeps_its_slot(self) -> None:
        known = make()
        known.take("l1")
        known.unload("l1")
        known.load("l1", "/p")
        known.give("l1")
        self.assertEqual(known.slot("l1"), 1)

    def test_one_that_was_unloaded_while_it_waited_leaves_no_slot_behind(self) -> None:
        known = make()
        known.unload("l1")
        known.take("l1")
        known.give("l1")
        self.assertIsNone(known.slot("l1"))
