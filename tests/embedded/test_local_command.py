"""`twobuckets local`: what a person and a script see of starting and stopping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from twobuckets import local
from twobuckets.cli import cli
from twobuckets.settings import local_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = local_state(os.environ)
    yield directory
    local.stop(directory)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["local", *arguments])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_start_status_and_stop_say_what_is_the_case(state_dir: Path):
    before = run("status")
    assert (before.exit_code, before.stdout.splitlines()[0]) == (4, "The embedded AWS is stopped")
    started = run("start")
    server = local.find_running(state_dir)
    assert server is not None
    assert started.exit_code == 0
    head = f"The embedded AWS runs at {server.endpoint_url} (process {server.pid})"
    assert started.stdout.splitlines()[0] == head
    assert run("status").stdout == started.stdout
    again = run("start")
    assert (again.stdout, again.stderr) == (started.stdout, "The embedded AWS runs already\n")
    assert server.secret_key not in started.output + again.output
    stopped = run("stop")
    assert (stopped.exit_code, stopped.stdout) == (0, before.stdout)
    assert run("stop").stderr == "The embedded AWS was not running\n"


def test_json_is_one_summary(state_dir: Path):
    (started,) = lines(run("start", "--json"))
    assert (started["type"], started["running"]) == ("summary", True)
    assert started["endpoint_url"].startswith("http://127.0.0.1:")
    (stopped,) = lines(run("--json", "stop"))
    assert (stopped["running"], stopped["pid"]) == (False, None)


ASK = """
import boto3, sys
print(boto3.client("sts").get_caller_identity()["Account"], *sys.argv[1:])
sys.exit(7)
"""


def test_exec_leads_a_program_to_the_embedded_aws_with_its_credentials(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # What would lead elsewhere or nowhere.
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    words = [sys.executable, "-m", "twobuckets", "local", "exec", sys.executable, "-c", ASK]
    done = subprocess.run(
        [*words, "--region", "x", "--json", "-h"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.split()[1:] == ["--region", "x", "--json", "-h"]
    assert local.find_running(state_dir) is not None


def test_exec_of_a_program_that_is_not_there_says_so():
    result = run("exec", "no-such-program", "s3", "ls")
    assert result.exit_code == 4
    assert "Could not run no-such-program" in result.stderr


def test_a_reset_asks_first(state_dir: Path):
    run("start")
    refused = run("stop", "--reset")
    assert refused.exit_code == 2
    assert local.find_running(state_dir) is not None
    assert run("stop", "--reset", "--yes").exit_code == 0
    assert not (state_dir / "root-key.json").exists()


def test_a_port_that_another_program_has_is_an_error_with_a_way_on(state_dir: Path):
    server = local.start(state_dir, environ=os.environ)
    other = CliRunner(env={"XDG_STATE_HOME": str(state_dir / "other")}).invoke(
        cli, ["local", "start", "--port", str(server.port)]
    )
    assert other.exit_code == 1
    assert other.stderr.splitlines() == [
        f"Error: Port {server.port} on 127.0.0.1 is taken by another program",
        "  Give another --port, or leave it out to take a free one",
    ]
