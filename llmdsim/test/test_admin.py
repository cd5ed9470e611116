from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, Heard, text
from llmdsim.test.support import WALL

INPUT = "InvalidUserInput"
AGAIN = (
    "The lora adapter 'l2' has already been loaded. If you want to load the adapter in place, "
    "set 'load_inplace' to True."
)


class AdapterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--served-model-name", "base", "--lora-modules", "l1=/adapters/l1")

    def load(self, name: str = "l2", path: str = "/adapters/l2", **more: Any) -> Heard:
        return self.door.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path, **more})

    def unload(self, name: str = "l2", **more: Any) -> Heard:
        return self.door.post("/v1/unload_lora_adapter", {"lora_name": name, **more})

    def names(self) -> list[str]:
        return [card["id"] for card in self.door.ask("GET", "/v1/models").json()["data"]]

    def test_a_loaded_adapter_is_listed_and_answers(self) -> None:
        heard = self.load()
        self.assertEqual((heard.status, heard.body), (200, b"Success: LoRA adapter 'l2' added successfully."))
        self.assertIsNone(heard.header("content-type"))
        self.assertEqual(self.names(), ["base", "l1", "l2"])
        self.assertEqual(self.door.post("/v1/completions", {**text(1), "model": "l2"}).json()["model"], "l2")

    def test_an_unloaded_adapter_is_gone(self) -> None:
        heard = self.unload("l1")
        self.assertEqual((heard.status, heard.body), (200, b"Success: LoRA adapter 'l1' removed successfully."))
        self.assertIsNone(heard.header("content-type"))
        self.assertEqual(self.names(), ["base"])
        message = "The model `l1` does not exist. Valid aliases: base."
        refused = self.door.post("/v1/completions", {**text(1), "model": "l1"}).fault()
        self.assertEqual(refused, (404, "NotFoundError", message, "model"))

    def test_an_adapter_is_loaded_again_only_in_place(self) -> None:
        self.load()
        self.assertEqual(self.load(path="/elsewhere").fault(), (400, INPUT, AGAIN, None))
        self.assertEqual(self.load(path="/elsewhere", load_inplace=True).status, 200)
        card = self.door.ask("GET", "/v1/models").json()["data"][-1]
        self.assertEqual((card["id"], card["root"]), ("l2", "/elsewhere"))

    def test_the_name_of_a_served_model_conflicts(self) -> None:
        message = "The lora adapter 'base' conflicts with a served base model."
        self.assertEqual(self.load("base").fault(), (400, INPUT, message, None))

    def test_name_and_path_must_not_be_empty(self) -> None:
        message = "Both 'lora_name' and 'lora_path' must be provided."
        for name, path in (("", "/x"), ("l2", ""), ("", "")):
            self.assertEqual(self.load(name, path).fault(), (400, INPUT, message, None))
        self.assertEqual(self.names(), ["base", "l1"])

    def test_unloading_what_is_not_there_is_404(self) -> None:
        message = "The lora adapter 'l2' cannot be found."
        self.assertEqual(self.unload().fault(), (404, "NotFoundError", message, None))

    def test_a_missing_field_is_vllms_validation_error(self) -> None:
        for path, body, name in (
            ("/v1/load_lora_adapter", {"lora_name": "l2"}, "lora_path"),
            ("/v1/load_lora_adapter", {"lora_path": "/x"}, "lora_name"),
            ("/v1/unload_lora_adapter", {"lora_int_id": 1}, "lora_name"),
        ):
            entry = (
                f"{{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required', 'input': '<dict of 1 items>'}}"
            )
            refused = 400, "Bad Request", f"1 validation error:\n  {entry}", f"body.{name}"
            self.assertEqual(self.door.post(path, body).fault(), refused)

    def test_fields_that_a_newer_client_sends_are_let_pass(self) -> None:
        self.assertEqual(self.load(base_model_name="base", is_3d_lora_weight=False).status, 200)
        self.assertEqual(self.unload(lora_int_id=7).status, 200)

    def test_unloading_a_running_adapter_lets_it_finish_and_another_take_its_slot(self) -> None:
        self.door = Door("--lora-modules", "l1=/1", "--max-loras", "1", "--time-to-first-token", "1s")
        running = Client(self.door).post("/v1/completions", {**text(1), "model": "l1"})
        self.unload("l1")
        self.load()
        after = Client(self.door).post("/v1/completions", {**text(1), "model": "l2"})
        self.door.clock.advance(1)
        self.assertEqual((running.status(), after.status()), (200, None))
        self.door.clock.advance(1)
        self.assertEqual(after.status(), 200)


class GateTests(SynchronousTestCase):
    LOAD = {"lora_name": "l2", "lora_path": "/adapters/l2"}

    def test_a_strict_server_has_no_adapter_routes_unless_the_environment_opens_them(self) -> None:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            heard = Door("--strict").post(path, self.LOAD)
            self.assertEqual((heard.status, heard.body), (404, b'{"detail":"Not Found"}'))
        door = Door("--strict", "--enable-lora", environ={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"})
        self.assertEqual(door.post("/v1/load_lora_adapter", self.LOAD).status, 200)


class CardTests(SynchronousTestCase):
    def cards(self, *words: str) -> list[dict[str, Any]]:
        heard = Door(*words).ask("GET", "/v1/models").json()
        self.assertEqual((list(heard), heard["object"]), (["object", "data"], "list"))
        return list(heard["data"])

    def test_each_served_name_has_a_card_of_the_model(self) -> None:
        first, second = self.cards("--served-model-name", "base", "alias2", "--max-model-len", "512")
        keys = ["id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"]
        self.assertEqual(list(first), keys)
        self.assertEqual([first[key] for key in keys[:-1]], ["base", "model", WALL, "vllm", "m", None, 512])
        self.assertEqual((second["id"], second["root"]), ("alias2", "m"))

    def test_an_adapters_card_tells_its_path_and_its_parent(self) -> None:
        words = "l1=/adapters/l1", '{"name": "l2", "path": "/adapters/l2", "base_model_name": "m"}'
        cards = self.cards("--served-model-name", "base", "--lora-modules", *words)
        facts = [[card[key] for key in ("id", "root", "parent", "max_model_len")] for card in cards[1:]]
        self.assertEqual(facts, [["l1", "/adapters/l1", "base", None], ["l2", "/adapters/l2", "m", None]])

    def test_a_card_permits_what_vllms_does(self) -> None:
        first, second = [card["permission"] for card in self.cards("--served-model-name", "base", "alias2")]
        permission = {
            "id": first[0]["id"],
            "object": "model_permission",
            "created": WALL,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        self.assertEqual((first, list(first[0])), ([permission], list(permission)))
        self.assertRegex(first[0]["id"], "^modelperm-[0-9a-f]{16}$")
        self.assertNotEqual(first[0]["id"], second[0]["id"])

    def test_one_model_alone_cannot_be_asked_for(self) -> None:
        heard = Door().ask("GET", "/v1/models/m")
        self.assertEqual((heard.status, heard.body), (404, b'{"detail":"Not Found"}'))
