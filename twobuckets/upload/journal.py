"""Which incomplete uploads are ours: one small file each in the state directory.

The journal is a help, never the truth: what S3 keeps is asked of S3. It says which upload ids this
user began, so that nobody else's is continued, and its lock keeps two runs off one upload.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from twobuckets.errors import UsageError
from twobuckets.upload.parts import require_part_bytes

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class BegunFile:
    """An incomplete upload that was begun from here, and the file as it was then."""

    upload_id: str
    part_bytes: int
    path: str
    key: str
    size_bytes: int
    mtime_ns: int


class InUseError(Exception):
    """Another process is uploading the same file to the same key right now."""


class Claim:
    """The journal's entry for one file and key, held by this process until it is closed."""

    def __init__(self, path: Path | None, fd: int | None) -> None:
        self._path = path
        self._fd = fd
        self.begun = _read(fd) if fd is not None else None

    def begin(self, begun: BegunFile) -> None:
        """Remember an upload, on disk before this returns. Raises OSError when that fails."""
        self.begun = begun
        if self._fd is not None:
            line = json.dumps(asdict(begun)).encode()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, line, 0)
            os.fsync(self._fd)

    def forget(self) -> None:
        """Forget the upload: it is complete or aborted."""
        self.begun = None
        if self._fd is not None:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Let other processes have the entry; one that remembers nothing leaves no file behind."""
        if self._fd is None:
            return
        if self.begun is None and self._path is not None:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class UploadJournal:
    """The entries of one endpoint and bucket below a state directory; without one it forgets all.

    Making it raises OSError when the directory can't be made or written.
    """

    def __init__(self, directory: Path | None, *, endpoint: str, bucket: str) -> None:
        self.directory = directory
        self._place = f"{endpoint}\0{bucket}"
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = directory / f".{os.getpid()}.probe"
            probe.touch()
            probe.unlink()

    def claim(self, path: str, key: str) -> Claim:
        """Return the entry of a file and key.

        Raises InUseError, and OSError when the entry can't be had.
        """
        if self.directory is None:
            return Claim(None, None)
        name = "\0".join((self._place, key, os.path.abspath(path)))
        entry = self.directory / (
            hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40] + ".json"
        )
        while True:
            fd = os.open(entry, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had the lock before may have removed the file between open and lock.
                if os.fstat(fd).st_nlink:
                    return Claim(entry, fd)
            except BlockingIOError:
                os.close(fd)
                raise InUseError from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


def find_begun(directory: Path) -> dict[str, BegunFile]:
    """Return the incomplete uploads that were begun from here, by their ids.

    Entries of every endpoint and bucket lie together; an upload id is of one only.
    """
    begun = {}
    for entry in directory.glob("*.json"):
        # An upload that goes on in another process may end between listing and reading.
        with contextlib.suppress(OSError), entry.open("rb") as file:
            one = _read(file.fileno())
            if one is not None:
                begun[one.upload_id] = one
    return begun


def _read(fd: int) -> BegunFile | None:
    """Return what an entry remembers; None for one that is empty or was torn by a crash."""
    try:
        begun = BegunFile(**json.loads(os.pread(fd, 1 << 16, 0)))
        require_part_bytes(begun.part_bytes)
    except (ValueError, TypeError, UsageError):
        return None
    return begun
