"""
All services of the port: the engine, and health and reflection, as vLLM has them beside it.
"""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor

from llmdsim.faults import NOT_FOUND, Fault
from llmdsim.grpc import health_pb2, reflection_pb2, vllm_engine_pb2
from llmdsim.grpc import status as codes
from llmdsim.grpc.call import Call
from llmdsim.grpc.engine import SERVICE, Engine
from llmdsim.grpc.health_pb2 import HealthCheckRequest, HealthCheckResponse
from llmdsim.grpc.methods import Method, each, one, reply
from llmdsim.grpc.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from llmdsim.sim.rank import Rank

_FILES: tuple[FileDescriptor, ...] = (
    vllm_engine_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


def methods(rank: Rank) -> dict[bytes, Method]:
    """Every method of one rank's port, by path."""
    asking = each(ServerReflectionRequest, reflect)
    return {
        **Engine(rank).methods(),
        b"/grpc.health.v1.Health/Check": one(HealthCheckRequest, Health(rank).check),
        b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": asking,
        b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": asking,
    }


class Health:
    """The health service: the server is well while it lives, the engine once its start-up has passed."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    async def check(self, call: Call, asked: HealthCheckRequest) -> None:
        """The health of the service that is named, or of the server. Raises Fault for another."""
        if asked.service not in ("", SERVICE):
            raise Fault(NOT_FOUND, f"unknown service {asked.service}")
        serving = not self._rank.draining and (not asked.service or self._rank.ready)
        reply(call, HealthCheckResponse(status="SERVING" if serving else "NOT_SERVING"))


def reflect(asked: ServerReflectionRequest) -> ServerReflectionResponse:
    """Which services there are, and the files that describe them."""
    answer = ServerReflectionResponse(valid_host=asked.host, original_request=asked)
    kind = asked.WhichOneof("message_request")
    if kind == "list_services":
        names = [service.full_name for file in _FILES for service in file.services_by_name.values()]
        services = [ServiceResponse(name=name) for name in names]
        answer.list_services_response.CopyFrom(ListServiceResponse(service=services))
        return answer
    try:
        answer.file_descriptor_response.CopyFrom(_described(asked, kind))
    except KeyError as unknown:
        answer.error_response.CopyFrom(ErrorResponse(error_code=codes.NOT_FOUND, error_message=str(unknown.args[0])))
    return answer


def _described(asked: ServerReflectionRequest, kind: str | None) -> FileDescriptorResponse:
    """The file that is asked for. Raises KeyError."""
    if kind == "file_by_filename":
        found = [file for file in _FILES if file.name == asked.file_by_filename]
    elif kind == "file_containing_symbol":
        found = [vllm_engine_pb2.DESCRIPTOR.pool.FindFileContainingSymbol(asked.file_containing_symbol)]
    else:
        found = []  # nothing here has extensions
    if not found:
        raise KeyError("not found")
    return FileDescriptorResponse(file_descriptor_proto=[found[0].serialized_pb])
