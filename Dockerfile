# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[tls]"

FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 \
    HF_HOME=/var/cache/llmdsim/huggingface
# twistd lists its plugins once as root: it leaves the dropin.cache that the user below may not write.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl \
    && twistd --help > /dev/null \
    && install -d -o 10001 -g 10001 /var/cache/llmdsim
USER 10001:10001
WORKDIR /var/cache/llmdsim
# 8000: HTTP; 5557: KV events. Rank N of a data-parallel server listens on the port + N.
EXPOSE 8000 5557
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["twistd", "-n", "--pidfile=", "llmdsim"]
CMD ["--model", "my-model"]
