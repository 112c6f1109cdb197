"""Reads of a part of an object, as S3 serves them: any version, and only the part from disk.

The emulator answers a ranged read of a version with all of it, and reads the whole file for every
range of a current object, so that a stream through a file of gigabytes takes forever.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Answer = tuple[int, dict[str, str], Any]

_reads_a_part: ContextVar[bool] = ContextVar("reads_a_part", default=False)


@contextmanager
def _part() -> Iterator[None]:
    token = _reads_a_part.set(True)
    try:
        yield
    finally:
        _reads_a_part.reset(token)


def _map(path: str | None) -> mmap.mmap | bytes | None:
    """Return a file as something to slice; what was mapped stays when the file is replaced."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        return b""
    except OSError:
        return None


def install() -> None:
    """Put these reads in the place of the emulator's."""
    from ministack.services import s3

    read_body, version_body = s3._read_body, s3._version_body
    get_object, upload_part_copy = s3._get_object, s3._upload_part_copy

    def read_part(bucket: str, key: str, record: dict[str, Any]) -> Any:
        mapped = None
        if _reads_a_part.get() and record.get("body") is None:
            mapped = _map(s3._object_disk_path(bucket, key))
        return read_body(bucket, key, record) if mapped is None else mapped

    def read_version_part(
        contents: dict[str, Any], bucket: str, key: str, version: dict[str, Any]
    ) -> Any:
        mapped = None
        if _reads_a_part.get() and version.get("data") is None:
            mapped = _map(s3._version_disk_path(bucket, key, version["version_id"]))
        return version_body(contents, bucket, key, version) if mapped is None else mapped

    def get_part(
        bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None
    ) -> Any:
        wanted = headers.get("range")
        if not wanted:
            return get_object(bucket, key, headers, query)
        others = {name: value for name, value in headers.items() if name != "range"}
        with _part():
            status, answered, body = get_object(bucket, key, others, query)
        if status != 200:
            return status, answered, body
        part = _slice(s3._parse_range(wanted, len(body)), answered, body)
        return get_object(bucket, key, headers, query) if part is None else part

    def copy_part(bucket: str, key: str, query: dict[str, Any], headers: dict[str, str]) -> Any:
        if not headers.get("x-amz-copy-source-range"):
            return upload_part_copy(bucket, key, query, headers)
        with _part():
            return upload_part_copy(bucket, key, query, headers)

    s3._read_body, s3._version_body = read_part, read_version_part
    s3._get_object, s3._upload_part_copy = get_part, copy_part


def _slice(found: tuple[int, int] | None, headers: dict[str, str], body: Any) -> Answer | None:
    """Return the answer that holds the part; None leaves the refusal to the emulator."""
    if found is None:
        return None
    first, last = found
    # A checksum of the whole object says nothing of a part (API reference, GetObject).
    kept = {
        name: value
        for name, value in headers.items()
        if not name.lower().startswith("x-amz-checksum-")
    }
    kept["Content-Length"] = str(last - first + 1)
    kept["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    return 206, kept, body[first : last + 1]
