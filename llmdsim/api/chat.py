"""
``/v1/chat/completions`` and its batch form: bodies to Requests, Plans to chunks and completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api import schema
from llmdsim.api.forms import check_messages, check_parsers, check_tools, form
from llmdsim.api.logprobs import prompt_logprobs
from llmdsim.api.openai import OpenAIDialect, OpenAIWriter
from llmdsim.api.parsing import ARGUMENTS, NAME, REASONING, Call, Piece, Views, call_id, merged
from llmdsim.api.parts import dumps, frame, usage
from llmdsim.api.sampling import (
    alternatives,
    check_cache_salt,
    check_logprobs,
    check_sampling,
    check_stream_options,
    given,
    prompt_alternatives,
    refuse,
    request_fields,
)
from llmdsim.config import Config
from llmdsim.sim.messages import plain_text
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Conversation, Model, Request

UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. "
    "Refused request with untrusted chat template."
)


class Chat(OpenAIDialect):
    """The OpenAI chat dialect, as vLLM speaks it."""

    prefix = "chatcmpl-"
    component = "ChatCompletionRequest"

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        check_stream_options(body)
        if isinstance(body, dict):
            check_tools(body)
            check_logprobs(body)
            check_cache_salt(body)
        return schema.check(self.component, body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request:
        """The question that a checked body asks."""
        config = self.config
        conversations = self.conversations(body)
        check_parsers(body, config)
        prompts = tuple(conversation(messages, body, config) for messages in conversations)
        check_sampling(body, config)
        limit_name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
        return Request(
            id=self.prefix + id,
            bare_id=id,
            model=model,
            prompts=prompts,
            max_tokens=body.get(limit_name),
            limit_name=limit_name,
            form=form(body, config),
            echo=given(body, "echo", False),
            logprobs=alternatives(given(body, "top_logprobs", 0)) if body.get("logprobs") else None,
            prompt_logprobs=prompt_alternatives(body, given(body, "top_logprobs", 0)),
            **request_fields(body, config),
        )

    def conversations(self, body: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """The conversations of a body: one."""
        check_messages(body["messages"], self.config)
        return [body["messages"]]

    def writer(self, request: Request, created: int) -> ChatWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        return ChatWriter(self, request, created)


class ChatBatch(Chat):
    """Several conversations in one request, one choice for each."""

    component = "BatchChatCompletionRequest"

    def conversations(self, body: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """The conversations of a body: as many as it has."""
        if not body["messages"]:
            raise refuse("Cannot apply chat template to an empty conversation. Provide at least one message.")
        for messages in body["messages"]:
            check_messages(messages, self.config)
        conversations: list[list[dict[str, Any]]] = body["messages"]
        return conversations


class ChatWriter(OpenAIWriter):
    """Chunks and completions of one chat request."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, dialect: Chat, request: Request, created: int) -> None:
        config = dialect.config
        self.view = Views(request.form)
        self.parsed = request.form.marked or bool(config.reasoning_parser)
        # A parser that is configured leaves out what shows nothing, also where it has nothing to find.
        self.silent = config.enable_auto_tool_choice and bool(config.tool_call_parser)
        super().__init__(dialect, request, created)

    def varies(self) -> bool:
        """Whether chunks differ in more than their text."""
        return self.parsed or (self.silent and bool(self.request.stops.strings)) or super().varies()

    def opening(self, plan: Plan) -> bytes:
        """The role chunk of every choice, sent together, then what they echo."""
        choices = range(self.request.n * len(self.request.prompts))
        roles = [self._role_chunk(plan, index) for index in choices]
        echoes = [self._head(plan, index, {"content": text}) for index in choices if (text := self._echoed(index))]
        return b"".join(map(frame, roles + echoes))

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        answer = self.whole_envelope(plans, [self._choice(plan) for plan in plans])
        count = self.request.prompt_logprobs
        answer["prompt_logprobs"] = None if count is None else prompt_logprobs(plans[0].prompt, count)
        answer["prompt_token_ids"] = plans[0].prompt.ids if self.request.return_token_ids else None
        answer["prompt_text"] = plans[0].prompt_text if self.request.return_prompt_text else None
        return dumps(answer | self.whole_ending(plans))

    def span_chunks(self, plan: Plan, start: int, stop: int) -> list[dict[str, Any]]:
        """
        One chunk for each channel that the tokens show.

        Hidden tokens have none, but the end always has one, and wanted token ids are never lost.
        """
        deltas = self._deltas(plan, start, stop)
        if not deltas and (self.request.return_token_ids or self.is_last(plan, stop)):
            deltas = [{}]
        return [self._part(plan, start, stop, delta, delta is deltas[-1]) for delta in deltas]

    def chunk(self, plan: Plan, start: int, stop: int, shown: Any) -> dict[str, Any]:
        """The chunk of some tokens with their text."""
        return self._part(plan, start, stop, {} if self.silent and not shown else {"content": shown}, True)

    def finish(self, plan: Plan) -> str:
        """The finish reason: complete tool calls change it, unless the client named the tool."""
        if not self.request.form.marked or self.request.form.choice == "named" or plan.finish != "stop":
            return plan.finish
        return "tool_calls" if self.view(plan).calls else plan.finish

    def completion_details(self, plans: Sequence[Plan]) -> dict[str, Any] | None:
        """How many tokens were reasoning, where a reasoning parser counts them."""
        if not self.config.reasoning_parser:
            return None
        return {"reasoning_tokens": sum(self.view(plan).thought[-1] for plan in plans)}

    def created_cache_tokens(self, plan: Plan) -> int | None:
        """The whole blocks of a prompt that were not cached."""
        if not self.config.enable_prefix_caching:
            return 0
        return max(plan.prompt_tokens - plan.prompt_tokens % self.config.block_size - plan.cached_tokens, 0)

    def _deltas(self, plan: Plan, start: int, stop: int) -> list[dict[str, Any]]:
        if not self.parsed:
            text = "".join(plan.texts[start:stop])
            return [] if self.silent and not text else [{"content": text}]
        pieces, shown = merged(self.view(plan).pieces[start:stop]), self.request.form.show_reasoning
        return [_delta(piece, plan) for piece in pieces if shown or piece.channel != REASONING]

    def _part(self, plan: Plan, start: int, stop: int, delta: dict[str, Any], whole: bool) -> dict[str, Any]:
        """A chunk of some tokens; ``whole``: it is the last that they show, and carries what comes once for them."""
        last = whole and self.is_last(plan, stop)
        logprobs = self.logprobs.chat(plan, start, min(stop, len(plan.ids))) if self.logprobs and whole else None
        choice = {
            "index": plan.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": self.finish(plan) if last else None,
        }
        if last:
            choice["stop_reason"] = plan.stop_reason
        choice["token_ids"] = self.token_ids(plan, start, stop) if whole else None
        if last:
            choice["weight_versions"] = None
        chunk = self.envelope(self.chunk_object, [choice])
        self._count(chunk, plan, min(stop, len(plan.ids)))
        return self.sign(chunk, plan, last)

    def _choice(self, plan: Plan) -> dict[str, Any]:
        return {
            "index": plan.index,
            "message": self._message(plan),
            "logprobs": self.logprobs.chat(plan, 0, len(plan.ids)) if self.logprobs else None,
            "finish_reason": self.finish(plan),
            "stop_reason": plan.stop_reason,
            "token_ids": plan.ids if self.request.return_token_ids else None,
            "routed_experts": None,
            "weight_versions": None,
        }

    def _message(self, plan: Plan) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": self._role(plan.index),
            "content": None,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }
        if not self.parsed:
            message["content"] = self._echoed(plan.index) + "".join(plan.texts)
            message["reasoning"] = None
            return message
        view, forced = self.view(plan), self.request.form.choice in ("required", "named")
        message["content"] = view.content
        if (view.content is None and forced) or self.request.echo:
            message["content"] = self._echoed(plan.index) + (view.content or "")
        if view.calls:
            message["tool_calls"] = [_whole_call(plan, i, call) for i, call in enumerate(view.calls)]
        message["reasoning"] = view.reasoning if self.request.form.show_reasoning else None
        return message

    def _echoed(self, index: int) -> str:
        """What ``echo`` puts before an answer: the last message's text, where the answer continues it."""
        prompt = self.request.prompts[index // self.request.n]
        if not self.request.echo or not isinstance(prompt, Conversation):
            return ""
        last = prompt.messages[-1]
        return plain_text(last) if last.get("role") == self._role(index) else ""

    def _role(self, index: int) -> Any:
        """Who answers: with no turn of its own the model continues the last one."""
        prompt = self.request.prompts[index // self.request.n]
        if not isinstance(prompt, Conversation) or prompt.generation_prompt:
            return self.config.response_role
        return prompt.messages[-1].get("role")

    def _role_chunk(self, plan: Plan, index: int) -> dict[str, Any]:
        chunk = self._head(plan, index, {"role": self._role(index), "content": ""})
        chunk["prompt_token_ids"] = plan.prompt.ids if self.request.return_token_ids else None
        chunk["prompt_text"] = plan.prompt_text if self.request.return_prompt_text else None
        return chunk

    def _head(self, plan: Plan, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        """A chunk that precedes all tokens."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = self.envelope(self.chunk_object, [choice])
        self._count(chunk, plan, 0)
        return chunk

    def _count(self, chunk: dict[str, Any], plan: Plan, tokens: int) -> None:
        if not self.request.continuous_usage:
            return
        details = None
        if self.config.reasoning_parser:
            details = {"reasoning_tokens": self.view(plan).thought[tokens - 1] if tokens else 0}
        chunk["usage"] = usage(plan.prompt_tokens, tokens) | {"completion_tokens_details": details}


def _delta(piece: Piece, plan: Plan) -> dict[str, Any]:
    if piece.channel == NAME:
        function = {"name": piece.text}
        head = {"id": call_id(plan, piece.call), "type": "function", "index": piece.call, "function": function}
        return {"content": None, "tool_calls": [head]}
    if piece.channel == ARGUMENTS:
        return {"content": None, "tool_calls": [{"index": piece.call, "function": {"arguments": piece.text}}]}
    return {"reasoning" if piece.channel == REASONING else "content": piece.text}


def _whole_call(plan: Plan, number: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call_id(plan, number), "type": "function", "function": function}


def conversation(messages: Sequence[dict[str, Any]], body: dict[str, Any], config: Config) -> Conversation:
    """A conversation with what its template reads. Raises Fault for a template of the client's own."""
    if body.get("chat_template") is not None and not config.trust_request_chat_template:
        raise refuse(UNTRUSTED_TEMPLATE)
    template = {**(config.default_chat_template_kwargs or {}), **given(body, "chat_template_kwargs", {})}
    return Conversation(messages, given(body, "tools", ()), given(body, "add_generation_prompt", True), template)
