"""Uploads through a network that breaks: everything arrives byte for byte, or is reported."""

from __future__ import annotations

import hashlib
import json
import os
import random
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.embedded.intake import digests_in, staging
from tests.faults.proxy import Asked, Fault, FaultProxy, fault_proxy
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets.aws.clients import Aws

__all__ = ["fault_proxy", "staging"]

MIB = 1024 * 1024


def write_files(folder: Path, count: int, large_bytes: int) -> dict[str, str]:
    chance = random.Random(5)
    digests = {}
    for number in range(count):
        content = chance.randbytes(chance.randrange(1, 6000))
        path = folder / f"{number % 40:02}" / f"file {number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        digests[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    content = os.urandom(large_bytes)
    (folder / "large.bin").write_bytes(content)
    digests["large.bin"] = hashlib.sha256(content).hexdigest()
    return digests


def upload_through_faults(
    proxy: FaultProxy, aws: Aws, staging: str, folder: Path, digests: dict[str, str]
) -> None:
    ran = CliRunner().invoke(cli, ["upload", str(folder), "-r", "--json"])
    assert ran.exit_code in (0, 3), ran.output
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    failed = {record["key"] for record in records if record["type"] == "failed"}
    arrived = {record["key"] for record in records if record["type"] == "uploaded"}
    assert arrived | failed == set(digests)
    assert not arrived & failed
    # Nothing but what was sent, and exactly that.
    stored = digests_in(aws, staging)
    assert {key: digests[key] for key in arrived} == {key: stored[key] for key in arrived}
    assert all(digests[key] == digest for key, digest in stored.items())
    # What is left of uploads is what the report says is left.
    listed = aws.s3.list_multipart_uploads(Bucket=staging).get("Uploads", [])
    kept = {record["upload_id"] for record in records if record.get("upload_id")}
    without_answer = sum("took" in line and "tries" in line for line in ran.stderr.splitlines())
    strays = [upload for upload in listed if upload["UploadId"] not in kept]
    assert len(strays) <= 8 * without_answer
    for stray in strays:
        assert not aws.s3.list_parts(
            Bucket=staging, Key=stray["Key"], UploadId=stray["UploadId"]
        ).get("Parts")
    # With eight tries each, a tenth of faults fails nothing.
    assert not failed, ran.stdout
    assert proxy.requests > len(digests)


def test_files_arrive_through_every_kind_of_fault(
    embedded: Aws, staging: str, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    digests = write_files(tmp_path, 150, 30 * MIB)
    proxy = fault_proxy(rate=0.1, seed=11, delay=0.05)
    upload_through_faults(proxy, embedded, staging, tmp_path, digests)
    assert len(proxy.counts) >= 5


@pytest.mark.slow
def test_two_thousand_files_and_half_a_gigabyte_arrive_through_faults(
    embedded: Aws, staging: str, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    digests = write_files(tmp_path, 2000, 500_000_000)
    proxy = fault_proxy(rate=0.1, seed=3, delay=0.1)
    upload_through_faults(proxy, embedded, staging, tmp_path, digests)
    assert set(proxy.counts) == set(Fault)


@pytest.mark.slow
def test_a_byte_changed_on_the_way_never_gets_under_the_key(
    embedded: Aws, staging: str, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    (tmp_path / "small").write_bytes(b"x" * 1000)
    (tmp_path / "large").write_bytes(os.urandom(17 * MIB))
    proxy = fault_proxy(rate=1, faults=[Fault.CORRUPT], chooses=lambda asked: asked.method == "PUT")
    ran = CliRunner().invoke(
        cli, ["upload", str(tmp_path / "small"), str(tmp_path / "large"), "--json"]
    )
    assert ran.exit_code != 0
    assert proxy.counts[Fault.CORRUPT] > 2
    assert digests_in(embedded, staging) == {}


def test_an_object_whose_answer_was_lost_is_recognised_as_ours(
    embedded: Aws, staging: str, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    """With --no-overwrite the second try is refused by what the first one stored."""
    (tmp_path / "small").write_bytes(b"x" * 1000)
    (tmp_path / "large").write_bytes(os.urandom(17 * MIB))
    seen: set[str] = set()

    def first_write(asked: Asked) -> bool:
        is_complete = asked.method == "POST" and "uploadId" in asked.target
        if not (asked.method == "PUT" or is_complete) or asked.target in seen:
            return False
        seen.add(asked.target)
        return True

    fault_proxy(rate=1, faults=[Fault.DROP_ANSWER], chooses=first_write)
    ran = CliRunner().invoke(
        cli, ["upload", str(tmp_path), "-r", "--no-overwrite", "--json"], catch_exceptions=False
    )
    assert ran.exit_code == 0, ran.output
    assert set(digests_in(embedded, staging)) == {"small", "large"}
    assert not embedded.s3.list_multipart_uploads(Bucket=staging).get("Uploads")


def test_credentials_that_expire_in_the_middle_end_with_5_and_the_same_command_goes_on(
    embedded: Aws,
    staging: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault_proxy: Callable[..., FaultProxy],
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    content = random.Random(3).randbytes(60 * MIB)
    (tmp_path / "large.bin").write_bytes(content)
    sent: list[str] = []
    live_for = 3

    def refuse(asked: Asked) -> tuple[int, str, str] | None:
        if asked.method == "PUT" and "partNumber" in asked.target:
            sent.append(asked.target)
        expired = 400, "ExpiredToken", "The provided token has expired."
        return expired if len(sent) > live_for else None

    fault_proxy(rate=0, refuses=refuse)
    command = ["upload", str(tmp_path / "large.bin"), "--concurrency", "1", "--json"]
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == 5, ran.output
    error, kept = json.loads(ran.stderr.splitlines()[-1]), json.loads(ran.stdout.splitlines()[-1])
    assert "expired" in error["message"]
    assert (kept["type"], kept["kept_bytes"]) == ("kept", live_for * 8 * MIB)
    assert embedded.s3.list_objects_v2(Bucket=staging)["KeyCount"] == 0
    sent.clear()
    done_before, live_for = live_for, 100
    again = CliRunner().invoke(cli, command)
    assert again.exit_code == 0, again.output
    assert len(sent) == 8 - done_before
    assert all(kept["upload_id"] in target for target in sent)
    assert digests_in(embedded, staging) == {"large.bin": hashlib.sha256(content).hexdigest()}
