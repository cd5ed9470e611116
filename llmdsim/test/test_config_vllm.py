"""The command lines of vLLM."""

from __future__ import annotations

import shlex

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import FLAGS, Adapter, Config, ConfigError, ignored, load
from llmdsim.config.argv import SWITCH

SERVERS = (
    "--max-model-len 256 --served-model-name base alias2 --block-size 16 --kv-cache-size 64",
    "--max-model-len 512 --served-model-name base --block-size 16 --kv-cache-size 64 --enable-kvcache "
    "--enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser qwen3 --enable-prompt-tokens-details "
    "--enable-request-id-headers --enable-server-load-tracking --enable-scale-out --enable-tokenizer-info-endpoint "
    """--enable-lora --max-loras 2 --lora-modules '{"name":"l1","path":"/adapters/l1"}' --enable-sleep-mode""",
    "--max-model-len 512 --served-model-name base --enable-auto-tool-choice --tool-call-parser hermes "
    "--api-key sk-test --max-num-seqs 1 --max-num-queued-reqs 2 --enable-per-request-metrics "
    "--enable-force-include-usage",
    "--max-model-len 256 --served-model-name emb --runner pooling",
)


def served(line: str) -> Config:
    return load(["serve", "m", *shlex.split(line)], {})


class CommandLines(SynchronousTestCase):
    def test_the_lines_of_the_captured_servers_are_understood(self) -> None:
        plain, full, keyed, pooling = (served(f"--strict {line}") for line in SERVERS)
        self.assertEqual((plain.served_model_name, plain.kv_cache_size, plain.strict), (("base", "alias2"), 64, True))
        self.assertEqual((full.lora_modules, full.max_loras), ((Adapter("l1", "/adapters/l1"),), 2))
        self.assertTrue(full.enable_scale_out and full.enable_lora and full.enable_sleep_mode and full.enable_kvcache)
        self.assertEqual((full.tool_call_parser, full.reasoning_parser), ("hermes", "qwen3"))
        self.assertEqual((keyed.api_key, keyed.max_num_queued_reqs, keyed.max_num_seqs), (("sk-test",), 2, 1))
        self.assertEqual((pooling.runner, pooling.notes), ("pooling", ()))

    def test_a_manifest_of_production_is_understood(self) -> None:
        config = served(
            "--tensor-parallel-size 8 -pp=2 --dtype bfloat16 --max_model_len 32k --gpu-memory-utilization=0.9 "
            "--disable-log-requests --no-enable-prefix-caching -cc.mode=3 -q fp8 --enable-chunked-prefill=false "
            '--kv-transfer-config \'{"kv_connector":"NixlConnector","kv_role":"kv_both"}\' --middleware a b '
            '--kv-events-config \'{"publisher":"zmq","topic":"old"}\' --kv-events-config.topic kv@pod@m '
            "--allowed-origins '[\"*\"]' --api-key k1 k2 --max-num-batched-tokens 8K"
        )
        self.assertEqual((config.tensor_parallel_size, config.pipeline_parallel_size), (8, 2))
        self.assertEqual((config.max_model_len, config.enable_prefix_caching), (32000, False))
        self.assertEqual(config.kv_transfer_config, {"kv_connector": "NixlConnector", "kv_role": "kv_both"})
        self.assertEqual(config.kv_events_config, {"publisher": "zmq", "topic": "kv@pod@m"})
        self.assertEqual((config.allowed_origins, config.api_key), (("*",), ("k1", "k2")))
        self.assertIn(
            "accepted and ignored: --dtype, --gpu-memory-utilization, --compilation-config, --quantization, "
            "--enable-chunked-prefill, --middleware",
            config.notes,
        )

    def test_members_of_a_document_are_json_or_text_at_any_depth(self) -> None:
        config = served(
            "--kv-transfer-config.extra.lease=30 --kv-transfer-config.extra.on true --kv-transfer-config.role r"
        )
        self.assertEqual(config.kv_transfer_config, {"extra": {"lease": 30, "on": True}, "role": "r"})

    def test_a_broken_document_is_named_in_one_line(self) -> None:
        error = str(self.assertRaises(ConfigError, served, "--kv-events-config '{\n\"topic\":\n}'"))
        self.assertTrue(error.startswith('invalid argument "{ "topic": }" for "--kv-events-config" flag: not JSON: '))

    def test_every_other_flag_of_vllm_is_accepted_in_one_note(self) -> None:
        line = " ".join(f"--{name}" if takes == SWITCH else f"--{name} 1" for name, takes in ignored.IGNORED.items())
        (note,) = served(line).notes
        self.assertEqual(note.count("--"), len(ignored.IGNORED))

    def test_removed_flags_are_accepted_in_a_note_of_their_own(self) -> None:
        config = served("--swap-space 4 --enable-reasoning --zmq-max-connect-attempts 3 --max-running-requests 2")
        removed = "removed or deprecated, ignored: --swap-space, --enable-reasoning, --zmq-max-connect-attempts"
        self.assertEqual((config.notes, config.max_num_seqs), ((removed,), 2))

    def test_a_capability_of_a_later_release_is_noted_where_it_is_asked_for(self) -> None:
        self.assertEqual(served("--omni").notes, ("accepted, without effect until a later release: --omni",))
        self.assertEqual(served("--no-omni").notes, ())

    def test_an_encoder_ignores_echo_and_datasets(self) -> None:
        notes = (
            served("--mm-encoder-only --mode echo").notes
            + served("--mm-encoder-only --dataset-path p --dataset-url u").notes
        )
        self.assertIn("--mm-encoder-only: echo mode is ignored", notes)
        self.assertIn("--mm-encoder-only: the dataset is not downloaded", notes)

    def test_the_logging_flags_of_go_are_accepted(self) -> None:
        config = served("-v 5 --logtostderr=false --log_file=x --vmodule a=1")
        self.assertEqual(config.v, 5)

    def test_no_flag_is_both_honoured_and_ignored(self) -> None:
        idle = {**ignored.IGNORED, **ignored.RETIRED, **ignored.LOGGING}
        self.assertEqual([row.name for row in FLAGS if row.name in idle], [])
        self.assertEqual(set(ignored.IGNORED) & set(ignored.RETIRED), set())
