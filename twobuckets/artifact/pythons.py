"""A Python of the target's version on this machine: only that one proves anything about it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twobuckets.artifact.target import Target

_QUESTION = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])"


def find_python(target: Target) -> str | None:
    """Return a Python of the target's version: this one, one on PATH, or one that uv knows.

    Nothing is downloaded. None when there is none.
    """
    if sys.version_info[:2] == target.python:
        return sys.executable
    for named in _iter_named(target):
        # What is on PATH may be a shim that knows no such version, so it has to say who it is.
        said = _output([named, "-I", "-S", "-c", _QUESTION]).splitlines()
        if said[1:] == [target.python_version]:
            return said[0]
    return None


def how_to_get(target: Target) -> str:
    """Return, for a message, what brings a Python of the target's version."""
    return f"`uv python install {target.python_version}` brings one"


def _iter_named(target: Target) -> Iterator[str]:
    on_path = shutil.which(f"python{target.python_version}")
    if on_path is not None:
        yield on_path
    uv = shutil.which("uv")
    if uv is not None:
        found = _output([uv, "python", "find", "--no-python-downloads", target.python_version])
        if found:
            yield found.strip()


def _output(command: list[str]) -> str:
    """Return what a program prints, nothing when it does not run or fails."""
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        return subprocess.check_output(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, timeout=20
        )
    return ""
