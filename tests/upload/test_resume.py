"""An interrupted upload goes on from what S3 has; what is not ours is left alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.upload.killing import stored_parts, upload_and_kill, wait_for

if TYPE_CHECKING:
    from tests.faults.proxy import Asked
    from tests.upload.conftest import Staging

MIB = 1024 * 1024


def leave_parts(staging: Staging, path: Path, monkeypatch: pytest.MonkeyPatch, parts: int) -> str:
    """Upload a file while every part after some fails; return the id of what is left."""
    seen: set[str] = set()

    def later_part(asked: Asked) -> bool:
        if "partNumber" in asked.target:
            seen.add(asked.target)
        return "partNumber" in asked.target and len(seen) > parts

    with (
        FaultProxy(rate=1, faults=[Fault.CORRUPT], chooses=later_part) as proxy,
        monkeypatch.context() as patched,
    ):
        patched.setenv("http_proxy", proxy.url)
        ran = staging.upload(str(path), "--concurrency", "1")
    assert ran.exit_code == 3, ran.output
    [(_, upload_id)] = staging.uploads()
    return upload_id


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(37 * MIB))
    return path


@pytest.mark.slow
def test_an_upload_that_is_killed_again_and_again_sends_nothing_twice(
    staging: Staging, tmp_path: Path
):
    path = tmp_path / "killed.bin"
    path.write_bytes(os.urandom(160 * MIB))
    seen = upload_and_kill(
        staging,
        path,
        kills=12,
        bytes_per_second=40 * MIB,
        concurrency=4,
        part_bytes=5 * MIB,
    )
    assert seen.runs > 6


@pytest.mark.slow
def test_a_killed_upload_goes_on_where_it_was(staging: Staging, big: Path):
    seen = upload_and_kill(
        staging, big, kills=1, bytes_per_second=30 * MIB, concurrency=2, part_bytes=5 * MIB
    )
    assert seen.runs == 2


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_how_to_drop_it(staging: Staging, big: Path, tmp_path: Path):
    config = tmp_path / "prices.toml"
    config.write_text("prices.usd_per_gb_month = 999\n")
    with FaultProxy(rate=0, bytes_per_second=15 * MIB) as proxy:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "twobuckets", "upload", str(big), "--key", "in/a b.bin"),
                *("--part-size", "5MiB", "--concurrency", "2"),
            ],
            env={**os.environ, "http_proxy": proxy.url, "TWOBUCKETS_CONFIG": str(config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Two at a time: with a third one there, it has heard of the first.
        wait_for(lambda: len(stored_parts(staging)) >= 3, 20)
        running.send_signal(signal.SIGINT)
        said, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert told.strip() == "Interrupted: 0 files uploaded"
    assert "of 37.0 MiB are in S3" in said
    # It has heard of one part at least, of seven at most: a price of nearly a dollar a MiB.
    cost = re.search(r"Leaving it costs \$([0-9.]+) a month", said)
    assert cost is not None
    assert 4 < float(cost[1]) < 37
    assert max(len(line) for line in said.splitlines() if str(big) not in line) <= 80
    assert len(staging.uploads()) == 1
    # An upload of the same file under another key is not what the command drops.
    assert "No incomplete upload" in staging.upload("--discard", str(big)).stderr
    assert len(staging.uploads()) == 1
    program, command, *arguments = shlex.split(said.splitlines()[-1])
    assert (program, command) == ("twobuckets", "upload")
    rehearsed = staging.upload(*arguments, "--dry-run")
    assert "would drop" in rehearsed.stdout
    assert rehearsed.stdout.endswith("1 incomplete upload would be dropped\n")
    assert len(staging.uploads()) == 1
    # Whoever cleans up may have begun with the file.
    big.unlink()
    dropped = staging.upload(*arguments, "--json")
    assert dropped.exit_code == 0, dropped.output
    record, summary = map(json.loads, dropped.stdout.splitlines())
    assert (record["type"], record["key"]) == ("discarded", "in/a b.bin")
    assert summary == {"type": "summary", "found": 1, "dropped": 1, "failed": 0}
    assert staging.uploads() == []


def test_ctrl_c_while_it_waits_says_that_the_file_is_there_and_where_to_look(
    staging: Staging, tmp_path: Path
):
    (tmp_path / "a").write_bytes(b"a")
    running = subprocess.Popen(
        [sys.executable, "-m", "twobuckets", "upload", str(tmp_path / "a"), "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("uploaded")
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130
    assert said.strip().splitlines()[-2:] == [
        "Stopped waiting. 1 uploaded file is in S3 all the same; what comes of it:",
        "twobuckets logs --follow",
    ]


@pytest.mark.slow
def test_no_resume_keeps_nothing_when_interrupted(staging: Staging, big: Path):
    with FaultProxy(rate=0, bytes_per_second=15 * MIB) as proxy:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "twobuckets", "upload", str(big), "--no-resume"),
                *("--part-size", "5MiB", "--concurrency", "2"),
            ],
            env={**os.environ, "http_proxy": proxy.url},
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(stored_parts(staging)) >= 2, 20)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 130
    assert staging.uploads() == []


def test_a_failed_upload_goes_on_with_the_same_command(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch
):
    upload_id = leave_parts(staging, big, monkeypatch, parts=2)
    ran = staging.upload(str(big), "--json")
    assert ran.exit_code == 0, ran.output
    uploaded = json.loads(ran.stdout.splitlines()[0])
    assert uploaded["resumed_bytes"] == 16 * MIB
    assert staging.body("big.bin") == big.read_bytes()
    assert upload_id not in [found for _, found in staging.uploads()]


@pytest.mark.parametrize("more", [[], ["--no-overwrite"]])
def test_what_was_completed_when_the_last_run_was_killed_is_not_sent_again(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
):
    leave_parts(staging, big, monkeypatch, parts=2)
    state = Path(os.environ["XDG_STATE_HOME"])
    [entry] = [path for path in state.rglob("*") if path.is_file() and path.stat().st_size]
    remembered = entry.read_bytes()
    assert staging.upload(str(big)).exit_code == 0
    stored_at = staging.s3.head_object(Bucket=staging.bucket, Key="big.bin")["LastModified"]
    time.sleep(1.1)
    # As if the end had come before the journal could note that S3 has it all.
    entry.write_bytes(remembered)
    ran = staging.upload(str(big), "--json", *more)
    assert ran.exit_code == 0, ran.output
    uploaded = json.loads(ran.stdout.splitlines()[0])
    assert (uploaded["type"], uploaded["resumed_bytes"]) == ("uploaded", 37 * MIB)
    now = staging.s3.head_object(Bucket=staging.bucket, Key="big.bin")["LastModified"]
    assert now == stored_at
    # Another object of that size is another one.
    staging.s3.put_object(Bucket=staging.bucket, Key="big.bin", Body=os.urandom(37 * MIB))
    entry.write_bytes(remembered)
    assert staging.upload(str(big), *more).exit_code == (3 if more else 0)
    assert (staging.body("big.bin") == big.read_bytes()) is (not more)
    assert staging.uploads() == []


def test_restart_drops_what_was_left_and_begins_anew(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch
):
    leave_parts(staging, big, monkeypatch, parts=2)
    ran = staging.upload(str(big), "--restart", "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout.splitlines()[0])["resumed_bytes"] == 0
    assert staging.uploads() == []


def test_a_file_with_other_content_does_not_go_on_with_old_parts(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch
):
    leave_parts(staging, big, monkeypatch, parts=2)
    big.write_bytes(os.urandom(37 * MIB))
    ran = staging.upload(str(big), "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout.splitlines()[0])["resumed_bytes"] == 0
    assert staging.body("big.bin") == big.read_bytes()
    assert staging.uploads() == []


def test_a_file_of_another_size_drops_the_old_upload(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch
):
    old = leave_parts(staging, big, monkeypatch, parts=2)
    big.write_bytes(os.urandom(20 * MIB))
    assert staging.upload(str(big)).exit_code == 0
    assert staging.body("big.bin") == big.read_bytes()
    assert old not in [found for _, found in staging.uploads()]


def test_another_files_upload_of_the_same_key_is_left_alone(
    staging: Staging, big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upload_id = leave_parts(staging, big, monkeypatch, parts=2)
    before = stored_parts(staging)
    other = tmp_path / "other" / "big.bin"
    other.parent.mkdir()
    other.write_bytes(os.urandom(37 * MIB))
    ran = staging.upload(str(other), "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout.splitlines()[0])["resumed_bytes"] == 0
    assert staging.body("big.bin") == other.read_bytes()
    assert [found for _, found in staging.uploads()] == [upload_id]
    assert stored_parts(staging) == before


@pytest.mark.slow
def test_a_file_that_is_being_uploaded_is_not_uploaded_twice_at_once(staging: Staging, big: Path):
    with FaultProxy(rate=0, bytes_per_second=10 * MIB) as proxy:
        running = subprocess.Popen(
            [sys.executable, "-m", "twobuckets", "upload", str(big)],
            env={**os.environ, "http_proxy": proxy.url},
            stdout=subprocess.PIPE,
        )
        wait_for(lambda: bool(staging.uploads()), 20)
        second = staging.upload(str(big))
        running.communicate(timeout=60)
    assert second.exit_code == 3
    assert "another process is uploading it" in second.stdout
    assert running.returncode == 0
    assert staging.body("big.bin") == big.read_bytes()


def test_a_torn_journal_costs_nothing_but_the_memory_of_it(
    staging: Staging, big: Path, monkeypatch: pytest.MonkeyPatch
):
    leave_parts(staging, big, monkeypatch, parts=2)
    for entry in Path(os.environ["XDG_STATE_HOME"], "twobuckets", "uploads").glob("*.json"):
        entry.write_text(entry.read_text()[:40])
    assert staging.upload(str(big)).exit_code == 0
    assert staging.body("big.bin") == big.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["write", "append", "truncate", "replace", "remove"])
def test_a_file_that_changes_meanwhile_leaves_no_object(staging: Staging, big: Path, change: str):
    changed = threading.Event()

    def wait_for_change(asked: Asked) -> None:
        """Let the third part wait until the file is another one."""
        if "partNumber=3" in asked.target:
            assert changed.wait(60)

    with FaultProxy(rate=0, refuses=wait_for_change) as proxy:
        running = subprocess.Popen(
            [sys.executable, "-m", "twobuckets", "upload", str(big), "--concurrency", "1"],
            env={**os.environ, "http_proxy": proxy.url},
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(stored_parts(staging)) >= 2, 60)
        match change:
            case "write":
                with big.open("r+b") as stream:
                    stream.seek(100)
                    stream.write(b"changed")
            case "append":
                with big.open("ab") as end:
                    end.write(b"more")
            case "truncate":
                os.truncate(big, 10 * MIB)
            case "replace":
                fresh = big.with_suffix(".new")
                fresh.write_bytes(os.urandom(37 * MIB))
                fresh.replace(big)
            case "remove":
                big.unlink()
        changed.set()
        said, _ = running.communicate(timeout=60)
    assert running.returncode == 3, said
    assert "changed while it was being uploaded" in said
    assert staging.keys() == []
    assert staging.uploads() == []
