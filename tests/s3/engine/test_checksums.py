"""The checksums against the catalogue's values, botocore's encoding and each other."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.s3.engine import FileSlice
from twobuckets.s3.engine.checksums import CRC32, CRC64NVME

BOTH = pytest.mark.parametrize("algorithm", [CRC64NVME, CRC32], ids=lambda a: a.name)


@pytest.mark.parametrize(
    ("algorithm", "check"), [(CRC64NVME, 0xAE8B14860A799888), (CRC32, 0xCBF43926)]
)
def test_the_check_value_is_that_of_the_catalogue(algorithm, check):
    # "Catalogue of parametrised CRC algorithms": the CRC of the digits 1 to 9.
    assert algorithm.compute(b"123456789") == check


def test_a_checksum_is_written_as_s3_writes_it():
    assert (
        CRC32.encode(zlib.crc32(b"hello"))
        == base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()
    )
    assert len(base64.b64decode(CRC64NVME.encode(1))) == 8


@BOTH
@given(parts=st.lists(st.binary(max_size=200), max_size=8))
def test_the_whole_follows_from_its_parts(algorithm, parts):
    pairs = [(algorithm.compute(part), len(part)) for part in parts]
    assert algorithm.combine(pairs) == algorithm.compute(b"".join(parts))


@BOTH
def test_the_whole_of_large_parts_follows_from_them(algorithm):
    part = bytes(range(256)) * 4096
    pair = algorithm.compute(part), len(part)
    assert algorithm.combine([pair] * 5) == algorithm.compute(part * 5)


@BOTH
def test_a_slice_has_the_checksum_of_its_bytes(algorithm, tmp_path):
    content = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        found = algorithm.compute(FileSlice(file.fileno(), 3, len(content) - 7))
    assert found == algorithm.compute(content[3:-4])
