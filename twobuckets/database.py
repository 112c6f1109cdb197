"""One SQLite file, and in words what can be wrong with it and with the disk that it lies on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NOTHING_CHANGED: Final = "Nothing was changed"
_GOES_ON: Final = (
    "What is done is done, and nothing is lost: the same command continues where it stopped "
    "once that is put right"
)
_ROOM: Final = "Free some room there"
_ELSEWHERE: Final = "Or point XDG_STATE_HOME to another folder."
_PERMIT: Final = "Let this user write there"
_NO_LOCKS: Final = "the file system that it lies on has no locks, as NFS may be mounted without"
_LOCAL: Final = "Point XDG_STATE_HOME to a folder on a local disk"

# By the beginning of SQLite's name of the error: why, and what helps (SQLite, "Result Codes").
_REASONS: Final = (
    ("SQLITE_FULL", "there is no room left on its disk", _ROOM),
    ("SQLITE_BUSY_RECOVERY", "another process repairs it", "Wait a moment"),
    ("SQLITE_BUSY", "another program keeps it locked", "End that program"),
    ("SQLITE_LOCKED", "another program keeps it locked", "End that program"),
    ("SQLITE_READONLY", "it may not be written to", _PERMIT),
    ("SQLITE_PERM", "it may not be written to", _PERMIT),
    ("SQLITE_CANTOPEN", "it can't be opened or created", _PERMIT),
    ("SQLITE_IOERR_LOCK", _NO_LOCKS, _LOCAL),
    ("SQLITE_IOERR_RDLOCK", _NO_LOCKS, _LOCAL),
    ("SQLITE_IOERR_SHMSIZE", "there is no room left on its disk", _ROOM),
    ("SQLITE_IOERR_SHM", _NO_LOCKS, _LOCAL),
    ("SQLITE_PROTOCOL", _NO_LOCKS, _LOCAL),
    ("SQLITE_NOLFS", "its file system can't hold a file of that size", _ROOM),
    ("SQLITE_IOERR", "its disk can't be written to or read, or a limit of the system was met",
     "Look at the disk, its quota and the limit on the size of files"),
)  # fmt: skip
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")
_ERRNOS: Final = {
    errno.ENOSPC: ("there is no room left on its disk", _ROOM),
    errno.EDQUOT: ("the disk quota is used up", _ROOM),
    errno.EROFS: ("its file system can only be read", _PERMIT),
    errno.EACCES: ("it may not be written to", _PERMIT),
    errno.EPERM: ("it may not be written to", _PERMIT),
    errno.ENOLCK: (_NO_LOCKS, _LOCAL),
    errno.EOPNOTSUPP: (_NO_LOCKS, _LOCAL),
    errno.ENOSYS: (_NO_LOCKS, _LOCAL),
}


class JournalError(TwoBucketsError):
    """The journal can't be written or read as things are."""


class UnusableJournalError(JournalError):
    """Nobody can go on with this journal: it is damaged, or has the form of another release."""


class Database:
    """An open SQLite file. Every method raises JournalError for whatever is wrong with it.

    `has_begun` says whether anything was changed for what stands in it, which is what an error
    has to tell.
    """

    def __init__(self, path: Path, *, reads_only: bool = False) -> None:
        self.path = path
        self.has_begun = False
        self._reads_only = reads_only
        with self._explained():
            self._connection = sqlite3.connect(path)

    def tune(self) -> None:
        """Let a commit cost no fsync; a crash of the process still loses nothing."""
        # What is no SQLite file, or busy, is found out when it is read: with the default all works.
        with contextlib.suppress(sqlite3.DatabaseError):
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def hurry(self) -> None:
        """Let nothing wait for the disk, until `tune`: for what is nothing yet, or never again.

        A crash of the process loses nothing then either, one of the machine may lose the file.
        """
        with contextlib.suppress(sqlite3.DatabaseError):
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Close the file."""
        # What the last checkpoint can't write stays in the write-ahead log.
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._explained():
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row of a query, None where there is none."""
        return next(iter(self.rows(sql, *values)), None)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write all that is executed within, or nothing of it."""
        with self._explained(), self._connection as connection:
            yield connection

    def write(self, sql: str, *values: object) -> int:
        """Write one change and return how many rows it changed."""
        with self.writing() as connection:
            return connection.execute(sql, values).rowcount

    def write_all(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Write one change for each row of values, all of them or none."""
        with self.writing() as connection:
            connection.executemany(sql, rows)

    def create(self, schema: str) -> None:
        """Create the tables, and what else a schema says."""
        with self._explained():
            self._connection.executescript(schema)

    def read_unlocked(self) -> None:
        """Read the file as it lies there, in a folder where no reader can note that it reads."""
        with self._explained():
            self._connection.close()
            uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            self._connection = sqlite3.connect(uri, uri=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> JournalError:
        name = getattr(error, "sqlite_errorname", "") or ""
        did = "read" if self._reads_only else "write"
        if name.startswith(_DAMAGED):
            return damaged(self.path, str(error))
        for beginning, reason, remedy in _REASONS:
            if name.startswith(beginning):
                return _error(self.path, reason, remedy, did=did, has_begun=self.has_begun)
        remedy = "Look at the file and its folder"
        return _error(self.path, str(error), remedy, did=did, has_begun=self.has_begun)


def damaged(path: Path, reason: str) -> UnusableJournalError:
    """Return the error for a journal that nobody can read any more."""
    return UnusableJournalError(
        f"Could not read the journal {path}: it is damaged ({reason})",
        hint="It may be of a run that has not ended. Move it out of its folder, or plan anew with "
        "--restart: what both buckets hold is looked at again, so nothing is lost or done twice.",
    )


def explain_os_error(path: Path, error: OSError) -> JournalError:
    """Return why a journal, or the lock beside it, can't be had."""
    reason, remedy = _ERRNOS.get(
        error.errno or 0, (error.strerror or str(error), "Look at the file and its folder")
    )
    return _error(path, reason, remedy, did="write", has_begun=False)


def _error(path: Path, reason: str, remedy: str, *, did: str, has_begun: bool) -> JournalError:
    effect = _GOES_ON if has_begun else _NOTHING_CHANGED
    elsewhere = "" if has_begun or remedy == _LOCAL else f" {_ELSEWHERE}"
    return JournalError(
        f"Could not {did} the journal of this run, {path}: {reason}",
        hint=f"{effect}. {remedy}, then run the same command again.{elsewhere}",
    )


def lock(path: Path) -> int | None:
    """Return a descriptor that holds a lock file for this process; None when another one does.

    Raises JournalError where there can be no lock.
    """
    try:
        held = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise explain_os_error(path, error) from error
    try:
        # SQLite takes this kind of lock, and calls it busy where there is none.
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(held, fcntl.LOCK_UN)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(held, 0)
        # The number helps whoever asks who works on it; the lock does not need it.
        with contextlib.suppress(OSError):
            os.pwrite(held, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        os.close(held)
        return None
    except OSError as error:
        os.close(held)
        raise explain_os_error(path, error) from error
    return held
