"""`build` as a person or a script meets it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from twobuckets import artifact, settings
from twobuckets.cli import cli


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the program in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return invoke


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_build_says_sizes_and_what_takes_the_room(run, tmp_path):
    run("init", "--json")
    result = run("build", "--architecture", "x86_64")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"built {tmp_path}/.twobuckets/processor.zip for python3.13 on x86_64"
    zipped = (tmp_path / ".twobuckets" / "processor.zip").read_bytes()
    assert lines[1] == f"sha256    {hashlib.sha256(zipped).hexdigest()}"
    assert "of 50.0 MiB for a direct upload" in lines[2]
    assert "of 250.0 MiB in Lambda" in lines[3]
    assert any(line.endswith("  twobuckets") for line in lines[4:6])


def test_build_as_json_is_the_artifact_and_a_summary(run):
    run("init")
    built, summary = objects(run("build", "--json"))
    assert built["type"] == "artifact"
    assert len(built["sha256"]) == 64
    # Bytecode is there where this machine has a Python of the runtime's version.
    contents = {content["path"] for content in built["contents"]} - {"__pycache__"}
    assert contents == {"twobuckets", "processor.py"}
    assert summary["type"] == "summary"
    assert summary["zipped_bytes"] == built["zipped_bytes"]


def test_an_artifact_over_the_limit_of_a_direct_upload_is_built_and_said(run, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "processor.py").write_text("def process(file): pass\n")
    with (tmp_path / "src" / "model.bin").open("wb") as sparse:
        sparse.truncate(artifact.DIRECT_UPLOAD_LIMIT_BYTES + 1)
    result = run("build", "--source", "src")
    assert result.exit_code == 0, result.stderr
    assert "only from S3, which is how `twobuckets deploy` does it" in result.stderr


def test_paths_on_the_command_line_start_here_and_paths_in_the_file_start_there(
    run, tmp_path, monkeypatch
):
    run("init", "demo")
    (tmp_path / "demo" / "deep").mkdir()
    (tmp_path / "demo" / "deep" / "other.py").write_text("def run(file): pass\n")
    monkeypatch.chdir(tmp_path / "demo" / "deep")
    from_file, _ = objects(run("build", "--json"))
    assert "processor.py" in {content["path"] for content in from_file["contents"]}
    from_flag, _ = objects(
        run("build", "--source", "other.py", "--process", "other:run", "--out", "o.zip", "--json")
    )
    assert "other.py" in {content["path"] for content in from_flag["contents"]}
    assert from_flag["path"] == str(tmp_path / "demo" / "deep" / "o.zip")


def test_the_folder_of_the_settings_can_itself_be_the_source(run, tmp_path):
    run("init", "demo")
    file = tmp_path / "demo" / "twobuckets.toml"
    file.write_text(file.read_text().replace('source = "processor.py" ', 'source = "."'))
    for _ in range(2):
        built, _ = objects(run("build", "--config", str(file), "--json"))
        assert built["path"] == str(tmp_path / "demo" / ".twobuckets" / "processor.zip")
        names = {content["path"] for content in built["contents"]} - {"__pycache__"}
        assert names == {"twobuckets", "processor.py", "twobuckets.toml"}


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (None, 2, "processor.py does not exist"),
        ("def process(file:\n", 1, "processor.py, line 1: SyntaxError"),
        ("def run(file): pass\n", 1, "the module has run"),
    ],
)
def test_a_processor_that_can_not_be_built_is_an_error_with_a_hint(
    run, tmp_path, text, status, said
):
    if text is not None:
        (tmp_path / "processor.py").write_text(text)
    result = run("build", "--stack", "local", "--json")
    assert result.exit_code == status
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert said in error["message"]
    assert error["hint"]
    assert not (tmp_path / ".twobuckets" / "processor.zip").exists()


def test_an_impossible_architecture_on_the_command_line_is_a_usage_error(run):
    result = run("build", "--architecture", "riscv")
    assert result.exit_code == 2
    assert "one of arm64, x86_64" in result.stderr


def test_requirements_beside_the_settings_are_read_without_being_named(run, tmp_path):
    run("init")
    (tmp_path / "requirements.txt").write_text("--no-index\nmissing-thing==1.0\n")
    result = run("build")
    assert result.exit_code == 1
    assert "there is no package missing-thing on the index" in result.stderr


@pytest.mark.slow
def test_build_twice_by_the_real_program_gives_the_same_zip(tmp_path):
    digests = []
    for number, (umask, zone, seed) in enumerate([("022", "UTC", "0"), ("077", "Asia/Tokyo", "9")]):
        folder = tmp_path / str(number)
        environ = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed}
        script = (
            f'umask {umask}; "$0" -m twobuckets init "$1" && cd "$1" && "$0" -m twobuckets build'
        )
        subprocess.run(["sh", "-c", script, sys.executable, folder], env=environ, check=True)
        digests.append((folder / ".twobuckets" / "processor.zip").read_bytes())
    assert digests[0] == digests[1]


def test_what_was_built_is_current_until_its_source_changes(run, tmp_path):
    run("init")
    found = settings.load({}, {}, tmp_path)
    assert artifact.find_built(found) is None
    assert run("build").exit_code == 0
    built = artifact.find_built(found)
    assert built is not None
    assert built.is_current
    assert (
        built.sha256
        == hashlib.sha256((tmp_path / ".twobuckets/processor.zip").read_bytes()).hexdigest()
    )
    os.utime(tmp_path / "processor.py", (2_000_000_000, 2_000_000_000))
    assert artifact.find_built(found) == built
    (tmp_path / "processor.py").write_text("def process(file):\n    return 1\n")
    assert artifact.find_built(found) == artifact.LastBuilt(built.sha256, is_current=False)
    (tmp_path / "processor.py").unlink()
    assert artifact.find_built(found) == artifact.LastBuilt(built.sha256, is_current=False)
