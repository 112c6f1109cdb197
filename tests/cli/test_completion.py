"""What shells complete, asked of the shells themselves where they are there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.upload.conftest import Staging, s3_url, staging
from twobuckets.cli import COMMANDS, cli, completing
from twobuckets.doctor import list_checks
from twobuckets.manual import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["s3_url", "staging"]

ASK = {
    # What the shell would put into the line, a line each.
    "bash": """
        eval "$(twobuckets completion bash)"
        COMP_LINE=$LINE COMP_POINT=${#LINE}
        eval "COMP_WORDS=($LINE)"; [[ $LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        compopt() { local IFS=" "; echo "option $*"; }
        _twobuckets_completion twobuckets
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "fish": """
        twobuckets completion fish | source
        complete -C $LINE | string split -f1 \\t
    """,
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program by its name on the PATH, run by this Python, in a folder with a file."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "twobuckets"
    script.write_text(f"#!{sys.executable}\nfrom twobuckets.cli import main\nmain()\n")
    script.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "report.csv").touch()
    monkeypatch.chdir(tmp_path / "folder")


def ask(shell: str, line: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    options = ["--norc", "-c"] if shell == "bash" else ["-c"]
    ran = subprocess.run(
        [shell, *options, ASK[shell]],
        env={**os.environ, "LINE": line},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def complete(*words: str) -> list[str]:
    """Ask as a shell does, without one."""
    ran = CliRunner().invoke(
        cli,
        env={
            "_TWOBUCKETS_COMPLETE": "bash_complete",
            "COMP_WORDS": "\n".join(["twobuckets", *words]),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert ran.exit_code == 0, ran.output
    return [line for line in ran.stdout.splitlines() if line]


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("shell", ASK)
def test_a_command_an_option_and_a_name_are_completed(shell: str):
    assert ask(shell, "twobuckets rep") == ["reprocess"]
    assert {"--recursive", "--resume", "--region"} <= {*ask(shell, "twobuckets upload --re")}
    assert "stuck" in " ".join(ask(shell, "twobuckets doctor --check stuck"))
    assert ask(shell, "twobuckets completion z") == ["zsh"]


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("line", ["upload ", "upload --from-file ", "--config "])
def test_files_are_left_to_the_shell(line: str):
    assert ask("bash", f"twobuckets {line}")[0] == "option -o default"
    assert ask("fish", f"twobuckets {line}r") == ["report.csv"]


@pytest.mark.usefixtures("program")
def test_keys_are_completed_up_to_the_next_slash_and_quoted(staging: Staging):
    for key in ("in/a b.csv", "in/c:d.csv", "other", "in/deep/er", "line\u0085end"):
        staging.s3.put_object(Bucket=staging.bucket, Key=key, Body=b"")
    assert ask("bash", "twobuckets ls staging --prefix i") == ["option -o nospace", "in/"]
    found = ask("bash", "twobuckets logs --key in/")
    assert found == ["option -o nospace", "in/deep/", "in/a\\ b.csv", "in/c:d.csv"]
    # bash has made a word of what follows the colon. No answer in time is an answer as well.
    answers = (ask("bash", "twobuckets logs --key in/c:d") for _ in range(5))
    assert next(filter(any, answers)) == ["d.csv"]


def test_names_are_completed_in_their_places(fake_credentials: None):
    assert complete("--region", "eu-central-") == ["plain,eu-central-1", "plain,eu-central-2"]
    assert complete("help", "") == [f"plain,{topic.topic}" for topic in TOPICS]
    checks = {line.removeprefix("plain,") for line in complete("doctor", "--check", "")}
    assert {check.name for check in list_checks()} <= checks
    assert complete("")[: len(COMMANDS)] == [f"plain,{name}" for name in COMMANDS]


def test_profiles_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config").write_text("[profile ops]\nregion=eu-central-1\n[profile dev]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert complete("--profile", "o") == ["plain,ops"]


@pytest.mark.parametrize("words", [("reprocess", "in/"), ("--stack", "x"), ("logs", "--key", "")])
def test_an_error_is_no_answer(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", "nonsense")
    assert complete(*words) == []


def test_the_embedded_aws_is_not_started_for_a_completion(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOBUCKETS_STACK", "local")
    assert complete("reprocess", "in/") == []
    state = json.loads(CliRunner().invoke(cli, ["local", "status", "--json"]).stdout)
    assert state["running"] is False


def test_who_does_not_answer_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completing, "PATIENCE_SECONDS", 0.2)

    def wait_long(_: completing.Question) -> Iterator[str]:
        time.sleep(5)
        yield "late"

    looks = completing._names(wait_long)
    started = time.monotonic()
    with cli.make_context("twobuckets", ["status"], obj=None, resilient_parsing=True) as context:
        assert looks(context, context.command.params[0], "") == []
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_in_its_shell(shell: str, tmp_path: Path):
    script = CliRunner().invoke(cli, ["completion", shell])
    assert script.exit_code == 0, script.output
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    (tmp_path / "script").write_text(script.stdout)
    checked = subprocess.run(
        [shell, "-n", str(tmp_path / "script")], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")
