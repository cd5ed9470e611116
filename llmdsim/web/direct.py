"""
Routes that are answered at once, without a seat: tokenize and detokenize.
"""

from __future__ import annotations

from typing import Any

from twisted.web.iweb import IRequest

from llmdsim.api.chat import conversation
from llmdsim.api.forms import check_messages
from llmdsim.api.messages import Messages
from llmdsim.api.parts import dumps
from llmdsim.api.schema import check, check_any, read_json
from llmdsim.faults import Fault
from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer, fault_answer
from llmdsim.web.app import App
from llmdsim.web.wire import header

TOKENIZE = ("TokenizeCompletionRequest", "TokenizeChatRequest")


def routes(app: App, rank: Rank) -> None:
    """Declare the direct routes."""

    @app.route("/tokenize", methods=["POST"])
    async def tokenize(http: IRequest) -> Answer:
        body = check_any(TOKENIZE, read_json(http.content.read(), header(http, b"content-type")))
        rank.adapters.find(body.get("model"))
        text, special = _question(rank, body)
        tokens = await rank.planner.tokenize(text, special)
        strings = rank.tokenizer.strings(tokens.ids) if body.get("return_token_strs") else None
        return _json(
            {
                "count": len(tokens.ids),
                "max_model_len": rank.config.max_model_len,
                "tokens": tokens.ids,
                "token_strs": strings,
            }
        )

    messages = Messages(rank.config)

    @app.route("/v1/messages/count_tokens", methods=["POST"])
    async def count_tokens(http: IRequest) -> Answer:
        body = check("AnthropicCountTokensRequest", read_json(http.content.read(), header(http, b"content-type")))
        try:
            model = rank.adapters.find(body.get("model"))
            request = messages.parse({**body, "max_tokens": 1}, "", model)
            count = len((await rank.planner.read(request.prompts[0])).ids)
        except Fault as fault:
            return fault_answer(fault, messages.refusal)
        return _json({"input_tokens": count, "context_management": {"original_input_tokens": count}})

    @app.route("/detokenize", methods=["POST"])
    def detokenize(http: IRequest) -> Answer:
        body = check("DetokenizeRequest", read_json(http.content.read(), header(http, b"content-type")))
        rank.adapters.find(body.get("model"))
        return _json({"prompt": rank.tokenizer.decode(body["tokens"])})


def _question(rank: Rank, body: dict[str, Any]) -> tuple[str, bool]:
    """The text of a tokenize body, and whether special tokens are added to it."""
    if isinstance(body.get("prompt"), str):
        return body["prompt"], body.get("add_special_tokens", True)
    check_messages(body["messages"], rank.config)
    return rank.planner.text(conversation(body["messages"], body, rank.config)), body.get("add_special_tokens", False)


def _json(value: dict[str, Any]) -> Answer:
    return Answer(dumps(value))
