"""Keeps the services' state on disk while the server runs.

The emulator saves its state at an orderly end only, and a laptop's battery knows no orderly end.
Objects are on disk before S3 answers anyway; this is for stacks, functions, roles, queues and logs.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
# At most a twentieth of the time goes into saving, however large the state.
PAUSE_FACTOR = 20
READ_ATTEMPTS = 5


class Checkpoint:
    """Saves a moment after something changed, and not while nothing does."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)

    def start(self) -> None:
        """Begin to save."""
        self._thread.start()

    def touch(self) -> None:
        """Say that something may have changed."""
        self._changed.set()

    def close(self) -> None:
        """Save no more; returns when a save under way is complete."""
        self._closed.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while True:
            self._changed.wait()
            if self._closed.wait(pause):
                return
            self._changed.clear()
            started = time.monotonic()
            try:
                save()
            except Exception:
                logger.exception("The state could not be saved")
            pause = max(PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - started))


def save() -> None:
    """Write the state of every service that has any."""
    from ministack import app
    from ministack.core import persistence

    for name, read in app._build_persistence_save_dict().items():
        state = _read_stable(read)
        if state is not None:
            persistence.save_state(name, state)


def _read_stable(read: Callable[[], Any]) -> Any:
    """Read a service's state, which requests may change meanwhile."""
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return read()
        except RuntimeError:
            # "dictionary changed size during iteration"
            time.sleep(0.01)
    return read()
