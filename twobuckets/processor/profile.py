"""What one run of `process` takes: time, memory, and what it reads with how many requests.

A local file is read through the same stream as an object, so that the requests are those that S3
would get.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from twobuckets.processor.file import File
from twobuckets.processor.looking import head_of, pin, version_id_of
from twobuckets.processor.stream import (
    ROOM_BYTES,
    RangeReader,
    etag_of,
    find_expected,
    open_stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from twobuckets.processor.stream import Expected, Reader

VCPU_MB = 1769
"""Memory for which Lambda gives one whole vCPU (Lambda developer guide, "Memory")."""


@dataclass(slots=True)
class Profile:
    """What a run took so far. `ranges` are the lengths in bytes of the requests that read."""

    size_bytes: int
    ranges: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def opener(self, reader: Reader, expected: Expected | None) -> Callable[[], BinaryIO]:
        """Return what opens a stream whose requests are counted here."""
        counting = _Counting(reader, self.ranges)
        return lambda: open_stream(counting, self.size_bytes, expected, room_bytes=ROOM_BYTES)

    def run(self, process: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        """Call it, and note how long it took; raises what it raises."""
        began, cpu = time.perf_counter(), time.process_time()
        try:
            return process()
        finally:
            self.seconds = time.perf_counter() - began
            self.cpu_seconds = time.process_time() - cpu

    def lines(self) -> Iterator[str]:
        """Yield what was measured, as text."""
        yield f"  time    {self.seconds:.3f} s, {self.cpu_seconds:.3f} s of it of a processor"
        shares = [
            f"{self.cpu_seconds * max(1.0, VCPU_MB / memory_mb):.1f} s at {memory_mb:,} MB"
            for memory_mb in (256, 512, 1024, VCPU_MB)
        ]
        yield f"          in Lambda about {', '.join(shares)}, and the waits"
        if (peak_bytes := _find_peak()) is not None:
            peak_mib = peak_bytes / 2**20
            yield f"  memory  {peak_mib:,.0f} MiB at the peak, with Python and all imports"
        count = len(self.ranges)
        yield (
            f"  read    {sum(self.ranges):,} bytes of {self.size_bytes:,} in {count:,} "
            f"request{'' if count == 1 else 's'}"
        )


class _Counting:
    def __init__(self, reader: Reader, ranges: list[int]) -> None:
        self._reader = reader
        self._ranges = ranges

    def fetch(self, start: int, stop: int) -> list[bytes]:
        self._ranges.append(stop - start)
        return self._reader.fetch(start, stop)


class LocalReader:
    """Reads byte ranges of a local file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, start: int, stop: int) -> list[bytes]:
        """Return bytes [start, stop); raise OSError if they can't be read."""
        with self._path.open("rb") as file:
            file.seek(start)
            return [file.read(stop - start)]


def staged_file(s3: S3Client, bucket: str, key: str) -> tuple[File, Profile]:
    """Return an object as `process` sees it, and the profile of reading it.

    Raises FileNotFoundError if there is none, and what S3 and boto3 raise.
    """
    head = head_of(s3, {"Bucket": bucket, "Key": key})
    if head is None:
        raise FileNotFoundError(f"there is no object {key!r} in {bucket}")
    profile = Profile(int(head["ContentLength"]))
    version_id, etag = version_id_of(head), etag_of(head)
    reader = RangeReader(s3, pin(bucket, key, version_id, etag))
    file = File(
        bucket=bucket,
        key=key,
        version_id=version_id,
        etag=etag,
        size=profile.size_bytes,
        content_type=head.get("ContentType", "binary/octet-stream"),
        metadata=head["Metadata"],
        opener=profile.opener(reader, find_expected(head)),
    )
    return file, profile


def _find_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None  # on Windows
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
