"""
A model's own tokenizer: ``tokenizers.Tokenizer`` with the files beside its ``tokenizer.json``.

Imported only where one is loaded. Which file to load is tokenizer's choice; rendering a chat is template's.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders

from llmdsim.sim.messages import transcript
from llmdsim.sim.request import Tokens
from llmdsim.template import ChatTemplate

ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "</s>",
    "<end_of_turn>",
    "<eos>",
    "<|return|>",
    "<|end|>",
    "[SEP]",
)


class ByteTexts(dict[int, str | None]):
    """A byte-level token's text by id, None where the token is no whole number of characters; ``bytes`` has those."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.bytes: dict[int, bytes] = {}
        self._name = tokenizer.id_to_token
        self._added = {id: token.content for id, token in tokenizer.get_added_tokens_decoder().items()}

    def __missing__(self, id: int) -> str | None:
        self.bytes[id] = raw = self._raw(id)
        try:
            text: str | None = raw.decode()
        except UnicodeDecodeError:
            text = None
        self[id] = text
        return text

    def _raw(self, id: int) -> bytes:
        if id in self._added:
            return self._added[id].encode()
        name = self._name(id) or ""
        try:
            return bytes(map(ALPHABET.__getitem__, name))
        except KeyError:
            return name.encode()

    def of(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text: a character belongs to the token that completes it."""
        texts = list(map(self.__getitem__, ids))
        if None in texts:
            return self._stepwise(ids)
        return texts  # type: ignore[return-value]

    def _stepwise(self, ids: Sequence[int]) -> list[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [decoder.decode(self.bytes[id]) for id in ids]
        texts[-1] += decoder.decode(b"", True)
        return texts


def by_bytes(tokenizer: Tokenizer) -> Callable[[str], Tokens]:
    """A function that cuts a text with a byte-level tokenizer."""
    table, otherwise = ByteTexts(tokenizer), by_offsets(tokenizer)

    def cut(text: str) -> Tokens:
        ids = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids  # encode() would hold the GIL
        texts = table.of(ids)
        return Tokens(ids, texts) if "".join(texts) == text else otherwise(text)  # a normalizer changed characters

    return cut


def by_offsets(tokenizer: Tokenizer) -> Callable[[str], Tokens]:
    """A function that cuts a text with any tokenizer, at its offsets: blanks that it drops go to the next token."""

    def cut(text: str) -> Tokens:
        encoding = tokenizer.encode_batch([text], add_special_tokens=False)[0]  # the fast one leaves offsets out
        ends = _ends(encoding.offsets, len(text))
        return Tokens(encoding.ids, [text[a:b] for a, b in zip([0, *ends], ends, strict=False)])

    return cut


def _ends(offsets: Sequence[tuple[int, int]], length: int) -> list[int]:
    """Where each token's text ends: never inside what the next one completes, never before the last end."""
    if not offsets:
        return []
    bounds = (min(end, start) for (_, end), (start, _) in pairwise(offsets))
    return [*accumulate(bounds, max), length]


class HuggingFace:
    """A model's tokenizer; without a ``template`` chats are rendered as the simulated one renders them."""

    inline = 2000

    def __init__(self, tokenizer: Tokenizer, eos: tuple[int, str], template: ChatTemplate | None = None) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.eos = eos
        self.vocab_size: int | None = max(vocabulary.values(), default=-1) + 1
        self.longest = max(map(len, vocabulary), default=1)
        self._size = self.vocab_size
        self._tokenizer = tokenizer
        self._template = template
        self._cut = (by_bytes if isinstance(tokenizer.decoder, decoders.ByteLevel) else by_offsets)(tokenizer)
        self._head, self._tail = _around(tokenizer)

    def encode(self, text: str, special: bool = True) -> Tokens:
        """
        Cut a text, as the tokenizer's post-processor frames it where ``special``; a special token's text is its name.

        Lone surrogates become U+FFFD.
        """
        try:
            body = self._cut(text)
        except (TypeError, UnicodeError):
            body = self._cut(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        if not special:
            return body
        head, tail = self._head, self._tail
        return Tokens([*head.ids, *body.ids, *tail.ids], [*head.texts, *body.texts, *tail.texts])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included; ids outside the vocabulary are silent."""
        text: str = self._tokenizer.decode([id for id in ids if 0 <= id < self._size], skip_special_tokens=False)
        return text

    def strings(self, ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary writes it, empty where it is unknown."""
        return [self._tokenizer.id_to_token(id) or "" if 0 <= id < self._size else "" for id in ids]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> str:
        """A chat as the text to encode with ``special=False``. Raises Fault(BAD_REQUEST) where the template fails."""
        if self._template is None:
            return transcript(messages)
        return self._template.render(messages, tools, generation_prompt, template_kwargs)


def load(path: Path, chat_template: str = "") -> HuggingFace:
    """
    The tokenizer in a ``tokenizer.json``, with the configuration beside it; ``chat_template`` replaces its template.

    Raises whatever is wrong with the files; nothing is looked up elsewhere.
    """
    tokenizer = Tokenizer.from_file(str(path))
    config = _read(path.with_name("tokenizer_config.json"))
    specials = {key: _content(value) for key, value in config.items() if key.endswith("_token") and _content(value)}
    sources = {"default": chat_template} if chat_template else _sources(path.parent, config)
    eos = _end(tokenizer, specials.get("eos_token", ""), path.parent)
    template = ChatTemplate(sources, {"eos_token": eos[1], **specials}) if sources else None
    return HuggingFace(tokenizer, eos, template)


def _around(tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """What the post-processor puts before and behind a text."""
    encoding = tokenizer.encode_batch(["a"])[0]
    body = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    first, last = (body[0], body[-1] + 1) if body else (0, len(encoding.ids))
    whole = Tokens(encoding.ids, encoding.tokens)
    return Tokens(whole.ids[:first], whole.texts[:first]), Tokens(whole.ids[last:], whole.texts[last:])


def _end(tokenizer: Tokenizer, name: str, folder: Path) -> tuple[int, str]:
    """The end token: as configured for the tokenizer, else for the model, else by a usual name."""
    numbers = [_first(_read(folder / file).get("eos_token_id")) for file in ("generation_config.json", "config.json")]
    names = [name, *(tokenizer.id_to_token(number) for number in numbers if number is not None), *ENDS]
    known = ((tokenizer.token_to_id(name), name) for name in names if name)
    return next(((id, name) for id, name in known if id is not None), (0, tokenizer.id_to_token(0) or ""))


def _sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """A model's templates by name: its own file goes before the configuration."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return {"default": file.read_text("utf-8")}
    found = config.get("chat_template") or _read(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        return {str(item["name"]): item["template"] for item in found}
    return {"default": found} if isinstance(found, str) else {}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no such file."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text("utf-8"))
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> str:
    """A token in a configuration: its string, or an object that holds it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _first(number: Any) -> int | None:
    found = next(iter(number), None) if isinstance(number, list) else number
    return found if isinstance(found, int) and found >= 0 else None


def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest is numbered from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(rest)}


ALPHABET = _alphabet()
