"""Prefill on one rank and decode on another: what the one answers, and what the other counts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import ConfigError, load
from llmdsim.sim.plan import Plan
from llmdsim.sim.rank import Rank
from llmdsim.sim.transfer import Transfer
from llmdsim.test.doors import DONE, Client, Door, chat, text
from llmdsim.test.support import WALL, Ear, make_rank, metric, request, serve

PROMPT = tuple(range(52))
PREFILL = {"do_remote_decode": True, "do_remote_prefill": False, "remote_block_ids": None, "remote_host": None}
NIXL = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
CHAT, TEXT, TOKENS = "/v1/chat/completions", "/v1/completions", "/inference/v1/generate"


def fetching(ids: Any) -> dict[str, Any]:
    """What a decode is asked with, for these block ids."""
    return {"do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": ids}


class ReadTests(SynchronousTestCase):
    def test_blocks_are_counted_in_both_spellings_and_in_the_longest_group(self) -> None:
        spellings = [["DUMMY_ID"], [4, 5], [[4, 5, 6]], [[1], [2, 3]], [["a", "b"]], [[]], []]
        self.assertEqual([Transfer.read(fetching(ids)).blocks for ids in spellings], [1, 2, 3, 2, 2, 0, 0])

    def test_what_has_a_wrong_type_says_nothing(self) -> None:
        nothing: list[Any] = [None, 5, "x", [], {}, {"do_remote_prefill": None}]
        for params in nothing:
            self.assertEqual(Transfer.read(params), Transfer())
        none: list[Any] = [None, 5, "abc", {"a": 1}, [None, 1.5, {}, True], [[None], [[1]]]]
        for ids in none:
            self.assertEqual(Transfer.read(fetching(ids)).blocks, 0)


class RankCase(SynchronousTestCase):
    def start(self, **flags: Any) -> Rank:
        rank, self.clock = make_rank(**{"enable_kvcache": True, **flags})
        return rank

    def say(self, rank: Rank, params: Any, prompt: tuple[int, ...] = PROMPT, **fields: Any) -> Plan:
        ear = Ear(self.clock)
        asked = request(1, prompts=(prompt,), transfer=Transfer.read(params), **fields)
        self.successResultOf(serve(rank, asked, ear))
        return ear.plans[0]

    def sources(self, rank: Rank) -> list[float | None]:
        """Prompt tokens by source: computed here, cached here, and from elsewhere."""
        names = "local_compute", "local_cache_hit", "external_kv_transfer"
        return [metric(rank, "vllm:prompt_tokens_by_source_total", source=name) for name in names]

    def lookups(self, rank: Rank, prefix: str = "external_prefix") -> list[float | None]:
        """Tokens that were looked up, and found."""
        return [metric(rank, f"vllm:{prefix}_cache_{what}_total") for what in ("queries", "hits")]


class PrefillTests(RankCase):
    def test_it_answers_in_vllms_order_where_its_full_blocks_are(self) -> None:
        rank = self.start(pod_ip="10.0.0.7", side_channel_port=5700)
        params = dict(self.say(rank, PREFILL).kv_transfer_params or {})
        UUID(params.pop("remote_engine_id"))
        expected = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [[1, 2, 3]],
            "remote_request_id": "r",
            "remote_host": "10.0.0.7",
            "remote_port": 5700,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": 52,
            "remote_blocks_expiry_time": WALL + 30.0,
            "remote_registration_generation": 0,
            "transfer_mode": "pull",
        }
        self.assertEqual(list(params.items()), list(expected.items()))

    def test_a_request_that_stays_here_and_an_aborted_one_have_no_answer(self) -> None:
        rank = self.start(time_to_first_token=1.0)
        ear = Ear(self.clock)
        served = serve(rank, request(1, prompts=(PROMPT,), transfer=Transfer.read(PREFILL)), ear)
        self.assertEqual(rank.abort(), 1)
        self.successResultOf(served)
        self.assertIsNone(ear.plans[0].kv_transfer_params)
        self.assertIsNone(self.say(self.start(), fetching([[1]])).kv_transfer_params)

    def test_without_a_cache_there_are_no_blocks_and_a_short_prompt_fills_none(self) -> None:
        for flags, prompt, ids in (({"enable_kvcache": False}, PROMPT, []), ({}, PROMPT[:15], [[]])):
            params = self.say(self.start(**flags), PREFILL, prompt).kv_transfer_params or {}
            self.assertEqual(params["remote_block_ids"], ids)

    def test_block_ids_are_those_of_the_cache_and_never_the_null_block(self) -> None:
        rank = self.start(kv_cache_size=6)
        ids = [(self.say(rank, PREFILL).kv_transfer_params or {})["remote_block_ids"] for _ in range(3)]
        self.assertEqual(ids, [[[1, 2, 3]], [[4, 5, 1]], [[2, 3, 4]]])

    def test_an_engine_keeps_its_id_and_shares_it_with_none(self) -> None:
        def engine(**flags: Any) -> tuple[str, int]:
            params = self.say(self.start(**flags), PREFILL).kv_transfer_params or {}
            return params["remote_engine_id"], params["remote_port"]

        rank = self.start()
        seen = {(self.say(rank, PREFILL).kv_transfer_params or {})["remote_engine_id"] for _ in range(2)}
        self.assertEqual(seen, {engine()[0]})
        self.assertEqual(len({engine()[0], engine(port=9)[0], engine(pod_ip="p")[0], engine(seed=5)[0]}), 4)
        second = {"data_parallel_size": 2, "data_parallel_rank": 1, "kv_transfer_config": {"engine_id": "e"}}
        self.assertEqual(engine(**second), ("e_dp1", 5601))

    def test_blocks_wait_as_long_as_the_lease_that_is_configured(self) -> None:
        for extra, lease in (({"kv_lease_duration": 7}, 7), ("x", 30)):
            rank = self.start(kv_transfer_config={"kv_connector_extra_config": extra})
            params = self.say(rank, PREFILL).kv_transfer_params or {}
            self.assertEqual(params["remote_blocks_expiry_time"], WALL + lease)


class DecodeTests(RankCase):
    def test_blocks_of_a_prefill_are_external_hits_of_the_decode(self) -> None:
        prefill, decode = self.start(), self.start()
        plan = self.say(decode, self.say(prefill, PREFILL).kv_transfer_params)
        self.assertEqual((plan.cached_tokens, plan.external_tokens), (48, 48))
        self.assertEqual((self.lookups(decode), self.lookups(decode, "prefix")), ([52, 48], [52, 0]))
        self.assertEqual((self.sources(decode), self.sources(prefill)), ([4, 0, 48], [52, 0, 0]))
        tiers = [metric(decode, "vllm:prompt_tokens_cached_by_source_total", source=s) for s in ("device", "p2p")]
        self.assertEqual([*tiers, metric(decode, "vllm:prompt_tokens_cached_total")], [0, 48, 48])

    def test_what_is_cached_here_is_not_fetched(self) -> None:
        rank = self.start()
        self.say(rank, None, PROMPT[:20])
        plan = self.say(rank, fetching([[1, 2, 3]]))
        self.assertEqual((plan.cached_tokens, plan.external_tokens), (48, 32))
        self.assertEqual((self.lookups(rank), self.sources(rank)), ([36, 32], [24, 16, 32]))

    def test_the_last_token_is_always_computed(self) -> None:
        for size, hit in ((48, 32), (49, 48), (1, 0)):
            plan = self.say(self.start(), fetching([[1, 2, 3, 4, 5]]), PROMPT[:size])
            self.assertEqual(plan.cached_tokens, hit)

    def test_blocks_are_fetched_without_a_cache_of_ones_own(self) -> None:
        rank = self.start(enable_kvcache=False)
        self.assertEqual(self.say(rank, fetching(["DUMMY_ID", "DUMMY_ID"])).cached_tokens, 32)
        self.assertEqual(self.sources(rank), [20, 0, 32])

    def test_fetched_blocks_can_be_hit_by_the_next_request(self) -> None:
        rank = self.start()
        self.say(rank, fetching([[1, 2, 3]]))
        plan = self.say(rank, None)
        self.assertEqual((plan.cached_tokens, plan.external_tokens), (48, 0))

    def test_a_configured_connector_is_asked_for_every_request(self) -> None:
        configured, other = self.start(kv_transfer_config={"kv_connector": "NixlConnector"}), self.start()
        self.say(configured, None)
        self.say(other, None)
        self.assertEqual((self.lookups(configured), self.lookups(other)), ([52, 0], [0, 0]))

    def test_a_fetched_prompt_takes_the_time_of_its_transfer(self) -> None:
        rank = self.start(time_to_first_token=8.0, kv_cache_transfer_latency=0.5)
        ear = Ear(self.clock)
        served = serve(rank, request(1, prompts=(PROMPT,), transfer=Transfer.read(fetching([]))), ear)
        self.clock.advance(0.5)
        self.successResultOf(served)


class StrictTests(RankCase):
    def test_without_a_configured_connector_there_is_none(self) -> None:
        rank = self.start(strict=True)
        self.assertIsNone(self.say(rank, PREFILL).kv_transfer_params)
        rank = self.start(strict=True)
        self.assertEqual(self.say(rank, fetching([[1, 2, 3]])).cached_tokens, 0)
        self.assertEqual((self.lookups(rank), self.sources(rank)), ([0, 0], [52, 0, 0]))

    def test_with_a_configured_connector_there_is_one(self) -> None:
        flags: dict[str, Any] = {"strict": True, "kv_transfer_config": {"kv_connector": "NixlConnector"}}
        params = self.say(self.start(**flags), PREFILL).kv_transfer_params
        self.assertEqual(self.say(self.start(**flags), params).cached_tokens, 48)


class WireTests(SynchronousTestCase):
    def bodies(self, params: Any, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
        """A question for each API, of more than one block."""
        long, ids = "word " * 40, [*range(40)]
        conversation = [{"role": "user", "content": long}]
        shared = {"kv_transfer_params": params, **fields}
        sampling = {"max_tokens": 1, "ignore_eos": True}
        return [
            (CHAT, chat(1, messages=conversation, **shared)),
            (TEXT, text(1, prompt=long, **shared)),
            (TOKENS, {"model": "m", "token_ids": ids, "sampling_params": sampling, **shared}),
        ]

    def door(self, *words: str) -> Door:
        return Door("--enable-kvcache", "--enable-prompt-tokens-details", *words, environ={"POD_IP": "10.0.0.7"})

    def test_a_prefills_answer_makes_a_decode_find_its_tokens_cached(self) -> None:
        for (path, body), (_, ask) in zip(self.bodies(PREFILL), self.bodies(None), strict=True):
            answer = self.door().post(path, body).json()
            params = answer["kv_transfer_params"]
            self.assertEqual(params["remote_request_id"], answer.get("id") or answer["request_id"])
            self.assertEqual(answer["choices"][0]["finish_reason"], "length")
            usage = self.door().post(path, {**ask, "kv_transfer_params": params}).json()["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            self.assertEqual(cached, 16 * len(params["remote_block_ids"][0]))
            self.assertGreater(cached, 0)

    def test_it_rides_on_the_last_chunk_of_a_stream(self) -> None:
        for path, body in self.bodies(PREFILL, stream=True)[:2]:
            client = Client(self.door()).post(path, {**body, "max_tokens": 3})
            chunks = [event for event in client.events() if event != DONE]
            shown = [chunk["kv_transfer_params"] for chunk in chunks if "kv_transfer_params" in chunk]
            self.assertEqual(shown[:-1], [None] * 2)
            self.assertEqual(shown[-1]["remote_host"], "10.0.0.7")

    def test_a_strict_server_answers_null_unless_its_connector_is_configured(self) -> None:
        for words, answered in (((), False), (("--kv-transfer-config", NIXL), True)):
            for path, body in self.bodies(PREFILL)[:2]:
                answer = self.door("--strict", *words).post(path, body).json()
                self.assertEqual(answer["kv_transfer_params"] is not None, answered)

    def test_odd_parameters_are_no_errors_of_the_server(self) -> None:
        odd: list[Any] = [5, "x", [], {"do_remote_prefill": "yes", "remote_block_ids": {"a": 1}}]
        odd += [fetching(ids) for ids in (5, "x", [[[1]]], [None], [1 << 70])]
        for params in odd:
            statuses = {self.door().post(path, body).status for path, body in self.bodies(params)}
            self.assertEqual(statuses, {200} if isinstance(params, dict) else {400})


class PlaceTests(SynchronousTestCase):
    def test_the_side_channel_is_where_vllms_environment_says(self) -> None:
        environ = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "h", "VLLM_NIXL_SIDE_CHANNEL_PORT": "7", "POD_IP": "p"}
        for variables, place in ((environ, ("h", 7)), ({"POD_IP": "p"}, ("p", 5600)), ({}, ("localhost", 5600))):
            answer = Door(environ=variables).post(TEXT, text(1, kv_transfer_params=PREFILL)).json()
            params = answer["kv_transfer_params"]
            self.assertEqual((params["remote_host"], params["remote_port"]), place)

    def test_a_port_that_is_no_number_is_refused_at_the_start(self) -> None:
        with self.assertRaisesRegex(ConfigError, "VLLM_NIXL_SIDE_CHANNEL_PORT: expected an integer"):
            load(["--model", "m"], {"VLLM_NIXL_SIDE_CHANNEL_PORT": "x"})
