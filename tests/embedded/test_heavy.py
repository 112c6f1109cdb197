"""Files that are too much for Lambda: jobs run the same code on them, and everything knows."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.embedded.conftest import empty
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from twobuckets.aws.clients import Aws

STAGING = "local-staging-000000000000-us-east-1"
ARCHIVE = "local-archive-000000000000-us-east-1"
MIB = 1024 * 1024
PROCESSOR = """
import os, time
from twobuckets.processor import File, Reject

def process(file: File) -> None:
    in_job = "AWS_BATCH_JOB_ID" in os.environ
    print("processing", file.key, "in a job" if in_job else "in Lambda", "attempt", file.attempt)
    assert len(file.read()) == file.size
    if "slow" in file.key:
        time.sleep(5)
    if "poison" in file.key:
        raise ValueError("no luck with " + file.key)
    if "never" in file.key:
        raise Reject("not a file of ours")
    if "dies" in file.key:
        os._exit(137)
"""
SETTINGS = """
[processor]
timeout = "4s"

[heavy]
image = "python:3.13-slim"
larger_than = "1MiB"
match = ["*.mp4"]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--stack", "local", *arguments])


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heavy")
    (folder / "processor.py").write_text(PROCESSOR)
    (folder / "twobuckets.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def deployed(embedded_clients: Aws, state_home: Path, home: Path) -> Iterator[Aws]:
    """A pipeline with jobs, for all tests of this module."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("XDG_STATE_HOME", str(state_home))
        here.chdir(home)
        result = run("deploy", "--yes")
        assert result.exit_code == 0, result.output
        yield embedded_clients
    empty(embedded_clients)


@pytest.fixture
def heavy(deployed: Aws, state_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))
    monkeypatch.chdir(home)
    return deployed


def archived(aws: Aws, key: str) -> bytes:
    return aws.s3.get_object(Bucket=ARCHIVE, Key=key)["Body"].read()


def test_large_and_matching_files_go_through_jobs_and_the_rest_through_lambda(
    heavy: Aws, home: Path
):
    bodies = {
        "small.txt": b"small",
        "at-the-limit.bin": os.urandom(MIB),
        "above-slow.bin": os.urandom(MIB + 1),
        "film.mp4": b"tiny",
    }
    (home / "files").mkdir()
    for name, body in bodies.items():
        (home / "files" / name).write_bytes(body)
    result = run("upload", "files", "-r", "--wait", "--json", "--timeout", "60s")
    assert result.exit_code == 0, result.output
    assert records(result)[-1]["outcomes"] == {"archived": 4}
    with_jobs = {r["key"] for r in records(result) if r.get("fate") == "submitted"}
    # A quick job can be over before its first line is read.
    assert {"above-slow.bin"} <= with_jobs <= {"above-slow.bin", "film.mp4"}
    for name, body in bodies.items():
        assert archived(heavy, name) == body
    assert lines_of("film.mp4") == ["processing film.mp4 in a job attempt 1"]
    assert lines_of("small.txt") == ["processing small.txt in Lambda attempt 1"]


def put(aws: Aws, key: str, body: bytes = b"x") -> str:
    """Put a file into staging without waiting, and return its version."""
    return aws.s3.put_object(Bucket=STAGING, Key=key, Body=body)["VersionId"]


def outcomes(key: str) -> list[tuple[str, bool]]:
    """Return what the log says of a key: each outcome, and whether it was a duplicate."""
    said = records(run("logs", "--since", "10m", "--key", key, "--json"))
    return [(r["outcome"], r["duplicate"]) for r in said if r["type"] == "outcome"]


def lines_of(key: str) -> list[str]:
    """Return what was printed where a key was processed."""
    said = records(run("logs", "--since", "10m", "--key", key, "--json"))
    return [r["message"] for r in said if r["type"] == "log-line"]


def wait_for(what: Callable[[], bool], seconds: float = 40) -> None:
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at
        time.sleep(0.2)


def stuck(*arguments: str) -> dict[str, dict[str, Any]]:
    """Return what doctor finds stuck, by its check."""
    said = records(run("doctor", "--check", "stuck", "--older-than", "1s", "--json", *arguments))
    return {r["check"]: r for r in said if r["type"] == "finding"}


def test_jobs_fail_as_invocations_do_and_what_kills_them_is_told(heavy: Aws, home: Path):
    for name in ("poison.mp4", "never.mp4", "dies.mp4"):
        (home / name).write_text(name)
    result = run("upload", "poison.mp4", "never.mp4", "--wait", "--json", "--timeout", "60s")
    assert result.exit_code == 3, result.output
    ends = {
        r["key"]: (r["fate"], r["attempts"])
        for r in records(result)
        if r["type"] == "fate" and r["is_final"]
    }
    assert ends == {"poison.mp4": ("failed", 3), "never.mp4": ("rejected", 1)}
    assert outcomes("poison.mp4") == [("submitted", False), *[("failed", False)] * 3]
    put(heavy, "dies.mp4")
    wait_for(lambda: "stuck-job" in stuck())
    found = stuck()
    assert found["stuck-job"]["examples"] == ["dies.mp4"]
    assert "Essential container in task exited" in found["stuck-job"]["error"]
    assert found["stuck-failed"]["error"].startswith("ValueError: no luck with")
    assert found["stuck-rejected"]["examples"] == ["never.mp4"]
    # EventBridge has noted both jobs that failed, the one that wrote no line among them.
    status = {r["type"]: r for r in records(run("status", "--json"))}
    assert status["failure-queue-status"]["waiting"] == 2
    assert status["job-queue-status"]["state"] == "ENABLED"
    for name in ("poison.mp4", "never.mp4", "dies.mp4"):
        heavy.s3.delete_object(Bucket=STAGING, Key=name)
    # What EventBridge noted is what the jobs were submitted with.
    redriven = run("redrive", "--yes", "--json")
    assert records(redriven)[-1]["moved"] == 2, redriven.output
    wait_for(lambda: outcomes("dies.mp4")[-1] == ("missing", False))


def test_one_job_has_a_version_whatever_else_arrives_and_a_newer_one_wins(heavy: Aws):
    first = put(heavy, "slow.mp4", b"older")
    wait_for(lambda: ("submitted", False) in outcomes("slow.mp4"))
    item = {"bucket": STAGING, "key": "slow.mp4", "version_id": first, "etag": None, "size": 5}
    for _ in range(2):
        heavy.functions.invoke(
            FunctionName="local-processor", Payload=json.dumps({"twobuckets": 1, "wake": [item]})
        )
    time.sleep(1.1)
    found = stuck()
    assert list(found) == ["job-running"]
    assert found["job-running"]["severity"] == "info"
    traced = records(run("trace", "slow.mp4", "--json"))
    assert [r["state"] for r in traced if "state" in r] == ["in-job"]
    assert outcomes("slow.mp4") == [("submitted", False), *[("submitted", True)] * 2]
    put(heavy, "slow.mp4", b"newer")
    gone = put(heavy, "slow-gone.mp4")
    wait_for(lambda: ("submitted", False) in outcomes("slow-gone.mp4"))
    heavy.s3.delete_object(Bucket=STAGING, Key="slow-gone.mp4", VersionId=gone)
    wait_for(lambda: ("missing", False) in outcomes("slow-gone.mp4"))
    wait_for(lambda: ("archived", False) in outcomes("slow.mp4"))
    assert ("superseded", False) in outcomes("slow.mp4")
    assert archived(heavy, "slow.mp4") == b"newer"
    assert len(heavy.s3.list_object_versions(Bucket=ARCHIVE, Prefix="slow")["Versions"]) == 1
    assert stuck() == {}


def test_a_job_survives_the_server_and_destroy_ends_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(home)
    try:
        assert run("deploy", "--yes").exit_code == 0
        (home / "slow.bin").write_bytes(os.urandom(MIB + 1))
        assert run("upload", "slow.bin").exit_code == 0
        wait_for(lambda: "in a job" in run("logs", "--since", "10m").output)
        assert run("local", "stop").exit_code == 0
        assert run("local", "start").exit_code == 0
        wait_for(lambda: ("archived", False) in outcomes("slow.bin"))
        assert run("upload", "slow.bin", "--key", "slow-again.bin").exit_code == 0
        wait_for(lambda: "slow-again.bin in a job" in run("logs", "--since", "10m").output)
        result = run("destroy", "--yes", "--delete-data")
        assert result.exit_code == 0, result.output
        assert "Ending 1 job" in result.output
    finally:
        run("local", "stop")
