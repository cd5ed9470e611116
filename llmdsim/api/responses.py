"""
``/v1/responses``: the Responses API's dialect, asked as a chat and answered in items and named events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from llmdsim.api import schema
from llmdsim.api.dialect import error
from llmdsim.api.forms import check_messages, form
from llmdsim.api.invalid import invalid, rejected
from llmdsim.api.oddities import filled
from llmdsim.api.response_events import ResponseWriter
from llmdsim.api.response_input import as_chat, flattened, is_answered, messages
from llmdsim.api.response_object import COMPONENT, Ask
from llmdsim.api.sampling import check_cache_salt, check_sampling, given, request_fields
from llmdsim.config import Config
from llmdsim.faults import Fault, Kind, bad_value
from llmdsim.sim.request import Conversation, Form, Model, Request

REFUSED = Kind(400, "invalid_request_error")
UNKNOWN = Kind(404, "invalid_request_error")

NO_STORE = (
    "This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable "
    "these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)
UNSTORED = "background can only be used when `store` is true"
TWO_HISTORIES = "Only one of `previous_input_messages` and `previous_response_id` can be set."


class Responses:
    """The Responses dialect, as vLLM speaks it."""

    prefix = "resp_"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stores = config.responses_store or not config.strict

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        if not self.config.strict:
            body = flattened(body)
        if isinstance(body, dict):
            _check_before(body)
        return schema.check(COMPONENT, body)

    def check_history(self, body: Mapping[str, Any]) -> None:
        """What vLLM refuses once it knows the model: a background without a store, two histories."""
        if body.get("background") and not self.stores:
            raise Fault(REFUSED, NO_STORE, "background")
        if body.get("previous_input_messages") and body.get("previous_response_id"):
            raise Fault(REFUSED, TWO_HISTORIES, "previous_response_id")

    def parse(self, body: dict[str, Any], id: str, model: Model, history: Sequence[Mapping[str, Any]] = ()) -> Ask:
        """The question that a checked body asks; ``history``: the messages of the conversation that it continues."""
        config = self.config
        said = [*history, *messages(body["input"])]
        check_messages(said, config)
        chat = as_chat(body, config)
        check_sampling(chat, config)
        instructions = body.get("instructions")
        opening = [{"role": "system", "content": instructions}] if instructions else []
        wanted = form(chat, config)
        return Ask(
            id=id if id.startswith(self.prefix) else self.prefix + id,
            bare_id=id.removeprefix(self.prefix),
            model=model,
            prompts=(_conversation([*opening, *said], chat, config),),
            max_tokens=body.get("max_output_tokens"),
            limit_name="max_output_tokens",
            form=_drawn(wanted, body),
            logprobs=chat["top_logprobs"],
            body=body,
            messages=said,
            finds_calls=bool(wanted.tools) and wanted.choice != "none",
            **request_fields(chat, config),
        )

    def writer(self, request: Request, created: int) -> ResponseWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        assert isinstance(request, Ask)
        return ResponseWriter(self.config, request, created)

    def refusal(self, fault: Fault) -> dict[str, Any]:
        """vLLM's error envelope."""
        return error(fault)


def unknown(id: str) -> Fault:
    """There is no such response."""
    return Fault(UNKNOWN, f"Response with id '{id}' not found.", "response_id")


def _check_before(body: dict[str, Any]) -> None:
    """What vLLM checks before it looks at types."""
    if body.get("prompt") is not None:
        raise bad_value("prompt template is not supported", "prompt")
    check_cache_salt(body)
    if body.get("background") and not body.get("store", True):
        raise invalid([rejected(("body",), filled(COMPONENT, body), UNSTORED)])
    if not body.get("tools") and given(body, "tool_choice", "none") not in ("auto", "none"):
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")


def _drawn(wanted: Form, body: Mapping[str, Any]) -> Form:
    """The form without tools to call, where the model has its choice and the result of a call to talk about."""
    return attrs.evolve(wanted, tools=()) if wanted.choice == "auto" and is_answered(body) else wanted


def _conversation(said: Sequence[Mapping[str, Any]], chat: Mapping[str, Any], config: Config) -> Conversation:
    template = {**(config.default_chat_template_kwargs or {}), **given(chat, "chat_template_kwargs", {})}
    return Conversation(said, chat["tools"], True, template)
