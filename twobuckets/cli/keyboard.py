"""Single keys of whoever sits at the terminal, read while something else is shown."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Have keys arrive as they are pressed, and unseen; Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def is_pressed(keys: str, seconds: float) -> bool:
    """Wait for one of these keys; tell whether it came within the time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not sys.stdin.isatty():
            time.sleep(left)
            return False
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready:
            pressed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
            if not pressed or any(key in pressed for key in keys):
                return True
    return False
