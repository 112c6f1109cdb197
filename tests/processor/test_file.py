"""What `process` gets: compressed files, rows of tables, and what orders uploads of one key."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from twobuckets.processor import File

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processor.conftest import Pipeline

CONTENT = b"name;place\r\n" + b'"M\xc3\xbcller; son";"two\nlines"\r\n' * 5_000


def file_of(content: bytes) -> tuple[File, list[BinaryIO]]:
    opened: list[BinaryIO] = []

    def opener() -> BinaryIO:
        opened.append(io.BytesIO(content))
        return opened[-1]

    file = File(
        bucket="b",
        key="k",
        version_id=None,
        etag="e",
        size=len(content),
        content_type="text/csv",
        metadata={},
        opener=opener,
    )
    return file, opened


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_file_is_read_as_what_it_holds_however_it_is_compressed(
    compress: Callable[[bytes], bytes],
) -> None:
    file, opened = file_of(compress(CONTENT))
    assert file.read(decompress=True) == CONTENT
    assert file.read() == compress(CONTENT)
    assert file.text(decompress=True) == CONTENT.decode()
    with file.lines(decompress=True) as lines:
        assert next(lines) == "name;place\n"
    with file.open(decompress=True) as stream:
        stream.seek(len(CONTENT) - 5)
        assert stream.read() == CONTENT[-5:]
        stream.seek(0)
        assert stream.readline() == b"name;place\r\n"
    # Whoever closes what was decompressed lets go of S3's stream as well.
    assert [stream.closed for stream in opened] == [True] * 5


@pytest.mark.parametrize("content", [b"", b"B", b"BZ", b"\x1f", b"\x28\xb5\x2f"])
def test_a_file_too_short_to_be_compressed_is_read_as_it_is(content: bytes) -> None:
    assert file_of(content)[0].read(decompress=True) == content


def test_a_compressed_file_that_was_cut_off_raises() -> None:
    file, _ = file_of(gzip.compress(CONTENT)[:-20])
    with pytest.raises(EOFError):
        file.read(decompress=True)


# "hi" as zstd's own tool writes it.
ZSTD = bytes.fromhex("28b52ffd04581100006869fa3826ea")


def test_zstd_is_read_where_python_can_and_says_what_it_takes_elsewhere() -> None:
    file, opened = file_of(ZSTD)
    if sys.version_info >= (3, 14):
        assert file.read(decompress=True) == b"hi"
    else:
        with pytest.raises(RuntimeError, match=r"processor\.runtime to \"python3\.14\""):
            file.open(decompress=True)
    assert opened[0].closed


def test_rows_have_the_names_of_the_first_line_and_lines_inside_of_quotes() -> None:
    file, opened = file_of(gzip.compress(b"\xef\xbb\xbf" + CONTENT))
    rows = list(file.csv(delimiter=";", decompress=True))
    assert len(rows) == 5_000
    assert rows[7] == {"name": "Müller; son", "place": "two\nlines"}
    assert opened[0].closed


def test_rows_without_a_first_line_of_names_get_names() -> None:
    file, _ = file_of(b"1,2\n3,4\n")
    assert list(file.csv(fieldnames=["a", "b"])) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_process_learns_which_upload_is_the_later_one_and_which_try_it_is(
    pipeline: Pipeline,
) -> None:
    seen: list[Any] = []

    def process(file: File) -> None:
        seen.append((file.sequencer, file.attempt))
        if len(seen) == 1:
            raise ValueError("not yet")

    pipeline.process_with(process)
    record = pipeline.upload("a")
    with pytest.raises(Exception, match="not yet"):
        pipeline.invoke(record)
    pipeline.invoke(record)
    sequencer = record["s3"]["object"]["sequencer"]
    assert seen == [(sequencer, 1), (sequencer, 2)]
