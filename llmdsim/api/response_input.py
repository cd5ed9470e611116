"""
What the Responses API asks, in the words of a chat: input items as messages, flat tools as nested ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmdsim.api.sampling import given, refuse
from llmdsim.config import Config
from llmdsim.faults import bad_value

LOGPROBS = "message.output_text.logprobs"
# Fields that mean in a chat what they mean here.
SHARED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "include_stop_str_in_output",
    "priority",
    "stream",
    "kv_transfer_params",
    "structured_outputs",
    "include_reasoning",
    "chat_template_kwargs",
)
TWO_FORMATS = "Cannot specify both structured_outputs and text.format"

Message = dict[str, Any]


def messages(asked: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """The input of a request as chat messages; items that no chat has are passed over."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    found: list[Message] = []
    for item in asked:
        message = _message(item)
        if message is not None:
            _add(found, message)
    return found


def spoken(output: Sequence[Mapping[str, Any]]) -> list[Message]:
    """What an earlier answer adds to its conversation; its reasoning is forgotten."""
    return messages([item for item in output if item["type"] != "reasoning"])


def as_chat(body: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The body's settings as a chat has them. Raises Fault where they contradict each other."""
    chat = {name: body[name] for name in SHARED if name in body}
    chat["max_tokens"] = body.get("max_output_tokens")
    chat["logprobs"] = LOGPROBS in given(body, "include", ())
    chat["top_logprobs"] = given(body, "top_logprobs", 0) if chat["logprobs"] else None
    chat["reasoning_effort"] = given(body, "reasoning", {}).get("effort")
    chat["response_format"] = _response_format(body)
    chat["tools"] = _tools(body)
    chat["tool_choice"] = _tool_choice(body, chat["tools"], config)
    chat["parallel_tool_calls"] = False  # one call an answer, as in the older simulator
    return chat


def is_answered(body: Mapping[str, Any]) -> bool:
    """Whether the input has the result of a tool call, which a text should follow."""
    items = body["input"]
    return not isinstance(items, str) and any(item.get("type") == "function_call_output" for item in items)


def flattened(body: Any) -> Any:
    """A body with the tools of a chat made flat, and their type filled in: the older simulator took both."""
    if not isinstance(body, dict) or not isinstance(body.get("tools"), list):
        return body
    tools = [_flat(tool) for tool in body["tools"]]
    return body if tools == body["tools"] else {**body, "tools": tools}


def _flat(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        return tool
    function = tool.get("function")
    return {"type": "function", **(function if isinstance(function, dict) else tool)}


def _message(item: Mapping[str, Any]) -> Message | None:
    kind = given(item, "type", "message")
    if kind == "message":
        return _said(item)
    if kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        return {"role": "assistant", "tool_calls": [{"id": item["call_id"], "type": "function", "function": function}]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
    return {"role": "assistant", "reasoning": _thought(item)} if kind == "reasoning" else None


def _said(item: Mapping[str, Any]) -> Message | None:
    """A message's role and content; None for the bare id of an earlier item, whose type may be absent too."""
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or not isinstance(content, (str, list)):
        return None
    return {"role": role, "content": content}


def _thought(item: Mapping[str, Any]) -> str:
    return "\n".join(part["text"] for part in given(item, "content", ()) or item["summary"])


def _add(found: list[Message], message: Message) -> None:
    """Append a message; what an assistant thought, said and called in one turn is one message."""
    last: Message = found[-1] if found else {}
    if not last.get("role") == message["role"] == "assistant":
        found.append(message)
    elif "tool_calls" in message:
        found[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), *message["tool_calls"]]}
    elif "content" in message and "content" not in last and "tool_calls" not in last:
        found[-1] = {**last, **message}
    else:
        found.append(message)


def _response_format(body: Mapping[str, Any]) -> dict[str, Any] | None:
    wanted = given(given(body, "text", {}), "format", None)
    if wanted is None:
        return None
    if body.get("structured_outputs") is not None:
        raise bad_value(TWO_FORMATS, "structured_outputs")
    if wanted["type"] == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": wanted["name"], "schema": wanted["schema"]}}
    return {"type": wanted["type"]}


def _tools(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions among the tools, as a chat has them, restricted to those that the client allows."""
    functions = [tool for tool in given(body, "tools", ()) if tool["type"] == "function"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = [tool.get("name") for tool in choice["tools"]]
        functions = [tool for tool in functions if tool["name"] in allowed]
    return [{"type": "function", "function": _function(tool)} for tool in functions]


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}


def _tool_choice(body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], config: Config) -> Any:
    choice = given(body, "tool_choice", "auto")
    if isinstance(choice, dict):
        choice = _chosen(choice, tools)
    if not tools:
        return "none"
    if choice != "auto":
        return choice
    if config.strict:
        return "auto" if config.enable_auto_tool_choice and config.tool_call_parser else "none"
    # The older simulator calls a tool whenever it may, until the conversation has a result.
    return "auto" if is_answered(body) else "required"


def _chosen(choice: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Any:
    if choice["type"] == "allowed_tools":
        return choice["mode"]
    if choice["type"] != "function":
        return "auto"
    name = choice["name"]
    if name not in [tool["function"]["name"] for tool in tools]:
        raise refuse(f"Tool '{name}' has not been passed in tools.")
    return {"type": "function", "function": {"name": name}}
