"""
Where an answer stops: the end token, stop strings, stop token ids, and the text that is held back for them.

vLLM shows a token's text only when no stop string can begin in it any more.
"""

from __future__ import annotations

from typing import NamedTuple

from llmdsim.sim.request import Stops, Tokens


class Cut(NamedTuple):
    """The first fields of what a Plan says: texts, ids, finish, stop_reason."""

    texts: list[str]
    ids: list[int]
    finish: str
    stop_reason: str | int | None


def cut(tokens: Tokens, complete: bool, eos: tuple[int, str], stops: Stops) -> Cut:
    """
    Apply stop conditions to a draft; ``complete`` says that it ends by itself, so that the end token follows.

    The end token counts as generated and shows no text.
    """
    texts, ids = list(tokens.texts), list(tokens.ids)
    finish = "stop" if complete else "length"
    if complete:
        ids.append(eos[0])
        texts.append("")
    if not stops.strings and not stops.ids:
        return Cut(texts, ids, finish, None)
    by_id = _id_place(ids[:-1] if complete else ids, stops)
    if by_id is not None:
        return _stop_at_id(texts, ids, by_id, stops)
    return _hold_back(texts, ids, finish, stops)


def _id_place(ids: list[int], stops: Stops) -> int | None:
    return next((i for i, id in enumerate(ids) if id in stops.ids and i + 1 > stops.min_tokens), None)


def _stop_at_id(texts: list[str], ids: list[int], place: int, stops: Stops) -> Cut:
    shown = texts[: place + 1] if stops.include else [*texts[:place], ""]
    held = _hold_back(shown, ids[: place + 1], "stop", stops)
    return held if held.stop_reason else held._replace(stop_reason=ids[place])


def _hold_back(texts: list[str], ids: list[int], finish: str, stops: Stops) -> Cut:
    keep = 0 if stops.include else max(map(len, stops.strings), default=1) - 1
    text, sent = "", 0
    shown: list[str] = []
    for place, piece in enumerate(texts):
        seen = len(text)
        text += piece
        if place + 1 > stops.min_tokens:
            found = _find(text, seen, stops)
            if found is not None:
                end, string = found
                return Cut([*shown, text[sent:end]], ids[: place + 1], "stop", string)
        ready = max(sent, len(text) - keep)
        shown.append(text[sent:ready])
        sent = ready
    if shown:
        shown[-1] += text[sent:]
    return Cut(shown, ids, finish, None)


def _find(text: str, seen: int, stops: Stops) -> tuple[int, str] | None:
    """The first stop string, in the order given, that ends in the text after ``seen``: where it cuts, and which."""
    for string in stops.strings:
        at = text.find(string, max(0, seen - len(string) + 1))
        if at >= 0:
            return at + (len(string) if stops.include else 0), string
    return None
