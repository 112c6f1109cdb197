"""Endpoints that refuse or ignore what AWS knows: what was done is told, and nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tests.s3.scripted import ScriptedServer, serving
from tests.upload.quirks import Quirky
from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

SMALL, LARGE = b"hi\n", 17_500_000


@pytest.fixture(autouse=True)
def pipeline(fake_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOBUCKETS_STAGING", "staging")
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "archive")


@pytest.fixture(params=["small", "large"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(SMALL if request.param == "small" else os.urandom(LARGE))
    return path


def upload(quirky: Quirky, *arguments: str) -> tuple[Result, ScriptedServer]:
    with serving(quirky) as server:
        where = ["--endpoint-url", server.url]
        result = CliRunner().invoke(cli, [*where, "upload", *arguments])
    return result, server


@pytest.mark.parametrize(
    "refusal", [(400, "InvalidArgument"), (400, "InvalidRequest"), (501, "NotImplemented")]
)
def test_an_endpoint_that_refuses_crc64nvme_gets_md5(refusal: tuple[int, str], file: Path):
    quirky = Quirky(refuses_crc=refusal)
    result, server = upload(quirky, str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert quirky.objects == {"/staging/k": file.read_bytes()}
    bodies = [r for r in server.received if r.header("content-md5")]
    assert bodies[-1].header("x-amz-checksum-crc64nvme") == ""


@pytest.mark.parametrize("more", [[], ["--no-overwrite"]], ids=["", "no-overwrite"])
def test_the_refusal_of_crc64nvme_is_found_once(more: list[str], tmp_path: Path):
    for number in range(400):
        (tmp_path / f"f{number}").write_bytes(SMALL)
    result, server = upload(
        Quirky(refuses_crc=(400, "InvalidArgument")),
        *(str(tmp_path), "-r", "--concurrency", "4", *more),
    )
    assert result.exit_code == 0, result.output
    puts = [r for r in server.received if r.head.startswith("PUT")]
    assert len(puts) <= 400 + 16


def test_an_endpoint_that_refuses_crc64nvme_and_conditions_gets_neither(file: Path):
    quirky = Quirky(refuses_crc=(501, "NotImplemented"), refuses_conditions=True)
    result, _ = upload(quirky, str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert quirky.objects == {"/staging/k": file.read_bytes()}


def test_no_checksum_is_sent_that_the_variable_calls_off(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    result, server = upload(Quirky(), str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert not any("crc64nvme" in r.head.lower() for r in server.received)


@pytest.mark.parametrize("etag", ["CKih16GjycICEAE=", "0f343b0931126a20f133d67c2b018a3b-2"])
@pytest.mark.parametrize("part_etag", ["opaque", None])
def test_an_etag_that_is_no_md5_proves_neither_the_file_nor_anything_else(
    etag: str, part_etag: str | None, file: Path
):
    if part_etag is None and file.stat().st_size < LARGE:
        pytest.skip("its own ETag is an MD5")
    result, _ = upload(Quirky(etag=etag, part_etag=part_etag), str(file), "--key", "k", "--json")
    assert result.exit_code == 0, result.output
    assert result.output.count("can't be verified by this endpoint") == 1
    assert "something other" not in result.output
    # What is told as its checksum is what was proven.
    uploaded = next(
        r for r in map(json.loads, result.stdout.splitlines()) if r["type"] == "uploaded"
    )
    assert (uploaded["type"], uploaded["checksum"]) == ("uploaded", None)


def test_what_is_proven_by_its_md5_has_its_checksum(file: Path):
    result, _ = upload(Quirky(), str(file), "--key", "k", "--json")
    assert json.loads(result.stdout.splitlines()[0])["checksum"] is not None


def test_the_etag_of_what_is_encrypted_by_kms_is_no_md5(file: Path):
    quirky = Quirky(part_etag="0" * 32, encrypts=True)
    result, _ = upload(quirky, str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert "can't be verified" in result.stderr


def test_what_arrives_shorter_is_something_else_whatever_the_etag(file: Path):
    result, _ = upload(Quirky(part_etag="opaque", etag="opaque", loses=1), str(file), "--key", "k")
    assert result.exit_code == 3
    assert "stored something other than" in result.output


def test_no_overwrite_looks_first_where_conditions_may_be_ignored(file: Path):
    quirky = Quirky(ignores_conditions=True)
    quirky.objects["/staging/k"], quirky.tags["/staging/k"] = b"theirs", 'ETag: "e"'
    result, _ = upload(quirky, str(file), "--key", "k", "--no-overwrite")
    assert result.exit_code == 3
    assert quirky.objects["/staging/k"] == b"theirs"


def test_no_overwrite_says_that_the_gap_is_not_guarded(file: Path):
    result, _ = upload(Quirky(ignores_conditions=True), str(file), "--key", "k", "--no-overwrite")
    assert result.exit_code == 0
    assert "may ignore If-None-Match" in result.stderr


NO_PARTS = [(403, "AccessDenied"), (501, "NotImplemented"), (405, "MethodNotAllowed")]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(LARGE))
    return path


def aborts(server: ScriptedServer) -> int:
    return sum(received.head.startswith("DELETE") for received in server.received)


@pytest.mark.parametrize("refusal", NO_PARTS)
def test_where_parts_are_not_listed_nothing_is_promised_and_nothing_left(
    refusal: tuple[int, str], large: Path, tmp_path: Path
):
    (tmp_path / "second").write_bytes(os.urandom(LARGE))
    quirky = Quirky(refuses_parts=refusal, refuses_part=2)
    result, server = upload(quirky, str(tmp_path), "-r", "--concurrency", "2")
    assert result.exit_code == 3
    assert result.stderr.count("does not list the parts of uploads here") == 1
    assert "goes on" not in result.output
    assert aborts(server) == 2


@pytest.mark.parametrize("refusal", NO_PARTS)
def test_what_an_earlier_run_left_stays_while_a_permission_may_come_back(
    refusal: tuple[int, str], large: Path
):
    quirky = Quirky(refuses_part=3)
    with serving(quirky) as server:
        command = ["--endpoint-url", server.url, "upload", str(large), "--key", "k"]
        first = CliRunner().invoke(cli, command)
        assert "the same command goes on" in first.output
        quirky.refuses_part, quirky.refuses_parts = 0, refusal
        second = CliRunner().invoke(cli, command)
        if refusal[0] != 403:
            # It never will list them.
            assert second.exit_code == 0, second.output
            assert aborts(server) == 1
            assert quirky.objects["/staging/k"] == large.read_bytes()
            return
        assert second.exit_code != 0
        assert "s3:ListMultipartUploadParts" in second.output
        assert aborts(server) == 0
        quirky.refuses_parts = None
        assert CliRunner().invoke(cli, command).exit_code == 0
    assert quirky.objects["/staging/k"] == large.read_bytes()


def test_an_upload_of_nobody_knows_whom_is_named_with_its_bytes_and_left(large: Path):
    quirky = Quirky(lies_there="THEIRS", parts={1: b"x" * 5_000_000})
    result, server = upload(quirky, str(large), "--key", "k")
    assert result.exit_code == 0, result.output
    assert "An incomplete upload of k with 4.8 MiB lies there since 2026-11-29 08:00Z (THEIRS)" in (
        " ".join(result.stderr.split())
    )
    assert "sts:GetCallerIdentity" in result.stderr
    assert aborts(server) == 0


def test_a_completed_upload_of_which_nothing_is_told_was_not_something_else(large: Path):
    quirky = Quirky(tells_nothing=True)
    result, _ = upload(quirky, str(large), "--key", "k", "--json")
    assert result.exit_code == 0, result.output
    assert "can't be verified by this endpoint" in result.stderr
    assert json.loads(result.stdout.splitlines()[0])["checksum"] is None
    assert quirky.objects["/staging/k"] == large.read_bytes()
