"""What two descriptions of S3 tell of two objects' bytes, held against the bytes themselves."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.processor.comparing import (
    ContentFacts,
    Likeness,
    compare,
    content_in_headers,
    content_in_result,
    content_of,
)
from twobuckets.processor.crc import combine

# S3's ten, and one of a later year; of those that the standard library lacks, stand-ins.
ALGORITHMS = (
    "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5",
    "XXHASH64", "XXHASH3", "XXHASH128", "BLAKE9",
)  # fmt: skip


def digest(algorithm: str, body: bytes) -> bytes:
    if algorithm == "CRC32":
        return zlib.crc32(body).to_bytes(4, "big")
    return hashlib.blake2b(body, digest_size=16, person=algorithm.encode()).digest()


class Stored(NamedTuple):
    """How S3 holds a body: cut into parts or not, with which checksums, under which encryption."""

    body: bytes
    part_bytes: int | None
    algorithms: frozenset[str]
    is_composite: bool
    encryption: str
    number: int

    @property
    def parts(self) -> list[bytes]:
        size = self.part_bytes or max(1, len(self.body))
        return [self.body[at : at + size] for at in range(0, len(self.body), size)] or [b""]

    def checksum(self, algorithm: str) -> str:
        if self.part_bytes is None or not self.is_composite:
            return base64.b64encode(digest(algorithm, self.body)).decode()
        of_parts = b"".join(digest(algorithm, part) for part in self.parts)
        return f"{base64.b64encode(digest(algorithm, of_parts)).decode()}-{len(self.parts)}"

    @property
    def etag(self) -> str:
        if self.encryption != "AES256":
            # No MD5: nothing that two objects have in common.
            return hashlib.md5(f"{self.number} {self.body!r}".encode()).hexdigest()
        if self.part_bytes is None:
            return hashlib.md5(self.body).hexdigest()
        of_parts = b"".join(hashlib.md5(part).digest() for part in self.parts)
        return f"{hashlib.md5(of_parts).hexdigest()}-{len(self.parts)}"

    def head(self) -> dict[str, Any]:
        kind = "COMPOSITE" if self.part_bytes and self.is_composite else "FULL_OBJECT"
        return {
            "ContentLength": len(self.body),
            "ETag": f'"{self.etag}"',
            "ServerSideEncryption": self.encryption,
            **({"ChecksumType": kind} if self.algorithms else {}),
            **{f"Checksum{name}": self.checksum(name) for name in self.algorithms},
        }

    def headers(self) -> dict[str, str]:
        names = {
            "ContentLength": "content-length",
            "ETag": "etag",
            "ServerSideEncryption": "x-amz-server-side-encryption",
        }
        return {
            names.get(name) or f"x-amz-checksum-{name.removeprefix('Checksum').lower()}": str(value)
            for name, value in self.head().items()
        }


def stored(number: int) -> st.SearchStrategy[Stored]:
    return st.builds(
        Stored,
        st.binary(max_size=6),
        st.none() | st.integers(1, 4),
        st.frozensets(st.sampled_from(ALGORITHMS), max_size=3),
        st.booleans(),
        st.sampled_from(["AES256", "aws:kms"]),
        st.just(number),
    )


@given(stored(1), stored(2))
def test_what_is_said_of_two_objects_is_never_untrue(one: Stored, other: Stored):
    likeness = compare(content_of(one.head()), content_of(other.head()))
    assert likeness is not (Likeness.DIFFERENT if one.body == other.body else Likeness.EQUAL)
    assert likeness is compare(content_of(other.head()), content_of(one.head()))


@given(stored(1), stored(2))
def test_any_checksum_that_both_have_of_the_whole_decides(one: Stored, other: Stored):
    shared = one.algorithms & other.algorithms
    whole = shared and not any(held.part_bytes and held.is_composite for held in (one, other))
    both_md5 = all(held.part_bytes is None and held.encryption == "AES256" for held in (one, other))
    likeness = compare(content_of(one.head()), content_of(other.head()))
    if whole or both_md5:
        assert likeness is (Likeness.EQUAL if one.body == other.body else Likeness.DIFFERENT)


@given(stored(1))
def test_every_form_of_an_answer_says_the_same(held: Stored):
    head = held.head()
    assert content_in_headers(held.headers()) == content_of(head)
    elements = {name: str(value) for name, value in head.items() if name != "ContentLength"}
    of_result = content_in_result(held.headers(), elements)
    assert replace(of_result, size_bytes=len(held.body)) == content_of(head)
    # A boto3 that is older than an algorithm tells it in the headers only.
    plain = {name: value for name, value in head.items() if not name.startswith("Checksum")}
    plain["ResponseMetadata"] = {"HTTPHeaders": held.headers()}
    assert content_of(plain) == content_of(head)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_objects_of_one_size_with_another_checksum_differ(algorithm: str):
    head = {"ContentLength": 5, "ETag": '"a-2"', "ChecksumType": "FULL_OBJECT"}
    one = content_of({**head, f"Checksum{algorithm}": "AAAA"})
    other = content_of({**head, f"Checksum{algorithm}": "BBBB"})
    assert compare(one, other) is Likeness.DIFFERENT
    assert compare(one, one) is Likeness.EQUAL


def test_one_checksum_that_differs_outweighs_one_that_is_equal():
    one = ContentFacts(5, "", {"CRC32": "AAAA", "SHA256": "AAAA"})
    assert compare(one, replace(one, checksums={"CRC32": "AAAA", "SHA256": "BBBB"})) is (
        Likeness.DIFFERENT
    )


def test_an_equal_size_alone_proves_nothing():
    assert compare(ContentFacts(5, "a-1", {}), ContentFacts(5, "b-1", {})) is Likeness.UNKNOWN
    assert compare(ContentFacts(5, "", {}), ContentFacts(5, "", {})) is Likeness.UNKNOWN
    assert compare(ContentFacts(5, "", {}), ContentFacts(6, "", {})) is Likeness.DIFFERENT


@given(st.lists(st.binary(max_size=20)))
def test_checksums_of_parts_add_up_to_that_of_the_whole(parts: list[bytes]):
    told = [(zlib.crc32(part), len(part)) for part in parts]
    whole = combine(told, polynomial=0xEDB88320, bits=32)
    assert whole == zlib.crc32(b"".join(parts))
