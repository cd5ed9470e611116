"""
What vLLM's OpenAPI document does not tell of its bodies: the classes behind the components, and their validators.

A table or a function for each, with the reason; the compiler asks, nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmdsim.api.invalid import Error, Loc
from llmdsim.api.scalars import Check

Validator = Callable[[Any], str | None]

# A TypedDict refuses other values and names union branches unlike a model.  Those of the openai package are called
# ...Param, as are all that they are made of; these are the exceptions on both sides.
_TYPED = frozenset(
    [
        "ComputerCallOutput",
        "FunctionCallOutput",
        "ToolSearchCall",
        "ShellCall",
        "ShellCallOutput",
        "ApplyPatchCall",
        "ApplyPatchCallOutput",
        "CompactionTrigger",
        "ItemReference",
        "SamplingParams",
    ]
)
_MODELS = frozenset(
    [
        "ChatCompletionNamedToolChoiceParam",
        "ChatCompletionToolsParam",
        "PromptCacheOptionsParam",
        "ToolChoiceSpecificProgrammaticToolCallingParam",
    ]
)
DATACLASSES = frozenset(("StructuredOutputsParams", "RepetitionDetectionParams"))

# vLLM's own models wrap their validation in a function, whose name vLLM drops from locations.
UNNAMED = frozenset(
    [
        "ResponseFormat",
        "StructuralTagResponseFormat",
        "LegacyStructuralTagResponseFormat",
        "ChatCompletionNamedToolChoiceParam",
    ]
)

# Most arrays in TypedDicts are iterables to Python, whose items are not looked at; these are true lists.
LISTS = frozenset(
    [
        "CustomChatCompletionMessageParam.content",
        "CustomChatCompletionMessageParam.tool_calls",
        "CustomChatCompletionMessageParam.tools",
        "EasyInputMessageParam.content",
        "openai__types__responses__response_input_item_param__Message.content",
        "FunctionCallOutput.output",
        "ResponseComputerToolCallParam.actions",
        "ScoreMultiModalParam.content",
    ]
)

# Members of a union that the document cannot show, before the member they stand before.
HIDDEN = {"CustomChatCompletionContentSimpleImageParam": "CustomChatCompletionContentPILImageParam"}


def typed(name: str, inside: bool) -> bool:
    """Whether a component is a TypedDict; ``inside`` says that it is part of one."""
    if name in _MODELS:
        return False
    return inside or name in _TYPED or name.endswith("Param") or "_param__" in name or "shared_params" in name


def short(name: str) -> str:
    """The name of the Python class behind a component."""
    return name.rpartition("__")[2].removesuffix("-Input").removesuffix("-Output")


def plain_message_first(check: Check) -> Check:
    """``check`` for the messages of a chat, with a short cut for the most common form."""

    def checked(value: Any, loc: Loc, errors: list[Error]) -> Any:
        # CustomChatCompletionMessageParam takes any role and any string, so the union is bound to pass.
        if (
            type(value) is dict
            and len(value) == 2
            and type(value.get("role")) is str
            and type(value.get("content")) is str
        ):
            return value
        return check(value, loc, errors)

    return checked


def validator(name: str) -> Validator | None:
    """The validator written in Python of a component or of its field (``Component.field``); it returns its refusal."""
    return _VALIDATORS.get(name)


def filled(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body as vLLM completes it before it looks at the fields."""
    body = dict(body)
    if body.get("return_mm_kwargs") is False and "mm_payload" not in body:
        body["mm_payload"] = "none"
    if name == "ChatCompletionRequest":
        _fill_chat(body)
    if name == "ResponsesRequest":
        _fill_response(body)
    if name in _CHAT_INPUTS and "messages" not in body and _CHAT_INPUTS[name](body.get("input")):
        body["messages"] = body["input"]
    return body


def _is_chat(value: Any) -> bool:
    whole = type(value) is list and bool(value)
    return whole and all(type(item) is dict and type(item.get("role")) is str for item in value)


def _is_batch(value: Any) -> bool:
    return type(value) is list and bool(value) and all(map(_is_chat, value))


