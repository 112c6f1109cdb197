"""Which keys are taken as they are, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.errors import UsageError
from twobuckets.s3.keys import require_key


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256))
def test_a_key_is_taken_as_it_is(key):
    assert require_key(key) == key


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("caf\udce9", "it is not UTF-8"),
        ("\ud800", "it is not UTF-8"),
        ("", "it is empty"),
        ("ü" * 512 + "x", "it has 1,025 bytes, and S3 allows 1,024"),
    ],
)
def test_what_no_object_can_have_is_refused_in_words(key, fault):
    with pytest.raises(UsageError, match=f"^line 2: no object can have the key '.*': {fault}$"):
        require_key(key, where="line 2: ")
