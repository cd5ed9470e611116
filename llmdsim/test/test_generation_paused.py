from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import DONE, Client, Door, Script, chat, said

CHAT = "/v1/chat/completions"
# Fractions of two, so that sums of them are exact.
SLOW = "--time-to-first-token", "250ms", "--inter-token-latency", "125ms"


def stream(tokens: int, **fields: Any) -> dict[str, Any]:
    return chat(tokens, stream=True, **fields)


class PausedTests(SynchronousTestCase):
    def begin(self, body: dict[str, Any], *texts: str) -> None:
        self.door = Door(*SLOW, source=Script(*texts) if texts else None)
        self.client = Client(self.door).post(CHAT, body)

    def pause(self) -> None:
        self.client.heard()
        self.client.channel.pauseProducing()

    def resume(self) -> None:
        self.client.channel.resumeProducing()

    def test_held_tokens_come_joined_and_in_order_and_nothing_is_lost(self) -> None:
        self.begin(stream(9), "one two three four five six")
        self.door.clock.advance(0.25)
        start = self.client.events()
        self.pause()
        self.door.clock.pump([0.125] * 3)
        self.assertEqual(self.client.writes, [])
        self.resume()
        self.assertEqual(len(self.client.writes), 1)
        held = self.client.events()
        self.assertEqual(said(held), "two three four ")
        self.door.clock.pump([0.125] * 3)
        rest = self.client.events()
        self.assertEqual(said(start + held + rest), "one two three four five six")
        self.assertEqual(rest[-1], DONE)

    def test_a_stream_that_ends_while_it_is_paused_is_whole(self) -> None:
        self.begin(stream(9, stream_options={"include_usage": True}), "one two three")
        self.pause()
        self.door.clock.advance(2)
        found = self.client.events()
        self.assertEqual(found[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual((said(found), found[-1]), ("one two three", DONE))
        self.assertEqual(found[-2]["usage"]["completion_tokens"], 4)

    def test_two_choices_are_held_apart(self) -> None:
        self.begin(stream(9, n=2), "one two three", "a b c d e f")
        self.door.clock.advance(0.25)
        found = self.client.events()
        self.pause()
        self.door.clock.pump([0.125] * 2)
        self.resume()
        found += self.client.events()
        self.pause()
        self.door.clock.pump([0.125] * 9)
        found += self.client.events()
        self.assertEqual((said(found, 0), said(found, 1), found[-1]), ("one two three", "a b c d e f", DONE))
        finishes = [one["finish_reason"] for event in found[:-1] for one in event["choices"]]
        self.assertEqual(finishes.count("stop"), 2)

    def test_the_role_comes_first_though_the_shorter_choice_ended_while_it_was_paused(self) -> None:
        self.begin(stream(9, n=2), "one", "a b c d e f")
        self.pause()
        self.door.clock.pump([0.25, 0.125])
        self.resume()
        found = self.client.events()
        roles = ["role" in event["choices"][0]["delta"] for event in found]
        self.assertEqual(roles, [True, True] + [False] * (len(found) - 2))

    def test_a_choice_that_ended_while_paused_is_not_kept_back_after_that(self) -> None:
        self.begin(stream(9, n=2), "one", "a b c d e f")
        self.pause()
        self.door.clock.pump([0.25, 0.125])
        self.resume()
        self.assertEqual(said(self.client.events(), 0), "one")
