"""file.open(): an io-conforming stream over ranged reads, whatever breaks on the way."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import random
import tarfile
import zipfile
import zlib
from base64 import b64encode
from typing import Any, BinaryIO

import pytest
from botocore.exceptions import ClientError, IncompleteReadError
from hypothesis import given, settings
from hypothesis import strategies as st

from twobuckets.processor import stream as stream_
from twobuckets.processor.stream import (
    ChecksumMismatchError,
    Expected,
    ObjectGoneError,
    RangeReader,
    StreamBrokenError,
    find_expected,
    open_stream,
)

CONTENT = random.Random(7).randbytes(3_000_000)


class Breaking(io.BytesIO):
    """A response body whose connection breaks after some bytes."""

    def __init__(self, body: bytes, breaks_after: int | None) -> None:
        super().__init__(body)
        self._left = breaks_after

    def read(self, size: int | None = -1) -> bytes:
        if self._left is None:
            return super().read(size)
        if self._left == 0:
            raise IncompleteReadError(actual_bytes=1, expected_bytes=2)
        piece = super().read(min(self._left, size if size and size > 0 else self._left))
        self._left -= len(piece)
        return piece


class Objects:
    """GetObject over one object; `breaks` are bytes after which connections break, in order."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []
        self.breaks: list[int | None] = []
        self.error: Exception | None = None

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        asked = arguments.pop("Range")
        assert arguments == {"Bucket": "b", "Key": "k", "VersionId": "v", "IfMatch": '"e"'}
        if self.error is not None:
            raise self.error
        first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
        self.ranges.append((first, last))
        piece = self.content[first : last + 1]
        breaks_after = self.breaks.pop(0) if self.breaks else None
        return {"Body": Breaking(piece, breaks_after), "ContentLength": len(piece)}

    def open(self, expected: Expected | None = None, **arguments: Any) -> BinaryIO:
        pinned = {"Bucket": "b", "Key": "k", "VersionId": "v", "IfMatch": '"e"'}
        client: Any = self
        reader = RangeReader(client, pinned, sleep=lambda seconds: None, **arguments)
        return open_stream(reader, len(self.content), expected)


def refusal(code: str, status: int) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "GetObject")


def test_a_stream_reads_what_the_object_holds() -> None:
    objects = Objects()
    with objects.open() as stream:
        assert stream.read() == CONTENT
        assert stream.read() == b""
    assert sum(last - first + 1 for first, last in objects.ranges) == len(CONTENT)


def test_an_empty_object_is_read_without_a_request() -> None:
    objects = Objects(b"")
    assert objects.open().read() == b""
    assert objects.ranges == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(0, 400_000)),
            st.tuples(st.just("seek"), st.integers(0, len(CONTENT) + 10)),
            st.tuples(st.just("from end"), st.integers(-len(CONTENT), 10)),
            st.tuples(st.just("line"), st.integers(-1, 5_000)),
        ),
        max_size=12,
    )
)
@settings(max_examples=60)
def test_any_order_of_reads_and_seeks_is_as_on_a_local_file(
    operations: list[tuple[str, int]],
) -> None:
    local, remote = io.BytesIO(CONTENT), Objects().open()
    for operation, number in operations:
        for name, arguments in {
            "read": ("read", (number,)),
            "line": ("readline", (number,)),
            "seek": ("seek", (number,)),
            "from end": ("seek", (number, io.SEEK_END)),
        }.items():
            if name == operation:
                method, given_arguments = arguments
                assert getattr(remote, method)(*given_arguments) == getattr(local, method)(
                    *given_arguments
                )
        assert remote.tell() == local.tell()
    remote.close()


def test_a_connection_that_breaks_in_mid_body_is_taken_up_where_it_broke() -> None:
    objects = Objects()
    objects.breaks = [100_000, 50_000, None, 700_000]
    assert objects.open().read() == CONTENT
    assert objects.ranges[1][0] == 100_000
    assert objects.ranges[2][0] == 150_000


def test_a_connection_that_gives_nothing_any_more_ends_in_an_error() -> None:
    objects = Objects()
    objects.breaks = [0] * 20
    with pytest.raises(StreamBrokenError, match="byte 0"):
        objects.open().read()
    assert len(objects.ranges) == 5


@pytest.mark.parametrize("code", ["PreconditionFailed", "NoSuchKey", "NoSuchVersion"])
def test_a_version_that_is_gone_while_it_is_read_is_said_to_be(code: str) -> None:
    objects = Objects()
    gone: list[bool] = []
    stream = objects.open(on_gone=lambda: gone.append(True))
    stream.read(10)
    objects.error = refusal(code, 412 if code == "PreconditionFailed" else 404)
    with pytest.raises(ObjectGoneError):
        stream.read()
    assert gone


def test_a_server_error_is_tried_again_and_a_refusal_is_not() -> None:
    objects = Objects()
    objects.error = refusal("AccessDenied", 403)
    with pytest.raises(StreamBrokenError, match="AccessDenied"):
        objects.open().read()


