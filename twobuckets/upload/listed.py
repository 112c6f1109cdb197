"""Lists of files to upload: paths, or what failed in another run."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from twobuckets.errors import UsageError
from twobuckets.upload.files import STDIN, Listed

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_listed(name: str) -> Iterator[Listed]:
    """Yield the files that a list names: lines of JSON with path and key, or paths."""
    try:
        with _open_list(name) as stream:
            for line in stream:
                yield from _parse_entry(line.rstrip("\n"))
    except OSError as error:
        raise UsageError(f"Could not read the list {name}: {error.strerror}") from None


def _open_list(name: str) -> TextIO:
    # A path need not be UTF-8, in a list as on the command line.
    if name == STDIN:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape")
    return Path(name).open(encoding="utf-8", errors="surrogateescape")


def _parse_entry(line: str) -> Iterator[Listed]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        if line:
            yield Listed(line)
        return
    path, key = entry.get("path"), entry.get("key")
    # Other records, such as the summary of a --json run, name no file.
    if entry.get("type") == "failed" and isinstance(path, str):
        yield Listed(path, key if isinstance(key, str) and key else None)