def _fill_chat(body: dict[str, Any]) -> None:
    if body.get("tools"):
        body.setdefault("tool_choice", "auto")
    if type(body.get("messages")) is list:
        body["messages"] = [_listed(message, "tool_calls") for message in body["messages"]]


def _listed(value: Any, field: str) -> Any:
    """The value with this field as a list, where Python can iterate it."""
    if type(value) is dict and type(value.get(field)) in (str, dict):
        return {**value, field: list(value[field])}
    return value


def _fill_response(body: dict[str, Any]) -> None:
    if not body.get("tools") and body.get("tool_choice", "auto") in ("auto", "none"):
        body["tool_choice"] = "none"
    if type(body.get("input")) is dict:
        body["input"] = list(body["input"])
    if type(body.get("input")) is list:
        body["input"] = [_fill_item(item) for item in body["input"]]


def _fill_item(item: Any) -> Any:
    if type(item) is not dict:
        return item
    if item.get("type") == "reasoning":
        return {"id": "rs_", **item}
    if type(item.get("content")) is not list:
        return item
    item = {**item, "content": [_fill_part(part) for part in item["content"]]}
    said = item.get("type") == "message" and item.get("role") == "assistant"
    return {"id": "msg_", "status": "completed", **item} if said else item


def _fill_part(part: Any) -> Any:
    kind = part.get("type") if type(part) is dict else None
    if kind == "output_text":
        return {"annotations": [], **part}
    return {"detail": "auto", **part} if kind == "input_image" else part


def _model(value: str) -> str | None:
    return None if value else "Model is required"


def _max_tokens(value: int) -> str | None:
    return None if value > 0 else "max_tokens must be positive"


def _token_ids(value: list[int]) -> str | None:
    return "token_ids must not contain negative values" if min(value) < 0 else None


def _tool_choice(value: dict[str, Any]) -> str | None:
    missing = value["type"] == "tool" and not value.get("name")
    return "tool_choice.name is required when type is 'tool'" if missing else None


def _block(value: dict[str, Any]) -> str | None:
    if value["type"] not in ("tool_addition", "tool_removal"):
        return None
    if value.get("tool") is None:
        return f"tool is required for {value['type']} blocks"
    wrong = value["type"] == "tool_removal" and value["tool"]["type"] != "tool_reference"
    return "tool_removal only accepts a tool_reference" if wrong else None


def _no_tool_changes(content: Any) -> str | None:
    for block in content if type(content) is list else ():
        if block["type"] in ("tool_addition", "tool_removal"):
            return f'{block["type"]} blocks are only allowed in messages with role "system"'
    return None


def _message(value: dict[str, Any]) -> str | None:
    return None if value["role"] == "system" else _no_tool_changes(value["content"])


def _thinking(value: dict[str, Any]) -> str | None:
    if (value.get("kv_transfer_params") or {}).get("do_remote_decode"):
        return None  # a prefill leg is sent with max_tokens=1
    thinking = value.get("thinking") or {}
    long = thinking.get("type") == "enabled" and thinking["budget_tokens"] >= value["max_tokens"]
    return "thinking.budget_tokens must be less than max_tokens" if long else None


_CHAT_INPUTS: dict[str, Callable[[Any], bool]] = {
    "EmbeddingChatInputRequest": _is_chat,
    "EmbeddingBatchChatInputRequest": _is_batch,
}
_VALIDATORS: dict[str, Validator] = {
    "AnthropicMessagesRequest": _thinking,
    "AnthropicMessagesRequest.model": _model,
    "AnthropicMessagesRequest.max_tokens": _max_tokens,
    "AnthropicMessagesRequest.system": _no_tool_changes,
    "AnthropicCountTokensRequest.model": _model,
    "AnthropicCountTokensRequest.system": _no_tool_changes,
    "AnthropicContentBlock": _block,
    "AnthropicMessage": _message,
    "AnthropicToolChoice": _tool_choice,
    "GenerateRequest.token_ids": _token_ids,
}
