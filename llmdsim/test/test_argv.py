"""How a command line is cut into flags and words."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config.argv import DOCUMENT, MANY, ONE, SWITCH, Given, Grammar
from llmdsim.config.values import ConfigError

GRAMMAR = Grammar(
    {
        "port": ONE,
        "names": MANY,
        "events": DOCUMENT,
        "enable-lora": SWITCH,
        "disable-log": SWITCH,
        "omni": SWITCH,
        "v": ONE,
    },
    aliases={"titles": "names"},
    shorts={"v": "v", "tp": "port", "ev": "events"},
)


def cut(line: str) -> tuple[list[Given], list[str]]:
    return GRAMMAR.split(line.split(" ") if line else [])


def flags(line: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(given.name, given.words) for given in cut(line)[0]]


class Scalars(SynchronousTestCase):
    def test_a_value_follows_the_name_or_an_equals_sign(self) -> None:
        for line in ("--port 1", "--port=1", "-tp 1", "-tp=1"):
            self.assertEqual(flags(line), [("port", ("1",))])

    def test_a_value_may_be_negative_empty_or_hold_an_equals_sign(self) -> None:
        self.assertEqual(flags("--port -1 --port= --port=a=b"), [("port", (word,)) for word in ("-1", "", "a=b")])

    def test_underscores_are_dashes(self) -> None:
        self.assertEqual(flags("--enable_lora"), [("enable-lora", ("true",))])

    def test_v_may_touch_its_number(self) -> None:
        for line in ("-v 5", "-v5", "-v=5", "--v=5"):
            self.assertEqual(flags(line), [("v", ("5",))])

    def test_flags_and_loose_words_may_be_mixed(self) -> None:
        self.assertEqual(cut("serve m --port 1 x -- --port"), ([Given("port", ("1",))], ["serve", "m", "x", "--port"]))


class Switches(SynchronousTestCase):
    def test_a_switch_is_turned_on(self) -> None:
        for line in ("--omni", "--omni=true", "--omni true", "--omni 1", "--no-omni=false", "--no-omni f"):
            self.assertEqual(cut(line), ([Given("omni", ("true",))], []), line)

    def test_a_switch_is_turned_off(self) -> None:
        for line in ("--no-omni", "--omni=false", "--omni false", "--omni 0", "--no_omni"):
            self.assertEqual(cut(line), ([Given("omni", ("false",))], []), line)

    def test_enable_and_disable_are_opposites(self) -> None:
        for line in ("--disable-lora", "--no-enable-lora", "--enable-lora F"):
            self.assertEqual(flags(line), [("enable-lora", ("false",))], line)
        self.assertEqual(flags("--enable-log"), [("disable-log", ("false",))])

    def test_another_word_after_a_switch_stays_loose(self) -> None:
        self.assertEqual(cut("--omni model"), ([Given("omni", ("true",))], ["model"]))


class Lists(SynchronousTestCase):
    def test_a_list_takes_all_words_up_to_the_next_flag(self) -> None:
        for line in (
            "--names a b --port 1",
            "--names a b -v 1",
            "--names a b -v1",
            "--names a b -tp=1",
            "--titles a  b -ev.x 1",
        ):
            self.assertEqual(flags(line)[0], ("names", ("a", "b")), line)

    def test_a_list_with_an_equals_sign_takes_one_word(self) -> None:
        self.assertEqual(cut("--names=a b"), ([Given("names", ("a",))], ["b"]))

    def test_a_list_may_be_empty(self) -> None:
        for line in ("--names", "--names=", "--names ", "--names --omni"):
            self.assertEqual(flags(line)[0], ("names", ()), line)


class Members(SynchronousTestCase):
    def test_a_member_of_a_document_is_given_by_its_path(self) -> None:
        for line in ("--events.a.b_c 1", "--events.a.b_c=1", "-ev.a.b_c=1"):
            self.assertEqual(cut(line)[0], [Given("events", ("1",), ("a", "b_c"))])

    def test_only_documents_have_members(self) -> None:
        for line in ("--port.a 1", "--events. 1"):
            self.assertRaises(ConfigError, cut, line)


class Mistakes(SynchronousTestCase):
    def test_a_mistake_is_named_in_one_line(self) -> None:
        for line, text in {
            "--bogus": "unknown flag: --bogus",
            "--bogus=1": "unknown flag: --bogus",
            "--no-port": "unknown flag: --no-port",
            "--prot 1": "unknown flag: --prot (did you mean --port?)",
            "--enable_lara": "unknown flag: --enable_lara (did you mean --enable-lora?)",
            "-x": "unknown shorthand flag: 'x' in -x",
            "-vx": "unknown shorthand flag: 'v' in -vx",
            "--port": "flag needs an argument: --port",
            "--port --omni": "flag needs an argument: --port",
            "-tp": "flag needs an argument: -tp",
            "--omni=maybe": 'invalid argument "maybe" for "--omni" flag: expected true or false',
            "---x": "bad flag syntax: ---x",
            "--=x": "bad flag syntax: --=x",
        }.items():
            self.assertEqual(str(self.assertRaises(ConfigError, cut, line)), text)
