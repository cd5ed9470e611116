"""
What shape a chat's answer must have: its tools, its structured output, whether the model thinks first.

Contradictions are refused in vLLM's words; what only a parser's flag allows is refused in strict mode alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmdsim.api.sampling import given, refuse
from llmdsim.config import Config
from llmdsim.faults import bad_value
from llmdsim.sim.request import Constraint, Form
from llmdsim.sim.synthesis.regexes import found
from llmdsim.sim.tools import Tool

NO_AUTO = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
ONE_KIND = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
MEDIA = frozenset(("image_url", "input_image", "image_embeds", "input_audio", "audio_url", "video_url", "image_pil"))
TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))


def check_messages(messages: Sequence[Mapping[str, Any]], config: Config) -> None:
    """A conversation must have messages, and strict vLLM serves a text model only."""
    if not messages:
        raise refuse("Cannot apply chat template to an empty conversation. Provide at least one message.")
    if config.strict and any(_has_media(message) for message in messages):
        raise refuse(f"{config.display_name} is not a multimodal model")


def _has_media(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") in MEDIA for part in parts)


def check_tools(body: Mapping[str, Any]) -> None:
    """Tools and their choice must fit each other. Checked before types are, as in vLLM."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad_value(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    if choice in (None, "none"):
        return
    if tools is None:
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "required"):
        raise bad_value(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    _check_named(choice, tools)


def _check_named(choice: Any, tools: Any) -> None:
    name = named(choice)
    if name is None or not isinstance(tools, list):
        return
    if name not in [tool["function"].get("name") for tool in tools if _is_function(tool)]:
        raise bad_value(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )


def _is_function(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("function"), dict)


def named(choice: Any) -> str | None:
    """The function that a tool choice forces, or None."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def check_parsers(body: Mapping[str, Any], config: Config) -> None:
    """What strict vLLM allows only where its parsers are configured."""
    if not config.strict or not body.get("tools"):
        return
    choice = given(body, "tool_choice", "auto")
    if choice == "auto" and not (config.enable_auto_tool_choice and config.tool_call_parser):
        raise refuse(NO_AUTO)
    if choice != "none" and not config.tool_call_parser:
        name = named(choice)
        shown = f'function "{name}"' if name else f'"{choice}"'
        raise refuse(f"tool_choice={shown} requires --tool-call-parser to be set")


def form(body: Mapping[str, Any], config: Config) -> Form:
    """The form that a chat body asks for."""
    tools = (
        tuple(Tool(each["function"]["name"], given(each["function"], "parameters", {})) for each in body["tools"])
        if body.get("tools")
        else ()
    )
    choice = given(body, "tool_choice", "auto" if tools else "none")
    return Form(
        tools=tools,
        choice=choice if isinstance(choice, str) else "named",
        named=named(choice),
        parallel=given(body, "parallel_tool_calls", True),
        constraint=constraint(body),
        thinking=thinks(body, config),
        show_reasoning=given(body, "include_reasoning", True),
    )


def thinks(body: Mapping[str, Any], config: Config) -> bool:
    """Whether the model reasons before it answers."""
    template = {**(config.default_chat_template_kwargs or {}), **given(body, "chat_template_kwargs", {})}
    wanted = template.get("enable_thinking", True) is not False and body.get("reasoning_effort") != "none"
    return bool(config.reasoning_parser) and wanted


def constraint(body: Mapping[str, Any]) -> Constraint | None:
    """The structured output that ``response_format`` or ``structured_outputs`` demands."""
    wanted = given(body, "structured_outputs", {})
    kinds = [kind for kind in KINDS if wanted.get(kind) not in (None, False)]
    if len(kinds) > 1:
        raise refuse(ONE_KIND)
    if kinds:
        return _checked(Constraint(kinds[0], wanted[kinds[0]]))
    return _response_format(given(body, "response_format", {}))


def _response_format(wanted: Mapping[str, Any]) -> Constraint | None:
    if wanted.get("type") == "json_object":
        return Constraint("json_object", True)
    if wanted.get("type") != "json_schema":
        return None
    if wanted.get("json_schema") is None:
        raise bad_value(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )
    return _checked(Constraint("json", given(wanted["json_schema"], "schema", {})))


def _checked(constraint: Constraint) -> Constraint:
    kind, value = constraint.kind, constraint.value
    if kind == "json":
        _check_schema(_schema(value) if isinstance(value, str) else value)
    elif kind == "regex":
        _check_pattern(value)
    elif kind in ("choice", "grammar") and not value:
        raise refuse(f"structured_outputs.{kind} cannot be an empty {'list' if kind == 'choice' else 'string'}")
    return constraint


def _check_schema(schema: Any) -> None:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, str) and kind not in TYPES:
        raise refuse(f"Grammar error: Invalid type: {kind}")


def _schema(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(str(error)) from None


def _check_pattern(pattern: str) -> None:
    try:
        found(pattern, "")
    except ValueError as error:
        raise refuse(f"Grammar error: {error}") from None
