"""`python -m twobuckets.processor`: the user's function on a local file, without AWS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processor.conftest import STAGING, Pipeline
from twobuckets.processor.__main__ import main

USER = """
from twobuckets.processor import File, Reject

def process(file: File) -> None:
    if file.size == 0:
        raise Reject("it is empty")
    with file.open() as stream:
        lines = sum(1 for _ in stream)
    assert file.text().count("\\n") == lines
    print(file.key, file.content_type, file.size, lines)
    if "bad" in file.key:
        raise ValueError("bad file")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "processor.py").write_text(USER)
    (tmp_path / "good.csv").write_text("a\nb\n")
    (tmp_path / "bad.csv").write_text("a\n")
    (tmp_path / "empty").write_text("")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twobuckets.processor", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_local_file_is_processed(folder: Path) -> None:
    done = run(folder, "processor.py:process", "good.csv")
    assert done.stdout == "good.csv text/csv 4 2\nprocessed good.csv\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_module_can_be_named_as_an_import(folder: Path) -> None:
    assert run(folder, "processor:process", "good.csv").returncode == 0


def test_a_failure_shows_its_trace_and_the_other_files_go_on(folder: Path) -> None:
    done = run(folder, "processor.py:process", "bad.csv", "empty", "missing", "good.csv")
    assert "failed bad.csv: ValueError: bad file" in done.stdout
    assert "rejected empty: it is empty" in done.stdout
    assert "failed missing: FileNotFoundError" in done.stdout
    assert "processed good.csv" in done.stdout
    assert "in process" in done.stderr
    assert done.returncode == 3


def test_an_interrupt_ends_it_and_the_next_file_is_not_begun(folder: Path) -> None:
    (folder / "slow.py").write_text("def process(file):\n    raise KeyboardInterrupt\n")
    done = run(folder, "slow.py:process", "good.csv", "bad.csv")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 130)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["processor.py:process"], "usage"),
        (["missing.py:process", "good.csv"], "there is no file 'missing.py'"),
        (["processor.py:other", "good.csv"], "has no function 'other'"),
        (["processor", "good.csv"], "module:function"),
    ],
)
def test_wrong_arguments_are_said(folder: Path, arguments: list[str], says: str) -> None:
    done = run(folder, *arguments)
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_a_profile_tells_what_a_run_takes_and_the_requests_that_s3_would_get(folder: Path) -> None:
    (folder / "big.csv").write_text("a;b\n" * 1_000_000)
    (folder / "burn.py").write_text(
        "def process(file):\n"
        "    with file.open() as stream:\n"
        "        stream.seek(-100, 2)\n"
        "        stream.read(10)\n"
        "    sum(range(5_000_000))\n"
    )
    done = run(folder, "--profile", "burn.py:process", "big.csv")
    assert (done.stderr, done.returncode) == ("", 0)
    processed, took, lambda_, memory, read = done.stdout.splitlines()
    assert processed == "processed big.csv"
    seconds, cpu = (float(part.split()[0]) for part in took.split("time")[1].split(","))
    assert 0.02 < cpu < 30
    assert seconds > 0
    at_512 = float(lambda_.partition(" s at 512 MB")[0].rpartition(" ")[2])
    assert at_512 == pytest.approx(cpu * 1769 / 512, abs=0.06)
    # Of this process with all the tests that ran in it before.
    assert float(memory.split()[1].replace(",", "")) > 10
    # The end of a file is one short request, not all of it.
    assert read.strip() == "read    100 bytes of 4,000,000 in 1 request"


def test_a_run_that_fails_is_profiled_as_well(folder: Path) -> None:
    done = run(folder, "--profile", "processor.py:process", "bad.csv")
    assert done.returncode == 3
    assert "failed bad.csv: ValueError: bad file" in done.stdout
    assert "bytes of 2 in" in done.stdout


def test_a_staged_object_is_read_from_s3_and_stays(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.upload("in/a b.csv", b"x" * 3_000_000)
    monkeypatch.setattr("boto3.client", lambda service: pipeline.s3)
    pipeline.process_with(lambda file: file.read())
    status = main(["--profile", "processor:process", f"s3://{STAGING}/in/a b.csv"])
    said = capsys.readouterr().out
    assert status == 0
    assert "3,000,000 bytes of 3,000,000 in" in said
    assert set(pipeline.staged()) == {"in/a b.csv"}
    assert main(["--profile", "processor:process", f"s3://{STAGING}/missing"]) == 3
    assert "there is no object 'missing'" in capsys.readouterr().out
