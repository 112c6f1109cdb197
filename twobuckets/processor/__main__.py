"""Runs the user's `process` on a local file, without AWS: `python -m twobuckets.processor`."""

from __future__ import annotations

import hashlib
import importlib.util
import mimetypes
import sys
from pathlib import Path
from typing import BinaryIO, cast

from twobuckets.processor.file import File, Reject
from twobuckets.processor.outcome import failure_of, write_line
from twobuckets.processor.runtime import ConfigurationError, Process, load_process, run_process

_USAGE = "usage: python -m twobuckets.processor MODULE.py:FUNCTION FILE..."


def main(arguments: list[str]) -> int:
    """Process each file and return the exit status: 0, 2 for usage, 3 if a file failed."""
    if len(arguments) < 2 or arguments[0] in ("-h", "--help"):
        write_line(_USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        process = _load(arguments[0])
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return max(_run(process, Path(name)) for name in arguments[1:])


def _run(process: Process, path: Path) -> int:
    shown = str(path).encode("unicode_escape").decode("ascii")
    try:
        notes = run_process(process, local_file(path))
    except Reject as refusal:
        write_line(f"rejected {shown}: {failure_of(refusal).message}")
        return 3
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as in Lambda, whatever it raises is an outcome
        failure = failure_of(error)
        write_line(f"failed {shown}: {failure.type}: {failure.message}")
        sys.stderr.write(failure.trace)
        return 3
    write_line(f"processed {shown}" + "".join(f" ({note})" for note in notes))
    return 0


def local_file(path: Path) -> File:
    """Return a local file as `process` sees one in S3; raise OSError if it cannot be read."""
    with path.open("rb") as stream:
        etag = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return File(
        bucket="local",
        key=path.name,
        version_id=None,
        etag=etag,
        size=path.stat().st_size,
        content_type=mimetypes.guess_type(path.name)[0] or "binary/octet-stream",
        metadata={},
        opener=lambda: cast("BinaryIO", path.open("rb")),
    )


def _load(name: str) -> Process:
    """Return the function; the module is named by its path or as an import."""
    location, colon, function = name.rpartition(":")
    if not colon or not location.endswith(".py"):
        return load_process(name)
    path = Path(location).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or not path.is_file():
        raise ConfigurationError(f"there is no file {location!r}")
    # What stands beside it can be imported, as in the artifact.
    sys.path.insert(0, str(path.parent))
    return load_process(f"{path.stem}:{function}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
