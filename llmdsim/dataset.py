"""
Where answers come from: preset sentences at random, or the prompt's echo.

A source drafts tokens for a prompt; stop strings and the end token are the plan's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from llmdsim.sim.author import Draft
from llmdsim.sim.length import draw_length
from llmdsim.sim.messages import echo_text
from llmdsim.sim.request import Conversation, Prompt, Request, Tokens

Encode = Callable[[str, bool], Tokens]

SENTENCES = (
    "The train leaves at nine. ",
    "She found an old map in the attic. ",
    "Rain fell softly on the roof all night. ",
    "Nobody in the village remembered who had planted the tree. ",
    "A good cup of tea takes about four minutes. ",
    "We walked along the river until the bridge came into view. ",
    "The library opens early on market days. ",
    "He wrote every number twice, once in blue and once in red, to be quite sure of the sum. ",
    "Bread, cheese and apples were enough for the first day of the journey. ",
    "The lighthouse keeper counted seven ships before breakfast. ",
    "It is easier to measure a shadow than to climb a tower. ",
    "Two brothers built the mill, and their grandchildren still grind corn there every autumn. ",
    "The clock in the hall is five minutes slow. ",
    "A small engine hummed behind the wall. ",
    "When the wind turns to the north, the fishermen mend their nets and wait for a calmer sea. ",
    "Her garden holds forty kinds of roses. ",
    "The letter arrived a week after its sender. ",
    "They painted the door green, because the neighbours had painted theirs yellow and the street looked uneven. ",
    "Copper is soft, warm in colour and pleasant to work with. ",
    "In the morning the whole valley was white with mist. ",
    "The smallest of the bells has the clearest tone. ",
    "A teacher once said that a question well put is half an answer, and her pupils wrote it on the board. ",
    "The boat needs a new sail before summer. ",
    "Every path in these hills leads to water sooner or later. ",
    "He keeps his tools in order: hammers on the left, chisels on the right, and brushes in a jar by the window. ",
    "Snow makes the city quiet. ",
    "The baker sells the last loaf at half its price. ",
    "On the third page there was a drawing of a bird that nobody could name. ",
    "A bridge of stone was too heavy for the marsh, so the engineers chose wood, rope and a great deal of patience. ",
    "The moon rose late and went down early. ",
    "Seven lamps light the square, and one of them is never switched off. ",
    "Old songs travel further than the people who made them, and they come back with new words and a different tune "
    "that sounds as if it had always been there. ",
    "Please close the gate behind you. ",
    "The museum shows clocks, globes, scales and a single wooden wheel. ",
    "It took the explorers three winters to reach the lake, and only one afternoon to fall in love with it. ",
    "Glass is made of sand and fire. ",
)


class Presets:
    """Random text: preset sentences up to a random length, of ``shortest`` tokens at least where the limit allows."""

    filler = True

    def __init__(self, encode: Encode, sentences: Sequence[str] = SENTENCES, shortest: int = 1) -> None:
        self._shortest = shortest
        self._sentences = [encode(text, False) for text in _spaced(sentences, encode)]

    def draft(self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random) -> Draft:
        """Exactly ``limit`` tokens where the end is ignored, else as many as the length model draws."""
        if request.ignore_eos:
            return Draft(self.compose(limit, rng), complete=False)
        length = draw_length(limit, request.max_tokens is not None, rng)
        length = max(length, min(max(request.stops.min_tokens, self._shortest), limit))
        return Draft(self.compose(length, rng), complete=length < limit)

    def compose(self, length: int, rng: Random) -> Tokens:
        """Sentences at random, cut to exactly ``length`` tokens."""
        ids: list[int] = []
        texts: list[str] = []
        while len(ids) < length:
            sentence = rng.choice(self._sentences)
            ids += sentence.ids
            texts += sentence.texts
        return Tokens(ids[:length], texts[:length])


class Echo(Presets):
    """Says the prompt again: a completion's text or ids, a chat's last message. Never cut, as users rely on it."""

    filler = False

    def __init__(self, encode: Encode) -> None:
        super().__init__(encode)
        self._encode = encode

    def draft(self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random) -> Draft:
        """The prompt as an answer; complete where it is shorter than the client's limit."""
        said = self._said(prompt)
        return Draft(said, complete=request.max_tokens is None or len(said.ids) < request.max_tokens)

    def _said(self, prompt: Prompt) -> Tokens:
        if isinstance(prompt, Conversation):
            last = prompt.messages[-1] if prompt.messages else {}
            return self._encode(echo_text(last), False)
        if isinstance(prompt, str):
            return self._encode(prompt, False)
        commas = [f"{id}," for id in prompt[:-1]]
        return Tokens(prompt, [*commas, *map(str, prompt[-1:])])


def _spaced(sentences: Sequence[str], encode: Encode) -> list[str]:
    """The sentences with their blank in front where the tokenizer wants it there, so that no token is a lone blank."""
    blank_in_front = encode("a b", False).texts[-1] == " b"
    return [" " + text.strip() if blank_in_front else text for text in sentences]
