"""Names from strangers' machines as the ends of keys: nothing leads out, and clean stays clean."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twobuckets.broker.actions import LEAST_PART_BYTES, MOST_OBJECT_BYTES, part_bytes_of
from twobuckets.broker.paths import clean_path

names = st.text(st.characters(exclude_categories=()), max_size=60) | st.lists(
    st.sampled_from(["..", ".", "", " ", "a", "\\", "\u0301", "\u200b", "\u0338", "é", "=", "/"])
).map("/".join)


@given(names)
@example("a/ \u0301b")
@example("=\u0338")
@example("\u1100\u200b\u1161")
def test_what_is_clean_stays_as_it_is(path):
    assert clean_path(clean_path(path)) == clean_path(path)


@given(names)
def test_no_path_leads_anywhere_but_below(path):
    cleaned = clean_path(path)
    assert not cleaned.startswith("/")
    if not cleaned:
        return
    segments = cleaned.split("/")
    assert all(s not in ("", ".", "..") and s == s.strip() for s in segments)
    assert "\\" not in cleaned
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.category(character) in hidden for character in cleaned)
    cleaned.encode()


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("C:\\Users\\Ada\\räder.csv", "C:/Users/Ada/räder.csv"),
        ("a\u0308.txt", "ä.txt"),
        ("../../etc/passwd", "etc/passwd"),
        ("a/./b//c/", "a/b/c"),
        ("a\nb\x1b[31m.txt", "a_b_[31m.txt"),
        ("100% & +.csv", "100% & +.csv"),
    ],
)
def test_ordinary_names_stay_as_people_know_them(path, cleaned):
    assert clean_path(path) == cleaned


@given(st.integers(0, MOST_OBJECT_BYTES))
@example(LEAST_PART_BYTES * 1000)
@example(LEAST_PART_BYTES * 1000 + 1)
def test_every_file_fits_into_the_parts_that_s3_takes(size):
    part_bytes = part_bytes_of(size)
    assert 8 * 2**20 <= part_bytes <= 5 * 2**30
    assert -(-size // part_bytes) <= 10_000
