"""
``/v1/chat/completions``: body to Request, Plan to chunks and completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api import schema
from llmdsim.api.openai import OpenAIDialect, OpenAIWriter
from llmdsim.api.parts import dumps, frame, is_last, usage
from llmdsim.api.sampling import check_sampling, check_stream_options, given, refuse, request_fields
from llmdsim.config import Config
from llmdsim.faults import bad_value
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Conversation, Model, Request

UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)


class Chat(OpenAIDialect):
    """The OpenAI chat dialect, as vLLM speaks it."""

    prefix = "chatcmpl-"

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        check_stream_options(body)
        if isinstance(body, dict):
            _check_tools(body)
            _check_logprobs(body)
        return schema.check("ChatCompletionRequest", body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request:
        """The question that a checked body asks."""
        config = self.config
        if not body["messages"]:
            raise refuse("Cannot apply chat template to an empty conversation. Provide at least one message.")
        if body.get("chat_template") is not None and not config.trust_request_chat_template:
            raise refuse(UNTRUSTED_TEMPLATE)
        check_sampling(body, config.max_n)
        limit_name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
        return Request(
            id=self.prefix + id,
            model=model,
            prompts=(_conversation(body, config),),
            max_tokens=body.get(limit_name),
            limit_name=limit_name,
            **request_fields(body, config),
        )

    def writer(self, request: Request, created: int) -> ChatWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        return ChatWriter(self, request, created)


class ChatWriter(OpenAIWriter):
    """Chunks and completions of one chat request."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    created_cache_tokens = 0

    def opening(self, plan: Plan) -> bytes:
        """The role chunk of every choice, sent together."""
        return b"".join([frame(self._role_chunk(plan, index)) for index in range(self.request.n)])

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        answer = self.whole_envelope(plans, [self._choice(plan) for plan in plans])
        return dumps(
            answer
            | {
                "prompt_logprobs": None,
                "prompt_token_ids": plans[0].prompt.ids if self.request.return_token_ids else None,
                "prompt_text": None,
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }
        )

    def token_chunk(self, plan: Plan, i: int, text: str) -> dict[str, Any]:
        """The chunk of one token; the last one carries the finish reason."""
        last = is_last(plan, i)
        choice = {
            "index": plan.index,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": plan.finish if last else None,
        }
        if last:
            choice["stop_reason"] = plan.stop_reason
        choice["token_ids"] = [plan.ids[i]] if self.request.return_token_ids else None
        if last:
            choice["weight_versions"] = None
        chunk = self.envelope(self.chunk_object, [choice])
        self._count(chunk, plan, i + 1)
        return self.sign(chunk, last)

    def _choice(self, plan: Plan) -> dict[str, Any]:
        return {
            "index": plan.index,
            "message": {
                "role": self.config.response_role,
                "content": "".join(plan.texts),
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            "logprobs": None,
            "finish_reason": plan.finish,
            "stop_reason": plan.stop_reason,
            "token_ids": plan.ids if self.request.return_token_ids else None,
            "routed_experts": None,
            "weight_versions": None,
        }

    def _role_chunk(self, plan: Plan, index: int) -> dict[str, Any]:
        delta = {"role": self.config.response_role, "content": ""}
        chunk = self.envelope(
            self.chunk_object, [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]
        )
        self._count(chunk, plan, 0)
        chunk["prompt_token_ids"] = plan.prompt.ids if self.request.return_token_ids else None
        chunk["prompt_text"] = None
        return chunk

    def _count(self, chunk: dict[str, Any], plan: Plan, tokens: int) -> None:
        if self.request.continuous_usage:
            chunk["usage"] = usage(plan.prompt_tokens, tokens) | {"completion_tokens_details": None}


def _conversation(body: dict[str, Any], config: Config) -> Conversation:
    template = {**(config.default_chat_template_kwargs or {}), **given(body, "chat_template_kwargs", {})}
    return Conversation(
        body["messages"], given(body, "tools", ()), given(body, "add_generation_prompt", True), template
    )


def _check_tools(body: dict[str, Any]) -> None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    if choice not in (None, "none") and tools is None:
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")


def _check_logprobs(body: dict[str, Any]) -> None:
    if body.get("prompt_logprobs") is not None and body.get("stream"):
        raise bad_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise bad_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
