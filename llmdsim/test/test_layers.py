"""The rules of the house, read from the source: who imports whom, how long a room is, which room a test is of."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import llmdsim

HOUSE = Path(llmdsim.__file__).parent
TESTS = HOUSE / "test"
LONGEST = 300  # lines: a room has fewer
RULES = {"layers", "twistd", "wire", "clients"}  # tests of the whole house rather than of a room

# Whom the rooms of a floor may import, besides their own floor. Rooms that stand on no floor are named themselves.
ENGINE = "sim.rank", "sim.scheduler", "sim.pacing"
SOURCES = "sim", "config", "faults"
MAY_IMPORT = {
    "faults": (),
    "config": (),
    "sim": ("config", "faults"),
    "api": ("sim", "config", "faults"),
    "web": ("api", "sim", "config", "faults"),
    "grpc": ("api", "sim", "config", "faults"),
    "dataset": SOURCES,
    "rows": SOURCES,
    "progress": (),
    "sqlite": (*SOURCES, "rows"),
    "download": ("progress",),
    "source": (*SOURCES, "dataset", "download", "progress", "sqlite"),
    "builder": (*SOURCES, "rows", "download", "progress", "simulated", "tokenizer"),
    "template": SOURCES,
    "simulated": SOURCES,
    "huggingface": (*SOURCES, "template"),
    "tokenizer": (*SOURCES, "simulated", "huggingface"),
    "eventform": SOURCES,
    "tls": ("config",),
    "replay": (),
    "events": (*SOURCES, "eventform", "replay"),
    "zeromq": ("events",),
    "tap": ("zeromq", "tls", "web", "grpc", "api", "sim", "config", "faults", "source", "tokenizer", "events"),
    "cli": (),
}
# What stays outside of a floor: the engine knows no doors and no stores, the others no engine.
CLOSED = {
    "sim": ("klein", "twisted.web", "txzmq", "zmq", "sqlite3", "tokenizers"),
    "api": ("twisted", "klein", *ENGINE),
    **dict.fromkeys(
        ("dataset", "template", "simulated", "huggingface", "tokenizer", "events", "eventform", "replay"), ENGINE
    ),
    **dict.fromkeys(("rows", "sqlite", "source", "builder"), ENGINE),
}


def rooms() -> Iterator[tuple[str, Path]]:
    """Every room but the tests by its name below ``llmdsim``, such as ``sim.rank``."""
    for path in sorted(HOUSE.rglob("*.py")):
        if TESTS not in path.parents:
            yield ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    """Everything that a file imports, wherever in it: modules, and names taken from them, in dots."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, places: Iterable[str]) -> bool:
    """Whether a name in dots is one of the places, or inside of one."""
    return any(f"{name}.".startswith(f"{place}.") for place in places)


def own(found: Iterable[str]) -> list[str]:
    """Those imports that are rooms of this house, without its name; the package itself is nobody's room."""
    return sorted(
        name.removeprefix("llmdsim.") for name in found if name.startswith("llmdsim.") and not name.endswith("__")
    )


class LayerTests(SynchronousTestCase):
    def test_arrows_go_one_way(self) -> None:
        wrong = [
            f"{room} imports {name}"
            for room, path in rooms()
            for floor in [room.partition(".")[0]]
            for name in own(imports(path))
            if not within(name, (floor, *MAY_IMPORT.get(floor, ())))
        ]
        self.assertEqual(wrong, [])

    def test_every_floor_has_its_arrows(self) -> None:
        floors = {room.partition(".")[0] for room, _ in rooms()} - {"__init__", ""}
        self.assertEqual(floors - MAY_IMPORT.keys(), set())

    def test_only_tap_knows_the_reactor(self) -> None:
        places = "twisted.internet.reactor", "twisted.internet.default", "twisted.internet.epollreactor"
        knowing = {room for room, path in rooms() if any(within(name, places) for name in imports(path))}
        self.assertEqual(knowing, {"tap"})

    def test_the_engine_knows_no_doors_and_no_stores_and_the_dialects_no_engine(self) -> None:
        wrong = [
            f"{room} imports {name}"
            for room, path in rooms()
            for name in sorted(imports(path))
            if within(name.removeprefix("llmdsim."), CLOSED.get(room.partition(".")[0], ()))
        ]
        self.assertEqual(wrong, [])

    def test_no_room_imports_a_test(self) -> None:
        self.assertEqual([room for room, path in rooms() if within("test", own(imports(path)))], [])


class RoomTests(SynchronousTestCase):
    def test_rooms_and_tests_are_under_300_lines(self) -> None:
        lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in HOUSE.rglob("*.py")}
        self.assertEqual([str(path.relative_to(HOUSE)) for path in lengths if lengths[path] >= LONGEST], [])

    def test_every_test_is_of_a_room(self) -> None:
        """``test_generation_streams`` is a part of the tests of ``generation``."""
        known = {part for room, _ in rooms() for part in room.split(".")} | RULES
        homeless = [
            path.name
            for path in TESTS.glob("test_*.py")
            for words in [path.stem.split("_")[1:]]
            if not any("_".join(words[:count]) in known for count in range(1, len(words) + 1))
        ]
        self.assertEqual(homeless, [])

    def test_every_room_says_what_it_is_in_at_most_six_lines(self) -> None:
        wrong = []
        for room, path in rooms():
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if not doc or len(doc.splitlines()) > 6:
                wrong.append(room)
        self.assertEqual(wrong, [])
