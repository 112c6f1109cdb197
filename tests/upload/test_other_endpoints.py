"""Endpoints that refuse or ignore what AWS knows: what was done is told, and nothing else."""

from __future__ import annotations

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
def test_an_etag_that_is_no_md5_is_no_proof_of_something_else(etag: str, file: Path):
    result, _ = upload(Quirky(etag=etag, part_etag="opaque"), str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("can't be verified by this endpoint") == 1
    assert "something else" not in result.output


def test_the_etag_of_what_is_encrypted_by_kms_is_no_md5(file: Path):
    quirky = Quirky(part_etag="0" * 32, encrypts=True)
    result, _ = upload(quirky, str(file), "--key", "k")
    assert result.exit_code == 0, result.output
    assert "can't be verified" in result.stderr


def test_what_arrives_shorter_is_something_else_whatever_the_etag(file: Path):
    result, _ = upload(Quirky(part_etag="opaque", etag="opaque", loses=1), str(file), "--key", "k")
    assert result.exit_code == 3
    assert "stored something else" in result.output


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
