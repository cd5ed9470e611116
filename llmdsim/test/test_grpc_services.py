from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Door

try:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    from llmdsim.grpc import status, vllm_engine_pb2
    from llmdsim.grpc.engine import SERVICE
    from llmdsim.grpc.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from llmdsim.grpc.reflection_pb2 import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse
    from llmdsim.test.calls import engine
except ImportError:
    skip = "needs the extra grpc"


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--startup-duration", "10s")
        self.caller = engine(self.door)

    def check(self, service: str) -> Any:
        heard = self.caller.heard(self.caller.call("/grpc.health.v1.Health/Check", HealthCheckRequest(service=service)))
        if heard.status != status.OK:
            return heard.status
        found = HealthCheckResponse.FromString(heard.messages()[0]).status
        return HealthCheckResponse.ServingStatus.Name(found)

    def test_the_engine_serves_when_it_has_started_and_the_server_at_once(self) -> None:
        self.assertEqual((self.check(""), self.check(SERVICE)), ("SERVING", "NOT_SERVING"))
        self.door.clock.advance(10)
        self.assertEqual((self.check(""), self.check(SERVICE)), ("SERVING", "SERVING"))

    def test_nothing_serves_when_the_server_shuts_down(self) -> None:
        self.door.clock.advance(10)
        self.door.rank.drain(1)
        self.assertEqual((self.check(""), self.check(SERVICE)), ("NOT_SERVING", "NOT_SERVING"))

    def test_an_unknown_service_is_not_found(self) -> None:
        self.assertEqual(self.check("other"), status.NOT_FOUND)


class ReflectionTests(SynchronousTestCase):
    version = "v1"

    def ask(self, **field: Any) -> Any:
        caller = engine(Door())
        path = f"/grpc.reflection.{self.version}.ServerReflection/ServerReflectionInfo"
        heard = caller.heard(caller.call(path, ServerReflectionRequest(**field)))
        self.assertEqual(heard.status, status.OK)
        answer = ServerReflectionResponse.FromString(heard.messages()[0])
        self.assertEqual(answer.original_request, ServerReflectionRequest(**field))
        return answer

    def test_the_services_are_listed(self) -> None:
        names = [service.name for service in self.ask(list_services="*").list_services_response.service]
        self.assertEqual(names, [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"])

    def test_a_service_is_described_by_its_file(self) -> None:
        file = vllm_engine_pb2.DESCRIPTOR
        for asked in {"file_containing_symbol": SERVICE}, {"file_by_filename": file.name}:
            (found,) = self.ask(**asked).file_descriptor_response.file_descriptor_proto
            self.assertEqual(FileDescriptorProto.FromString(found).name, file.name)

    def test_every_message_of_a_service_can_be_found(self) -> None:
        for name in vllm_engine_pb2.DESCRIPTOR.message_types_by_name:
            answer = self.ask(file_containing_symbol=f"vllm.grpc.engine.{name}")
            self.assertEqual(answer.WhichOneof("message_response"), "file_descriptor_response")

    def test_what_is_not_here_is_not_found(self) -> None:
        extension = ExtensionRequest(containing_type="a", extension_number=1)
        wrong: tuple[dict[str, Any], ...] = (
            {"file_containing_symbol": "other.Service"},
            {"file_by_filename": "other.proto"},
            {"file_containing_extension": extension},
            {},
        )
        codes = [self.ask(**asked).error_response.error_code for asked in wrong]
        self.assertEqual(codes, [status.NOT_FOUND] * 4)


class OlderReflectionTests(ReflectionTests):
    version = "v1alpha"
