"""The gRPC door: ``vllm.grpc.engine.VllmEngine`` in clear text, on the port of HTTP. Its libraries are an extra."""
