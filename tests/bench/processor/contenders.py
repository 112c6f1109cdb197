"""Handlers that ours is compared with.

Neither looks at what it moves: `tutorial` is what the articles on this pattern show, with boto3's
managed copy; `bare` is the fewest requests that move an object. Both lose files. What they read of
a file is named in READS, as in `user`.
"""

import os
from typing import Any
from urllib.parse import unquote_plus

import boto3

_READS = os.environ.get("READS", "nothing")
_ARCHIVE = os.environ["ARCHIVE_BUCKET"]
_s3 = boto3.client("s3")


def tutorial(event: dict[str, Any], context: object) -> None:
    """Move each file as the articles do."""
    for bucket, key in _arrived(event):
        _read(bucket, key)
        _s3.copy({"Bucket": bucket, "Key": key}, _ARCHIVE, key)
        _s3.delete_object(Bucket=bucket, Key=key)


def bare(event: dict[str, Any], context: object) -> None:
    """Move each file in two requests."""
    for bucket, key in _arrived(event):
        _read(bucket, key)
        _s3.copy_object(Bucket=_ARCHIVE, Key=key, CopySource={"Bucket": bucket, "Key": key})
        _s3.delete_object(Bucket=bucket, Key=key)


def _arrived(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        for record in event["Records"]
    ]


def _read(bucket: str, key: str) -> None:
    if _READS != "nothing":
        body = _s3.get_object(Bucket=bucket, Key=key)["Body"]
        if _READS == "text":
            body.read().decode()
        else:
            for _ in body.iter_lines(2**20):
                pass
