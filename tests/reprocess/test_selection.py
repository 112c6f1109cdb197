"""Lists of keys in the forms that people and tools write them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twobuckets.errors import UsageError
from twobuckets.reprocess.selection import Wanted, read_wanted

BUCKETS = ("in-bucket", "done-bucket")
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
LINE_KEYS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\\\0"), min_size=1, max_size=60
).filter(
    lambda key: not key.strip().startswith("{") and not key.startswith(("\ufeff", '"', "\x1f"))
)


def read(content: bytes) -> list[Wanted]:
    stream = io.BufferedReader(io.BytesIO(content))
    return list(read_wanted(stream, name="list.txt", buckets=BUCKETS))


@given(
    st.lists(
        LINE_KEYS.filter(
            lambda key: not key.lower().startswith(("bucket", "in-bucket", "done-bucket"))
        )
    )
)
@example([" leading and trailing blanks ", "a+b%2Bc", "ü", "//", "..", "*?${x}"])
def test_plain_lines_are_keys_to_the_letter(keys: list[str]):
    content = "\n".join(keys).encode()
    assert [w.key for w in read(content)] == keys
    assert [w.key for w in read(gzip.compress(content))] == keys
    assert [w.key for w in read("\r\n".join(keys).encode() + b"\r\n")] == keys


@given(st.lists(KEYS, min_size=1))
def test_json_lines_give_any_key_exactly_and_pass_over_what_names_none(keys: list[str]):
    lines = [json.dumps({"type": "finding", "key": key, "detail": "x"}) for key in keys]
    lines.insert(0, json.dumps({"type": "finding", "check": "lifecycle"}))
    lines.append(json.dumps({"type": "summary", "key": "no"}))
    assert [w.key for w in read("\n".join(lines).encode())] == keys


def test_a_finding_that_stands_for_many_objects_names_each():
    line = {"type": "finding", "objects": ["a", {"key": "b\n"}]}
    assert [w.key for w in read(json.dumps(line).encode())] == ["a", "b\n"]


@given(st.lists(st.tuples(KEYS, st.sampled_from(["", "abcDEF123", "null"])), min_size=1))
def test_a_manifest_gives_decoded_keys_and_versions(rows: list[tuple[str, str]]):
    text = io.StringIO()
    csv.writer(text).writerows(["done-bucket", quote_plus(key), version] for key, version in rows)
    wanted = read(text.getvalue().encode())
    assert [(w.key, w.version_id) for w in wanted] == [(k, v or None) for k, v in rows]


def test_an_inventory_with_a_header_or_a_size_in_its_third_column_is_understood():
    header = b"Bucket,Key,VersionId,Size\ndone-bucket,a%20b,v1,5\n"
    assert read(header) == [Wanted("a b", "v1")]
    assert read(b'"done-bucket","a+b","123"\n') == [Wanted("a b")]


def test_a_manifest_of_another_pipeline_is_refused():
    with pytest.raises(UsageError, match=r"row 1: is about the bucket other-bucket"):
        read(b'"other-bucket","key"\n')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"key": "a"}\nnot json\n', "line 2: not JSON"),
        (b'{"key": "a"}\n[1]\n', "line 2: not a JSON object"),
        (b"ok\n" + b"x" * 1025, "line 2: no object can have the key .*: it has 1,025 bytes"),
        (b"ok\n\xff\xfe\n", "not UTF-8"),
        (b"\x1f\x8bbroken", "not a whole gzip file"),
        (b"Bucket,Size\ndone-bucket,1\n", "no column named Key"),
        (b'"done-bucket","a"\n"done-bucket"\n', "row 2: has no key"),
    ],
)
def test_a_list_that_can_not_be_meant_is_refused_naming_the_place(content: bytes, says: str):
    with pytest.raises(UsageError, match=says):
        read(content)


def test_an_escape_is_read_and_any_other_backslash_names_its_line():
    lines = rb"""a\\b
a\nb
\u202ex
\U0001f600"""
    assert [w.key for w in read(lines)] == ["a\\b", "a\nb", "\u202ex", "\U0001f600"]
    with pytest.raises(UsageError, match=r"list.txt, line 2: \\q is no escape"):
        read(b"a\nC:\\q")


@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
            min_size=1,
            max_size=60,
        )
    )
)
@example(["{", "a\nb", "a\\nb", "in-bucket,x", "\ufeffx", " "])
def test_keys_that_end_with_nul_are_keys_to_the_letter(keys: list[str]):
    content = "".join(f"{key}\0" for key in keys).encode()
    assert [w.key for w in read(content)] == keys
    if len(keys) > 1:  # one key without its NUL is a line
        assert [w.key for w in read(content.removesuffix(b"\0"))] == keys


def test_a_list_that_arrives_in_small_pieces_is_told_by_all_of_its_beginning():
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(1 if size is None or size > 0 else size)

    keys = list(read_wanted(Slow(b"{\0a\0"), name="list.txt", buckets=BUCKETS))
    assert [w.key for w in keys] == ["{", "a"]
