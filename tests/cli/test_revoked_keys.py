"""A key that is revoked in the middle ends any command with 5, and what was done is known."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner, Result

from tests.faults.proxy import FaultProxy
from tests.faults.revoked import Revocation
from twobuckets.cli import COMMANDS, cli
from twobuckets.errors import ExitStatus
from twobuckets.processor.contract import ARCHIVED, Outcome

if TYPE_CHECKING:
    from pathlib import Path

STAGING, ARCHIVE = "revoked-staging", "revoked-archive"
GROUP = "/aws/lambda/revoked"
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
    logs.create_log_group(logGroupName=GROUP)
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", GROUP)
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)
    return client


def run(url: str, after: int, *arguments: str) -> tuple[Result, Revocation]:
    """Run a command whose key is revoked after so many requests."""
    revocation = Revocation(after)
    with FaultProxy(rate=0, upstream=url, refuses=revocation) as proxy:
        return invoke(proxy, *arguments), revocation


def invoke(proxy: FaultProxy, *arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["--endpoint-url", proxy.url, *arguments])
    assert not isinstance(result.exception, Exception), result.output
    return result


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


READERS = [
    "ls staging",
    "ls uploads",
    "cat done",
    "get done copy",
    "trace waits",
    "watch --count 1",
    "probe",
    "redrive --dry-run",
    "link",
    "status",
    "doctor",
    "presign k --multipart 2",
    "credentials k --role-arn arn:aws:iam::123456789012:role/uploader",
    "logs --since 1h",
    "reprocess --prefix d --dry-run",
]
WRITERS = ("upload", "reprocess", "doctor")
"""Each has a test of its own here."""
IN_A_STACK = ("deploy", "link", "destroy")
"""These are revoked in tests/embedded/test_revoked_keys.py."""
WITHOUT_AWS = [
    "init new",
    "build",
    "template",
    "local status",
    "help",
    "completion bash",
]


def test_every_command_is_tried_with_a_revoked_key():
    tried = {form.split()[0] for form in (*READERS, *WITHOUT_AWS)} | {*WRITERS, *IN_A_STACK}
    assert tried == set(COMMANDS)


@pytest.mark.parametrize("form", WITHOUT_AWS)
def test_a_command_without_aws_asks_it_nothing(empty_moto_url: str, tmp_path: Path, form: str):
    with pytest.MonkeyPatch.context() as here:
        here.chdir(tmp_path)
        (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
        result, revocation = run(empty_moto_url, 0, *form.split())
    assert (revocation.asked, result.exit_code == ExitStatus.ACCESS) == (0, False), result.output


@pytest.mark.parametrize("form", READERS)
def test_a_command_that_reads_ends_with_5_wherever_the_key_is_revoked(
    s3: Any, empty_moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
):
    monkeypatch.chdir(tmp_path)
    command = form.split()
    if command[0] in ("probe", "redrive"):
        # They ask about the function before anything else.
        monkeypatch.setenv("TWOBUCKETS_FUNCTION", "revoked")
    if command[0] == "link":
        monkeypatch.setenv("TWOBUCKETS_STACK", "revoked")
    s3.put_object(Bucket=STAGING, Key="waits", Body=b"x")
    s3.put_object(Bucket=ARCHIVE, Key="done", Body=b"x")
    s3.create_multipart_upload(Bucket=STAGING, Key="begun")
    whole, counted = run(empty_moto_url, 10_000, *command)
    assert counted.asked, whole.output
    for after in range(counted.asked):
        (tmp_path / "copy").unlink(missing_ok=True)
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


def test_a_log_that_is_followed_ends_with_5(s3: Any, empty_moto_url: str):
    for after in range(2):
        result, _ = run(empty_moto_url, after, "logs", "--follow", "--since", "1h")
        assert result.exit_code == ExitStatus.ACCESS, (after, result.output)


def test_waiting_for_what_was_uploaded_ends_with_5_and_goes_on(
    s3: Any, empty_moto_url: str, tmp_path: Path
):
    """The processor's lines are there already, so that the wait is over as soon as it can be."""
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    command = ["--json", "upload", *map(str, (tmp_path / "a", tmp_path / "b")), "--wait"]
    command += ["--timeout", "10s"]
    say_archived(empty_moto_url, {"a": b"one", "b": b"two"})
    whole, counted = run(empty_moto_url, 10_000, *command)
    assert whole.exit_code == ExitStatus.DONE, whole.output
    for after in range(1, counted.asked):
        empty(s3)
        say_archived(empty_moto_url, {"a": b"one", "b": b"two"})
        revocation = Revocation(after)
        with FaultProxy(rate=0, upstream=empty_moto_url, refuses=revocation) as proxy:
            result = invoke(proxy, *command)
            revocation.after = 10_000
            again = invoke(proxy, *command)
        assert result.exit_code == ExitStatus.ACCESS, (after, counted.asked, result.output)
        told = {line["key"] for line in lines_of(result) if line["type"] == "uploaded"}
        assert again.exit_code == ExitStatus.DONE, (after, again.output)
        summary = lines_of(again)[-1]
        assert summary["outcomes"] == {"archived": 2}
        assert summary["sent_before"] >= len(told)


