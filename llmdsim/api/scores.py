"""
``/score``, ``/rerank`` and ``/classify``: bodies to texts, numbers to answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmdsim.api.parts import dumps
from llmdsim.api.pooled import Head, Reading, listing, reading
from llmdsim.api.sampling import given, refuse
from llmdsim.api.schema import check
from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.messages import prompt_text
from llmdsim.sim.vectors import Values

Document = Any  # a string, or an object whose content has parts
LABELS = ("LABEL_0", "LABEL_1")
# The names that a score's two sides may have, in vLLM's order.
SIDES = {
    "ScoreQueriesDocumentsRequest": ("queries", "documents"),
    "ScoreQueriesItemsRequest": ("queries", "items"),
    "ScoreDataRequest": ("data_1", "data_2"),
    "ScoreTextRequest": ("text_1", "text_2"),
}


def sides(body: Mapping[str, Any]) -> tuple[list[Document], list[Document]]:
    """The two sides of a checked score body; there is one on the left, or as many as on the right."""
    one, two = next(_listed(body[one], body[two]) for one, two in _sides(body))
    if len(one) > 1 and len(one) != len(two):
        raise refuse("Input lengths must be either 1:1, 1:N or N:N")
    if not one:
        raise refuse("At least one text element must be given")
    if not two:
        raise refuse("At least one text_pair element must be given")
    return one, two


def documents(body: Mapping[str, Any]) -> tuple[list[Document], list[Document]]:
    """The query of a checked rerank body, and its documents."""
    one, two = _listed(body["query"], body["documents"])
    if not two:
        raise refuse("At least one text_pair element must be given")
    return one, two


def text(document: Document) -> str:
    """What is read of a document."""
    return document if isinstance(document, str) else prompt_text(document)


def readings(body: Mapping[str, Any], config: Config) -> tuple[Reading, Reading]:
    """How each side is read: a limit of its own is one of tokens."""
    shared = reading(body, config)
    limits = [given(body, name, 0) for name in ("max_tokens_per_query", "max_tokens_per_doc")]
    query, document = [Reading(shared.special, limit) if limit > 0 else shared for limit in limits]
    return query, document


def scored(head: Head, scores: Sequence[float], tokens: int) -> bytes:
    """The answer to a score, in the order of the pairs."""
    data = [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)]
    return dumps(listing(head, data, tokens))


def reranked(head: Head, found: Sequence[Document], scores: Sequence[float], tokens: int, top: int) -> bytes:
    """The answer to a rerank: the best documents first, ``top`` of them (0: all)."""
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: top or None]
    results = [{"index": i, "document": _shown(found[i]), "relevance_score": scores[i]} for i in best]
    counts = {"prompt_tokens": tokens, "total_tokens": tokens}
    return dumps({"id": head.id, "model": head.model, "usage": counts, "results": results})


def classified(head: Head, chances: Sequence[Values], tokens: int) -> bytes:
    """The answer to a classification: the likeliest label of each prompt."""
    data = [
        {"index": i, "label": LABELS[each.index(max(each))], "probs": each, "num_classes": len(LABELS)}
        for i, each in enumerate(chances)
    ]
    return dumps(listing(head, data, tokens))


def _sides(body: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The pairs of fields that are right: a body may have a wrong one besides."""
    for component, (one, two) in SIDES.items():
        if one in body and two in body and _passes(component, body):
            yield one, two


def _passes(component: str, body: Mapping[str, Any]) -> bool:
    try:
        check(component, body)
    except Fault:
        return False
    return True


def _listed(*values: Any) -> tuple[list[Document], list[Document]]:
    one, two = [value if isinstance(value, list) else [value] for value in values]
    return one, two


def _shown(document: Document) -> dict[str, Any]:
    if isinstance(document, str):
        return {"text": document, "multi_modal": None}
    return {"text": None, "multi_modal": document["content"]}
