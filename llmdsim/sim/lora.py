"""
Adapters: which are known, which hold one of the slots, how many sequences use each.

The wire forms of loading and unloading belong to the doors; the texts of their refusals are vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmdsim.config import Adapter
from llmdsim.faults import INVALID_INPUT, NOT_FOUND, Fault
from llmdsim.sim.request import Model


class Adapters:
    """
    The models of one rank: the served names and the adapters beside them.

    At most ``slots`` different adapters run at a time; an idle one keeps its slot until another needs it.
    """

    def __init__(self, served: Sequence[str], adapters: Iterable[Adapter] = (), slots: int = 1) -> None:
        self.served = tuple(served)
        self.known = {adapter.name: adapter for adapter in adapters}
        self.slots = slots
        self._base = Model(self.served[0])
        self._numbers = {name: number for number, name in enumerate(self.known, 1)}
        self._slot: dict[str, int] = {}
        self._users: dict[str, int] = {}

    def find(self, name: str | None) -> Model:
        """The model that answers to a name; None is the base model. Raises Fault(NOT_FOUND)."""
        if name is None or name in self.served:
            return self._base
        if name in self.known:
            return Model(name, name)
        raise Fault(NOT_FOUND, f"The model `{name}` does not exist. Valid aliases: {', '.join(self.served)}.", "model")

    def load(self, name: str, path: str, replace: bool = False) -> None:
        """Make an adapter known. Raises Fault(INVALID_INPUT) where vLLM refuses it."""
        if not name or not path:
            raise Fault(INVALID_INPUT, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.served:
            raise Fault(INVALID_INPUT, f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.known and not replace:
            raise Fault(
                INVALID_INPUT,
                f"The lora adapter '{name}' has already been loaded. "
                "If you want to load the adapter in place, set 'load_inplace' to True.",
            )
        self.known[name] = Adapter(name, path)
        self._numbers[name] = self._numbers.get(name) or max(self._numbers.values(), default=0) + 1

    def unload(self, name: str) -> None:
        """Forget an adapter; sequences that run with it finish, and then its slot is free."""
        if not name:
            raise Fault(INVALID_INPUT, "'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.known:
            raise Fault(NOT_FOUND, f"The lora adapter '{name}' cannot be found.")
        del self.known[name]
        if name not in self._users:
            self._slot.pop(name, None)

    def holds(self, name: str | None) -> bool:
        """Whether a sequence of this adapter needs no new slot."""
        return name is None or name in self._slot

    def room(self) -> bool:
        """Whether a slot is free, or held by an idle adapter that can go."""
        return len(self._slot) < self.slots or len(self._users) < len(self._slot)

    def admits(self, name: str | None) -> bool:
        """Whether a sequence of this adapter may start now."""
        return self.holds(name) or self.room()

    def take(self, name: str | None) -> None:
        """Count one more running sequence; gives the adapter a slot where it has none."""
        if name is None:
            return
        if name not in self._slot:
            self._slot[name] = self._free_slot()
        self._users[name] = self._users.get(name, 0) + 1

    def give(self, name: str | None) -> None:
        """Count one running sequence less; the last one of an unloaded adapter frees its slot."""
        if name is None:
            return
        left = self._users.pop(name) - 1
        if left:
            self._users[name] = left
        elif name not in self.known:
            self._slot.pop(name, None)

    def slot(self, name: str) -> int | None:
        """The slot that an adapter holds, from 1."""
        return self._slot.get(name)

    def number(self, name: str | None) -> int | None:
        """The number of an adapter that is or was known, from 1: the ``lora_id`` of KV events."""
        return None if name is None else self._numbers.get(name)

    def _free_slot(self) -> int:
        if len(self._slot) >= self.slots:
            idle = next(name for name in self._slot if name not in self._users)
            return self._slot.pop(idle)
        taken = set(self._slot.values())
        return next(number for number in range(1, self.slots + 1) if number not in taken)
