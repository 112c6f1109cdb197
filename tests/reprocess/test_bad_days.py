"""The journal on bad days: each ends in words, changes nothing, and loses nothing that was done."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner, Result

from tests.conftest import put_into_moto
from tests.faults.hosts import fill, limit_files, obey_modes, small_disk, without_locks
from tests.faults.proxy import Asked, Fault, FaultProxy
from tests.upload.killing import wait_for
from twobuckets.cli import cli
from twobuckets.settings import state_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

# Programs of their own, on disks of their own, and waits for locks.
pytestmark = pytest.mark.slow

STAGING, ARCHIVE = "bad-days-staging", "bad-days-archive"
COUNT = 150


@pytest.fixture
def s3(
    empty_moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_credentials: None
) -> S3Client:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("STAGING", STAGING),
        ("ARCHIVE", ARCHIVE),
        ("ENDPOINT_URL", empty_moto_url),
    ):
        monkeypatch.setenv(f"TWOBUCKETS_{name}", value)
    s3 = boto3.client("s3", endpoint_url=empty_moto_url)
    for bucket in (STAGING, ARCHIVE):
        s3.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put_into_moto(ARCHIVE, (f"k{number:04}" for number in range(COUNT)))
    return s3


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Path]]:
    """A small disk on which the journals lie."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def mount(size_bytes: int) -> Path:
            folder = stack.enter_context(small_disk(tmp_path / "disk", size_bytes))
            monkeypatch.setenv("XDG_STATE_HOME", str(folder))
            return folder

        yield mount


class Ran:
    """What the program said and did; in a process of its own where `prepare` changes that first."""

    def __init__(self, *words: str, prepare: Callable[[], None] | None = None) -> None:
        command = ["reprocess", *words, "--json"]
        ran: Result | subprocess.CompletedProcess[str]
        if prepare is None:
            ran = CliRunner().invoke(cli, command)
            self.status = ran.exit_code
        else:
            ran = subprocess.run(
                [sys.executable, "-m", "twobuckets", *command],
                capture_output=True,
                text=True,
                preexec_fn=prepare,
                timeout=120,
                check=False,
            )
            self.status = ran.returncode
        self.stderr = ran.stderr
        assert "Traceback" not in ran.stderr, ran.stderr
        assert "bug" not in ran.stderr, ran.stderr
        self.records = [json.loads(line) for line in ran.stdout.splitlines()]

    def error(self) -> dict[str, Any]:
        """Return the one error that the program ended with."""
        said = [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]
        [error] = [line for line in said if line["type"] == "error"]
        assert (error["exit_code"], self.status) == (1, 1), self.stderr
        return error  # type: ignore[no-any-return]


def held(s3: S3Client, bucket: str) -> int:
    return sum(
        len(page.get("Versions", []))
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    )


def require_unchanged(s3: S3Client) -> None:
    assert (held(s3, STAGING), held(s3, ARCHIVE)) == (0, COUNT)


def journals() -> list[Path]:
    return sorted(state_directory(os.environ, "reprocess").glob("*.journal"))


def leave_unfinished(s3: S3Client) -> Path:
    """Agree to a run that can't go on: a batch job without a role."""
    ran = Ran("--prefix", "", "--batch", "--yes")
    assert ran.status == 2, ran.stderr
    [path] = journals()
    require_unchanged(s3)
    return path


def test_a_disk_that_is_full_while_the_plan_is_written(s3: S3Client, disk: Callable[[int], Path]):
    disk(56 * 1024)
    error = Ran("--prefix", "", "--yes").error()
    assert "there is no room left on its disk" in error["message"]
    assert "Nothing was changed" in error["hint"]
    require_unchanged(s3)
    # Half a plan is nothing to go on with, and only takes room.
    assert journals() == []


def test_a_limit_on_the_size_of_files(s3: S3Client):
    error = Ran("--prefix", "", "--yes", prepare=limit_files(40 * 1024)).error()
    assert "limit" in error["message"]
    require_unchanged(s3)
    assert Ran("--prefix", "", "--yes").status == 0
    assert (held(s3, STAGING), held(s3, ARCHIVE)) == (COUNT, COUNT)


def test_a_disk_that_becomes_full_in_the_middle_forgets_nothing_that_was_done(
    s3: S3Client, disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
):
    folder = disk(1024 * 1024)
    # S3 tells whole seconds, and what was archived within the second of its copy counts as newer.
    time.sleep(1.1)
    copies = 0

    def fill_in_the_middle(asked: Asked) -> None:
        nonlocal copies
        copies += asked.method == "PUT"
        if copies == 60:
            fill(folder)

    url = os.environ["TWOBUCKETS_ENDPOINT_URL"]
    with FaultProxy(rate=0, upstream=url, refuses=fill_in_the_middle) as proxy:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", proxy.url)
        ran = Ran("--prefix", "", "--yes")
        error = ran.error()
        assert "there is no room left on its disk" in error["message"]
        assert "nothing is lost" in error["hint"]
        assert held(s3, STAGING) >= 60
        (folder / "filler").unlink()
        before = held(s3, STAGING)
        copies = 1000
        again = Ran("--prefix", "", "--yes")
    assert again.status == 0, again.stderr
    assert "Going on with the run" in again.stderr
    assert again.records[-1]["done"] == COUNT
    # What was copied before is not copied twice.
    assert copies - 1000 <= COUNT - before
    assert (held(s3, STAGING), held(s3, ARCHIVE)) == (COUNT, COUNT)


