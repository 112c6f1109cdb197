"""The root command: help, global options, errors and exit statuses, as a shell sees them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import twobuckets
from tests import docs
from twobuckets.cli import COMMANDS, Command, cli
from twobuckets.records import json_line


def run(*arguments: str):
    return CliRunner().invoke(cli, arguments, prog_name="twobuckets")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_explains_itself(name: str):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: twobuckets {name}")
    command = getattr(importlib.import_module(f"twobuckets.cli.commands.{name}"), name)
    assert isinstance(command, Command | click.Group)
    assert command.help


@pytest.mark.parametrize("path", docs.command_paths()[1:], ids=" ".join)
def test_every_commands_help_says_where_the_global_options_are(path):
    assert "--stack, --json, ...): see `twobuckets --help`" in run(*path, "-h").stdout


def test_help_imports_neither_boto3_nor_rich_nor_any_command():
    script = (
        "import sys; from twobuckets.cli import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('boto3', 'botocore', 'rich')\n"
        "      or m.startswith('twobuckets.')), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(result.stderr.split("['")[1].rstrip("']\n").split("', '"))
    assert not {m for m in loaded if not m.startswith("twobuckets.")}
    assert not {m for m in loaded if m.startswith("twobuckets.cli.")} - {
        "twobuckets.cli.app",
        "twobuckets.cli.output",
    }


def test_the_version_is_the_packages():
    assert run("--version").stdout == f"twobuckets, version {twobuckets.__version__}\n"
    module = subprocess.run(
        [sys.executable, "-m", "twobuckets", "--version"], capture_output=True, text=True
    )
    assert module.stdout == f"twobuckets, version {twobuckets.__version__}\n"


def test_elsewhere_than_on_linux_and_macos_it_says_so_instead_of_failing_to_import():
    script = (
        "import os, sys; from twobuckets import cli; os.name = 'nt'\n"
        "sys.argv = ['twobuckets', 'upload', '--help']; cli.main()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "runs on Linux and macOS only" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_mistyped_command_is_usage_and_names_the_nearest():
    result = run("uplod")
    assert result.exit_code == 2
    assert "Did you mean 'upload'?" in result.stderr


def test_a_usage_error_is_json_when_json_was_asked_for():
    result = run("--json", "uplod")
    assert result.exit_code == 2
    error = json.loads(result.stderr)
    assert (error["type"], error["exit_code"]) == ("error", 2)


@pytest.mark.parametrize(
    "arguments", [("--stack", "a b", "ls", "staging"), ("ls", "staging", "--stack", "a b")]
)
def test_global_options_count_before_and_after_the_commands_name(arguments: tuple[str, ...]):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "flag --stack: stack is 'a b'" in result.stderr


def test_a_reader_that_has_seen_enough_is_no_failure():
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as stdout:
        ran = subprocess.run(
            [sys.executable, "-m", "twobuckets", "doctor", "--list-checks"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, "")


def test_a_full_disk_is_no_bug():
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "twobuckets", "doctor", "--list-checks"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: Could not write")
    assert len(ran.stderr.splitlines()) == 1


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_empty_folder")
def test_without_credentials_it_says_so_and_exits_5():
    result = run("--stack", "x", "--region", "eu-central-1", "ls", "staging")
    assert result.exit_code == 5, result.output
    assert "no AWS credentials were found" in result.stderr
    assert "--stack local" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("in_empty_folder", "fake_credentials")
def test_without_a_region_it_says_so_and_exits_2(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_REGION")
    result = run("--stack", "x", "ls", "staging")
    assert result.exit_code == 2, result.output
    assert "no AWS region is set" in result.stderr


@pytest.mark.usefixtures("in_empty_folder", "fake_credentials")
def test_with_nobody_at_the_endpoint_it_names_it_and_exits_1():
    result = run("--stack", "x", "--endpoint-url", "http://127.0.0.1:9", "ls", "staging")
    assert result.exit_code == 1, result.output
    assert "http://127.0.0.1:9" in result.stderr
    assert "Check the network" in result.stderr


@pytest.mark.usefixtures("in_empty_folder")
def test_an_unknown_profile_is_named():
    result = run("--profile", "nobody", "--stack", "x", "ls", "staging")
    assert result.exit_code == 2, result.output
    assert "nobody" in result.stderr


@pytest.mark.usefixtures("in_empty_folder", "fake_credentials")
def test_an_error_is_one_json_object_when_json_was_asked_for():
    result = run("--stack", "x", "--endpoint-url", "http://127.0.0.1:9", "--json", "ls", "staging")
    error = json.loads(result.stderr.splitlines()[-1])
    assert error["type"] == "error"
    assert error["exit_code"] == result.exit_code == 1
    assert "Check the network" in error["hint"]


@dataclass(frozen=True)
class SomeRecord:
    key: str
    size: int
    modified_at: datetime
    took: timedelta
    file: Path
    parts: tuple[int, ...] = (1, 2)


@given(st.text(st.characters()))
def test_a_json_line_is_one_line_of_ascii_that_holds_any_key_exactly(key: str):
    record = SomeRecord(
        key, 5, datetime(2026, 5, 4, tzinfo=UTC), timedelta(seconds=1.5), Path("/a/b")
    )
    line = json_line(record)
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {
        "type": "some-record",
        "key": key,
        "size": 5,
        "modified_at": "2026-05-04T00:00:00.000Z",
        "took": 1.5,
        "file": "/a/b",
        "parts": [1, 2],
    }
    assert line.startswith('{"type": "some-record"')
