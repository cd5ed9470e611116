"""Log-probabilities: their forms on the wire."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.logprobs import Logprobs, prompt_logprobs, value
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Tokens
from llmdsim.test.support import request

PROMPT = Tokens([5, 6, 7], ["a", "bc", "d"])


def plan(index: int = 0, texts: tuple[str, ...] = ("é", "yz", "w")) -> Plan:
    """A sequence with the end token; its shown texts differ from its tokens."""
    return Plan(request(), index, PROMPT, ["", "éy"], [1, 2, 3, 4], "stop", tokens=[*texts, "<end>"])


class ChatTests(SynchronousTestCase):
    def test_a_token_is_the_first_of_its_alternatives(self) -> None:
        (entry,) = Logprobs(2, False).chat(plan(), 0, 1)["content"]
        self.assertEqual(list(entry), ["token", "logprob", "bytes", "top_logprobs"])
        first, second = entry.pop("top_logprobs")
        self.assertEqual((first, first["bytes"]), (entry, [195, 169]))
        self.assertLess(second["logprob"], first["logprob"])

    def test_none_are_wanted_but_the_tokens_own(self) -> None:
        content = Logprobs(0, False).chat(plan(), 0, 4)["content"]
        self.assertEqual([(entry["token"], entry["top_logprobs"]) for entry in content][2:], [("w", []), ("<end>", [])])

    def test_ids_stand_for_tokens_but_bytes_stay_the_texts(self) -> None:
        (entry,) = Logprobs(2, True).chat(plan(), 1, 2)["content"]
        self.assertEqual((entry["token"], entry["bytes"]), ("token_id:2", [*b"yz"]))
        self.assertEqual(entry["top_logprobs"][0]["bytes"], [*b"token_id:2"])

    def test_half_a_surrogate_pair_has_bytes(self) -> None:
        (entry,) = Logprobs(1, False).chat(plan(texts=("\ud800",)), 0, 1)["content"]
        self.assertEqual(entry["bytes"], [*b"?"])


class TextTests(SynchronousTestCase):
    def test_offsets_count_characters_of_the_tokens_themselves(self) -> None:
        logprobs = Logprobs(1, False)
        self.assertEqual(logprobs.text(plan(), 0, 4)["text_offset"], [0, 1, 3, 4])
        self.assertEqual(logprobs.text(plan(), 2, 4, offset=10)["text_offset"], [13, 14])

    def test_each_choice_has_offsets_of_its_own(self) -> None:
        logprobs = Logprobs(1, False)
        found = [
            logprobs.text(plan(i, texts), 0, 2)["text_offset"] for i, texts in ((0, ("abc", "d")), (1, ("a", "b")))
        ]
        self.assertEqual(found, [[0, 3], [0, 1]])

    def test_a_generated_token_is_one_of_as_many_as_are_wanted_and_is_shown_in_any_case(self) -> None:
        for count, shown in ((0, 1), (1, 1), (3, 3)):
            (top,) = Logprobs(count, False).text(plan(), 1, 2)["top_logprobs"]
            self.assertEqual((len(top), next(iter(top.values()))), (shown, value(1)))

    def test_no_tokens_are_empty_lists(self) -> None:
        found = Logprobs(1, False).text(plan(), 4, 4)
        self.assertEqual(found, {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []})

    def test_ids_stand_for_tokens(self) -> None:
        found = Logprobs(1, True).text(plan(), 0, 2)
        self.assertEqual(
            (found["tokens"], list(found["top_logprobs"][1])), (["token_id:1", "token_id:2"], ["token_id:2"])
        )


class PromptTests(SynchronousTestCase):
    def test_an_echoed_token_is_shown_besides_the_likeliest(self) -> None:
        found = Logprobs(1, False).echoed(PROMPT)
        self.assertEqual((found["tokens"], found["text_offset"]), (["a", "bc", "d"], [0, 1, 3]))
        self.assertEqual([found["token_logprobs"][0], found["top_logprobs"][0]], [None, None])
        self.assertEqual([len(top) for top in found["top_logprobs"][1:]], [2, 2])

    def test_ids_stand_for_echoed_tokens(self) -> None:
        found = Logprobs(0, True).echoed(PROMPT)
        self.assertEqual((found["tokens"][0], list(found["top_logprobs"][1])), ("token_id:5", ["token_id:6"]))

    def test_prompt_logprobs_are_by_id_the_actual_token_first(self) -> None:
        none, second, third = prompt_logprobs(PROMPT, 2)
        assert second
        assert third
        self.assertIsNone(none)
        self.assertEqual([len(second), next(iter(third)), third["7"]["decoded_token"]], [3, "7", "d"])
        self.assertEqual(list(second["6"]), ["logprob", "rank", "decoded_token"])

    def test_without_alternatives_each_token_stands_alone(self) -> None:
        self.assertEqual([top and list(top) for top in prompt_logprobs(PROMPT, 0)], [None, ["6"], ["7"]])