@pytest.mark.parametrize("algorithm", ["MD5", "SHA1", "SHA256", "SHA512", "CRC32"])
def test_a_checksum_is_held_against_what_was_read_to_the_end(algorithm: str) -> None:
    digest = (
        f"{zlib.crc32(CONTENT):08x}"
        if algorithm == "CRC32"
        else hashlib.new(algorithm.lower(), CONTENT).hexdigest()
    )
    with Objects().open(Expected(algorithm, digest)) as stream:
        stream.seek(10)
        stream.seek(0)
        assert stream.read() == CONTENT

    damaged = bytearray(CONTENT)
    damaged[1_234_567] ^= 1
    with Objects(bytes(damaged)).open(Expected(algorithm, digest)) as stream:
        stream.read(1_000_000)
        with pytest.raises(ChecksumMismatchError, match=algorithm):
            stream.read()


def test_the_checksum_to_expect_is_one_over_the_whole_content() -> None:
    crc32 = b64encode(b"\x00\x00\x00\x07").decode()
    assert find_expected({"ChecksumCRC32": crc32, "ChecksumType": "FULL_OBJECT"}) == Expected(
        "CRC32", "00000007"
    )
    assert find_expected({"ChecksumCRC32": crc32 + "-3", "ChecksumType": "COMPOSITE"}) is None
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    assert find_expected({"ETag": f'"{md5}"'}) == Expected("MD5", md5)
    assert find_expected({"ETag": f'"{md5}-2"'}) is None
    assert find_expected({"ETag": f'"{md5}"', "ServerSideEncryption": "aws:kms"}) is None
    assert find_expected({"ETag": f'"{md5}"', "SSECustomerAlgorithm": "AES256"}) is None


def test_of_several_checksums_the_quickest_is_taken_and_md5_last() -> None:
    def told(*names: str) -> dict[str, str]:
        return {f"Checksum{name}": b64encode(name.encode()).decode() for name in names}

    etag = {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}
    order = ["CRC32", "SHA1", "SHA256", "SHA512"]
    for number, name in enumerate(order):
        expected = find_expected(etag | told(*order[number:][::-1]))
        assert expected is not None
        assert expected.algorithm == name


def test_csv_text_gzip_tar_and_zip_readers_work_on_a_stream() -> None:
    rows = [[str(n), "x" * 20] for n in range(20_000)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    plain = text.getvalue().encode()

    lines = io.TextIOWrapper(Objects(plain).open(), "utf-8", newline="")
    assert list(csv.reader(lines)) == rows
    with gzip.open(Objects(gzip.compress(plain)).open()) as unzipped:
        assert unzipped.read() == plain

    tarred, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as archive, zipfile.ZipFile(zipped, "w") as zip_:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = len(plain)
            archive.addfile(member, io.BytesIO(plain))
            zip_.writestr(name, plain)
    with tarfile.open(fileobj=Objects(tarred.getvalue()).open()) as archive:
        found = archive.extractfile("b")
        assert found is not None
        assert found.read() == plain
    with zipfile.ZipFile(Objects(zipped.getvalue()).open()) as zip_:
        assert zip_.read("b") == plain


def test_a_reader_of_a_header_fetches_little_and_one_of_everything_in_large_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = Objects(bytes(30_000_000))
    with objects.open() as stream:
        stream.read(100)
        assert sum(last - first + 1 for first, last in objects.ranges) <= 256 * 1024
        stream.read()
    assert max(last - first + 1 for first, last in objects.ranges) == stream_._LARGEST_BYTES
    assert len(objects.ranges) < 7


def test_a_jump_fetches_what_was_asked_for_in_one_request() -> None:
    objects = Objects(bytes(40_000_000))
    with objects.open() as stream:
        stream.seek(-65_536, io.SEEK_END)
        stream.read(65_536)
        for start in (1_000_000, 20_000_000, 9_000_000):
            stream.seek(start)
            assert len(stream.read(700_000)) == 700_000
    assert len(objects.ranges) == 4
    assert sum(last - first + 1 for first, last in objects.ranges) < 4 * 700_000


@pytest.mark.parametrize("room_bytes", [0, 16 * 1024 * 1024, stream_.ROOM_BYTES])
def test_a_stream_holds_no_more_than_it_has_room_for(room_bytes: int) -> None:
    held = most = 0

    class Counting(RangeReader):
        def fetch(self, start: int, stop: int) -> list[bytes]:
            nonlocal held, most
            held += stop - start
            most = max(most, held)
            return super().fetch(start, stop)

    def on_read(count: int) -> None:
        nonlocal held
        held -= count

    objects = Objects(bytes(200_000_000))
    client: Any = objects
    pinned = {"Bucket": "b", "Key": "k", "VersionId": "v", "IfMatch": '"e"'}
    reader = Counting(client, pinned)
    stream = open_stream(reader, len(objects.content), None, on_read, room_bytes=room_bytes)
    while stream.read(1_000_000):
        pass
    assert most <= max(room_bytes, 2 * stream_._SMALLEST_BYTES) + 1_000_000
    stream.close()


def test_a_closed_stream_says_so() -> None:
    stream = Objects().open()
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