def test_waiting_for_what_is_processed_again_ends_with_5_and_goes_on(s3: Any, empty_moto_url: str):
    command = ["--json", "reprocess", "k", "--yes", "--wait", "--timeout", "10s"]
    for after in range(1, 40):
        empty(s3)
        s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"one")
        say_archived(empty_moto_url, {"k": b"one"})
        result, counted = run(empty_moto_url, after, *command, "--restart")
        if counted.asked <= after:
            assert result.exit_code == ExitStatus.DONE, result.output
            break
        assert result.exit_code == ExitStatus.ACCESS, (after, result.output)
        assert s3.head_object(Bucket=ARCHIVE, Key="k")["ContentLength"] == 3
        copies = s3.list_object_versions(Bucket=STAGING).get("Versions", [])
        said = [line["state"] for line in lines_of(result) if line["type"] == "reprocessed"]
        assert said == ["done"] * len(said)
        assert len(said) <= len(copies) <= 1
    else:
        pytest.fail("no run came to its end")


def test_doctor_ends_with_5_and_tells_what_it_has_fixed(s3: Any, empty_moto_url: str):
    keys = [f"begun-{number}" for number in range(3)]
    command = ["--json", "doctor", "--fix", "--yes", "--check", "upload-orphaned"]
    command += ["--uploads-older-than", "0s"]
    for after in range(60):
        empty(s3)
        for key in keys:
            s3.create_multipart_upload(Bucket=STAGING, Key=key)
        result, counted = run(empty_moto_url, after, *command)
        left = len(s3.list_multipart_uploads(Bucket=STAGING).get("Uploads", []))
        applied = [line for line in lines_of(result) if line["type"] == "applied"]
        if counted.asked <= after:
            assert (left, applied[-1]["done"]) == (0, 3), result.output
            break
        assert result.exit_code == ExitStatus.ACCESS, (after, result.output)
        # An abort that S3 has done is one whose answer was looked at, or it is called failed.
        done = sum(line["done"] for line in applied)
        failed = sum(line["failed_count"] for line in applied)
        assert done <= len(keys) - left <= done + failed
    else:
        pytest.fail("no run came to its end")


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


def say_archived(url: str, bodies: dict[str, bytes]) -> None:
    """Write the lines that the processor writes once it has archived these files."""
    logs = boto3.client("logs", endpoint_url=url, region_name="eu-central-1")
    stream, now = uuid.uuid4().hex, datetime.now(UTC)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    for key, body in bodies.items():
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        outcome = Outcome(ARCHIVED, STAGING, key, None, etag, len(body), 1, "request", 1)
        line = outcome.line(now.isoformat())
        logs.put_log_events(
            logGroupName=GROUP,
            logStreamName=stream,
            logEvents=[{"timestamp": int(now.timestamp() * 1000), "message": line}],
        )


def empty(s3: Any) -> None:
    for bucket in (STAGING, ARCHIVE):
        page = s3.list_object_versions(Bucket=bucket)
        for row in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=bucket, Key=row["Key"], VersionId=row["VersionId"])
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
