"""Buckets of other accounts that are Requester Pays: every command that they refuse says so.

No emulator has them, so a proxy answers as S3 documents: 403 to whatever does not agree to pay.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import boto3
import pytest
from click.testing import CliRunner

from tests.faults.proxy import fault_proxy
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.proxy import Asked, FaultProxy

__all__ = ["fault_proxy"]

STAGING, ARCHIVE = "their-staging", "their-archive"


@pytest.fixture
def refused(
    empty_moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_credentials: None,
    fault_proxy: Callable[..., FaultProxy],
) -> FaultProxy:
    """A pair of which the staging bucket wants the requester to pay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").write_text("a,b\n")
    s3 = boto3.client("s3", endpoint_url=empty_moto_url)
    where = {"LocationConstraint": "eu-central-1"}
    for bucket in (STAGING, ARCHIVE):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)  # type: ignore[arg-type]
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"content")
    for name, value in (
        ("STAGING", STAGING),
        ("ARCHIVE", ARCHIVE),
        ("ENDPOINT_URL", empty_moto_url),
    ):
        monkeypatch.setenv(f"TWOBUCKETS_{name}", value)

    def refuse(asked: Asked) -> tuple[int, str, str] | None:
        pays = b"x-amz-request-payer: requester" in asked.fields.lower()
        return (
            None if pays or STAGING not in asked.target else (403, "AccessDenied", "Access Denied")
        )

    return fault_proxy(rate=0, refuses=refuse)


@pytest.mark.parametrize(
    "words",
    [
        ["reprocess", "k", "--yes"],
        ["reprocess", "--prefix", "", "--yes"],
        ["upload", "file.csv"],
        ["ls", "staging"],
    ],
    ids=" ".join,
)
def test_what_such_a_bucket_refuses_ends_with_the_reason(refused: FaultProxy, words: list[str]):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 5, result.output
    assert f"s3://{STAGING}: the bucket is Requester Pays and another account's" in result.stderr
    assert "Payer=BucketOwner" in result.stderr


def test_doctor_and_status_tell_the_reason_once_and_blame_no_permission(refused: FaultProxy):
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == 3, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    findings = [record for record in found if record.get("check") == "requester-pays"]
    assert [finding["subject"] for finding in findings] == [f"s3://{STAGING}"]
    assert "Payer=BucketOwner" in findings[0]["detail"]
    about = [r for r in found if STAGING in str(r.get("subject")) and r.get("permission")]
    assert about == []
    result = CliRunner().invoke(cli, ["status"])
    assert "Requester Pays" in result.output, result.output


def test_a_denial_with_another_reason_is_told_as_before(refused: FaultProxy):
    refused.refuses = lambda asked: (403, "AccessDenied", "Access Denied")
    result = CliRunner().invoke(cli, ["ls", "staging"])
    assert result.exit_code == 5
    assert "Requester Pays" not in result.output
    assert "s3:ListBucket" in result.stderr
