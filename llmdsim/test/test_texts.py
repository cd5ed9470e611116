"""Tests for llmdsim.sim.synthesis.texts."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from ipaddress import IPv4Address, IPv6Address
from random import Random
from urllib.parse import urlsplit
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.synthesis.texts import FORMATS, WORDS, draw_text

HOST = re.compile(r"([a-z0-9-]{1,63}\.)+[a-z]{2,}")


def is_url(text):
    parts = urlsplit(text)
    return parts.scheme == "https" and HOST.fullmatch(parts.netloc) and parts.path.startswith("/")


CHECKS = {
    "date": date.fromisoformat,
    "time": lambda text: time.fromisoformat(text.replace("Z", "+00:00")).tzinfo,
    "date-time": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo,
    "duration": re.compile(r"P\d+DT\d+H").fullmatch,
    "uuid": UUID,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "email": lambda text: HOST.fullmatch(text.partition("@")[2]),
    "hostname": HOST.fullmatch,
    "uri": is_url,
    "uri-reference": re.compile("(/[a-z]+)+").fullmatch,
    "json-pointer": re.compile("(/[a-z]+)+").fullmatch,
    "relative-json-pointer": re.compile(r"\d(/[a-z]+)+").fullmatch,
    "regex": re.compile,
}
SAME = {"iri": "uri", "url": "uri", "uri-template": "uri", "iri-reference": "uri-reference"}


class TextTests(SynchronousTestCase):
    def test_a_text_of_a_format_is_one(self):
        for name in FORMATS:
            check = CHECKS[SAME.get(name, name.removeprefix("idn-"))]
            for seed in range(50):
                text = draw_text(Random(seed), format=name)
                self.assertTrue(check(text), (name, text))

    @given(st.integers(0, 60), st.integers(0, 60), st.sampled_from(["", *FORMATS]), st.booleans(), st.integers())
    def test_a_text_has_the_length_that_is_asked_for(self, least, more, name, fresh, seed):
        text = draw_text(Random(seed), least, least + more, format=name, fresh=fresh)
        self.assertTrue(least <= len(text) <= least + more, text)

    def test_a_plain_text_is_a_word_of_the_bank(self):
        self.assertIn(draw_text(Random(1)), WORDS)
        self.assertIn(draw_text(Random(1), format="unheard-of"), WORDS)

    def test_every_pattern_is_found_in_a_text(self):
        for seed in range(20):
            text = draw_text(Random(seed), 12, 20, ("a[0-9]", "^[a-z0-9]*$"))
            self.assertRegex(text, r"\A(?=.*a[0-9])[a-z0-9]{12,20}\Z")

    def test_a_pattern_may_be_found_within_a_longer_text(self):
        for pattern in ("abc", "^abc", "abc$"):
            text = draw_text(Random(1), 10, 12, (pattern,))
            self.assertTrue(10 <= len(text) <= 12)
            self.assertRegex(text, pattern)

    def test_a_format_is_kept_where_it_matches_the_pattern(self):
        self.assertTrue(date.fromisoformat(draw_text(Random(1), patterns=("^20",), format="date")))

    def test_a_text_that_cannot_be_is_a_value_error(self):
        for arguments in ((3, 2), (10**9,), (5, 9, ("^a$",)), (0, 9, ("(",)), (0, 9, ("^a$", "^b$"))):
            self.assertRaises(ValueError, draw_text, Random(1), *arguments)
