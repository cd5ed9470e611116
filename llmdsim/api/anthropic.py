"""
Anthropic's Messages as a chat: vLLM turns such a body into a chat request, and so do we.

Only shapes: what a body says, in the words of ``/v1/chat/completions``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmdsim.api.sampling import given

CHOICES = {"any": "required", "none": "none", "auto": "auto"}


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """A checked Messages body as a chat body."""
    chat: dict[str, Any] = {name: body[name] for name in SHARED if body.get(name) is not None}
    chat["messages"] = [*_system(body.get("system")), *(m for each in body["messages"] for m in _messages(each))]
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    if body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in body["tools"]]
        chat["tool_choice"] = _choice(given(body, "tool_choice", {"type": "auto"}))
        chat["parallel_tool_calls"] = not given(body, "tool_choice", {}).get("disable_parallel_tool_use")
    shape = given(given(body, "output_config", {}), "format", {}).get("schema")
    if shape is not None:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": shape}}
    if given(body, "thinking", {}).get("type") == "disabled":
        chat["chat_template_kwargs"] = {**given(body, "chat_template_kwargs", {}), "enable_thinking": False}
    return chat


SHARED = (
    "model",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "cache_salt",
    "kv_transfer_params",
    "chat_template_kwargs",
)


def _system(system: Any) -> list[dict[str, Any]]:
    text = system if isinstance(system, str) else _joined(system or (), "")
    return [{"role": "system", "content": text}] if text else []


def _joined(blocks: Iterable[Mapping[str, Any]], glue: str) -> str:
    return glue.join(str(block["text"]) for block in blocks if block.get("type") == "text" and block.get("text"))


def _messages(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One message as the chat messages it stands for: its own, then one for each tool result in it."""
    content = message["content"]
    if isinstance(content, str):
        return [{"role": message["role"], "content": content}]
    own: dict[str, Any] = {"role": message["role"]}
    parts = [part for part in map(_part, content) if part is not None]
    calls = [_call(block) for block in content if block["type"] == "tool_use"]
    if parts:
        own["content"] = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    thoughts = [block["thinking"] for block in content if block["type"] == "thinking" and block.get("thinking")]
    if thoughts:
        own["reasoning"] = "".join(thoughts)
    if calls:
        own["tool_calls"] = calls
    results = [_result(block) for block in content if block["type"] == "tool_result"]
    return [*([own] if parts or calls else []), *results]


def _part(block: Mapping[str, Any]) -> dict[str, Any] | None:
    if block["type"] == "text" and block.get("text"):
        return {"type": "text", "text": block["text"]}
    if block["type"] == "image" and block.get("source"):
        return {"type": "image_url", "image_url": {"url": _url(block["source"])}}
    return None


def _url(source: Mapping[str, Any]) -> str:
    if source.get("type") == "url":
        return str(source.get("url", ""))
    return f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(given(block, "input", {}), ensure_ascii=False)
    return {
        "id": given(block, "id", ""),
        "type": "function",
        "function": {"name": given(block, "name", ""), "arguments": arguments},
    }


def _result(block: Mapping[str, Any]) -> dict[str, Any]:
    content = given(block, "content", "")
    text = content if isinstance(content, str) else _joined(content, "\n")
    return {"role": "tool", "tool_call_id": given(block, "tool_use_id", ""), "content": text}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}


def _choice(choice: Mapping[str, Any]) -> Any:
    if choice["type"] == "tool":
        return {"type": "function", "function": {"name": given(choice, "name", "")}}
    return CHOICES[choice["type"]]
