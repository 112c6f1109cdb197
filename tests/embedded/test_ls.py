"""`ls` against the embedded AWS: ages, and what incomplete uploads hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from click.testing import CliRunner

from twobuckets.cli import cli
from twobuckets.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from twobuckets.aws.clients import Aws

MIB = 1024**2


def records(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["--stack", "local", "--json", "ls", *arguments])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_pipelines_places_are_listed(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pipeline = App(flags={"stack": "local"}).pipeline
    s3 = embedded.s3
    for number in range(1100):
        s3.put_object(Bucket=pipeline.archive, Key=f"in/{number:04} é+.csv", Body=b"x")
    archived = records("archive")
    assert [r["key"] for r in archived[:-1]] == [f"in/{n:04} é+.csv" for n in range(1100)]
    assert archived[-1]["size_bytes"] == 1100

    upload = s3.create_multipart_upload(Bucket=pipeline.staging, Key="big one.bin")
    part = {"Bucket": pipeline.staging, "Key": "big one.bin", "UploadId": upload["UploadId"]}
    for number in range(1, 4):
        s3.upload_part(**part, PartNumber=number, Body=b"x" * (5 * MIB))  # type: ignore[arg-type]
    listed, summary = records("uploads")
    assert (listed["key"], listed["upload_id"]) == ("big one.bin", upload["UploadId"])
    assert (listed["parts"], listed["stored_bytes"]) == (3, 15 * MIB)
    assert 0 <= listed["age"] < 60
    assert (summary["count"], summary["size_bytes"]) == (1, 15 * MIB)
    assert records("uploads", "--older-than", "1h")[-1]["count"] == 0
    s3.abort_multipart_upload(**part)  # type: ignore[arg-type]
    assert records("staging", "--newer-than", "1h")[-1]["count"] == 0


def begin_upload(aws: Aws, bucket: str, key: str) -> None:
    """Begin a multipart upload and leave its answer unread: boto3 can't parse an odd key in it."""
    url = aws.s3.generate_presigned_url(
        "create_multipart_upload", Params={"Bucket": bucket, "Key": key}, HttpMethod="POST"
    )
    with urlopen(Request(url, method="POST")) as answer:
        assert answer.status == 200


def test_keys_that_xml_cannot_hold_end_no_command(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pipeline = App(flags={"stack": "local"}).pipeline
    keys = ["up/\x1b[31mred", "up/\x01\x0b", "up/\ufffe \x7f&<"]
    for key in keys:
        begin_upload(embedded, pipeline.staging, key)
    assert sorted(r["key"] for r in records("uploads")[:-1]) == sorted(keys)
    status = CliRunner().invoke(cli, ["--stack", "local", "--json", "status"])
    assert status.exit_code == 0, status.output
    assert "could not be read" not in status.output
    assert '"uploads": 3' in status.stdout or '"count": 3' in status.stdout
    doctor = CliRunner().invoke(
        cli,
        ["--stack", "local", "--json", "doctor", "--uploads-older-than", "0s", "--fix", "--yes"],
    )
    assert doctor.exit_code in (0, 3), doctor.output
    assert records("uploads")[-1]["count"] == 0, doctor.output
