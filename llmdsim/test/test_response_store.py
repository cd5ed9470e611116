from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.responses import Responses
from llmdsim.config import load
from llmdsim.faults import INTERNAL, Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Tokens
from llmdsim.test.support import Ear
from llmdsim.web.response_store import Background, Kept, Store

MESSAGE = {"type": "message", "role": "assistant", "content": "yes"}


def made() -> tuple[Background, Plan]:
    """A background response and the plan of its three tokens."""
    dialect = Responses(load(["--model", "m"], {}))
    ask = dialect.parse(dialect.check({"input": "hi", "background": True}), "1", Model("m"))
    plan = Plan(ask, 0, Tokens((1,), ("hi",)), ["a", "b", "c"], [1, 2, 3], "stop")
    return Background(dialect.writer(ask, 7), 1), plan


def kept(size: int = 1, **told: Any) -> Kept:
    """A stored response that was made in the foreground."""
    return Kept([{"role": "user", "content": "hi"}], size, {"output": [MESSAGE], **told})


class StoreTests(SynchronousTestCase):
    def held(self, store: Store, *ids: str) -> list[str]:
        found = []
        for id in ids:
            try:
                store.get(id)
                found.append(id)
            except Fault:
                pass
        return found

    def test_an_unknown_response_is_404_in_vllms_words(self) -> None:
        fault = self.assertRaises(Fault, Store().get, "resp_x")
        self.assertEqual(fault.kind, (404, "invalid_request_error"))
        self.assertEqual((fault.message, fault.param), ("Response with id 'resp_x' not found.", "response_id"))

    def test_only_the_newest_are_kept(self) -> None:
        store = Store(most=2)
        for id in "abc":
            store.put(id, kept())
        self.assertEqual(self.held(store, *"abc"), ["b", "c"])

    def test_large_responses_leave_less_room(self) -> None:
        store = Store(room=10)
        for id in "abc":
            store.put(id, kept(size=4))
        self.assertEqual(self.held(store, *"abc"), ["b", "c"])

    def test_a_response_that_replaces_another_takes_no_more_room(self) -> None:
        store = Store(room=10)
        for id in "abbb":
            store.put(id, kept(size=4))
        self.assertEqual(self.held(store, *"ab"), ["a", "b"])

    def test_one_that_is_too_large_is_kept_while_it_is_the_newest(self) -> None:
        store = Store(room=10)
        store.put("a", kept())
        store.put("b", kept(size=11))
        self.assertEqual(self.held(store, *"ab"), ["b"])

    def test_a_response_that_is_being_made_is_not_forgotten(self) -> None:
        store = Store(most=1)
        background, plan = made()
        store.put("a", Kept((), 1, background=background))
        store.put("b", kept())
        self.assertEqual(self.held(store, *"ab"), ["a", "b"])
        background.begin(plan)
        background.end(plan)
        store.put("c", kept())
        self.assertEqual(self.held(store, *"abc"), ["c"])

    def test_a_conversation_ends_with_the_answer(self) -> None:
        store = Store()
        store.put("a", kept())
        self.assertEqual([each["content"] for each in store.conversation("a")], ["hi", "yes"])

    def test_only_a_background_can_be_cancelled_or_streamed_again(self) -> None:
        store = Store()
        store.put("a", kept())
        message = self.assertRaises(Fault, store.cancel, "a").message
        self.assertEqual(message, "Cannot cancel a synchronous response.")
        self.assertIn("Unknown response_id: a", self.assertRaises(Fault, store.followed, "a").message)


class BackgroundTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.background, self.plan = made()
        self.ear = Ear(Clock())

    def state(self) -> str:
        state: str = self.background.response["status"]
        return state

    def test_its_status_follows_the_rank(self) -> None:
        seen = [self.state()]
        self.background.begin(self.plan)
        seen.append(self.state())
        self.background.tokens(self.plan, 0, 3)
        self.background.end(self.plan)
        self.assertEqual([*seen, self.state()], ["queued", "in_progress", "completed"])

    def test_an_early_follower_hears_all_as_it_comes(self) -> None:
        following = self.background.follow(self.ear)
        self.background.begin(self.plan)
        self.background.tokens(self.plan, 0, 1)
        self.background.tokens(self.plan, 1, 3)
        self.assertNoResult(following)
        self.background.end(self.plan)
        self.assertEqual(self.ear.heard, ["0 begin", "0 0:1", "0 1:3", "0 end"])
        self.successResultOf(following)

    def test_a_late_follower_hears_at_once_what_it_missed(self) -> None:
        self.background.begin(self.plan)
        self.background.tokens(self.plan, 0, 2)
        self.background.follow(self.ear)
        self.background.tokens(self.plan, 2, 3)
        self.background.end(self.plan)
        self.assertEqual(self.ear.heard, ["0 begin", "0 0:2", "0 2:3", "0 end"])
        last = Ear(Clock())
        self.successResultOf(self.background.follow(last))
        self.assertEqual(last.heard, ["0 begin", "0 0:3", "0 end"])

    def test_a_follower_that_left_hears_no_more(self) -> None:
        following = self.background.follow(self.ear)
        following.cancel()
        self.failureResultOf(following, CancelledError)
        self.background.begin(self.plan)
        self.assertEqual((self.ear.heard, self.state()), ([], "in_progress"))

    def test_a_follower_that_fails_harms_nobody_else(self) -> None:
        broken = self.background.follow(Ear(Clock(), then=lambda what: 1 // 0))
        self.background.follow(self.ear)
        self.background.begin(self.plan)
        self.failureResultOf(broken, Fault)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.ear.heard, ["0 begin"])

    def test_cancelling_stops_the_work_and_the_followers(self) -> None:
        stopped: list[bool] = []
        self.background.task = Deferred(lambda _: stopped.append(True))
        self.background.task.addErrback(lambda failure: None)
        following = self.background.follow(self.ear)
        self.assertEqual(self.background.cancel()["status"], "cancelled")
        self.assertEqual(stopped, [True])
        self.failureResultOf(following, Fault)
        self.failureResultOf(self.background.follow(self.ear), Fault)

    def test_what_has_ended_is_not_cancelled(self) -> None:
        self.background.begin(self.plan)
        self.background.end(self.plan)
        self.assertRaises(Fault, self.background.cancel)
        self.assertEqual(self.state(), "completed")

    def test_a_failure_is_told_to_followers_early_and_late(self) -> None:
        following = self.background.follow(self.ear)
        self.background.fail(Fault(INTERNAL, "boom"))
        self.assertEqual(self.state(), "failed")
        for each in (following, self.background.follow(self.ear)):
            self.assertEqual(self.failureResultOf(each, Fault).value.message, "boom")
