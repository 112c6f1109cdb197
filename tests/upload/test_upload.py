"""`twobuckets upload` from the command line to the bytes in S3."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from moto.s3.models import S3Backend

from tests.faults.proxy import fault_proxy
from twobuckets.cli.views.progress import Ticks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.proxy import Asked, FaultProxy, Refusal
    from tests.upload.conftest import Staging

__all__ = ["fault_proxy"]

MIB = 1024 * 1024


def test_a_small_file_arrives_with_its_content_type(staging: Staging, tmp_path: Path):
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\n")
    ran = staging.upload(str(tmp_path / "rows.csv"))
    assert ran.exit_code == 0, ran.output
    assert "uploaded" in ran.stdout
    stored = staging.s3.get_object(Bucket=staging.bucket, Key="rows.csv")
    assert stored["Body"].read() == b"a,b\n1,2\n"
    assert stored["ContentType"] == "text/csv"


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 16 * MIB, 16 * MIB + 17])
def test_files_of_every_size_arrive_byte_for_byte(staging: Staging, tmp_path: Path, size: int):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    ran = staging.upload(str(tmp_path / "file"), "--key", "a key/with + %2B ü", "--json")
    assert ran.exit_code == 0, ran.output
    uploaded, summary = map(json.loads, ran.stdout.splitlines())
    assert (uploaded["type"], uploaded["size_bytes"]) == ("uploaded", size)
    assert (summary["type"], summary["uploaded"], summary["sent_bytes"]) == ("summary", 1, size)
    assert staging.body("a key/with + %2B ü") == content
    assert staging.uploads() == []
    in_parts = size >= 16 * MIB
    assert uploaded["etag"].endswith("-3") is (size > 16 * MIB)
    assert ("-" in uploaded["etag"]) is in_parts


def test_standard_input_of_unknown_length_arrives(staging: Staging):
    for size in (0, 10, 9 * MIB):
        content = os.urandom(size)
        ran = staging.upload("-", "--key", f"stream-{size}", stdin=content)
        assert ran.exit_code == 0, ran.output
        assert staging.body(f"stream-{size}") == content
    assert staging.uploads() == []


def test_a_folder_keeps_its_relative_paths(staging: Staging, tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one.txt", ".hidden", "a/two.txt", "a/b/three.tmp"):
        (tmp_path / name).write_text(name)
    ran = staging.upload(str(tmp_path), "-r", "--prefix", "in/", "--exclude", "*.tmp")
    assert ran.exit_code == 0, ran.output
    assert sorted(staging.keys()) == ["in/.hidden", "in/a/two.txt", "in/one.txt"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_patterns_that_leave_no_file_are_told(
    staging: Staging, tmp_path: Path, more: tuple[str, ...]
):
    (tmp_path / "a.csv").write_bytes(b"a")
    ran = staging.upload("-r", str(tmp_path), "--include", "*.cvs", *more)
    assert ran.exit_code == 0, ran.output
    assert "No files match (--include '*.cvs')" in ran.stderr
    assert "No file" not in staging.upload("-r", str(tmp_path), "--include", "*.csv", *more).stderr


def test_a_folder_without_recursive_is_a_usage_error(staging: Staging, tmp_path: Path):
    ran = staging.upload(str(tmp_path))
    assert ran.exit_code == 2
    assert "--recursive" in ran.stderr
    assert staging.keys() == []


def test_the_plan_of_a_dry_run_writes_nothing(staging: Staging, tmp_path: Path):
    (tmp_path / "f").write_bytes(b"x" * (20 * MIB))
    ran = staging.upload(str(tmp_path / "f"), "--dry-run")
    assert ran.exit_code == 0
    assert "3 parts" in ran.stdout
    assert staging.keys() == []
    assert staging.uploads() == []


@pytest.mark.parametrize("wish", [(), ("--content-type", "application/json")])
def test_a_dry_run_shows_the_content_type_that_is_stored(
    staging: Staging, tmp_path: Path, wish: tuple[str, ...]
):
    (tmp_path / "x.csv").write_bytes(b"x")
    words = (str(tmp_path / "x.csv"), "--key", "in/blob", *wish)
    planned, _ = map(json.loads, staging.upload(*words, "--dry-run", "--json").stdout.splitlines())
    assert staging.upload(*words).exit_code == 0
    stored = staging.s3.head_object(Bucket=staging.bucket, Key="in/blob")["ContentType"]
    assert planned["content_type"] == stored == (wish[1] if wish else "text/csv")


@pytest.mark.parametrize("size", [10, 17 * MIB])
def test_no_overwrite_leaves_what_is_there(staging: Staging, tmp_path: Path, size: int):
    (tmp_path / "f").write_bytes(b"n" * size)
    staging.s3.put_object(Bucket=staging.bucket, Key="f", Body=b"old")
    ran = staging.upload(str(tmp_path / "f"), "--no-overwrite")
    assert ran.exit_code == 3
    assert "in staging already" in ran.stdout
    assert staging.body("f") == b"old"
    assert staging.uploads() == []


@pytest.mark.parametrize("size", [10, 17 * MIB])
def test_a_key_that_is_in_staging_already_gets_a_clear_word(
    staging: Staging, tmp_path: Path, size: int
):
    (tmp_path / "f").write_bytes(b"n" * size)
    first = staging.upload(str(tmp_path / "f"), "--json")
    assert json.loads(first.stdout.splitlines()[0])["replaced"] is False
    again = staging.upload(str(tmp_path / "f"))
    assert again.exit_code == 0
    assert "not processed yet" in again.stdout
    assert staging.body("f") == b"n" * size


def test_programs_hear_of_progress(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Ticks, "EVERY_SECONDS", 0.0)
    (tmp_path / "f").write_bytes(b"x" * (17 * MIB))
    ran = staging.upload(str(tmp_path / "f"), "--json")
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    progress = [line for line in told if line["type"] == "progress"]
    assert progress
    assert max(line["sent_bytes"] for line in progress) == 17 * MIB
    assert {line["total_bytes"] for line in progress} == {17 * MIB}


@pytest.mark.parametrize("status", [200, 400, 501])
def test_an_endpoint_without_trailing_checksums_gets_them_ahead(
    staging: Staging, tmp_path: Path, fault_proxy: Callable[..., FaultProxy], status: int
):
    """R2 and others knew CRC64NVME before they knew trailers; some took the framing for bytes."""
    content = os.urandom(40 * MIB)
    (tmp_path / "file").write_bytes(content)
    trailed: list[Asked] = []

    def refuse(asked: Asked) -> Refusal | None:
        if b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" not in asked.fields:
            return None
        trailed.append(asked)
        return status, "NotImplemented", "A header implies functionality that is not implemented."

    fault_proxy(rate=0, refuses=refuse)
    ran = staging.upload(str(tmp_path / "file"), "--concurrency", "2")
    assert ran.exit_code == 0, ran.output
    assert staging.body("file") == content
    assert 1 <= len(trailed) <= 2
    assert staging.uploads() == []


@pytest.mark.parametrize("no_overwrite", [False, True])
def test_a_conflict_that_does_not_pass_is_overwritten_or_told(
    staging: Staging, tmp_path: Path, fault_proxy: Callable[..., FaultProxy], no_overwrite: bool
):
    (tmp_path / "big").write_bytes(b"b" * 17 * MIB)
    refused: list[Asked] = []

    def refuse(asked: Asked) -> Refusal | None:
        if b"if-none-match" not in asked.fields.lower():
            return None
        refused.append(asked)
        return 409, "ConditionalRequestConflict", "A conflicting operation occurred."

    fault_proxy(rate=0, refuses=refuse)
    ran = staging.upload(str(tmp_path / "big"), *(["--no-overwrite"] if no_overwrite else []))
    assert len(refused) == 3
    assert staging.uploads() == []
    if no_overwrite:
        assert ran.exit_code == 3, ran.output
        assert "something else writes or deletes its key" in ran.stdout
        assert staging.keys() == []
    else:
        assert ran.exit_code == 0, ran.output
        assert staging.body("big") == b"b" * 17 * MIB


def after_completion(
    monkeypatch: pytest.MonkeyPatch, order: Callable[[list[Any], list[Any]], list[Any]]
) -> None:
    """Let moto, which knows no order of uploads by their begin, order what a key has anew.

    `order` gets what the key had before a completion and what it has after it.
    """
    complete = S3Backend.complete_multipart_upload

    def completed(backend: S3Backend, bucket_name: str, *arguments: Any) -> Any:
        keys = backend.get_bucket(bucket_name).keys
        before = keys.getlist("big", [])
        key = complete(backend, bucket_name, *arguments)
        ordered = order(before, keys.getlist("big"))
        # A key that is left with an empty list breaks moto's next reset.
        if ordered:
            keys.setlist("big", ordered)
        else:
            del keys["big"]
        return key

    monkeypatch.setattr(S3Backend, "complete_multipart_upload", completed)


def keep_versions(staging: Staging) -> None:
    staging.s3.put_bucket_versioning(
        Bucket=staging.bucket, VersioningConfiguration={"Status": "Enabled"}
    )


@pytest.mark.parametrize("has_versions", [True, False])
def test_an_upload_under_one_that_was_begun_later_is_not_called_uploaded(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_versions: bool
):
    if has_versions:
        keep_versions(staging)
    staging.s3.put_object(Bucket=staging.bucket, Key="big", Body=b"of somebody else")
    after_completion(
        monkeypatch, lambda before, after: [after[-1], *before] if has_versions else before
    )
    (tmp_path / "big").write_bytes(b"x" * (17 * MIB))
    ran = staging.upload(str(tmp_path / "big"))
    assert ran.exit_code == 3
    assert "begun later" in ran.stdout
    assert staging.keys() == ["big"]
    assert staging.uploads() == []


def test_an_upload_that_a_delete_marker_hides_is_not_called_uploaded(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keep_versions(staging)
    staging.s3.put_object(Bucket=staging.bucket, Key="big", Body=b"older")
    staging.s3.delete_object(Bucket=staging.bucket, Key="big")
    after_completion(monkeypatch, lambda before, after: [before[0], after[-1], before[1]])
    (tmp_path / "big").write_bytes(b"x" * (17 * MIB))
    ran = staging.upload(str(tmp_path / "big"))
    assert ran.exit_code == 3
    assert "begun later" in ran.stdout


@pytest.mark.parametrize("has_versions", [True, False])
def test_an_upload_that_is_processed_at_once_is_uploaded(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_versions: bool
):
    if has_versions:
        keep_versions(staging)
        staging.s3.put_object(Bucket=staging.bucket, Key="big", Body=b"older")
        staging.s3.delete_object(Bucket=staging.bucket, Key="big")
    after_completion(monkeypatch, lambda before, _: before)
    (tmp_path / "big").write_bytes(b"x" * (17 * MIB))
    assert staging.upload(str(tmp_path / "big")).exit_code == 0
