"""Uploads on the embedded AWS, which checks signatures, checksums and conditions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.embedded import pair
from tests.embedded.intake import digests_in, name_pair, staging
from twobuckets.cli import cli
from twobuckets.s3.engine import CRC64NVME

if TYPE_CHECKING:
    from click.testing import Result

    from twobuckets import local
    from twobuckets.aws.clients import Aws

__all__ = ["staging"]

MIB = 1024 * 1024


def upload(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["upload", *arguments])


def records_of(ran: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


def forget_journal() -> None:
    """Lose what this machine remembers of uploads."""
    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"], "twobuckets", "uploads"), ignore_errors=True)


def begin_upload(aws: Aws, bucket: str, key: str, parts: dict[int, bytes]) -> str:
    """Leave an incomplete upload with some parts, as another machine may have."""
    upload_id = aws.s3.create_multipart_upload(
        Bucket=bucket, Key=key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    for number, body in parts.items():
        aws.s3.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ChecksumCRC64NVME=CRC64NVME.encode(CRC64NVME.compute(body)),
        )
    return upload_id


def uploads_in(aws: Aws, bucket: str) -> dict[str, set[int]]:
    found = {}
    for listed in aws.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        parts = aws.s3.list_parts(Bucket=bucket, Key=listed["Key"], UploadId=listed["UploadId"])
        found[listed["UploadId"]] = {part["PartNumber"] for part in parts.get("Parts", [])}
    return found


ODD_KEYS = (
    "a b+c%2B%20",
    "ü e\u0301 \U0001f600",
    "line\nbreak\ttab\x01",
    "'\"&<>*?${aws:username}[bold]",
)
ODD_PATHS = ("//lead/and//trail/", "../up/./x", "x" * 1024)


@pytest.mark.parametrize(
    ("key", "size"),
    [*((key, 5) for key in ODD_KEYS + ODD_PATHS), *((key, 17 * MIB) for key in ODD_KEYS)],
)
def test_keys_of_every_kind_arrive_as_they_are(
    embedded: Aws, staging: str, tmp_path: Path, key: str, size: int
):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    ran = upload(str(tmp_path / "file"), "--key", key)
    assert ran.exit_code == 0, ran.output
    assert digests_in(embedded, staging) == {key: hashlib.sha256(content).hexdigest()}


def test_a_lost_journal_costs_nothing_when_the_parts_are_the_files(
    embedded: Aws, staging: str, tmp_path: Path
):
    content = os.urandom(37 * MIB)
    (tmp_path / "big").write_bytes(content)
    begin_upload(embedded, staging, "big", {1: content[: 8 * MIB], 3: content[16 * MIB : 24 * MIB]})
    forget_journal()
    ran = upload(str(tmp_path / "big"), "--json")
    assert ran.exit_code == 0, ran.output
    assert records_of(ran)[0]["resumed_bytes"] == 16 * MIB
    assert digests_in(embedded, staging) == {"big": hashlib.sha256(content).hexdigest()}
    assert uploads_in(embedded, staging) == {}


def test_uploads_of_the_key_that_are_not_this_files_are_left_as_they_are(
    embedded: Aws, staging: str, tmp_path: Path
):
    content = os.urandom(20 * MIB)
    (tmp_path / "big").write_bytes(content)
    others = {
        begin_upload(embedded, staging, "big", {1: os.urandom(8 * MIB)}): {1},
        # The first part is the same, the second is not: another version of the file.
        begin_upload(embedded, staging, "big", {1: content[: 8 * MIB], 2: os.urandom(8 * MIB)}): {
            1,
            2,
        },
        # Without a part nothing tells whose it is.
        begin_upload(embedded, staging, "big", {}): set(),
        begin_upload(embedded, staging, "big.bin", {1: content[: 8 * MIB]}): {1},
    }
    ran = upload(str(tmp_path / "big"), "--json")
    assert ran.exit_code == 0, ran.output
    assert records_of(ran)[0]["resumed_bytes"] == 0
    assert digests_in(embedded, staging) == {"big": hashlib.sha256(content).hexdigest()}
    assert uploads_in(embedded, staging) == others


def test_an_upload_that_somebody_else_began_is_not_gone_on_with(
    embedded: Aws, staging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The content is the same, but the identity in use is another user's."""
    content = os.urandom(20 * MIB)
    (tmp_path / "big").write_bytes(content)
    upload_id = begin_upload(embedded, staging, "big", {1: content[: 8 * MIB]})
    embedded.iam.create_user(UserName="somebody")
    embedded.iam.put_user_policy(
        UserName="somebody",
        PolicyName="s3",
        PolicyDocument=json.dumps(
            {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        ),
    )
    key = embedded.iam.create_access_key(UserName="somebody")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    ran = upload(str(tmp_path / "big"), "--json")
    embedded.iam.delete_access_key(UserName="somebody", AccessKeyId=key["AccessKeyId"])
    embedded.iam.delete_user_policy(UserName="somebody", PolicyName="s3")
    embedded.iam.delete_user(UserName="somebody")
    assert ran.exit_code == 0, ran.output
    assert records_of(ran)[0]["resumed_bytes"] == 0
    assert uploads_in(embedded, staging) == {upload_id: {1}}


def test_credentials_that_s3_does_not_know_end_the_run(
    embedded: Aws, staging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "f").write_text("x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    ran = upload(str(tmp_path / "f"))
    assert ran.exit_code == 5, ran.output
    assert "Traceback" not in ran.output


def test_wait_tells_each_files_end_and_the_processors_error(
    embedded: Aws,
    embedded_server: local.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("good 1", "good 2", "to fail"):
        (tmp_path / name).write_text(name)
    pair.make_pair(embedded)
    name_pair(embedded_server, monkeypatch, pair.STAGING, pair.ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_FUNCTION", pair.FUNCTION)
    listed = tmp_path.parent / "failed.jsonl"
    ran = upload(
        *(str(tmp_path), "-r", "--wait", "--timeout", "60s", "--json"),
        *("--failed-to", str(listed)),
    )
    assert ran.exit_code == 3, ran.output
    *_, summary = records_of(ran)
    ends = {
        record["key"]: record["fate"]
        for record in records_of(ran)
        if record["type"] == "fate" and record["is_final"]
    }
    assert ends == {"good 1": "archived", "good 2": "archived", "to fail": "failed"}
    assert summary["outcomes"] == {"archived": 2, "failed": 1}
    assert "no luck with to fail" in ran.stdout
    [failed] = map(json.loads, listed.read_text().splitlines())
    assert (failed["key"], failed["path"]) == ("to fail", str(tmp_path / "to fail"))


def test_a_newcomers_files_go_through_the_default_pipeline(embedded: Aws, tmp_path: Path):
    content = os.urandom(20 * MIB)
    (tmp_path / "big.bin").write_bytes(content)
    (tmp_path / "some.csv").write_text("a,b\n1,2\n")
    ran = CliRunner().invoke(
        cli,
        [
            *("--stack", "local", "upload", str(tmp_path / "big.bin")),
            *(str(tmp_path / "some.csv"), "--wait", "--timeout", "90s", "--json"),
        ],
    )
    assert ran.exit_code == 0, ran.output
    *_, summary = records_of(ran)
    assert summary["outcomes"] == {"archived": 2}
    # What stands for a folder is not processed, so there is nothing to wait for.
    (tmp_path / "empty").touch()
    started_at = time.monotonic()
    words = ["--stack", "local", "upload", str(tmp_path / "empty"), "--key", "dir/", "--wait"]
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0, ran.output
    assert "stands for a folder" in ran.stderr
    assert time.monotonic() - started_at < 60
    archives = [
        bucket["Name"]
        for bucket in embedded.s3.list_buckets()["Buckets"]
        if "archive" in bucket["Name"]
    ]
    assert digests_in(embedded, archives[0])["big.bin"] == hashlib.sha256(content).hexdigest()