def test_a_journal_that_another_program_keeps_locked(s3: S3Client):
    path = leave_unfinished(s3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for words in (("--prefix", ""), ("--resume",)):
        error = Ran(*words, "--yes").error()
        assert "another program keeps it locked" in error["message"]
        require_unchanged(s3)
    other.close()
    assert Ran("--resume", "--yes").records[-1]["done"] == COUNT


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_journal_that_may_not_be_written_to(s3: S3Client, which: str):
    path = leave_unfinished(s3)
    barred = path if which == "file" else path.parent
    mode = barred.stat().st_mode
    barred.chmod(0o444 if which == "file" else 0o555)
    for words in (("--prefix", ""), ("--resume",)):
        error = Ran(*words, "--yes", prepare=obey_modes).error()
        assert "it may not be written to" in error["message"]
        require_unchanged(s3)
    shown = Ran("--status", prepare=obey_modes)
    assert shown.status == 0, shown.stderr
    assert shown.records[-1]["planned"] == COUNT
    barred.chmod(mode)
    assert Ran("--resume", "--yes").records[-1]["done"] == COUNT


@pytest.mark.parametrize("call", ["flock", "fcntl"])
def test_a_folder_without_locks(s3: S3Client, call: str):
    error = Ran("--prefix", "", "--yes", prepare=without_locks(call)).error()
    assert "no locks" in error["message"]
    assert "a local disk" in error["hint"]
    require_unchanged(s3)


@pytest.mark.parametrize("at", [0, 4096])
def test_a_damaged_journal_is_said_and_only_a_new_plan_passes_over_it(s3: S3Client, at: int):
    path = leave_unfinished(s3)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xee" * 20_000)
    for words in (("--prefix", ""), ("--resume",), ("--status",)):
        error = Ran(*words, *(["--yes"] if words[0] != "--status" else [])).error()
        assert "it is damaged" in error["message"]
        assert "--restart" in error["hint"]
        require_unchanged(s3)
    ran = Ran("--prefix", "", "--yes", "--restart")
    assert ran.status == 0, ran.stderr
    assert "it is damaged" in ran.stderr
    assert (held(s3, STAGING), held(s3, ARCHIVE)) == (COUNT, COUNT)
    assert path.exists()


@pytest.mark.parametrize(("form", "which"), [(0, "an older"), (99, "a newer")])
def test_an_unfinished_journal_of_another_release_is_recognised(
    s3: S3Client, form: int, which: str
):
    path = leave_unfinished(s3)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {form}")
        # Of what may be otherwise there.
        db.execute("ALTER TABLE item RENAME COLUMN is_chosen TO was_chosen")
        db.execute("ALTER TABLE run RENAME COLUMN fingerprint TO finger")
    db.close()
    for words in (("--prefix", ""), ("k0001",), ("--resume",)):
        error = Ran(*words, "--yes").error()
        assert f"{which} release of twobuckets planned it" in error["message"]
        require_unchanged(s3)
    ran = Ran("k0001", "--yes", "--restart")
    assert (ran.status, which in ran.stderr) == (0, True), ran.stderr
    assert (held(s3, STAGING), held(s3, ARCHIVE)) == (1, COUNT)


def test_a_kill_forgets_little_of_what_was_done(s3: S3Client, monkeypatch: pytest.MonkeyPatch):
    """Whoever is killed every few seconds comes to an end all the same."""
    url = os.environ["TWOBUCKETS_ENDPOINT_URL"]
    copies: list[str] = []

    def watch(asked: Asked) -> None:
        if asked.method == "PUT":
            copies.append(asked.target)

    command = [*(sys.executable, "-m", "twobuckets", "reprocess"), "--prefix", "", "--yes"]
    slowly = FaultProxy(rate=1, faults=[Fault.DELAY], delay=0.1, upstream=url, refuses=watch)
    with slowly as proxy:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", proxy.url)
        running = subprocess.Popen([*command, "--concurrency", "3"])
        wait_for(lambda: len(copies) >= COUNT * 2 // 3, 100)
        running.kill()
        running.wait()
    [path] = journals()
    with sqlite3.connect(path) as db:
        ((done,),) = db.execute("SELECT count(*) FROM item WHERE state = 'done'")
    db.close()
    assert COUNT // 6 < done < COUNT
