"""Reads one object in one way: `python -m tests.bench.processor.reading WAY BUCKET KEY`.

Prints the seconds and the peak memory as JSON. The ways are the functions of READ, each of which
gives a file-like object; what is read of it is everything, or what a reader of Parquet, zip or gzip
files reads.
"""

import gzip
import json
import os
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

_BLOCK_BYTES = 2**20


def ours(bucket: str, key: str) -> BinaryIO:
    """The stream that `process` gets, in a function of 512 MB, with the checksum that S3 has."""
    import boto3
    from botocore.config import Config

    from twobuckets.processor.runtime import client_options, find_settings
    from twobuckets.processor.stream import RangeReader, find_expected, open_stream

    settings = find_settings(
        {"ARCHIVE_BUCKET": "archive", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512"}
    )
    s3 = boto3.client("s3", config=Config(**client_options(settings)))
    head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return open_stream(
        RangeReader(s3, {"Bucket": bucket, "Key": key}),
        head["ContentLength"],
        find_expected(head),
        room_bytes=settings.room_bytes,
    )


def streaming_body(bucket: str, key: str) -> Any:
    """boto3's own body."""
    import boto3

    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"]


def smart_open(bucket: str, key: str) -> Any:
    """smart_open's reader."""
    from smart_open import open as open_

    return open_(f"s3://{bucket}/{key}", "rb")


def s3fs(bucket: str, key: str) -> Any:
    """s3fs's file."""
    import s3fs as package

    return package.S3FileSystem().open(f"{bucket}/{key}", "rb")


def arrow(bucket: str, key: str) -> Any:
    """pyarrow's own S3."""
    from pyarrow import fs

    filesystem = fs.S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"],
        tls_ca_file_path=os.environ["AWS_CA_BUNDLE"],
        region="us-east-1",
    )
    return filesystem.open_input_file(f"{bucket}/{key}")


WAYS: dict[str, Callable[[str, str], Any]] = {
    "twobuckets": ours,
    "StreamingBody": streaming_body,
    "smart_open": smart_open,
    "s3fs": s3fs,
    "pyarrow's S3": arrow,
}


def whole(file: Any) -> None:
    """Everything, a mebibyte at a time."""
    while file.read(_BLOCK_BYTES):
        pass


def parquet(file: Any) -> None:
    """One column of a Parquet file."""
    import pyarrow.parquet as pq

    pq.read_table(file, columns=["c3"])


def zipped(file: Any) -> None:
    """One small member of a zip archive."""
    with zipfile.ZipFile(file) as archive:
        archive.read("members/0500.txt")


def gzipped(file: Any) -> None:
    """A gzip file, unpacked."""
    with gzip.GzipFile(fileobj=file) as plain:
        while plain.read(_BLOCK_BYTES):
            pass


USES: dict[str, Callable[[Any], None]] = {
    "whole": whole,
    "parquet": parquet,
    "zip": zipped,
    "gzip": gzipped,
}


def main() -> None:
    """Measure the way and the use that the command line names."""
    way, use, bucket, key = sys.argv[1:]
    if use == "parquet":
        import pyarrow.parquet  # noqa: F401 - its loading is none of what is measured
    began, cpu = time.perf_counter(), time.process_time()
    with WAYS[way](bucket, key) as file:
        opened, cpu = time.perf_counter(), time.process_time()
        USES[use](file)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    taken = {
        "opening": opened - began,
        "seconds": time.perf_counter() - opened,
        "cpu": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
