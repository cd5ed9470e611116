"""Answers in the OpenAI form: what both dialects share, and how choices, ends and aborts look."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat, ChatBatch
from llmdsim.api.completions import Completions
from llmdsim.api.openai import timings
from llmdsim.sim.plan import abort
from llmdsim.sim.request import Tokens
from llmdsim.test.writing import USER, Asked, ask, events

USAGE = {"stream": True, "stream_options": {"include_usage": True}}
EACH = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def chat(*flags: str, **body: Any) -> Asked:
    return ask(Chat, {"messages": [USER], **body}, *flags)


def text(*flags: str, **body: Any) -> Asked:
    return ask(Completions, {"prompt": "abc", **body}, *flags)


def choices(chunks: list[Any]) -> list[Any]:
    """The choices of all chunks that have one."""
    return [choice for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]


class KeyTests(SynchronousTestCase):
    def test_a_chats_answer_has_every_field_in_vllms_order(self) -> None:
        asked = chat()
        answer = asked.whole(asked.plan(["a", ""]))
        self.assertEqual(
            " ".join(answer),
            "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids "
            "prompt_text kv_transfer_params ec_transfer_params metrics",
        )
        (choice,) = answer["choices"]
        self.assertEqual(
            " ".join(choice),
            "index message logprobs finish_reason stop_reason token_ids routed_experts weight_versions",
        )
        self.assertEqual(
            " ".join(choice["message"]), "role content refusal annotations audio function_call reasoning"
        )
        self.assertEqual(
            " ".join(answer["usage"]),
            "prompt_tokens total_tokens completion_tokens prompt_tokens_details completion_tokens_details",
        )

    def test_a_completion_has_every_field_in_vllms_order(self) -> None:
        asked = text()
        answer = asked.whole(asked.plan(["a", ""]))
        self.assertEqual(
            " ".join(answer),
            "id object created model choices service_tier system_fingerprint usage kv_transfer_params "
            "ec_transfer_params metrics",
        )
        self.assertEqual(
            " ".join(answer["choices"][0]),
            "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids routed_experts "
            "weight_versions",
        )

    def test_chunks_have_what_vllm_sets(self) -> None:
        asked = chat(stream=True)
        role, token, last, _ = asked.stream(asked.plan(["a", ""]))[0:1] + asked.stream(asked.plan(["a", ""]))[-3:]
        asked = chat(stream=True)
        token, last, role, _ = asked.stream(asked.plan(["a", ""]))
        self.assertEqual(" ".join(role["choices"][0]), "index delta logprobs finish_reason")
        self.assertEqual(" ".join(token["choices"][0]), "index delta logprobs finish_reason token_ids")
        self.assertEqual(
            " ".join(last["choices"][0]),
            "index delta logprobs finish_reason stop_reason token_ids weight_versions",
        )
        self.assertEqual(" ".join(token), "id object created model choices kv_transfer_params")
        self.assertEqual(" ".join(last), "id object created model choices system_fingerprint kv_transfer_params")
        self.assertEqual(" ".join(role), "id object created model choices prompt_token_ids prompt_text")
