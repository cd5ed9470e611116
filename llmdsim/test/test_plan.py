"""What will be said, and what is refused before anything is promised."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Conversation, Request, Stops, Tokens
from llmdsim.simulated import Simulated
from llmdsim.test.support import make_rank, request

USER = {"role": "user", "content": "This is a test."}


class Recording(Simulated):
    """The simulated tokenizer with a vocabulary, and a record of how it was used."""

    vocab_size = 1024
    inline = 8

    def __init__(self) -> None:
        super().__init__()
        self.special: list[bool] = []
        self.rendered: dict[str, Any] = {}

    def encode(self, text: str, special: bool = True) -> Tokens:
        self.special.append(special)
        return super().encode(text, special)

    def render(self, messages: Any, tools: Any = (), generation_prompt: bool = True, **kwargs: Any) -> str:
        self.rendered = {"tools": tools, "generation_prompt": generation_prompt, **kwargs}
        return super().render(messages, tools, generation_prompt)


class PlanCase(SynchronousTestCase):
    def plans(self, asked: Request, **options: Any) -> list[Plan]:
        planner = make_rank(**{"max_model_len": 256, **options})[0].planner
        return self.successResultOf(Deferred.fromCoroutine(planner.plan(asked)))

    def plan(self, asked: Request, **options: Any) -> Plan:
        (plan,) = self.plans(asked, **options)
        return plan


class WindowTests(PlanCase):
    def refused(self, asked: Request, **options: Any) -> tuple[str, str | None]:
        planner = make_rank(**{"max_model_len": 256, **options})[0].planner
        fault = self.failureResultOf(Deferred.fromCoroutine(planner.plan(asked)), Fault).value
        self.assertEqual(fault.kind, BAD_REQUEST)
        return fault.message, fault.param

    def words(self, count: int) -> tuple[str]:
        return ("a " * count,)

    def test_a_prompt_with_too_many_characters_is_refused_before_it_is_tokenized(self) -> None:
        text = (
            "This model's maximum context length is 256 tokens. However, your prompt contains 3650 characters (more "
            "than 3072 characters, which is the upper bound for 256 input tokens). Please reduce the length of the "
            "input prompt. (parameter=input_text, value=3650)"
        )
        asked = request(prompts=("x" * 3650,))
        self.assertEqual(self.refused(asked, tokenizer=Recording(), offload=self.fail), (text, "input_text"))

    def test_a_text_with_too_many_tokens_is_counted_one_beyond_the_window_only(self) -> None:
        text = (
            "This model's maximum context length is 256 tokens. However, your prompt contains at least 257 input "
            "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
            "prompt. (parameter=input_tokens, value=257)"
        )
        for count in (257, 300):
            self.assertEqual(self.refused(request(prompts=self.words(count))), (text, "input_tokens"))

    def test_ids_are_counted_all(self) -> None:
        text = (
            "This model's maximum context length is 256 tokens. However, your prompt contains 300 input tokens, which "
            "exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
            "(parameter=input_tokens, value=300)"
        )
        self.assertEqual(self.refused(request(prompts=((1,) * 300,))), (text, "input_tokens"))

    def test_a_prompt_that_fills_the_window_leaves_no_room(self) -> None:
        text = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
        for tokens in (3, None):
            self.assertEqual(self.refused(request(tokens, prompts=self.words(256))), (text, "max_tokens"))

    def test_fewer_tokens_than_one_are_refused(self) -> None:
        text = "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)"
        self.assertEqual(self.refused(request(-1)), (text, "max_tokens"))

    def test_more_tokens_than_the_window_are_refused_under_the_name_of_their_field(self) -> None:
        for name in ("max_tokens", "max_completion_tokens"):
            text = (
                f"{name}=257 cannot be greater than max_model_len=256. Please request fewer output tokens. "
                f"(parameter={name}, value=257)"
            )
            self.assertEqual(self.refused(request(257, limit_name=name)), (text, name))

    def test_tokens_that_do_not_fit_beside_the_prompt_are_cut_silently(self) -> None:
        self.assertEqual(len(self.plan(request(256, prompts=self.words(200))).ids), 56)

    def test_min_tokens_cannot_exceed_what_may_be_generated(self) -> None:
        text = "min_tokens must be less than or equal to max_tokens=5, got 10."
        self.assertEqual(self.refused(request(5, stops=Stops(min_tokens=10))), (text, None))

    def test_an_id_outside_the_vocabulary_is_refused(self) -> None:
        asked = request(prompts=((1, 5000, 2),))
        self.assertEqual(self.refused(asked, tokenizer=Recording()), ("Token id 5000 is out of vocabulary", None))
        self.assertEqual(self.plan(asked).prompt_tokens, 3)  # without a vocabulary every id will do

    def test_the_second_prompt_is_checked_like_the_first(self) -> None:
        self.assertEqual(self.refused(request(prompts=("a", *self.words(300))))[1], "input_tokens")


class ChoiceTests(PlanCase):
    def test_choices_are_numbered_through_all_prompts(self) -> None:
        found = self.plans(request(prompts=("a", "b b", "c c c"), n=2))
        self.assertEqual([plan.index for plan in found], [0, 1, 2, 3, 4, 5])
        self.assertEqual([plan.prompt_tokens for plan in found], [1, 1, 2, 2, 3, 3])

    def test_ignoring_the_end_gives_exactly_max_tokens_and_finish_length(self) -> None:
        for tokens in (1, 7, 100):
            plan = self.plan(request(tokens))
            self.assertEqual((len(plan.ids), len(plan.texts), plan.finish), (tokens, tokens, "length"))

    def test_ignoring_the_end_without_a_limit_fills_the_window(self) -> None:
        plan = self.plan(request(None, prompts=("a " * 56,)))
        self.assertEqual((len(plan.ids), plan.finish), (200, "length"))

    def test_an_answer_that_ends_by_itself_has_the_end_token_within_the_limit(self) -> None:
        eos = Simulated.eos[0]
        for seed in range(50):
            plan = self.plan(request(10, seed=seed, ignore_eos=False))
            self.assertLessEqual(len(plan.ids), 10)
            ended = plan.ids[-1] == eos and plan.texts[-1] == ""
            self.assertEqual(plan.finish, "stop" if ended else "length")
            self.assertEqual(len(plan.ids) == 10 or ended, True)

    def test_stop_strings_end_the_plan(self) -> None:
        stops = Stops(strings=("you today",))
        said = "Hello world! How are you today? I am fine."
        plan = self.plan(request(50, prompts=(f"SAY<<{said}>>",), stops=stops))
        self.assertEqual("".join(plan.texts), "Hello world! How are ")
        self.assertEqual((len(plan.ids), plan.finish, plan.stop_reason), (7, "stop", "you today"))

    def test_min_tokens_are_generated_before_the_end(self) -> None:
        for seed in range(50):
            plan = self.plan(request(60, seed=seed, ignore_eos=False, stops=Stops(min_tokens=40)))
            self.assertGreaterEqual(len(plan.ids), 40)


class ChanceTests(PlanCase):
    def test_a_requests_seed_gives_the_same_answer_in_any_order_and_on_any_rank(self) -> None:
        asked = [request(20, seed=seed) for seed in (1, 2, 3)]
        planner = make_rank()[0].planner
        there = [self.successResultOf(Deferred.fromCoroutine(planner.plan(one))) for one in asked]
        planner = make_rank(seed=77)[0].planner
        back = [self.successResultOf(Deferred.fromCoroutine(planner.plan(one))) for one in reversed(asked)]
        self.assertEqual([plan.texts for (plan,) in there], [plan.texts for (plan,) in reversed(back)])
        self.assertEqual(len({"".join(plan.texts) for (plan,) in there}), 3)

    def test_choices_of_a_seeded_request_differ(self) -> None:
        found = self.plans(request(20, seed=5, n=4))
        self.assertEqual(len({"".join(plan.texts) for plan in found}), 4)


class PromptTests(PlanCase):
    def test_a_text_is_short_enough_to_be_encoded_on_the_spot_or_goes_to_a_thread(self) -> None:
        offloaded: list[Any] = []

        def offload(function: Any, *arguments: Any) -> Deferred[Any]:
            offloaded.append(arguments)
            return maybeDeferred(function, *arguments)

        for prompt, wanted in (("a b c d ", []), ("a b c d e", [("a b c d e", True)])):
            plan = self.plan(request(prompts=(prompt,)), tokenizer=Recording(), offload=offload)
            self.assertEqual((offloaded, plan.prompt.texts), (wanted, prompt.replace(" ", " |").strip("|").split("|")))

    def test_a_chat_is_rendered_and_tokenized_without_special_tokens(self) -> None:
        for prompt, special, tokens in ((Conversation([USER]), False, 10), ("text", True, 1)):
            tokenizer = Recording()
            plan = self.plan(request(prompts=(prompt,)), tokenizer=tokenizer)
            self.assertEqual((tokenizer.special[-1], plan.prompt_tokens), (special, tokens))

    def test_a_templates_arguments_reach_it_but_replace_nothing_of_ours(self) -> None:
        tokenizer = Recording()
        template = {"thinking": True, "messages": "mine", "self": 1, "tools": 2, "generation_prompt": 3}
        chat = Conversation([USER], tools=[{"type": "function"}], generation_prompt=False, template=template)
        plan = self.plan(request(prompts=(chat,)), tokenizer=tokenizer)
        wanted = {"tools": [{"type": "function"}], "generation_prompt": False, "thinking": True}
        self.assertEqual((tokenizer.rendered, plan.prompt_tokens), (wanted, 10))

    def test_ids_stay_as_they_are_and_have_texts_only_where_they_are_shown(self) -> None:
        self.assertEqual(self.plan(request(prompts=((3, 1, 2),))).prompt, ((3, 1, 2), ()))
        shown = self.plan(request(prompts=((3, 1, 2),), echo=True)).prompt
        self.assertEqual((shown.ids, len(shown.texts)), ((3, 1, 2), 3))
