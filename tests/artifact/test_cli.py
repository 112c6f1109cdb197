"""`init` and `build` as a person or a script meets them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace
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


def test_init_writes_a_project_that_builds_at_once(run, tmp_path, monkeypatch):
    result = run("init", "demo")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "wrote demo/twobuckets.toml\nwrote demo/processor.py\n"
    assert "cd demo" in result.stderr
    assert "twobuckets --stack local deploy" in result.stderr
    monkeypatch.chdir(tmp_path / "demo")
    built = run("build")
    assert built.exit_code == 0, built.stderr
    folder = tmp_path / "demo" / ".twobuckets"
    assert {file.name for file in folder.iterdir()} == {"processor.zip", ".gitignore"}
    assert (folder / ".gitignore").read_text() == "*\n"


def test_the_new_settings_are_valid_and_so_is_every_line_commented_out(run, tmp_path):
    run("init", "demo")
    file = tmp_path / "demo" / "twobuckets.toml"
    loaded = settings.load({}, {}, tmp_path / "demo")
    assert (loaded.stack, loaded.process) == ("demo", "processor:process")
    text = file.read_text()
    uncommented = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in text.splitlines()
    ]
    assert len(tomllib.loads("\n".join(uncommented))) > len(tomllib.loads(text))
    file.write_text("\n".join(uncommented))
    assert settings.load({}, {}, tmp_path / "demo").memory_mb == 512


@pytest.mark.parametrize(
    ("folder", "stack"), [("Order Intake", "order-intake"), ("local", "intake"), ("7", "intake")]
)
def test_the_stack_gets_the_folders_name_where_it_can_be_one(run, tmp_path, folder, stack):
    assert run("init", folder).exit_code == 0
    assert settings.load({}, {}, tmp_path / folder).stack == stack


def test_the_new_processor_counts_and_hashes_without_holding_the_file(run, tmp_path, caplog):
    run("init")
    spec = importlib.util.spec_from_file_location("processor", tmp_path / "processor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content = b"line\n" * 500_000
    reads: list[int] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reads.append(size if size is not None else -1)
            return super().read(size)

    file = SimpleNamespace(key="a/b.csv", size=len(content), open=lambda: Stream(content))
    with caplog.at_level(logging.INFO):
        module.process(file)
    assert 0 < max(reads) <= 1024 * 1024
    assert min(reads) > 0
    digest = hashlib.sha256(content).hexdigest()
    assert f"a/b.csv: 2500000 bytes, 500000 lines, SHA-256 {digest}" in caplog.text


@pytest.mark.parametrize("name", ["twobuckets.toml", "processor.py"])
def test_init_overwrites_nothing_and_then_writes_nothing(run, tmp_path, name):
    (tmp_path / name).write_text("mine")
    result = run("init")
    assert result.exit_code == 2
    assert f"{name} is there already" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_init_does_not_write_through_a_link_that_leads_nowhere(run, tmp_path):
    (tmp_path / "processor.py").symlink_to(tmp_path / "elsewhere.py")
    assert run("init").exit_code == 2
    assert not (tmp_path / "elsewhere.py").exists()


def test_init_where_a_file_is_says_so(run, tmp_path):
    (tmp_path / "taken").touch()
    result = run("init", "taken", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)
    assert error["type"] == "error"
    assert "Could not start a project in taken" in error["message"]


def test_init_as_json_is_one_object_a_file_and_a_summary(run):
    found = objects(run("init", "demo", "--json"))
    assert [one["type"] for one in found] == ["written-file", "written-file", "summary"]
    assert found[-1] == {"type": "summary", "files": 2}


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
    assert lines[4].endswith("  twobuckets")


def test_build_as_json_is_the_artifact_and_a_summary(run):
    run("init")
    built, summary = objects(run("build", "--json"))
    assert built["type"] == "artifact"
    assert len(built["sha256"]) == 64
    assert {content["path"] for content in built["contents"]} == {"twobuckets", "processor.py"}
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
        names = {content["path"] for content in built["contents"]}
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
    # uv leaves out the version.
    assert re.search(r"missing-thing(==1\.0)? has no wheel for python3\.13 on arm64", result.stderr)


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
