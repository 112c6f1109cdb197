"""`init` as a person or a script meets it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from twobuckets import settings
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
