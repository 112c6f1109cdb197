"""What a person at a terminal sees of an upload, and what a pipe gets."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.terminal import Terminal, at_terminal
from tests.upload.conftest import Staging, s3_url, staging
from twobuckets.errors import UsageError
from twobuckets.upload.census import Census
from twobuckets.upload.files import STDIN, Failed, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["at_terminal", "s3_url", "staging"]

KIB = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty files of 20 KiB."""
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02}.bin").write_bytes(b"x" * 20 * KIB)
    return tmp_path / "in"


def test_progress_tells_files_and_bytes_of_all_there_are_and_the_time_left(
    staging: Staging, tmp_path: Path, at_terminal: Callable[..., Terminal]
):
    for number in range(12):
        (tmp_path / f"{number:02}.bin").write_bytes(b"x" * 500 * KIB)
    slowly = ("--concurrency", "1", "--bandwidth-limit", "3MiB")
    terminal = at_terminal("upload", str(tmp_path), "-r", *slowly)
    assert terminal.end() == 0, terminal.text
    counts = [int(n) for n in re.findall(r"(\d+)/12 files", terminal.text)]
    assert counts == sorted(counts)
    assert min(counts) < 6, "the bar must not be full from the beginning"
    told = r"\d/12 files [\d.]+ [KM]iB of 5\.9 MiB [\d.]+ [KM]iB/s [\d.ms]+ left"
    assert re.search(told, terminal.text), terminal.text
    # Once the total is known no other is told.
    assert set(re.findall(r" of ([\d.]+ \w+)", terminal.text)) == {"5.9 MiB"}
    assert ".bin" not in terminal.text
    assert terminal.text.rstrip().splitlines()[-1].startswith("12 files, 5.9 MiB in ")
    assert max(len(line) for line in terminal.text.splitlines()) <= 80


def test_each_file_has_a_line_where_that_is_asked_for_or_there_are_few(
    staging: Staging, folder: Path, at_terminal: Callable[..., Terminal]
):
    asked = at_terminal("upload", str(folder), "-r", "-v")
    asked.end()
    assert len(re.findall(r"uploaded  \S+\.bin", asked.text)) == 40
    few = at_terminal("upload", str(folder / "00.bin"))
    few.end()
    assert len(re.findall(r"uploaded  \S+\.bin", few.text)) == 1


def test_quiet_says_only_what_failed(
    staging: Staging, folder: Path, at_terminal: Callable[..., Terminal]
):
    well = at_terminal("upload", str(folder), "-r", "--quiet")
    assert (well.end(), well.text) == (0, "")
    assert len(staging.keys()) == 40
    ran = staging.upload(str(folder / "00.bin"), str(folder / "absent"), "-q", "--prefix", "new/")
    assert ran.exit_code == 3
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["failed", "1"]
    assert ran.stderr == ""


def test_a_pipe_gets_a_line_for_each_file_whatever_the_terminal_shows(
    staging: Staging, folder: Path, tmp_path: Path, at_terminal: Callable[..., Terminal]
):
    with (tmp_path / "out").open("wb") as out:
        terminal = at_terminal("upload", str(folder), "-r", stdout=out.fileno())
        assert terminal.end() == 0
    assert (tmp_path / "out").read_text().count("uploaded  ") == 40


def test_a_census_is_complete_only_when_everything_was_seen_and_has_a_size():
    seen: list[File | Failed] = [File("a", "a", 3), Failed("b", "b", "no"), File("c", "c", 4)]
    assert count(iter(seen)) == (3, 7, True)
    assert count(iter([*seen, File(STDIN, "d", 0)]))[2] is False

    def fails() -> Iterator[File | Failed]:
        yield seen[0]
        raise UsageError("no")

    assert count(fails()) == (1, 3, False)


def test_a_census_ends_with_the_upload():
    def endless() -> Iterator[File | Failed]:
        while True:
            yield File("a", "a", 1)

    with Census(endless()) as census:
        time.sleep(0.01)
    assert not census.is_complete


def count(files: Iterator[File | Failed]) -> tuple[int, int, bool]:
    with Census(files) as census:
        deadline = time.monotonic() + 10
        while census._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
    return census.files, census.size_bytes, census.is_complete


def test_names_that_look_the_same_are_warned_of_once(staging: Staging, tmp_path: Path):
    for number in range(7):
        for name in (f"caf\u00e9{number}", f"cafe\u0301{number}"):
            (tmp_path / name).write_bytes(b"x")
    result = staging.upload(str(tmp_path), "-r")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("(NFC) and decomposed (NFD)") == 5
    assert result.stderr.count("this is the last one named") == 1
    keys = {f"caf{letter}{n}" for letter in ("\u00e9", "e\u0301") for n in range(7)}
    assert keys == set(staging.keys())
