"""A key that is revoked in the middle ends any command with 5, and what was done is known."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner, Result

from tests.faults.proxy import FaultProxy
from tests.faults.revoked import Revocation
from twobuckets.cli import cli
from twobuckets.errors import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

STAGING, ARCHIVE = "revoked-staging", "revoked-archive"
PART_BYTES = 5 * 1024 * 1024


@pytest.fixture
def s3(empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pair of versioned buckets."""
    client = boto3.client("s3", endpoint_url=empty_moto_url)
    for bucket in (STAGING, ARCHIVE):
        client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    logs = boto3.client("logs", endpoint_url=empty_moto_url, region_name="eu-central-1")
    logs.create_log_group(logGroupName="/aws/lambda/revoked")
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", "/aws/lambda/revoked")
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)
    return client


def run(url: str, after: int, *arguments: str) -> tuple[Result, Revocation]:
    """Run a command whose key is revoked after so many requests."""
    revocation = Revocation(after)
    with FaultProxy(rate=0, upstream=url, refuses=revocation) as proxy:
        result = CliRunner().invoke(cli, ["--endpoint-url", proxy.url, *arguments])
    assert not isinstance(result.exception, Exception), result.output
    return result, revocation


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


READERS = [
    ["ls", "staging"],
    ["ls", "uploads"],
    ["status"],
    ["doctor"],
    ["presign", "k", "--multipart", "2"],
    ["credentials", "k", "--role-arn", "arn:aws:iam::123456789012:role/uploader"],
    ["logs", "--since", "1h"],
    ["reprocess", "--prefix", "", "--dry-run"],
]


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_command_that_reads_ends_with_5_wherever_the_key_is_revoked(
    s3: Any, empty_moto_url: str, command: list[str]
):
    s3.put_object(Bucket=STAGING, Key="waits", Body=b"x")
    s3.put_object(Bucket=ARCHIVE, Key="done", Body=b"x")
    s3.create_multipart_upload(Bucket=STAGING, Key="begun")
    whole, counted = run(empty_moto_url, 10_000, *command)
    assert counted.asked, whole.output
    for after in range(counted.asked):
        result, _ = run(empty_moto_url, after, *command)
        assert result.exit_code == ExitStatus.ACCESS, (after, counted.asked, result.output)


def test_upload_ends_with_5_and_tells_each_file_that_s3_has(
    s3: Any, empty_moto_url: str, tmp_path: Path
):
    for number in range(6):
        (tmp_path / f"small-{number}").write_bytes(b"x" * number)
    (tmp_path / "large").write_bytes(os.urandom(4 * PART_BYTES))
    command = ["--json", "upload", str(tmp_path), "-r", "--part-size", "5MiB"]
    _, counted = run(empty_moto_url, 10_000, *command)
    for after in range(counted.asked - 1):
        empty(s3)
        result, _ = run(empty_moto_url, after, *command)
        assert result.exit_code == ExitStatus.ACCESS, (after, counted.asked, result.output)
        said = lines_of(result)
        told = {line["key"] for line in said if line["type"] == "uploaded"}
        has = {row["Key"] for row in s3.list_objects_v2(Bucket=STAGING).get("Contents", [])}
        assert told <= has
        begun = {
            u["UploadId"] for u in s3.list_multipart_uploads(Bucket=STAGING).get("Uploads", [])
        }
        assert begun == {line["upload_id"] for line in said if line["type"] == "kept"}


def test_reprocess_ends_with_5_and_no_object_is_lost(s3: Any, empty_moto_url: str):
    keys = [f"k{number}" for number in range(5)]
    for after in range(0, 40, 3):
        empty(s3)
        for key in keys:
            s3.put_object(Bucket=ARCHIVE, Key=key, Body=key.encode())
        command = ["--json", "reprocess", "--prefix", "", "--yes"]
        result, counted = run(empty_moto_url, after, *command)
        if counted.asked <= after:
            assert result.exit_code == ExitStatus.DONE
            break
        assert result.exit_code == ExitStatus.ACCESS, (after, result.output)
        there = Counter(
            row["Key"]
            for bucket in (STAGING, ARCHIVE)
            for row in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        )
        assert set(there) == set(keys)
    else:
        pytest.fail("no run came to its end")


def empty(s3: Any) -> None:
    for bucket in (STAGING, ARCHIVE):
        page = s3.list_object_versions(Bucket=bucket)
        for row in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=bucket, Key=row["Key"], VersionId=row["VersionId"])
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
