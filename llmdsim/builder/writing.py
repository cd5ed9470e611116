"""
Makes rows of conversations: each answer is one of the human's text alone, and one of the whole chat so far.

The tokens are those that a server with the same tokenizer sees, so that it finds the rows again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from llmdsim.builder.conversations import Record
from llmdsim.faults import Fault
from llmdsim.progress import Log
from llmdsim.rows import older_chat, prompt_hash, write_tokens
from llmdsim.sim.request import Tokens


class Tokenizer(Protocol):
    """What writing needs of a tokenizer."""

    def encode(self, text: str, special: bool = True) -> Tokens: ...
    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> str: ...


@attrs.frozen(slots=True)
class Row:
    """A row as it is stored, its number of tokens, and for people the prompt and the answer as text."""

    prompt_hash: bytes
    gen_tokens: bytes
    count: int
    input_text: str
    generated: str


class Writer:
    """Writes the rows of records; ``template`` is what the chat template may read beside the messages."""

    def __init__(self, tokenizer: Tokenizer, template: Mapping[str, Any], log: Log) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._log = log

    def rows(self, record: Record) -> list[Row]:
        """Two rows for each answer; an exchange that cannot be tokenized is left out, of later prompts too."""
        rows: list[Row] = []
        messages: list[dict[str, str]] = []
        for question, answer in record.exchanges(self._log):
            asked = [*messages, {"role": "user", "content": question}]
            try:
                rows += self._pair(question, asked, answer)
            except Exception as error:  # tokenizers raises bare Exceptions, a template whatever it likes
                told = error.message if isinstance(error, Fault) else str(error)
                reason = " ".join(told.split()) or type(error).__name__
                self._log(f"record {record.number}: an exchange cannot be tokenized, left out: {reason}")
                continue
            messages = [*asked, {"role": "assistant", "content": answer}]
        return rows

    def _pair(self, question: str, asked: Sequence[Mapping[str, str]], answer: str) -> list[Row]:
        encode = self._tokenizer.encode
        chat = self._tokenizer.render(asked, **self._template)
        said = encode(answer, False)
        return [
            self._row(encode(question, True), said, question, answer),
            self._row(encode(chat, False), said, older_chat(asked), answer),
        ]

    def _row(self, prompt: Tokens, said: Tokens, input_text: str, generated: str) -> Row:
        hash = prompt_hash(prompt.ids)
        if hash is None:
            raise ValueError("a token's id has more than 32 bits")
        return Row(hash, write_tokens(said), len(said.ids), input_text, generated)
