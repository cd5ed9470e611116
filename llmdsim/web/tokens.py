"""
Tokens in and tokens out: generating from ids, rendering prompts to ids and answers back, aborting, tokenizer info.

vLLM opens these with ``--enable-scale-out``; here they are open unless the server is strict.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import attrs
from twisted.web.iweb import IRequest

from llmdsim.api import render
from llmdsim.api.anthropic import as_chat
from llmdsim.api.chat import Chat
from llmdsim.api.completions import Completions
from llmdsim.api.dialect import Dialect
from llmdsim.api.generate import Generate
from llmdsim.api.messages import Messages
from llmdsim.api.schema import read_json
from llmdsim.config import Config
from llmdsim.faults import FORBIDDEN, INVALID_BODY, Fault
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Request
from llmdsim.web.answer import Answer, compact
from llmdsim.web.app import App
from llmdsim.web.generation import Generation

GENERATE, ABORT = "/inference/v1/generate", "/inference/v1/abort_requests"
CHAT, COMPLETIONS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
GATED = (
    GENERATE,
    ABORT,
    *(f"{path}/{way}" for path in (CHAT, COMPLETIONS) for way in ("render", "derender")),
    f"{MESSAGES}/render",
    "/v1/responses/render",
)
CLOSED = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."


def routes(app: App, rank: Rank) -> None:
    """Declare what the configuration opens; what it closes answers as vLLM's does."""
    config = rank.config
    if config.strict and not (config.enable_scale_out or config.tokens_only):
        _close(app)
    else:
        _generating(app, rank)
        _rendering(app, rank)
        _derendering(app, rank)
    # With dev mode there is another way to abort at this path, as in vLLM.
    if config.strict and config.tokens_only and not config.dev_mode:
        _aborting(app, rank, "/abort_requests")
    if not config.strict or config.enable_tokenizer_info_endpoint:
        _informing(app, rank)


def _close(app: App) -> None:
    def refuse(http: IRequest) -> Answer:
        raise Fault(FORBIDDEN, CLOSED)

    for url in GATED:
        app.route(url, methods=["POST"])(refuse)


def _generating(app: App, rank: Rank) -> None:
    generation, dialect = Generation(rank), Generate(rank.config)

    @app.route(GENERATE, methods=["POST"], hot=True)
    def generate(http: IRequest) -> Coroutine[Any, Any, Answer | None]:
        return generation.answer(http, dialect)

    _aborting(app, rank, ABORT)


def _rendering(app: App, rank: Rank) -> None:
    config, chats, texts = rank.config, Chat(rank.config), Completions(rank.config)
    conversations = Messages(config)

    @app.route(f"{CHAT}/render", methods=["POST"])
    async def chat(http: IRequest) -> Answer:
        body, request = _asked(rank, http, chats)
        tokens = await rank.planner.read(request.prompts[0])
        return Answer(compact(render.chat(config, body, request, tokens)))

    @app.route(f"{MESSAGES}/render", methods=["POST"])
    async def messages(http: IRequest) -> Answer:
        body, request = _asked(rank, http, conversations)
        tokens = await rank.planner.read(request.prompts[0])
        return Answer(compact(render.chat(config, as_chat(body), request, tokens)))

    @app.route(f"{COMPLETIONS}/render", methods=["POST"])
    async def completions(http: IRequest) -> Answer:
        body, request = _asked(rank, http, texts)
        shown = []
        for one, prompt in zip(_each(request), request.prompts, strict=True):
            tokens = await rank.planner.read(prompt)
            shown.append(render.completion(config, body, one, prompt, tokens))
        return Answer(compact(shown))


def _derendering(app: App, rank: Rank) -> None:
    chats, texts = Chat(rank.config), Completions(rank.config)

    @app.route(f"{CHAT}/derender", methods=["POST"])
    def chat(http: IRequest) -> Answer:
        body = render.check_answer(_json(http))
        render.check_parsers(rank.config, body)
        return _derendered(rank, body, chats, body.get("chat_request"))

    @app.route(f"{COMPLETIONS}/derender", methods=["POST"])
    def completions(http: IRequest) -> Answer:
        body = render.check_answer(_json(http))
        return _derendered(rank, body, texts, body.get("completion_request"))


def _aborting(app: App, rank: Rank, url: str) -> None:
    @app.route(url, methods=["POST"])
    def abort(http: IRequest) -> Answer:
        body = _json(http)
        ids = body.get("request_ids") if isinstance(body, dict) else None
        if not isinstance(ids, list):
            raise Fault(INVALID_BODY, "Missing 'request_ids' in request body")
        rank.abort([id for id in ids if isinstance(id, str)])
        return Answer(content_type=b"")


def _informing(app: App, rank: Rank) -> None:
    info = compact(_info(rank.config, rank.tokenizer.eos, type(rank.tokenizer).__name__))

    @app.route("/tokenizer_info")
    def tokenizer_info(http: IRequest) -> Answer:
        return Answer(info)


def _asked(rank: Rank, http: IRequest, dialect: Dialect) -> tuple[dict[str, Any], Request]:
    """A body to render, checked, and the question in it."""
    body = dialect.check(_json(http))
    model = rank.adapters.find(body.get("model"))
    render.check_base(model)
    id = http.getHeader("x-request-id") or body.get("request_id") or rank.new_id()
    return body, dialect.parse(body, id, model)


def _each(request: Request) -> list[Request]:
    """A request for each prompt; several have ids of their own."""
    if len(request.prompts) == 1:
        return [request]
    return [attrs.evolve(request, id=f"{request.id}-{i}") for i in range(len(request.prompts))]


def _derendered(rank: Rank, body: dict[str, Any], dialect: Dialect, question: Any) -> Answer:
    """Generated tokens in the form of a dialect; ``question`` is the body that they answer, or None."""
    asked = None if question is None else dialect.check(question)
    model = rank.adapters.find(body.get("model") or (asked or {}).get("model"))
    first = body["generate_response"][0].get("request_id") or rank.new_id()
    id = first.removeprefix(Generate.prefix).removeprefix(dialect.prefix)
    bare = Request(dialect.prefix + id, model, ((),))
    request = bare if asked is None else dialect.parse(asked, id, model)
    plans = render.answered(request, body, rank.tokenizer.decode, rank.tokenizer.eos[0])
    return Answer(dialect.writer(plans[0].request, int(rank.wall())).whole(plans))


def _info(config: Config, eos: tuple[int, str], name: str) -> dict[str, Any]:
    number, text = eos
    return {
        "tokenizer_class": name,
        "eos_token": text,
        "pad_token": text,
        "model_max_length": config.max_model_len,
        "chat_template": config.chat_template,
        "truncation_side": "left",
        "name_or_path": config.tokenizer or config.model,
        "is_local": True,
        "local_files_only": True,
        "added_tokens_decoder": {str(number): text},
        "backend": "tokenizers",
    }


def _json(http: IRequest) -> Any:
    return read_json(http.content.read(), http.getHeader("content-type"))
