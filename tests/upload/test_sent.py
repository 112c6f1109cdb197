"""A command that is interrupted goes on: what was sent and is unchanged is not sent again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.hosts import fill, limit_files, obey_modes, small_disk, without_locks
from tests.faults.proxy import Asked, FaultProxy
from tests.upload.killing import wait_for
from twobuckets.settings import state_directory
from twobuckets.upload.files import File
from twobuckets.upload.sent import Sent, SentBefore, Stamp, open_sent, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.upload.conftest import Staging

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
COUNT = 100


@pytest.fixture
def folder(tmp_path: Path, staging: Staging) -> Path:
    """Small files below a folder, and state of its own."""
    folder = tmp_path / "files"
    for number in range(COUNT):
        path = folder / f"d{number % 7}" / f"ü{number:03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return folder


class Watching:
    """Counts the PUTs that pass on their way, and calls `then` with each number."""

    def __init__(self, then: Callable[[int], None] = lambda _: None) -> None:
        self.keys: list[str] = []
        self._then = then

    def __call__(self, asked: Asked) -> None:
        if asked.method == "PUT":
            self.keys.append(asked.target)
            self._then(len(self.keys))


@pytest.fixture
def through(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let what is uploaded from here on pass a watcher."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def watch(watching: Watching) -> None:
            stack.close()
            proxy = stack.enter_context(FaultProxy(rate=0, refuses=watching))
            for name in ("HTTP_PROXY", "http_proxy"):
                monkeypatch.setenv(name, proxy.url)
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)

        yield watch


def start(folder: Path, *words: str, prepare: Callable[[], None] | None = None) -> Any:
    command = [*(sys.executable, "-m", "twobuckets", "upload"), str(folder), "-r", "--json", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare
    )


def end(running: Any) -> tuple[dict[str, Any], list[str], str]:
    """Return the summary, the keys that were told to be uploaded, and stderr."""
    out, err = running.communicate(timeout=120)
    said = []
    for line in out.splitlines():
        if line.endswith(b"}"):
            said.append(json.loads(line))
    keys = [record["key"] for record in said if record["type"] == "uploaded"]
    summary = said[-1] if said and said[-1]["type"] == "summary" else {}
    assert b"Traceback" not in err, err.decode()
    return summary, keys, err.decode()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_folder_goes_on_where_it_was_interrupted(
    staging: Staging, folder: Path, through: Any, number: signal.Signals
):
    watching = Watching()
    through(watching)
    running = start(folder, "--concurrency", "4")
    wait_for(lambda: len(watching.keys) >= 75, 60)
    running.send_signal(number)
    _, first, _ = end(running)
    assert running.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    sent = len(staging.keys())
    assert 70 <= sent < COUNT
    # Time for what is still in the network, and for another moment.
    time.sleep(0.3)
    before = set(watching.keys)
    watching.keys.clear()
    running = start(folder, "--concurrency", "4")
    summary, _, err = end(running)
    assert running.returncode == 0, err
    assert summary["uploaded"] + summary["sent_before"] == COUNT
    assert summary["sent_before"] >= (len(first) if number == signal.SIGINT else 70 - 64)
    sent_now, before_that = summary["uploaded"], summary["sent_before"]
    assert f"Sent {sent_now} of {COUNT} files; {before_that} were sent before" in err
    # Only what was under way, or had just been heard of, goes twice.
    assert len(before & set(watching.keys)) <= 4 + 64
    assert len(staging.keys()) == COUNT
    # The same finished folder, sent again on purpose, is sent.
    summary, _, _ = end(start(folder))
    assert (summary["uploaded"], summary["sent_before"]) == (COUNT, 0)


def interrupt(folder: Path, through: Any, *words: str) -> int:
    """Kill an upload of the folder, and return how many files it is known to have sent."""
    watching = Watching()
    through(watching)
    running = start(folder, "--concurrency", "2", *words)
    wait_for(lambda: len(watching.keys) >= 60, 60)
    running.send_signal(signal.SIGINT)
    _, keys, _ = end(running)
    assert 50 < len(keys) < COUNT
    return len(keys)


@pytest.mark.slow
def test_what_has_changed_since_is_sent_again(staging: Staging, folder: Path, through: Any):
    interrupt(folder, through)
    sent = staging.keys()
    changed, touched, replaced = (folder / key for key in sent[:3])
    changed.write_bytes(b"otherwise")
    os.utime(touched, ns=(1, 1))
    content = replaced.read_bytes()
    replaced.unlink()
    (folder / "filler").write_bytes(b"takes the inode")
    replaced.write_bytes(content)
    summary, keys, _ = end(start(folder))
    assert {*sent[:3], "filler"} <= set(keys)
    assert summary["uploaded"] + summary["sent_before"] == COUNT + 1
    assert staging.body(sent[0]) == b"otherwise"


@pytest.mark.slow
def test_restart_sends_everything(staging: Staging, folder: Path, through: Any):
    interrupt(folder, through)
    summary, _, _ = end(start(folder, "--restart"))
    assert (summary["uploaded"], summary["sent_before"]) == (COUNT, 0)


@pytest.mark.slow
def test_what_was_sent_is_forgotten_after_a_settable_time(
    staging: Staging, folder: Path, through: Any
):
    interrupt(folder, through)
    time.sleep(1.1)
    summary, _, _ = end(start(folder, "--remember", "1s"))
    assert (summary["uploaded"], summary["sent_before"]) == (COUNT, 0)


@pytest.mark.slow
def test_another_command_is_not_gone_on_with(staging: Staging, folder: Path, through: Any):
    interrupt(folder, through)
    summary, _, _ = end(start(folder, "--prefix", "other/"))
    assert (summary["uploaded"], summary["sent_before"]) == (COUNT, 0)


def test_only_what_failed_is_sent_by_the_same_command(
    staging: Staging, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    bad = folder / "d0" / "ü000"
    bad.unlink()
    bad.symlink_to("nowhere")
    running = start(folder)
    summary, _, _ = end(running)
    assert (running.returncode, summary["failed"]) == (3, 1)
    bad.unlink()
    bad.write_bytes(b"good")
    summary, keys, _ = end(start(folder))
    assert keys == ["d0/ü000"]
    assert (summary["uploaded"], summary["sent_before"]) == (1, COUNT - 1)


# The record itself, on good and bad days.


def record(
    tmp_path: Path, *, lifetime: timedelta = timedelta(days=1), restarts: bool = False
) -> Sent:
    said: list[str] = []
    sent = open_sent(
        tmp_path / "state", ["c"], now=NOW, lifetime=lifetime, restarts=restarts, warn=said.append
    )
    sent.said = said  # type: ignore[attr-defined]
    return sent


def uploaded(path: Path, key: str) -> SentBefore:
    return SentBefore(str(path), key, 1, "v", "e", NOW)


@pytest.mark.parametrize("name", ["plain", "ü", "\udcff", "a\nb", "'; DROP TABLE sent; --"])
def test_any_name_is_found_again(tmp_path: Path, name: str):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    sent = record(tmp_path)
    (tmp_path / "state").mkdir()
    sent.note(stamp_of(path.stat()), uploaded(path, name))
    sent.close()
    again = record(tmp_path)
    assert again.found == 1
    found = again.before(File(str(path), name, 1))
    assert found is not None
    assert (found.key, found.version_id, found.uploaded_at) == (name, "v", NOW)
    assert again.before(File(str(path), name + "x", 1)) is None
    again.forget()
    assert list((tmp_path / "state").iterdir()) == []


def run_on_bad_day(folder: Path, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    running = start(folder, prepare=prepare)
    summary, _, err = end(running)
    if running.returncode == 0:
        assert summary["uploaded"] + summary["sent_before"] == COUNT
    return running.returncode, err


@pytest.mark.parametrize("call", ["flock", "fcntl"])
def test_where_nothing_can_be_locked_the_files_go_all_the_same(
    staging: Staging, folder: Path, call: str
):
    status, err = run_on_bad_day(folder, without_locks(call))
    assert (status, "can't be remembered" in err) == (0, True), err


def test_what_was_kept_can_not_be_dropped_where_nothing_can_be_locked(
    staging: Staging, folder: Path
):
    running = start(folder, "--discard", prepare=without_locks("flock"))
    _, _, err = end(running)
    assert (running.returncode, "no locks" in err) == (1, True), err


def test_a_limit_on_the_size_of_files_stops_no_upload(staging: Staging, folder: Path):
    status, err = run_on_bad_day(folder, limit_files(8 * 1024))
    assert (status, "can't be remembered" in err) == (0, True), err


def test_a_folder_that_may_not_be_written_to_stops_no_upload(staging: Staging, folder: Path):
    state = state_directory(os.environ, "uploads")
    state.mkdir(parents=True)
    state.chmod(0o555)
    status, err = run_on_bad_day(folder, obey_modes)
    assert (status, "can't be remembered" in err) == (0, True), err


@pytest.mark.slow
def test_a_full_disk_stops_no_upload(
    staging: Staging, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: Any
):
    with small_disk(tmp_path / "disk", 512 * 1024) as disk:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk))

        def fill_late(number: int) -> None:
            if number == 40:
                fill(disk)

        through(Watching(fill_late))
        status, err = run_on_bad_day(folder)
    assert (status, "no room left" in err) == (0, True), err


@pytest.mark.parametrize("pages", [0, 3, 12])
def test_a_disk_with_hardly_any_room_is_called_full(tmp_path: Path, pages: int):
    with small_disk(tmp_path / "state", 512 * 1024) as disk:
        room = disk / "room"
        room.write_bytes(b"x" * 4096 * pages)
        fill(disk)
        room.unlink()
        sent = record(tmp_path)
        for number in range(1000):
            sent.note(Stamp(1, 2, 3), uploaded(tmp_path, f"{number}"))
        sent.close()
        assert ["no room left" in said for said in sent.said] == [True]  # type: ignore[attr-defined]


def test_of_a_key_that_was_sent_twice_the_later_time_counts(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    (tmp_path / "state").mkdir()
    sent = record(tmp_path)
    sent.note(stamp_of(path.stat()), uploaded(path, "k"))
    sent.close()
    again = record(tmp_path)
    assert again.before(File(str(path), "k", 1)) is not None
    again.note(Stamp(1, 2, 3), uploaded(path, "k"))
    again.close()
    # What S3 has now is no longer what the file is.
    third = record(tmp_path)
    assert (third.found, third.before(File(str(path), "k", 1))) == (1, None)
    third.forget()


@pytest.mark.slow
@pytest.mark.parametrize("day", ["damaged", "locked", "newer"])
def test_what_was_sent_and_can_not_be_read_ends_the_command_before_anything_is_sent(
    staging: Staging, folder: Path, through: Any, day: str
):
    interrupt(folder, through)
    before = len(staging.keys())
    [path] = state_directory(os.environ, "uploads").glob("*.sent")
    other = sqlite3.connect(path, isolation_level=None)
    if day == "damaged":
        other.close()
        path.write_bytes(b"no database" * 1000)
    elif day == "newer":
        other.execute("PRAGMA user_version = 99")
        other.close()
    else:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
    status, err = run_on_bad_day(folder)
    expected = "keeps it locked" if day == "locked" else "--restart"
    assert (status, expected in err) == (1, True), err
    assert len(staging.keys()) == before
    other.close()
    summary, _, _ = end(start(folder, "--restart"))
    assert summary["uploaded"] == COUNT


@pytest.mark.slow
def test_memory_does_not_grow_with_a_million_files(tmp_path: Path):
    script = f"""
import resource, sys
from pathlib import Path
from tests.upload.test_sent import *
Path({str(tmp_path / "state")!r}).mkdir(exist_ok=True)
path = Path({str(tmp_path)!r}) / "f"
path.write_bytes(b"x")
stamp = stamp_of(path.stat())
sent = record(Path({str(tmp_path)!r}))
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(1_000_000):
    sent.note(stamp, uploaded(path, f"a folder/and another/f{{number:07}}.csv"))
    if number == 10_000: early = peak()
sent.close()
again = record(Path({str(tmp_path)!r}))
assert again.found == 1_000_000
for number in range(0, 1_000_000, 10):
    assert again.before(File(str(path), f"a folder/and another/f{{number:07}}.csv", 1))
print(early, peak())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    early, late = map(int, ran.stdout.split())
    assert late - early < 32 * 1024, (early, late)  # KiB
