"""Places for what is made on the way: locked while their process lives, cleared by the next one.

`kill -9` and a power cut leave them behind. A lock ends with its process, so whoever gets one that
another process made knows that it is dead.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_FOLDER: Final = "twobuckets-build-"
# Where there are no locks, as on some network file systems, the last try goes without.
_TRIES: Final = 3


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a private temporary folder that is gone afterwards, and remove what dead runs left."""
    base = Path(tempfile.gettempdir())
    _remove_abandoned(base.glob(f"{_FOLDER}*"))
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
        if (lock := _locked(folder)) is not None:
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _release(lock)


@contextmanager
def draft_beside(out: Path) -> Iterator[Path]:
    """Give an empty new file beside `out`, gone afterwards unless it was renamed.

    The drafts of dead runs are removed. Raises OSError when the folder can't be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out.parent.glob(f".{out.name}.{'[0-9a-f]' * 8}"))
    for _ in range(_TRIES):
        draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
        with draft.open("xb"):
            pass
        if (lock := _locked(draft)) is not None:
            break
    try:
        yield draft
    finally:
        # Never more important than the error on its way.
        with suppress(OSError):
            draft.unlink()
        _release(lock)


def _locked(path: Path) -> int | None:
    """Return the descriptor of a path that is locked; None when it is another's, or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have taken it for abandoned, between its making and its lock.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _remove_abandoned(paths: Iterator[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            # A link of somebody else's in a folder that all can write leads anywhere.
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = _locked(path)
            if lock is None:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
            os.close(lock)
