"""The check that a built artifact's processor can be imported, before anybody deploys it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from twobuckets.artifact import probe
from twobuckets.artifact.pythons import how_to_get
from twobuckets.artifact.reading import (
    BESIDE,
    missing_function,
    never_runs,
    require_plausible,
    wrong_signature,
)
from twobuckets.artifact.target import Target, loads_here
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.artifact.contents import Entry

IMPORT_TIMEOUT = timedelta(seconds=30)
"""Lambda gives an import 10 s before it starts over; a cold laptop gets more."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What the probe wrote: `problem` is None when the processor can be imported and called."""

    problem: str | None
    python: tuple[int, int]
    type: str = ""
    message: str = ""
    file: str | None = None
    line: int | None = None
    is_import: bool = False
    absent: str | None = None
    names: Sequence[str] | None = ()
    signature: str = ""


def require_importable(
    zip_file: Path,
    entries: Sequence[Entry],
    *,
    process: str,
    target: Target,
    python: str | None,
    scratch: Path,
    timeout: timedelta = IMPORT_TIMEOUT,
) -> str | None:
    """Import the artifact's processor in a bare Python with boto3 and nobody's credentials.

    `python` is one of the target's version; where there is none, only the text is looked at.
    Returns None when that went well on a machine like the target, otherwise what could not be
    checked here and why: code compiled for another machine, no such Python.
    Raises TwoBucketsError with file, line and reason when the processor can't be imported, the
    function is missing or can't be called with one argument, or importing takes too long.
    """
    if python is None:
        unread = require_plausible(entries, process=process, target=target)
        return f"there is no {target.runtime} here to import it with ({how_to_get(target)})" + (
            f", and {unread}" if unread else ""
        )
    report = _probe(zip_file, python, process=process, scratch=scratch, timeout=timeout)
    foreign = _foreign_parts(entries, loadable=loads_here(target))
    if report.problem is None:
        if foreign:
            return f"{_some(foreign)} built for {target} could not be loaded here"
        return None
    sources = {entry.path: entry.file for entry in entries}
    if foreign and report.is_import and not _surely_absent(report.absent, entries):
        module, _, name = process.partition(":")
        if report.names is not None and name not in report.names:
            raise missing_function(process, report.names)
        return f"{module} was read but not imported: it needs {_some(foreign)}, built for {target}"
    raise _failure(report, process=process, sources=sources)


def _probe(
    zip_file: Path, python: str, *, process: str, scratch: Path, timeout: timedelta
) -> _Report:
    task, beside, report = scratch / "task", scratch / "beside", scratch / "report.json"
    with zipfile.ZipFile(zip_file) as packed:
        packed.extractall(task)
    beside.mkdir()
    for name in BESIDE:
        _link_module(name, beside)
    # A session of its own, so that whatever the module starts ends with it.
    child = subprocess.Popen(
        [python, "-I", "-S", probe.__file__, str(task), str(beside), process, str(report)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = child.wait(timeout.total_seconds())
    except subprocess.TimeoutExpired:
        raise TwoBucketsError(
            f"Could not import the processor {process}: it took longer than"
            f" {timeout.total_seconds():g} s",
            hint="Move work that waits or computes from the module's top level into the function.",
        ) from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if not report.exists():
        raise TwoBucketsError(
            f"Could not import the processor {process}: it ended Python with status {status}",
            hint="Look at what its module does when it is imported.",
        )
    found = json.loads(report.read_text("utf-8"))
    known = {name: value for name, value in found.items() if name in _Report.__slots__}
    return _Report(**{**known, "python": tuple(found["python"])})


def _link_module(name: str, folder: Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (folder / origin.name).symlink_to(origin)


def _foreign_parts(entries: Sequence[Entry], *, loadable: bool) -> list[str]:
    """Return the top-level names that hold compiled code which the Python used can't load."""
    if loadable:
        return []
    compiled = (entry.path for entry in entries if ".so" in Path(entry.path).suffixes)
    return sorted({path.partition("/")[0].partition(".")[0] for path in compiled})


def _surely_absent(module: str | None, entries: Sequence[Entry]) -> bool:
    """Tell whether a module that was not found is nowhere in the artifact, on any machine."""
    if module is None:
        return False
    top = module.partition(".")[0]
    return not any(entry.path.partition("/")[0].partition(".")[0] == top for entry in entries)


def _failure(report: _Report, *, process: str, sources: Mapping[str, Path]) -> TwoBucketsError:
    if report.problem == "missing":
        return missing_function(process, report.names or ())
    if report.problem == "not-callable":
        return TwoBucketsError(
            f"Could not use the processor {process}: it is no function, it is a {report.type}",
            hint="Make it a function that takes the file: def process(file)",
        )
    if report.problem == "never-runs":
        return never_runs(process)
    if report.problem == "signature":
        return wrong_signature(process, report.signature)
    if report.problem == "runtime":
        return TwoBucketsError("This installation lacks the runtime twobuckets.processor")
    place = ""
    if report.file is not None:
        place = f"{sources.get(report.file, report.file)}, line {report.line}: "
    return TwoBucketsError(
        f"Could not import the processor {process}: {place}{report.type}: {report.message}",
        hint=_import_hint(report),
    )


def _import_hint(report: _Report) -> str:
    if report.absent is not None:
        return f"Add the package that has {report.absent} to requirements.txt."
    return "Fix that line; Lambda would fail in the same way."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
