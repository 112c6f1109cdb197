"""The program as a person meets it: on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 60


class Terminal:
    """The program on a terminal of its own, 80 columns wide."""

    def __init__(self, *arguments: str, stdout: int | None = None) -> None:
        self._controller, terminal = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, "-m", "twobuckets", *arguments],
            stdin=terminal,
            stdout=terminal if stdout is None else stdout,
            stderr=terminal,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(terminal)
        self.shown = ""

    @property
    def text(self) -> str:
        """What was shown, without what moves the cursor or colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown).replace("\r", "\n")

    def read_until(self, words: str) -> None:
        """Read what the program shows until the words are there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if not self._read() and self.program.poll() is not None:
                raise AssertionError(self.shown)

    def type(self, text: str) -> None:
        """Type text and the return key."""
        os.write(self._controller, f"{text}\n".encode())

    def end(self) -> int:
        """Return the exit status, with everything shown read."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.program.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read()
        while self._read():
            pass
        os.close(self._controller)
        return self.program.returncode

    def _read(self) -> bool:
        ready, _, _ = select.select([self._controller], [], [], 0.1)
        if not ready:
            return False
        # The terminal is gone once the program is.
        with contextlib.suppress(OSError):
            read = os.read(self._controller, 65_536).decode(errors="replace")
            self.shown += read
            return bool(read)
        return False


@pytest.fixture
def at_terminal() -> Iterator[Callable[..., Terminal]]:
    """Run the program on a terminal; what still runs at the end is killed."""
    started = []

    def start(*arguments: str, stdout: int | None = None) -> Terminal:
        started.append(Terminal(*arguments, stdout=stdout))
        return started[-1]

    yield start
    for terminal in started:
        if terminal.program.poll() is None:
            terminal.program.kill()
            terminal.program.wait()
