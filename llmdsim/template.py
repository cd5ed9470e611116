"""
A model's chat template, rendered as transformers and vLLM render it: jinja2 in its immutable sandbox.

Imported only where a tokenizer with a template is loaded. Finding the source is huggingface's work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.sim.messages import blocks, plain_text, text_of

MEDIA = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
}


class Generation(Extension):
    """``{% generation %}``, with which training marks an assistant's turns, is transparent."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """
    Renders chats; ``sources`` are the model's templates by name, ``specials`` its special tokens (``bos_token``, ...).

    Raises ValueError for a source that is no template.
    """

    def __init__(
        self, sources: Mapping[str, str], specials: Mapping[str, str], now: Callable[[], datetime] = datetime.now
    ) -> None:
        environment = _environment(now)
        try:
            self._templates = {name: environment.from_string(source) for name, source in sources.items()}
            self._walked = {name: _walks_blocks(environment.parse(source)) for name, source in sources.items()}
        except TemplateSyntaxError as error:
            raise ValueError(f"chat template, line {error.lineno}: {error}") from error
        self._specials = dict(specials)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        generation_prompt: bool,
        options: Mapping[str, Any],
    ) -> str:
        """The prompt of a chat, with ``options`` as further variables. Raises Fault(BAD_REQUEST) where it fails."""
        name = self._name(tools)
        shape = _with_blocks if self._walked[name] else _with_text
        names = {
            **self._specials,
            "documents": None,
            **options,
            "messages": [shape(message) for message in messages],
            "tools": list(tools) or None,
            "add_generation_prompt": generation_prompt,
        }
        try:
            return self._templates[name].render(names)
        except Exception as error:  # a template runs on the client's data: whatever it raises is about those
            raise Fault(BAD_REQUEST, str(error) or type(error).__name__) from error

    def _name(self, tools: Sequence[Mapping[str, Any]]) -> str:
        wanted = "tool_use" if tools else "default"
        return next(name for name in (wanted, "default", *self._templates) if name in self._templates)


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: now().strftime(format)
    return environment


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _walks_blocks(tree: nodes.Template) -> bool:
    """Whether a template loops over the blocks of a content; any other expects a string, as vLLM finds out too."""
    return any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node | None) -> bool:
    while isinstance(node, nodes.Filter):
        node = node.node
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return getattr(node, "attr", None) == "content" or getattr(node, "name", None) == "content"


def _with_text(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**_known(message), "content": plain_text(message)}


def _with_blocks(message: Mapping[str, Any]) -> dict[str, Any]:
    shown = (_block(block) for block in blocks(message))
    return {**_known(message), "content": [block for block in shown if block is not None]}


def _block(block: Any) -> dict[str, str] | None:
    text = text_of(block)
    if text is not None:
        return {"type": "text", "text": text}
    medium = MEDIA.get(str(block.get("type"))) if isinstance(block, Mapping) else None
    return {"type": medium} if medium else None


def _known(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: no nulls, arguments of tool calls as objects."""
    pairs = message.items() if isinstance(message, Mapping) else ()
    known = {key: value for key, value in pairs if value is not None}
    if isinstance(known.get("tool_calls"), (list, tuple)):
        known["tool_calls"] = [_call(call) for call in known["tool_calls"]]
    return known


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}
