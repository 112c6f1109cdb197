"""The client side knows its own server from a dead one, and from a stranger with its pid."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from twobuckets import local
from twobuckets.errors import TwoBucketsError
from twobuckets.local.state import (
    RootKey,
    ServerRecord,
    StateDirectory,
    is_locked,
    locked,
    process_started,
)
from twobuckets.settings import local_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "state")
    state.create()
    state.write_credentials(RootKey("LOCAEXAMPLE", "secret-of-the-tests"))
    return state


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, and has to survive every test."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            yield process
            assert process.poll() is None, "a stranger was ended"
        finally:
            process.kill()


def record_of(pid: int) -> ServerRecord:
    return ServerRecord(pid, process_started(pid) or "", 4566)


def test_a_process_is_told_from_an_earlier_one_with_its_pid(stranger: subprocess.Popen[bytes]):
    assert process_started(stranger.pid) == process_started(stranger.pid)
    assert process_started(stranger.pid) != process_started(os.getpid())


def test_a_process_that_has_ended_has_no_start_even_before_it_is_reaped():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_started(process.pid) is None


def test_nothing_runs_in_a_directory_that_does_not_exist(tmp_path: Path):
    assert local.find_running(tmp_path / "none") is None
    assert local.stop(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_a_server_is_found_while_it_holds_its_lock(state: StateDirectory):
    state.write_record(record_of(os.getpid()))
    assert local.find_running(state.root) is None
    with locked(state.server_lock):
        found = local.find_running(state.root)
    assert found is not None
    assert found.endpoint_url == "http://127.0.0.1:4566"
    assert found.secret_key == "secret-of-the-tests"
    assert "secret-of-the-tests" not in repr(found)


def test_a_pid_file_without_a_server_is_stale_and_its_pid_is_left_alone(
    state: StateDirectory, stranger: subprocess.Popen[bytes]
):
    state.write_record(record_of(stranger.pid))
    assert local.find_running(state.root) is None
    assert local.stop(state.root) is None
    assert not state.record.exists()


def test_a_stranger_with_the_servers_pid_is_never_ended(
    state: StateDirectory, stranger: subprocess.Popen[bytes]
):
    earlier = replace(record_of(stranger.pid), process_started="1")
    state.write_record(earlier)
    with locked(state.server_lock):
        assert local.find_running(state.root) is None
        with pytest.raises(TwoBucketsError, match="does not say who it is"):
            local.stop(state.root)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "surprise": 2}', "\x00"])
def test_an_unreadable_pid_file_is_no_server(state: StateDirectory, text: str):
    state.record.write_text(text)
    assert local.find_running(state.root) is None


def test_two_who_ask_at_once_do_not_take_each_other_for_the_server(state: StateDirectory):
    with state.server_lock.open("ab") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_locked(state.server_lock)


def test_a_killed_holder_frees_the_lock(state: StateDirectory):
    holder = textwrap.dedent(
        f"""
        import fcntl, sys, time
        file = open({str(state.server_lock)!r}, "ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        print("held", flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_locked(state.server_lock)
        process.kill()
        process.wait()
    assert not is_locked(state.server_lock)


def test_whoever_starts_or_stops_waits_for_another_and_says_so(state: StateDirectory):
    with (
        locked(state.start_lock),
        pytest.raises(TwoBucketsError, match="still starting or stopping"),
    ):
        local.stop(state.root, timeout=timedelta(milliseconds=50))


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TwoBucketsError, match="Cannot create the state directory") as caught:
        local.start(tmp_path / "file" / "state")
    assert "XDG_STATE_HOME" in str(caught.value.hint)


def test_without_the_extra_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ministack", None)
    with pytest.raises(TwoBucketsError) as caught:
        local.start(tmp_path)
    assert caught.value.hint == "Install it: pip install 'twobuckets[local]'"


def test_files_with_secrets_are_for_their_owner_only(state: StateDirectory):
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert state.key.stat().st_mode & 0o777 == 0o600


def test_the_state_directory_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    default = "/home/somebody/.local/state/twobuckets/local"
    assert str(local_state({"XDG_STATE_HOME": "/x"})) == "/x/twobuckets/local"
    assert str(local_state({})) == default
    assert str(local_state({"XDG_STATE_HOME": "relative"})) == default


def test_the_client_side_does_not_import_the_emulator():
    program = "import sys, twobuckets.local; print('ministack' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "False\n"
