"""Compiled modules beside their text, so that Lambda does not compile them at each cold start."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twobuckets.artifact import compile_for_target
from twobuckets.artifact.contents import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

# A process takes a quarter of a second to start, and some 2,000 modules a minute.
_LEAST_A_PROCESS = 200


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Entries for the modules that could be compiled, and the full version that compiled them."""

    entries: tuple[Entry, ...]
    python_version: str


def compile_modules(entries: Sequence[Entry], python: str, scratch: Path) -> Bytecode | None:
    """Compile all modules among the entries with a Python of the target's version.

    The bytes depend on the modules' paths and text and on that Python's version alone. None when
    the Python can't do it.
    """
    modules = [entry for entry in entries if entry.path.endswith(".py")]
    folder = scratch / "bytecode"
    folder.mkdir()
    share = max(_LEAST_A_PROCESS, -(-len(modules) // (os.cpu_count() or 1)))
    shares = [modules[start : start + share] for start in range(0, len(modules), share)]
    folders = [folder / str(number) for number in range(len(shares))]
    running = [_start(python, *one) for one in zip(shares, folders, strict=True)]
    # Each is waited for, whatever becomes of the others.
    statuses = {process.wait() for process in running}
    if statuses - {0}:
        return None
    answers = [json.loads((one / "compiled.json").read_text("utf-8")) for one in folders]
    found = tuple(
        entry
        for one, answer in zip(folders, answers, strict=True)
        for entry in _iter_compiled(one, answer["compiled"])
    )
    return Bytecode(found, answers[0]["version"]) if answers else None


def _start(python: str, modules: Sequence[Entry], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    listed = folder / "modules.json"
    listed.write_text(json.dumps([(entry.path, str(entry.file)) for entry in modules]), "utf-8")
    return subprocess.Popen(
        [python, "-I", "-S", compile_for_target.__file__, str(listed), str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _iter_compiled(folder: Path, compiled: dict[str, str]) -> Iterator[Entry]:
    for number, path in compiled.items():
        file = folder / f"{number}.pyc"
        yield Entry(path, file, executable=False, size_bytes=file.stat().st_size, origin="bytecode")
