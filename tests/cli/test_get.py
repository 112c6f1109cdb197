"""`get` writes a file whole or not at all, under the name that it was told."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tests.cli.test_cat import BYTES, STAGING, pair, s3, s3_that_breaks
from tests.s3.scripted import serving
from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

__all__ = ["pair", "s3"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def get(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["get", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


def test_a_file_has_the_name_that_is_told_and_none_made_of_the_key(s3: S3Client, folder: Path):
    s3.put_object(Bucket=STAGING, Key="../../.bashrc", Body=BYTES)
    told = get("../../.bashrc", "look.bin")
    assert told.stdout.startswith("look.bin: 1.2 MiB of ../../.bashrc")
    assert [path.name for path in folder.rglob("*")] == ["look.bin"]
    assert (folder / "look.bin").read_bytes() == BYTES
    (folder / "sub").mkdir()
    assert "is there already" in get("../../.bashrc", "sub", exit_code=2).stderr
    assert list((folder / "sub").iterdir()) == []
    assert "Missing argument 'FILE'" in get("../../.bashrc", exit_code=2).stderr


def test_what_is_there_is_replaced_only_when_asked_to(s3: S3Client, folder: Path):
    s3.put_object(Bucket=STAGING, Key="k", Body=b"new")
    (folder / "f").write_bytes(b"mine")
    assert "--overwrite" in get("k", "f", exit_code=2).stderr
    assert (folder / "f").read_bytes() == b"mine"
    get("k", "f", "--overwrite")
    assert (folder / "f").read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    breaks = s3_that_breaks(after=len(BYTES))

    def script(received):
        (folder / "f").write_bytes(b"mine")
        return breaks(received)

    with serving(script) as server:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", server.url)
        get("k", "f", exit_code=2)
    assert (folder / "f").read_bytes() == b"mine"
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_where_there_are_no_hard_links_a_file_is_written_whole_and_replaces_nothing(
    s3: S3Client, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    s3.put_object(Bucket=STAGING, Key="k", Body=BYTES)
    get("k", "f")
    assert (folder / "f").read_bytes() == BYTES
    assert "is there already" in get("k", "f", exit_code=2).stderr

    def appear(*names: object) -> None:
        (folder / "g").write_bytes(b"mine")
        refuse()

    monkeypatch.setattr(os, "link", appear)
    assert "is there already" in get("k", "g", exit_code=2).stderr
    assert (folder / "g").read_bytes() == b"mine"
    assert sorted(path.name for path in folder.iterdir()) == ["f", "g"]


def test_what_breaks_off_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "f").write_bytes(b"mine")
    with serving(s3_that_breaks(after=0)) as server:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", server.url)
        get("k", "f", "--overwrite", exit_code=1)
    assert (folder / "f").read_bytes() == b"mine"
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_folder_that_is_not_there_is_named(s3: S3Client):
    s3.put_object(Bucket=STAGING, Key="k", Body=b"x")
    assert "Could not write absent/f: No such file" in get("k", "absent/f", exit_code=1).stderr
