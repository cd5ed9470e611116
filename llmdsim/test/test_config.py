"""The configuration as a whole: where it comes from, which source wins, ranks, dump."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import llmdsim
from llmdsim.config import FLAGS, Adapter, Config, ConfigError, HelpRequested, dump, help_text, load
from llmdsim.config.reference import manual


def loaded(line: str = "", **environ: str) -> Config:
    return load(["m", *line.split()], environ)


class Sources(SynchronousTestCase):
    def written(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text, encoding="utf-8")
        return str(path)

    def test_the_command_line_beats_the_environment_and_that_the_file_and_that_the_default(self) -> None:
        path = self.written("model: file\nhash-seed: 1\n")
        environ = {"SIM_MODEL": "env", "PYTHONHASHSEED": "2"}
        seen = [
            load(argv, env)
            for argv, env in (
                (["--config", path, "--model", "line", "--hash-seed=3"], environ),
                (["--config", path], environ),
                (["--config", path], {"SIM_MODEL": "", "PYTHONHASHSEED": ""}),
                (["m"], {}),
            )
        ]
        self.assertEqual([config.model for config in seen], ["line", "env", "file", "m"])
        self.assertEqual([config.hash_seed for config in seen], ["3", "2", "1", ""])

    def test_the_model_is_the_first_loose_word_unless_it_has_a_flag(self) -> None:
        for argv in (["m"], ["serve", "m"], ["--port", "1", "m"], ["--strict", "m"], ["--model", "m"]):
            self.assertEqual(load(argv, {"SIM_MODEL": "other"}).model, "m")
        both = load(["word", "--model", "m"], {})
        self.assertEqual((both.model, both.notes), ("m", ("words that belong to no flag, ignored: word",)))

    def test_repeated_scalars_replace_and_repeated_lists_grow(self) -> None:
        config = loaded(
            "--port 1 --port 2 --served-model-name a b --served-model-name=c --lora x=/x --lora_modules y=/y"
        )
        self.assertEqual((config.port, config.served_model_name), (2, ("a", "b", "c")))
        self.assertEqual(config.lora_modules, (Adapter("x", "/x"), Adapter("y", "/y")))

    def test_lists_have_the_older_spellings_too(self) -> None:
        adapters = '[{"name":"x","path":"/x"},{"name":"y"}]'
        argv = [
            "m",
            "--failure-types",
            "rate_limit,server_error",
            "--served-model-name",
            "a b",
            "--lora-modules",
            adapters,
        ]
        config = load(argv, {})
        self.assertEqual(config.failure_types, ("rate_limit", "server_error"))
        self.assertEqual(config.served_model_name, ("a", "b"))
        self.assertEqual(config.lora_modules, (Adapter("x", "/x"), Adapter("y")))

    def test_an_empty_list_replaces_that_of_the_file(self) -> None:
        path = self.written("served-model-name: [a]\nlora-modules: [x=/x]\n")
        config = loaded(f"--config {path} --served-model-name --lora-modules")
        self.assertEqual((config.served_model_name, config.lora_modules), (("m",), ()))

    def test_a_file_may_hold_every_shape_of_value(self) -> None:
        path = self.written(
            "served_model_name: one\n"
            'lora-modules:\n  - \'{"name": "x"}\'\n  - {name: y, path: /y}\n'
            "time-to-first-token: 100\ninter-token-latency: 1.5\nprefill-overhead: 2s\n"
            "max-num-seqs: 7\nstrict: true\nseed:\nglobal-cache-hit-threshold: 0.5\n"
            "fake-metrics: {running-requests: 'ramp:1:2:3s', total-prompt-tokens: 5}\n"
            "kv-events-config: {topic: t}\nec-transfer-config: {a: 1}\n"
        )
        config = loaded(f"--config={path}")
        self.assertEqual(config.served_model_name, ("one",))
        self.assertEqual(config.lora_modules, (Adapter("x"), Adapter("y", "/y")))
        self.assertEqual(
            (config.time_to_first_token, config.inter_token_latency, config.prefill_overhead), (0.1, 0.0015, 2.0)
        )
        self.assertEqual((config.max_num_seqs, config.strict, config.seed), (7, True, None))
        self.assertEqual(config.global_cache_hit_threshold, 0.5)
        assert config.fake_metrics is not None
        self.assertEqual(config.fake_metrics["total-prompt-tokens"], 5)
        self.assertEqual((config.kv_events_config, config.ec_transfer_config), ({"topic": "t"}, '{"a":1}'))

    def test_a_file_that_cannot_be_used_says_why_in_one_line(self) -> None:
        missing = self.mktemp()
        for path, text in {
            missing: f"failed to read configuration file: open {missing}: No such file or directory",
            self.written("- a\n"): "failed to unmarshal configuration: expected a mapping",
            self.written("port: many\n"): "failed to unmarshal configuration: port: expected an integer",
            self.written("prefill-overhead: 1d\n"): (
                'failed to unmarshal configuration: prefill-overhead: time: unknown unit "d" in duration "1d"'
            ),
        }.items():
            self.assertEqual(str(self.assertRaises(ConfigError, loaded, f"--config {path}")), text)
        broken = str(self.assertRaises(ConfigError, loaded, "--config " + self.written("a: [\nb: }\n")))
        self.assertTrue(broken.startswith("failed to unmarshal configuration: "))
        self.assertNotIn("\n", broken)

    def test_a_file_may_be_empty_and_its_unknown_keys_are_noted(self) -> None:
        self.assertEqual(loaded(f"--config {self.written('')}").notes, ())
        config = loaded(f"--config {self.written('weather: fine')}")
        self.assertEqual(config.notes, ("unknown keys of the configuration file, ignored: weather",))

    def test_a_bad_value_is_named_with_its_flag(self) -> None:
        for argv, text in (
            (["--port", "x"], 'invalid argument "x" for "--port" flag: expected an integer'),
            (["--runner", "x"], 'invalid argument "x" for "--runner" flag: choose from auto, draft, generate, pooling'),
            (
                ["--prefill-overhead", "1x"],
                'invalid argument "1x" for "--prefill-overhead" flag: time: unknown unit "x" in duration "1x"',
            ),
        ):
            self.assertEqual(str(self.assertRaises(ConfigError, load, ["m", *argv], {})), text)

    def test_the_surroundings_come_from_the_environment(self) -> None:
        config = loaded(
            POD_NAME="p",
            POD_NAMESPACE="ns",
            POD_IP="1.2.3.4",
            VLLM_SERVER_DEV_MODE="1",
            VLLM_ALLOW_RUNTIME_LORA_UPDATING="1",
            VLLM_MAX_N_SEQUENCES="7",
            VLLM_API_KEY="secret",
        )
        self.assertEqual((config.pod_name, config.pod_namespace, config.pod_ip), ("p", "ns", "1.2.3.4"))
        self.assertEqual((config.dev_mode, config.allow_runtime_lora, config.responses_store), (True, True, False))
        self.assertEqual((config.max_n, config.api_key), (7, ("secret",)))
        self.assertFalse(loaded(VLLM_SERVER_DEV_MODE="true").dev_mode)
        self.assertRaises(ConfigError, loaded, VLLM_MAX_N_SEQUENCES="x")

    def test_help_and_version_are_answered(self) -> None:
        for word in ("--help", "-h"):
            self.assertIn("--time-to-first-token DURATION", str(self.assertRaises(HelpRequested, load, [word], {})))
        self.assertEqual(str(self.assertRaises(HelpRequested, load, ["--version"], {})), llmdsim.__version__)


class Derived(SynchronousTestCase):
    def test_what_is_left_out_follows_from_what_is_given(self) -> None:
        config = loaded("--max-loras 3 --num-gpu-blocks-override 9 --render-url http://r/")
        self.assertEqual((config.served_model_name, config.display_name), (("m",), "m"))
        self.assertEqual((config.max_cpu_loras, config.kv_cache_size, config.render_url), (3, 9, "http://r"))

    def test_a_changed_copy_is_checked(self) -> None:
        config = loaded()
        self.assertEqual(config.evolve(prefill_overhead=0.5).prefill_overhead, 0.5)
        self.assertRaises(ConfigError, config.evolve, failure_injection_rate=101)


class Ranks(SynchronousTestCase):
    ENDPOINTS = "--zmq-endpoint tcp://h:5557 --kv-events-replay-endpoint tcp://*:6000"

    def ports(self, config: Config) -> list[tuple[int, int, str, str]]:
        ranks = config.ranks()
        return [(r.data_parallel_rank, r.port, r.zmq_endpoint, r.kv_events_replay_endpoint) for r in ranks]

    def test_each_rank_has_its_own_ports(self) -> None:
        self.assertEqual(
            self.ports(loaded(f"--data-parallel-size 2 {self.ENDPOINTS}")),
            [(0, 8000, "tcp://h:5557", "tcp://*:6000"), (1, 8001, "tcp://h:5558", "tcp://*:6001")],
        )

    def test_one_rank_alone_keeps_the_http_port(self) -> None:
        config = loaded(f"--data-parallel-size 4 --data-parallel-rank 3 {self.ENDPOINTS}")
        self.assertEqual(self.ports(config), [(3, 8000, "tcp://h:5560", "tcp://*:6003")])

    def test_an_endpoint_without_a_port_is_not_shifted(self) -> None:
        rank = loaded("--data-parallel-size 2 --zmq-endpoint ipc://x").ranks()[1]
        self.assertEqual((rank.zmq_endpoint, rank.kv_events_replay_endpoint), ("ipc://x", ""))

    def test_the_endpoints_of_vllm_are_shifted_as_vllm_does(self) -> None:
        base = loaded("--data-parallel-size 2 --kv-events-config.replay_endpoint=inproc://r")
        self.assertEqual(
            base.for_rank(1).kv_events_config, {"endpoint": "tcp://*:5558", "replay_endpoint": "inproc://r_dp1"}
        )

    def test_a_rank_may_still_be_changed(self) -> None:
        last = loaded("--data-parallel-size 8 --port 65528").ranks()[7]
        self.assertEqual(last.evolve(image_emission_rate=1).port, 65535)


class Dump(SynchronousTestCase):
    def test_every_option_is_shown_sorted_and_ready_for_json(self) -> None:
        shown = dump(loaded("--inter-token-latency 1.5 --lora-modules l=/p --api-key a b", POD_IP="ip").ranks()[0])
        self.assertEqual(list(shown), sorted(shown))
        self.assertEqual(json.loads(json.dumps(shown)), shown)
        expected: dict[str, Any] = {
            "DisplayModelName": "m",
            "IP": "ip",
            "PodName": "",
            "VllmDevMode": False,
            "inter-token-latency": "1.5ms",
            "lora-modules": [{"name": "l", "path": "/p", "base_model_name": ""}],
            "served-model-name": ["m"],
            "failure-types": None,
            "fake-metrics": None,
            "data-parallel-rank": 0,
            "port": 8000,
            "time-factor-under-load": 1,
            "api-key": ["***", "***"],
        }
        self.assertEqual({key: shown[key] for key in expected}, expected)
        self.assertEqual({"config", "v"} & set(shown), set())

    def test_with_several_ranks_the_port_is_left_out(self) -> None:
        self.assertNotIn("port", dump(loaded("--data-parallel-size 2").ranks()[1]))


class Papers(SynchronousTestCase):
    def paper(self, name: str) -> str:
        path = Path(llmdsim.__file__).parent.parent / name
        if not path.exists():
            self.skipTest(f"{name} is not installed")
        return path.read_text(encoding="utf-8")

    def test_the_reference_of_flags_is_up_to_date(self) -> None:
        self.assertEqual(self.paper("docs/flags.rst"), manual(FLAGS))

    def test_the_sample_file_shows_every_own_option_with_its_default(self) -> None:
        sample = Path(self.mktemp())
        sample.write_text(self.paper("etc/llmdsim.yaml"), encoding="utf-8")
        config = load(["--config", str(sample)], {})
        bare = "".join(line.removeprefix("#") for line in sample.open() if not line.startswith("# "))
        sample.write_text(bare, encoding="utf-8")
        self.assertEqual(load(["--config", str(sample)], {}), config)
        missing = [row.name for row in FLAGS if "vLLM" not in row.group and f"\n{row.name}:" not in bare]
        self.assertEqual(missing, ["config", "v"])

    def test_help_names_every_flag(self) -> None:
        text = help_text()
        self.assertEqual([row.name for row in FLAGS if row.name not in text], [])
