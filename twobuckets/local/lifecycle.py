"""Starts, finds and stops the server process of the embedded AWS."""

import importlib.util
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from twobuckets.errors import TwoBucketsError
from twobuckets.local.state import (
    REGION,
    ServerRecord,
    StateDirectory,
    is_locked,
    locked,
    process_started,
)

HOST = "127.0.0.1"
START_TIMEOUT = timedelta(seconds=60)
STOP_TIMEOUT = timedelta(seconds=20)
# How long threads of a killed process may still hold its lock.
DYING = timedelta(seconds=2)
POLL = timedelta(milliseconds=20)
LOG_KEPT_BYTES = 8 * 1024 * 1024

# All that the server process inherits. AWS variables, profiles, proxies and the emulator's own
# settings stay outside, so that nothing in the user's shell can lead it to the real AWS.
INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TZ", "USER", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Server:
    """A running embedded AWS, and the credentials that it alone accepts."""

    endpoint_url: str
    pid: int
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    log_file: Path
    region: str
    page_port: int = 0

    @property
    def page_origins(self) -> tuple[str, ...]:
        """The origins of upload pages, which are served on a port of their own."""
        return (f"http://{HOST}:{self.page_port}", f"http://localhost:{self.page_port}")

    def page_url(self, api_url: str) -> str:
        """Return where the page of an HTTP API is here: no browser can resolve the API's host."""
        api = api_url.partition("://")[2].partition(".")[0]
        return f"{self.page_origins[0]}/{api}/"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the embedded AWS runs on a state directory, and what is there; no secrets.

    `waiting` counts the Lambda invocations that have not ended, running ones among them.
    """

    running: bool
    state_dir: Path
    log_file: Path
    endpoint_url: str | None = None
    pid: int | None = None
    region: str | None = None
    waiting: int = 0

    type_name: ClassVar[str] = "summary"


def find_status(state_dir: Path) -> Status:
    """Return what there is to say about a state directory."""
    state = StateDirectory(state_dir)
    server = find_running(state_dir)
    status = Status(
        running=server is not None,
        state_dir=state_dir,
        log_file=state.log,
        waiting=_count_waiting(state.invocations),
    )
    if server is None:
        return status
    return replace(status, endpoint_url=server.endpoint_url, pid=server.pid, region=server.region)


def _count_waiting(invocations: Path) -> int:
    if not invocations.exists():
        return 0
    with closing(sqlite3.connect(f"{invocations.as_uri()}?mode=ro", uri=True)) as disk:
        try:
            (count,) = disk.execute("SELECT count(*) FROM invocation").fetchone()
        except sqlite3.OperationalError:
            return 0
    return int(count)


def find_running(state_dir: Path) -> Server | None:
    """Return the server that runs on a state directory, or None."""
    state = StateDirectory(state_dir)
    record = state.read_record()
    credentials = state.read_credentials()
    if record is None or credentials is None or not _is_alive(state, record):
        return None
    return Server(
        endpoint_url=f"http://{HOST}:{record.port}",
        pid=record.pid,
        port=record.port,
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        log_file=state.log,
        region=REGION,
        page_port=record.page_port,
    )


def start(
    state_dir: Path,
    *,
    port: int | None = None,
    timeout: timedelta = START_TIMEOUT,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """Return the server that runs on a state directory, after starting it if there is none.

    `environ` is the caller's environment, of which the server gets only what `INHERITED` names.
    Raises `TwoBucketsError` when it cannot be started, for example on a taken port.
    """
    server, _ = ensure_running(state_dir, port=port, timeout=timeout, environ=environ)
    return server


def ensure_running(
    state_dir: Path,
    *,
    port: int | None = None,
    timeout: timedelta = START_TIMEOUT,
    environ: Mapping[str, str] | None = None,
) -> tuple[Server, bool]:
    """Do what `start` does, and tells whether the server was started just now."""
    state = StateDirectory(state_dir)
    running = find_running(state_dir)
    if running is None or _has_lost_its_program(state):
        _require_writable(state)
        with _waiting(state, timeout):
            running = find_running(state_dir)
            record = state.read_record()
            if running is not None and record is not None and _has_lost_its_program(state):
                _terminate(state, record, timeout)
                running = None
            if running is None:
                return _launch(state, port, timeout, environ or {}), True
    if port not in (None, running.port):
        raise TwoBucketsError(
            f"The embedded AWS already runs on port {running.port}, not on port {port}",
            hint="Stop it first: twobuckets local stop",
        )
    return running, False


def stop(
    state_dir: Path,
    *,
    reset: bool = False,
    timeout: timedelta = STOP_TIMEOUT,
) -> Server | None:
    """Stop the server and remove what it leaves behind; returns what was stopped, or None.

    `reset` also forgets every bucket, object, stack and key of the state directory.
    """
    state = StateDirectory(state_dir)
    if not state.root.is_dir():
        return None
    with _waiting(state, timeout):
        running = find_running(state_dir)
        record = state.read_record()
        if running is not None and record is not None:
            _terminate(state, record, timeout)
        elif not _wait_until(lambda: not is_locked(state.server_lock), DYING):
            # Started by hand and not ready yet, or its pid file was removed.
            raise TwoBucketsError(
                f"A server holds {state.server_lock} but does not say who it is",
                hint="Wait until it is ready, or end the process yourself",
            )
        state.discard_temporary()
        if reset:
            state.discard_all()
    return running


def exclusively(
    state_dir: Path, *, timeout: timedelta = START_TIMEOUT
) -> AbstractContextManager[None]:
    """Keep others from starting, stopping or setting up the embedded AWS meanwhile.

    Raises TwoBucketsError when somebody else does so for longer than `timeout`.
    """
    return _waiting(StateDirectory(state_dir), timeout)


def _is_alive(state: StateDirectory, record: ServerRecord) -> bool:
    return is_locked(state.server_lock) and process_started(record.pid) == record.process_started


def _has_lost_its_program(state: StateDirectory) -> bool:
    """Tell whether the server's installation was removed, from which it starts each function."""
    record = state.read_record()
    return record is not None and bool(record.program) and not Path(record.program).exists()


