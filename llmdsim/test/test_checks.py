"""The rules of a configuration, each with its text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import ConfigError, load

BROKEN = {
    "--mode loud": "invalid mode 'loud', valid values are 'random' and 'echo'",
    "--port 0": "invalid port '0'",
    "--port -3": "invalid port '-3'",
    "--port 65536": "invalid port '65536'",
    "--port 65535 --data-parallel-size 2": "invalid port '65536'",
    "--inter-token-latency -1": "inter token latency cannot be negative",
    "--inter-token-latency-std-dev -1": "inter token latency standard deviation cannot be negative",
    "--time-to-first-token -1": "time to first token cannot be negative",
    "--time-to-first-token-std-dev -1": "time to first token standard deviation cannot be negative",
    "--time-to-generate-image -1s": "time to generate image cannot be negative",
    "--time-to-generate-image-std-dev -1s": "time to generate image standard deviation cannot be negative",
    "--prefill-overhead -1": "prefill overhead cannot be negative",
    "--prefill-time-per-token -1": "prefill time per token cannot be negative",
    "--prefill-time-std-dev -1": "prefill time standard deviation cannot be negative",
    "--kv-cache-transfer-time-per-token -1": "kv-cache transfer time per token cannot be negative",
    "--kv-cache-transfer-time-std-dev -1": "kv-cache transfer time standard deviation cannot be negative",
    "--kv-cache-transfer-latency -1": "kv-cache transfer time cannot be negative",
    "--kv-cache-transfer-latency-std-dev -1": "kv-cache transfer time standard deviation cannot be negative",
    "--time-factor-under-load 0.9": "time factor under load cannot be less than 1.0",
    "--max-loras 0": "max LoRAs cannot be less than 1",
    "--max-loras 3 --max-cpu-loras 2": "max CPU LoRAs cannot be less than max LoRAs",
    "--max-model-len 0": "max model len cannot be less than 1",
    "--max-num-seqs 0": "max num seqs cannot be less than 1",
    "--max-waiting-queue-length -1": "max waiting queue size cannot be less than 0",
    "--lora-modules =/path": "empty LoRA name",
    '--lora-modules {"name":"l","base_model_name":"b"}': "unknown base model 'b' for LoRA 'l'",
    "--max-tool-call-integer-param -1": "MaxToolCallIntegerParam cannot be less than MinToolCallIntegerParam",
    "--max-tool-call-number-param -1": "MaxToolCallNumberParam cannot be less than MinToolCallNumberParam",
    "--max-tool-call-array-param-length 0": (
        "MaxToolCallArrayParamLength cannot be less than MinToolCallArrayParamLength"
    ),
    "--min-tool-call-array-param-length -1": "MinToolCallArrayParamLength cannot be negative",
    "--tool-call-not-required-param-probability 101": (
        "ToolCallNotRequiredParamProbability should be between 0 and 100"
    ),
    "--object-tool-call-not-required-field-probability -1": (
        "ObjectToolCallNotRequiredParamProbability should be between 0 and 100"
    ),
    "--tool-call-extra-call-probability 101": "ToolCallExtraCallProbability should be between 0 and 100",
    "--block-size 17": "token block size should be one of the following: 8, 16, 32, 64, 128",
    "--kv-cache-size -1": "KV cache size cannot be negative",
    "--event-batch-size 0": "event batch size cannot less than 1",
    "--kv-events-replay-endpoint x --kv-events-replay-queue-size 0": (
        "kv-events-replay-queue-size cannot be less than 1"
    ),
    "--failure-injection-rate 101": "failure injection rate should be between 0 and 100",
    "--image-emission-rate -1": "image emission rate should be between 0 and 100",
    "--failure-types rate_limit storm": (
        "invalid failure type 'storm', valid types are: rate_limit, invalid_api_key, context_length, server_error, "
        "invalid_request, model_not_found"
    ),
    "--fake-metrics {} --fake-metrics-refresh-interval 0": "fake metrics refresh interval must be positive",
    "--data-parallel-size 9": "data parallel size must be between 1 and 8",
    "--data-parallel-size 0": "data parallel size must be between 1 and 8",
    "--data-parallel-rank 8": "data parallel rank must be between 0 and 7",
    "--data-parallel-size 2 --zmq-endpoint tcp://a:5557 --kv-events-replay-endpoint tcp://*:5558": (
        "zmq-endpoint (tcp://a:5557) and kv-events-replay-endpoint (tcp://*:5558) ports collide once offset by "
        "data-parallel rank"
    ),
    "--ssl-certfile c": "both ssl-certfile and ssl-keyfile must be provided together",
    "--ssl-keyfile k": "both ssl-certfile and ssl-keyfile must be provided together",
    "--ssl-certfile c --ssl-keyfile k --self-signed-certs": (
        "cannot use both self-signed-certs and explicit ssl-certfile/ssl-keyfile"
    ),
    "--dataset-url http://x": "dataset-path is required when dataset-url is set",
    "--dataset-path p --mode echo": "dataset cannot be defined in echo mode",
    "--latency-calculator moon": "unknown latency-calculator moon, supported calculators are: constant and per-token",
    "--global-cache-hit-threshold 1.1": "global cache hit threshold must be between in range [0, 1]",
    "--default-embedding-dimensions 0": "default embedding dimensions must be at least 1",
    "--max-request-body-size-mb 513": "max-request-body-size-mb must be between 1 MB and 512 MB, got 513",
    "--latency-distribution moon": "unknown latency-distribution moon, supported is: normal",
    "--max-num-queued-reqs -1": "max-num-queued-reqs cannot be negative",
    "--stream-interval 0": "stream-interval must be at least 1",
}
KEPT = (
    "--inter-token-latency 100 --inter-token-latency-std-dev 90",
    "--data-parallel-rank -2",
    "--data-parallel-size 2 --zmq-endpoint tcp://a:5557 --kv-events-replay-endpoint tcp://*:5559",
    "--zmq-endpoint ipc://same --kv-events-replay-endpoint ipc://same",
    "--kv-events-replay-queue-size 0",
    "--fake-metrics-refresh-interval 0",
    "--port 65535 --data-parallel-size 8 --data-parallel-rank 7",
    "--kv-cache-size 0 --max-waiting-queue-length 0",
    "--max-loras 3",
    '--lora-modules {"name":"l","base_model_name":"m"}',
    "--latency-distribution normal --latency-calculator per-token",
)


class Rules(SynchronousTestCase):
    def test_each_broken_rule_has_its_text(self) -> None:
        for line, text in BROKEN.items():
            error = self.assertRaises(ConfigError, load, ["m", *line.split()], {})
            self.assertEqual(str(error), text)

    def test_what_keeps_the_rules_is_taken(self) -> None:
        for line in KEPT:
            load(["m", *line.split()], {})

    def test_a_model_is_needed(self) -> None:
        self.assertEqual(str(self.assertRaises(ConfigError, load, [], {})), "model parameter is empty")

    def test_the_first_broken_rule_in_order_wins(self) -> None:
        line = "--max-num-seqs 0 --port 0 --time-to-first-token -1"
        error = self.assertRaises(ConfigError, load, ["m", *line.split()], {})
        self.assertEqual(str(error), "invalid port '0'")
