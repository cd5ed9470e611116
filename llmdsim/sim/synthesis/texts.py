"""
Strings for JSON Schemas: plain words, known formats, patterns, lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from uuid import UUID

from llmdsim.sim.synthesis.regexes import found, matching

WORDS = (
    "amber", "anchor", "basket", "birch", "bridge", "candle", "canyon", "cedar", "cloud", "copper", "coral", "ember",
    "falcon", "feather", "forest", "garden", "glacier", "harbor", "hazel", "island", "ivory", "lantern", "maple",
    "meadow", "mirror", "orchard", "pebble", "pepper", "prairie", "quartz", "ribbon", "river", "saffron", "silver",
    "summit", "thicket", "valley", "velvet", "willow", "window",
)  # fmt: skip
ENDINGS = ("com", "net", "org")
LONGEST = 100_000
TRIES = 20

Format = Callable[[Random], str]


def draw_text(
    rng: Random,
    least: int = 0,
    most: int = LONGEST,
    patterns: Sequence[str] = (),
    format: str = "",
    fresh: bool = False,
) -> str:
    """
    A string of ``least`` to ``most`` characters that holds a match of every pattern; ValueError where none is found.

    A known format is kept unless length or patterns forbid it; ``fresh``: rather one that is seldom drawn.
    """
    if least > LONGEST:
        raise ValueError(f"minLength ({least}) is more than a string may have here ({LONGEST})")
    if least > most:
        raise ValueError(f"minLength ({least}) is greater than maxLength ({most})")
    if format in FORMATS:
        for _ in range(TRIES):
            text = FORMATS[format](rng)
            if least <= len(text) <= most and all(found(pattern, text) for pattern in patterns):
                return text
    return _patterned(rng, least, most, patterns) if patterns else _worded(rng, least, most, fresh)


def _patterned(rng: Random, least: int, most: int, patterns: Sequence[str]) -> str:
    for form in [form for pattern in patterns for form in _forms(pattern)]:
        for _ in range(TRIES):
            try:
                text = matching(form, rng, least, most)
            except ValueError:
                break
            if all(found(pattern, text) for pattern in patterns):
                return text
    for pattern in patterns:
        matching(pattern, rng)  # says what is wrong with the pattern itself
    raise ValueError(f"no string of that length matches {' and '.join(patterns)}")


def _forms(pattern: str) -> list[str]:
    """Patterns of whole strings that hold a match of a pattern, the plainest first."""
    before = "" if pattern.startswith(("^", r"\A")) else ".*"
    after = "" if pattern.endswith(("$", r"\Z")) else ".*"
    return list(
        dict.fromkeys([pattern, f"(?:{pattern}){after}", f"{before}(?:{pattern})", f"{before}(?:{pattern}){after}"])
    )


def _worded(rng: Random, least: int, most: int, fresh: bool) -> str:
    words = [rng.choice(WORDS) for _ in range(3)] if fresh else [_fitting(rng, least, most)]
    length = sum(map(len, words)) + len(words) - 1
    while length < least:
        words.append(rng.choice(WORDS))
        length += 1 + len(words[-1])
    text = " ".join(words)[:most]
    return text[:-1] + "s" if text.endswith(" ") else text


def _fitting(rng: Random, least: int, most: int) -> str:
    return rng.choice([word for word in WORDS if least <= len(word) <= most] or WORDS)


def _pick(*words: str) -> Format:
    return lambda rng: rng.choice(words)


def _number(low: int, high: int, form: str = "{}") -> Format:
    return lambda rng: form.format(rng.randint(low, high))


_word = _pick(*WORDS)
_year, _month, _day = _number(1990, 2030, "{:04}"), _number(1, 12, "{:02}"), _number(1, 28, "{:02}")
_hour, _minute = _number(0, 23, "{:02}"), _number(0, 59, "{:02}")


def _joined(form: str, **parts: Format) -> Format:
    return lambda rng: form.format(**{name: part(rng) for name, part in parts.items()})


def _repeated(part: Format, count: int, separator: str) -> Format:
    return lambda rng: separator.join(part(rng) for _ in range(count))


_date = _joined("{year}-{month}-{day}", year=_year, month=_month, day=_day)
_time = _joined("{hour}:{minute}:{second}Z", hour=_hour, minute=_minute, second=_minute)
_host = _joined("{word}.{ending}", word=_word, ending=_pick(*ENDINGS))
_email = _joined("{word}@{host}", word=_word, host=_host)
_path = _joined("/{one}/{two}", one=_word, two=_word)
_uri = _joined("https://{host}{path}", host=_host, path=_path)

FORMATS: dict[str, Format] = {
    "date": _date,
    "time": _time,
    "date-time": _joined("{date}T{time}", date=_date, time=_time),
    "duration": _joined("P{days}DT{hours}H", days=_number(1, 30), hours=_number(1, 23)),
    "uuid": lambda rng: str(UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": _repeated(_number(1, 254), 4, "."),
    "ipv6": lambda rng: "2001:db8:" + _repeated(_number(1, 0xFFFF, "{:x}"), 6, ":")(rng),
    **dict.fromkeys(("email", "idn-email"), _email),
    **dict.fromkeys(("hostname", "idn-hostname"), _host),
    **dict.fromkeys(("uri", "iri", "url", "uri-template"), _uri),
    **dict.fromkeys(("uri-reference", "iri-reference", "json-pointer"), _path),
    "relative-json-pointer": _joined("{up}/{word}", up=_number(0, 3), word=_word),
    "regex": _joined("^{word}[a-z]+$", word=_word),
}
