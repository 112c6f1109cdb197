"""A staging bucket on the embedded AWS, reached as any other endpoint, through a proxy or not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from twobuckets import local
    from twobuckets.aws.clients import Aws

STAGING = "intake-staging"
ARCHIVE = "intake-archive"


@pytest.fixture
def staging(embedded: Aws, embedded_server: local.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket that the command line uploads to."""
    embedded.s3.create_bucket(Bucket=STAGING)
    name_pair(embedded_server, monkeypatch, STAGING, ARCHIVE)
    return STAGING


def name_pair(
    server: local.Server, monkeypatch: pytest.MonkeyPatch, staging: str, archive: str
) -> None:
    """Let the environment name a pair of buckets on the server, and the server's key."""
    for name, value in (
        ("TWOBUCKETS_STAGING", staging),
        ("TWOBUCKETS_ARCHIVE", archive),
        ("TWOBUCKETS_ENDPOINT_URL", server.endpoint_url),
        ("AWS_ACCESS_KEY_ID", server.access_key),
        ("AWS_SECRET_ACCESS_KEY", server.secret_key),
        ("AWS_REGION", server.region),
    ):
        monkeypatch.setenv(name, value)


def digests_in(aws: Aws, bucket: str) -> dict[str, str]:
    """Return the SHA-256 of every object in a bucket."""
    digests = {}
    for page in aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            digest = hashlib.sha256()
            body = aws.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"]
            for block in body.iter_chunks(1024 * 1024):
                digest.update(block)
            digests[item["Key"]] = digest.hexdigest()
    return digests
