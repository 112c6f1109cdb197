"""Bad input: a clear word for that file, the others go on, and the status says so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from twobuckets.upload import parts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upload.conftest import Staging

MIB = 1024 * 1024


def test_one_bad_file_does_not_stop_the_others(staging: Staging, tmp_path: Path):
    (tmp_path / "good").write_text("good")
    (tmp_path / os.fsdecode(b"bad\xff")).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    ran = staging.upload(str(tmp_path), "-r", str(tmp_path / "missing"), "--json")
    assert ran.exit_code == 3
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert sorted(r["key"] for r in records if r["type"] == "uploaded") == ["empty", "good"]
    assert len([r for r in records if r["type"] == "failed"]) == 3
    assert records[-1]["failed"] == 3
    assert sorted(staging.keys()) == ["empty", "good"]


def test_a_list_of_failures_can_be_fed_back(staging: Staging, tmp_path: Path):
    (tmp_path / "good").write_text("good")
    late = tmp_path / "late ü name"
    listed = tmp_path / "failed.jsonl"
    ran = staging.upload(
        str(tmp_path / "good"), str(late), "--prefix", "in/", "--failed-to", str(listed)
    )
    assert ran.exit_code == 3
    late.write_text("now it is there")
    again = staging.upload("--from-file", str(listed), "--failed-to", str(listed))
    assert again.exit_code == 0, again.output
    assert sorted(staging.keys()) == ["in/good", "in/late ü name"]
    assert listed.read_text() == ""


def test_a_list_may_be_plain_paths(staging: Staging, tmp_path: Path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "list").write_text(f"{tmp_path / 'a'}\n\n{tmp_path / 'missing'}\n")
    ran = staging.upload("--from-file", str(tmp_path / "list"))
    assert ran.exit_code == 3
    assert staging.keys() == ["a"]


@pytest.mark.parametrize("from_stdin", [False, True])
def test_what_cannot_be_meant_in_a_list_fails_alone(
    staging: Staging, tmp_path: Path, from_stdin: bool
):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "z", os.fsdecode(b"bad\xff")):
        (folder / name).write_text(name[0])
    entry = {"type": "failed", "path": "-", "key": "stream"}
    lines = [
        *(os.fsencode(folder / "a"), os.fsencode(folder), b"-", json.dumps(entry).encode()),
        *(os.fsencode(folder / os.fsdecode(b"bad\xff")), b"no\0path", b'{"type": "failed"}'),
        *(json.dumps({**entry, "path": "\ud800"}).encode(), os.fsencode(folder / "z")),
    ]
    content = b"\n".join(lines) + b"\n"
    (tmp_path / "list").write_bytes(content)
    name = "-" if from_stdin else str(tmp_path / "list")
    ran = staging.upload("--from-file", name, "--json", stdin=content)
    assert ran.exit_code == 3, ran.output
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    failed = [record["path"] for record in records if record["type"] == "failed"]
    assert failed == [
        *(str(folder), "-", "-", str(folder / os.fsdecode(b"bad\xff")), "no\0path", "\ud800")
    ]
    assert "it is a folder" in ran.stdout
    assert sorted(staging.keys()) == ["a", "z"]


def test_two_files_of_a_list_never_share_a_key(staging: Staging, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text(name)
    (tmp_path / "list").write_text(f"{tmp_path / 'a' / 'x.csv'}\n{tmp_path / 'b' / 'x.csv'}\n")
    for more in (("--dry-run",), ()):
        ran = staging.upload("--from-file", str(tmp_path / "list"), *more)
        assert ran.exit_code == 3, ran.output
        assert "same key" in ran.stdout
    assert staging.body("x.csv") == b"a"


def test_a_sparse_file_arrives_with_its_holes(staging: Staging, tmp_path: Path):
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(18 * MIB)
        stream.seek(17 * MIB)
        stream.write(b"end")
    assert staging.upload(str(tmp_path / "sparse")).exit_code == 0
    assert staging.body("sparse") == (tmp_path / "sparse").read_bytes()


@pytest.mark.parametrize("size", ["1", "4MiB", "6GiB"])
def test_a_part_size_outside_s3s_limits_is_a_usage_error(
    staging: Staging, tmp_path: Path, size: str
):
    (tmp_path / "f").write_text("x")
    ran = staging.upload(str(tmp_path / "f"), "--part-size", size)
    assert ran.exit_code == 2
    assert "from 5 MiB to 5 GiB" in ran.stderr


def test_a_wish_for_50_000_parts_fails_for_that_file(staging: Staging, tmp_path: Path):
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(50_000 * parts.LEAST_PART_BYTES)
    (tmp_path / "small").write_text("x")
    ran = staging.upload(str(tmp_path), "-r", "--part-size", "5MiB")
    assert ran.exit_code == 3
    assert "50,000 parts" in ran.stdout
    assert "--part-size 25MiB" in ran.stdout
    assert staging.keys() == ["small"]


def test_without_a_place_for_its_journal_an_upload_still_works(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "state").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "big").write_bytes(os.urandom(17 * MIB))
    ran = staging.upload(str(tmp_path / "big"))
    assert ran.exit_code == 0, ran.output
    assert "can't be remembered" in ran.stderr
    assert staging.body("big") == (tmp_path / "big").read_bytes()


def test_a_full_disk_costs_the_journal_and_not_the_upload(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state = tmp_path / "state"
    (state / "twobuckets" / "uploads").mkdir(parents=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    (tmp_path / "big").write_bytes(os.urandom(17 * MIB))
    real = os.pwrite

    def full(fd: int, content: bytes, offset: int) -> int:
        if str(state) in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        return real(fd, content, offset)

    # The disk is the operating system's: nothing of ours is replaced.
    monkeypatch.setattr(os, "pwrite", full)
    ran = staging.upload(str(tmp_path / "big"))
    assert ran.exit_code == 0, ran.output
    assert "No space left" in ran.stderr
    assert staging.keys() == ["big"]


def test_a_bucket_that_is_not_there_ends_the_run(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_STAGING", "there-is-no-such-bucket")
    for name, size in (("small", 5), ("large", 17 * MIB)):
        (tmp_path / name).write_bytes(b"x" * size)
        ran = staging.upload(str(tmp_path / name))
        assert ran.exit_code == 4, ran.output
        assert "there-is-no-such-bucket" in ran.stderr
        assert "Traceback" not in ran.output


def test_nothing_to_upload_is_a_usage_error(staging: Staging):
    ran = staging.upload()
    assert ran.exit_code == 2
    assert "No files to upload" in ran.stderr


def test_names_with_control_characters_move_no_cursor(staging: Staging, tmp_path: Path):
    name = "a\x1b[31m\u202e[b]x"
    (tmp_path / name).write_text("x")
    ran = staging.upload(str(tmp_path / name))
    assert ran.exit_code == 0, ran.output
    assert "\x1b" not in ran.stdout
    assert len(ran.stdout.splitlines()) == 2
    assert staging.keys() == [name]


@pytest.mark.usefixtures("bound_by_permissions")
def test_a_file_without_permission_fails_alone(staging: Staging, tmp_path: Path):
    (tmp_path / "closed").write_text("x")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "open").write_text("x")
    ran = staging.upload(str(tmp_path), "-r")
    assert ran.exit_code == 3
    assert "permission denied" in ran.stdout
    assert staging.keys() == ["open"]
