"""
What the pooling routes share: how their prompts are read, and what every answer begins and ends with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from llmdsim.api.chat import UNTRUSTED_TEMPLATE
from llmdsim.api.parts import usage
from llmdsim.api.sampling import given, refuse
from llmdsim.config import Config
from llmdsim.faults import Fault, bad_value
from llmdsim.sim.request import Conversation, Prompt

_POOLING_TASKS = frozenset(("embed", "embedding", "classify", "score", "reward", "token_embed", "token_classify"))


def is_pooling(config: Config) -> bool:
    """Whether the served model pools instead of generating, by ``--runner`` or the older ``--task``."""
    return config.runner == "pooling" or (config.runner == "auto" and config.task in _POOLING_TASKS)


class Head(NamedTuple):
    """What an answer begins with: its id, Unix time in seconds, the name of the model."""

    id: str
    created: int
    model: str


@attrs.frozen(slots=True)
class Reading:
    """How a prompt becomes tokens; ``special`` None: as its kind wants, ``keep`` None: all of them."""

    special: bool | None = None
    keep: int | None = None
    left: bool = False  # the side that is cut

    def cut(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What is kept of the tokens."""
        if self.keep is None or len(ids) <= self.keep:
            return tuple(ids)
        return tuple(ids[len(ids) - self.keep :] if self.left else ids[: self.keep])


def reading(body: Mapping[str, Any], config: Config) -> Reading:
    """How a body wants its prompts read."""
    keep, window = body.get("truncate_prompt_tokens"), config.max_model_len
    if keep is not None and keep > window:
        raise bad_value(
            f"truncate_prompt_tokens={keep} cannot be greater than max_model_len - max_output_tokens = {window}. "
            "Please request a smaller truncation size.",
            "truncate_prompt_tokens",
            keep,
        )
    return Reading(
        special=body.get("add_special_tokens"),
        keep=window if keep == -1 else keep,
        left=body.get("truncation_side") == "left",
    )


def prompts(body: Mapping[str, Any], config: Config) -> tuple[Prompt, ...]:
    """What ``input`` or ``messages`` asks about; at least one prompt."""
    texts = _texts(body.get("input"))
    found = _conversations(body, config) if texts is None else texts
    if not found:
        raise refuse("You must pass at least one prompt")
    return found


def listing(head: Head, data: Sequence[Mapping[str, Any]], tokens: int) -> dict[str, Any]:
    """The answer that has an item for each prompt; ``tokens`` is what all prompts have together."""
    return {
        "id": head.id,
        "object": "list",
        "created": head.created,
        "model": head.model,
        "data": data,
        "usage": usage(tokens, 0) | {"prompt_tokens_details": None, "completion_tokens_details": None},
    }


def empty() -> Fault:
    """The refusal of a prompt without tokens."""
    return refuse("The decoder prompt cannot be empty")


def _texts(value: Any) -> tuple[Prompt, ...] | None:
    """The prompts of an ``input``; None where it is none, or a chat."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return None
    kinds = set(map(type, value))
    if kinds == {int}:
        return (tuple(value),)
    if kinds == {list} and all(set(map(type, ids)) <= {int} for ids in value):
        return tuple(map(tuple, value))
    return tuple(value) if kinds <= {str} else None


def _conversations(body: Mapping[str, Any], config: Config) -> tuple[Prompt, ...]:
    if body.get("chat_template") is not None and not config.trust_request_chat_template:
        raise refuse(UNTRUSTED_TEMPLATE)
    messages = body["messages"]
    batch = messages if messages and isinstance(messages[0], list) else [messages]
    if not all(batch):
        raise refuse("Cannot apply chat template to an empty conversation. Provide at least one message.")
    template = {**(config.default_chat_template_kwargs or {}), **given(body, "chat_template_kwargs", {})}
    prompted = given(body, "add_generation_prompt", False)
    return tuple(Conversation(chat, (), prompted, template) for chat in batch)
