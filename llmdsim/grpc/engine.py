"""
The service vllm.grpc.engine.VllmEngine over one rank; what Generate says is in ``generation``.
"""

from __future__ import annotations

from llmdsim.api.embeddings import activated
from llmdsim.api.sampling import refuse
from llmdsim.grpc.call import Call
from llmdsim.grpc.generation import Generation
from llmdsim.grpc.methods import Method, one, reply
from llmdsim.grpc.vllm_engine_pb2 import (
    AbortRequest,
    AbortResponse,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GetModelInfoRequest,
    GetModelInfoResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    HealthCheckRequest,
    HealthCheckResponse,
)
from llmdsim.sim.rank import Rank
from llmdsim.sim.vectors import embedding, normalized

SERVICE = "vllm.grpc.engine.VllmEngine"
SERVER_TYPE = "vllm-grpc"  # as vLLM's servicer calls itself


class Engine:
    """What a rank answers by gRPC."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    def methods(self) -> dict[bytes, Method]:
        """The methods by path."""
        named = {
            "Generate": one(GenerateRequest, Generation(self._rank).answer),
            "Embed": one(EmbedRequest, self.embed),
            "HealthCheck": one(HealthCheckRequest, self.health_check),
            "Abort": one(AbortRequest, self.abort),
            "GetModelInfo": one(GetModelInfoRequest, self.model_info),
            "GetServerInfo": one(GetServerInfoRequest, self.server_info),
        }
        return {f"/{SERVICE}/{name}".encode(): method for name, method in named.items()}

    async def embed(self, call: Call, asked: EmbedRequest) -> None:
        """The vector of a token sequence, as ``/v1/embeddings`` gives it."""
        ids = tuple(asked.tokenized.input_ids)
        if not ids:
            raise refuse("The decoder prompt cannot be empty")
        config, tokens = self._rank.config, await self._rank.planner.read(ids)
        vector = embedding(tokens.ids, config.default_embedding_dimensions)
        if activated({}, config, "embed"):
            vector = normalized(vector)
        reply(call, EmbedResponse(embedding=vector, prompt_tokens=len(ids), embedding_dim=len(vector)))

    async def health_check(self, call: Call, asked: HealthCheckRequest) -> None:
        """Well, until the server shuts down."""
        healthy = not self._rank.draining
        reply(call, HealthCheckResponse(healthy=healthy, message="Health" if healthy else "server is shutting down"))

    async def abort(self, call: Call, asked: AbortRequest) -> None:
        """End requests by their ids; unknown ones are passed over."""
        self._rank.abort(asked.request_ids)
        reply(call, AbortResponse())

    async def model_info(self, call: Call, asked: GetModelInfoRequest) -> None:
        """What is served; a simulated tokenizer has no size."""
        rank = self._rank
        info = GetModelInfoResponse(
            model_path=rank.config.model,
            is_generation=True,
            max_context_length=rank.config.max_model_len,
            vocab_size=rank.tokenizer.vocab_size or 0,
        )
        reply(call, info)

    async def server_info(self, call: Call, asked: GetServerInfoRequest) -> None:
        """How the server is; as in vLLM, the last request that was received is this one."""
        rank = self._rank
        info = GetServerInfoResponse(
            active_requests=rank.open,
            last_receive_timestamp=rank.wall(),
            uptime_seconds=rank.clock.seconds() - rank.started,
            server_type=SERVER_TYPE,
        )
        reply(call, info)