def _require_writable(state: StateDirectory) -> None:
    try:
        state.create()
    except OSError as error:
        raise TwoBucketsError(
            f"Cannot create the state directory {state.root}: {error.strerror}",
            hint="Set XDG_STATE_HOME to a directory of yours",
        ) from error


@contextmanager
def _waiting(state: StateDirectory, timeout: timedelta) -> Iterator[None]:
    """Wait until nobody else starts or stops the server, then keeps others out."""
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        with locked(state.start_lock) as free:
            if free:
                yield
                return
        if time.monotonic() > deadline:
            raise TwoBucketsError(
                f"Another process is still starting or stopping the embedded AWS in {state.root}",
                hint=f"Look at {state.log}",
            )
        time.sleep(POLL.total_seconds())


def _require_emulator() -> None:
    if importlib.util.find_spec("ministack") is None:
        raise TwoBucketsError(
            "The embedded AWS is not installed", hint="Install it: pip install 'twobuckets[local]'"
        )


def _launch(
    state: StateDirectory, port: int | None, timeout: timedelta, environ: Mapping[str, str]
) -> Server:
    _require_emulator()
    _rotate(state.log)
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "twobuckets.local.server", "--state", str(state.root)]
    command += ["--report-fd", str(writing)]
    if port is not None:
        command += ["--port", str(port)]
    try:
        with state.log.open("ab") as log:
            # The process forks and ends at once, so that the server is nobody's child here.
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=state.root,
                env=_server_environment(environ),
                pass_fds=(writing,),
                start_new_session=True,
                check=False,
            )
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as reports:
        _await_ready(state, reports.fileno(), timeout)
    server = find_running(state.root)
    if server is None:
        raise TwoBucketsError(
            "The embedded AWS ended right after it started", hint=f"Look at {state.log}"
        )
    return server


def _server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environ[name] for name in INHERITED if name in environ}
    # The server's working directory is the state directory, so it has to be told where we are.
    package_root = str(Path(__file__).resolve().parents[2])
    return kept | {"PYTHONPATH": package_root, "PYTHONUNBUFFERED": "1"}


def _rotate(log: Path) -> None:
    with suppress(OSError):
        if log.stat().st_size > LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _await_ready(state: StateDirectory, descriptor: int, timeout: timedelta) -> None:
    """Read the new server's reports: its pid, then that it is ready or why it is not."""
    pid: int | None = None
    pending = b""
    deadline = time.monotonic() + timeout.total_seconds()
    reports = select.poll()
    reports.register(descriptor, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not reports.poll(left * 1000):
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise TwoBucketsError(
                f"The embedded AWS did not answer within {timeout.total_seconds():.0f} s",
                hint=f"Look at {state.log}",
            )
        received = os.read(descriptor, 4096)
        if not received:
            raise TwoBucketsError(_last_words(state.log), hint=f"Look at {state.log}")
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            report = json.loads(line)
            pid = report.get("pid", pid)
            if "error" in report:
                raise TwoBucketsError(report["error"], hint=report.get("hint"))
            if report.get("ready"):
                return


def _last_words(log: Path) -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()[-1:]
    return ": ".join(["The embedded AWS ended while starting", *lines])


def _terminate(state: StateDirectory, record: ServerRecord, timeout: timedelta) -> None:
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, timedelta(seconds=5))):
        if _is_alive(state, record):
            with suppress(ProcessLookupError):
                os.kill(record.pid, number)
        if _wait_until(lambda: _is_gone(state, record), patience):
            return
    raise TwoBucketsError(f"Process {record.pid} does not end", hint=f"Look at {state.log}")


def _is_gone(state: StateDirectory, record: ServerRecord) -> bool:
    # Either can come first: an orderly end frees the lock before the process is gone, and threads
    # of a killed one hold it for an instant after.
    return process_started(record.pid) != record.process_started and not is_locked(
        state.server_lock
    )


def _wait_until(condition: Callable[[], bool], patience: timedelta) -> bool:
    deadline = time.monotonic() + patience.total_seconds()
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL.total_seconds())
    return True
