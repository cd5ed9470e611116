"""
A tokenizer without a model: a regular expression cuts, FNV-1a hashes.

The ids are those of the older simulator, so its datasets and block hashes stay valid.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llmdsim.sim.fnv import fnv1a
from llmdsim.sim.messages import transcript
from llmdsim.sim.request import Tokens

SPACE = " \t\n\f\r"
SIGNS = r"""{}:,\-.?!;@#$%^&*()+_~/\\><\[\]="'"""
END = "<|im_end|>"
ROOM = 2 << 20
ENTRY = 32
_TOKEN = re.compile(rf"(?:[{SIGNS}]|[0-9A-Za-z_]+|[^{SIGNS}0-9A-Za-z{SPACE}]+)[{SPACE}]*")


def split(text: str) -> list[str]:
    """
    The tokens of a text, which join to it: a sign, a word, or a run of anything else, each with the blanks behind it.

    Leading blanks belong to the first token.
    """
    tokens = _TOKEN.findall(text)
    blank = text[: len(text) - len(text.lstrip(SPACE))]
    if blank:
        tokens[:1] = [blank + "".join(tokens[:1])]
    return tokens


class Vocabulary(dict[str, int]):
    """
    Ids by token, hashed when first asked for, and ``texts``, the way back.

    Keeps the newest: about ``room`` characters in all, where an entry counts as ENTRY characters more.
    """

    def __init__(self, room: int = ROOM) -> None:
        super().__init__()
        self.texts: dict[int, str] = {}
        self._room = self._left = room

    def __missing__(self, text: str) -> int:
        id, cost = fnv1a(text), len(text) + ENTRY
        if cost > self._room // 2:
            return id
        if cost > self._left:
            self._forget()
        self._left -= cost
        self[text] = id
        self.texts[id] = text
        return id

    def _forget(self) -> None:
        """Drop the oldest half; one by one would search past the dropped ones again and again."""
        for text in list(self):
            if self._left >= self._room // 2:
                return
            self.texts.pop(self.pop(text), None)
            self._left += len(text) + ENTRY


class Simulated:
    """The simulated tokenizer; ids decode as long as their texts were seen lately."""

    eos = (fnv1a(END), END)
    vocab_size: int | None = None
    longest = 12
    inline = sys.maxsize  # pure Python in a thread would hold up the streams

    def __init__(self, room: int = ROOM) -> None:
        self._ids = Vocabulary(room)
        self._texts = self._ids.texts
        self._texts[self.eos[0]] = END

    def encode(self, text: str, special: bool = True) -> Tokens:
        """Cut a text; there are no special tokens to add."""
        texts = split(text)
        return Tokens([*map(self._ids.__getitem__, texts)], texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; unknown ids are silent."""
        return "".join(self.strings(ids))

    def strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token, empty where it is unknown."""
        return [self._texts.get(id, "") for id in ids]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> str:
        """A chat as the text that is tokenized; only the messages count."""
        return transcript(messages)
