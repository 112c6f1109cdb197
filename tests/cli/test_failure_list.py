"""`--failed-to FILE`: what it lists outlives the run, and never costs the list it is fed from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.faults.proxy import Asked, FaultProxy, Refusal, fault_proxy
from tests.upload.conftest import Staging, s3_url, staging
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

__all__ = ["fault_proxy", "s3_url", "staging"]


@dataclass(frozen=True)
class Run:
    """A command that can be fed a list: of three files, one is going to fail, the last to stall."""

    arguments: tuple[str, ...]
    staging: Staging
    entries: str

    def invoke(self, *more: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, [*self.arguments, *more], input=stdin)


@pytest.fixture(params=["upload", "reprocess"])
def run(
    request: pytest.FixtureRequest,
    staging: Staging,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Both commands, each with something to do."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    names = ("good", "bad", "stalled")
    arguments: tuple[str, ...]
    if request.param == "upload":
        for name in names:
            (tmp_path / name).write_text(name)
        lines = [{"type": "failed", "path": name, "key": name} for name in names]
        arguments = ("upload", "--json")
    else:
        archive = f"{staging.bucket}-archive"
        staging.s3.create_bucket(
            Bucket=archive, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        for bucket in (staging.bucket, archive):
            staging.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        for name in names:
            staging.s3.put_object(Bucket=archive, Key=name, Body=name.encode())
        lines = [{"type": "failure", "key": name} for name in names]
        arguments = ("reprocess", "--json", "--yes")
    return Run(arguments, staging, "".join(json.dumps(line) + "\n" for line in lines))


def refuse_bad(asked: Asked) -> Refusal | None:
    is_bad = asked.method == "PUT" and asked.target.endswith("/bad")
    return (400, "InvalidRequest", "This one is not liked.") if is_bad else None


def keys_in(listed: Path) -> list[str]:
    return [json.loads(line)["key"] for line in listed.read_text().splitlines()]


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait until something holds, or the process has ended; kill it if neither comes."""
    ends_at = time.monotonic() + 20
    while process.poll() is None and not condition():
        if time.monotonic() > ends_at:
            process.kill()
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["no-such-folder/failed", "folder"])
def test_a_list_that_cannot_be_written_is_said_before_anything_is_done(
    run: Run, tmp_path: Path, name: str
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "input").write_text(run.entries)
    ran = run.invoke("--from-file", "input", "--failed-to", name)
    assert ran.exit_code == 2, ran.output
    assert f"Could not write the list of failures {name}" in ran.stderr
    assert run.staging.keys() == []


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_keeps_its_input_and_what_failed_until_then(
    run: Run, tmp_path: Path, fault_proxy: Callable[..., FaultProxy], stop: signal.Signals
):
    listed, unfinished = tmp_path / "failed", tmp_path / "failed.unfinished"
    listed.write_text(run.entries)
    goes_on = threading.Event()

    def stall(asked: Asked) -> Refusal | None:
        if asked.method == "PUT" and asked.target.endswith("/stalled"):
            goes_on.wait(60)
        return refuse_bad(asked)

    fault_proxy(rate=0, refuses=stall)
    command = [sys.executable, "-m", "twobuckets", *run.arguments]
    command += ["--from-file", "failed", "--failed-to", "failed"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(process, lambda: unfinished.exists() and unfinished.stat().st_size)
        process.send_signal(stop)
        _, said = process.communicate(timeout=30)
    goes_on.set()
    assert process.returncode == (130 if stop is signal.SIGINT else -stop), said
    assert listed.read_text() == run.entries
    assert keys_in(unfinished) == ["bad"]
    assert ("failed.unfinished" in said) == (stop is signal.SIGINT)
    # The next run does not write over what is left, which may be its input as well.
    again = run.invoke("--from-file", "failed.unfinished", "--failed-to", "failed")
    assert again.exit_code == 3, again.output
    assert keys_in(unfinished) == ["bad"]
    assert keys_in(listed) == ["bad"]
    assert not (tmp_path / "failed.unfinished.2").exists()


def test_a_list_that_comes_through_a_pipe_can_be_replaced_as_well(
    run: Run, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    fault_proxy(rate=0, refuses=refuse_bad)
    listed = tmp_path / "failed"
    listed.write_text(run.entries)
    listed.chmod(0o600)
    (tmp_path / "link").symlink_to("failed")
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "twobuckets", *run.arguments]
    command += ["--from-file", "-", "--failed-to", "link"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=read_end, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(read_end)
        with os.fdopen(write_end, "w") as pipe:
            wait_for(process, (tmp_path / "failed.unfinished").exists)
            pipe.write(listed.read_text())
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert keys_in(listed) == ["bad"]
    assert (tmp_path / "link").is_symlink()
    assert listed.stat().st_mode & 0o777 == 0o600


def test_what_is_no_regular_file_is_written_to_and_not_replaced(
    run: Run, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    fault_proxy(rate=0, refuses=refuse_bad)
    (tmp_path / "input").write_text(run.entries)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    ran = run.invoke("--from-file", "input", "--failed-to", "pipe")
    assert ran.exit_code == 3, ran.output
    assert [json.loads(line)["key"] for line in os.read(reader, 65536).splitlines()] == ["bad"]
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
def test_a_list_that_can_no_longer_be_written_ends_the_run_and_says_so(
    run: Run, tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
):
    fault_proxy(rate=0, refuses=refuse_bad)
    (tmp_path / "input").write_text(run.entries)
    command = [sys.executable, "-m", "twobuckets", *run.arguments]
    command += ["--from-file", "input", "--failed-to", "/dev/full"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1, ran.stderr
    assert "list of failures /dev/full: No space left" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_rehearsal_leaves_the_list_alone(run: Run, tmp_path: Path):
    (tmp_path / "failed").write_text(run.entries)
    ran = run.invoke("--from-file", "failed", "--failed-to", "failed", "--dry-run")
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "failed").read_text() == run.entries
    assert not list(tmp_path.glob("failed.*"))
