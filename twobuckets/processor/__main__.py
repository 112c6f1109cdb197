"""Runs the user's `process` on a local file, without AWS: `python -m twobuckets.processor`.

With `--profile` it tells what the run took, of a local file or an object in S3.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import mimetypes
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from twobuckets.processor.file import File, Reject
from twobuckets.processor.outcome import failure_of, write_line
from twobuckets.processor.profile import LocalReader, Profile, staged_file
from twobuckets.processor.runtime import ConfigurationError, Process, load_process, run_process
from twobuckets.processor.stream import Expected


def main(arguments: list[str]) -> int:
    """Process each file and return the exit status: 0, 2 for usage, 3 if a file failed."""
    asked = _parser().parse_args(arguments)
    try:
        process = _load(asked.function)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return max(_run(process, name, profiles=asked.profile) for name in asked.file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m twobuckets.processor",
        description="Runs your function on files, as Lambda would, and moves nothing.",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="tell the time, memory, bytes and requests of each run; FILE may be s3://BUCKET/KEY",
    )
    parser.add_argument("function", metavar="MODULE.py:FUNCTION")
    parser.add_argument("file", metavar="FILE", nargs="+")
    return parser


def _run(process: Process, name: str, *, profiles: bool) -> int:
    shown = name.encode("unicode_escape").decode("ascii")
    profile: Profile | None = None
    try:
        if profiles:
            file, profile = _profiled(name)
            notes = profile.run(lambda: run_process(process, file))
        else:
            notes = run_process(process, local_file(Path(name)))
    except Reject as refusal:
        write_line(f"rejected {shown}: {failure_of(refusal).message}")
        status = 3
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as in Lambda, whatever it raises is an outcome
        failure = failure_of(error)
        write_line(f"failed {shown}: {failure.type}: {failure.message}")
        sys.stderr.write(failure.trace)
        status = 3
    else:
        write_line(f"processed {shown}" + "".join(f" ({note})" for note in notes))
        status = 0
    if profile is not None:
        for line in profile.lines():
            write_line(line)
    return status


def _profiled(name: str) -> tuple[File, Profile]:
    """Return a file and its profile, still empty; of S3 with boto3's own credentials."""
    bucket, _, key = name.removeprefix("s3://").partition("/")
    if name.startswith("s3://") and bucket and key:
        import boto3

        return staged_file(boto3.client("s3"), bucket, key)
    path = Path(name)
    file = local_file(path)
    profile = Profile(file.size)
    expected = Expected("MD5", file.etag)
    return replace(file, opener=profile.opener(LocalReader(path), expected)), profile


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
