"""What one command has sent so far, so that the same command goes on after an interruption.

One SQLite file a command, a row for each file that was sent: the file as it was when it was read,
and the version that S3 made of it. A file that is still the same is not sent again. The command's
end, when all is well, deletes it, so that the same folder sent again on purpose is sent.

Rows are only added at the end, which costs a file next to nothing; only who goes on from them waits
for an index.

It is a help, and nothing is called sent for it that S3 had not said to have stored. Where it can't
be written, files are sent all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.database import (
    Database,
    JournalError,
    UnusableJournalError,
    damaged,
    explain_os_error,
    lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from twobuckets.upload.files import File

_FORMAT: Final = 2
_SCHEMA: Final = f"""
PRAGMA user_version = {_FORMAT};
CREATE TABLE command (began_at TEXT NOT NULL, words TEXT NOT NULL);
CREATE TABLE sent (
  key TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  inode INTEGER NOT NULL, version_id TEXT, etag TEXT NOT NULL, uploaded_at REAL NOT NULL
);
"""
_SUFFIX: Final = ".sent"
_LOCK_SUFFIX: Final = ".lock"
_PENDING: Final = 256
_SECONDS: Final = 0.05
"""What a kill may forget: what was sent in so many seconds, and at most so many files of it."""


class Stamp(NamedTuple):
    """A file as it was when it was read: what changes when somebody writes to it."""

    size_bytes: int
    mtime_ns: int
    inode: int


class SentBefore(NamedTuple):
    """A file that was sent, and what S3 made of it; `etag` without quotes."""

    path: str
    key: str
    size_bytes: int
    version_id: str | None
    etag: str
    uploaded_at: datetime


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells whether a file is still the same."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


class Sent:
    """What a command has sent; `found` is how many files earlier runs of it had sent.

    `warn` hears, once, that it can't be written any more.
    """

    def __init__(
        self, path: Path | None, words: str, now: datetime, warn: Callable[[str], None]
    ) -> None:
        self.found = 0
        self.began_at = now
        self._path = path
        self._words = words
        self._warn = warn
        self._database: Database | None = None
        self._lock: int | None = None
        self._pending: list[tuple[Stamp, SentBefore]] = []
        self._noted_at = time.monotonic()

    def before(self, file: File) -> SentBefore | None:
        """Return what an earlier run made of a file that has not changed since, or None."""
        if not self.found or self._database is None:
            return None
        try:
            status = os.stat(file.path)
            row = self._database.row(
                "SELECT path, size, mtime_ns, inode, version_id, etag, uploaded_at FROM sent"
                " WHERE key = ? ORDER BY rowid DESC LIMIT 1",
                _text(file.key),
            )
        except (OSError, JournalError):
            return None
        if row is None or row[:4] != (_text(os.path.abspath(file.path)), *stamp_of(status)):
            return None
        return SentBefore(
            file.path, file.key, row[1], row[4], row[5], datetime.fromtimestamp(row[6], UTC)
        )

    def note(self, stamp: Stamp, sent: SentBefore) -> None:
        """Remember that S3 has a file, as it was when it was read."""
        self._pending.append((stamp, sent))
        if len(self._pending) >= _PENDING or time.monotonic() - self._noted_at > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was noted."""
        pending, self._pending = self._pending, []
        self._noted_at = time.monotonic()
        if self._path is None or not pending:
            return
        try:
            if self._database is None and not self._create(self._path):
                return
            assert self._database is not None
            self._database.write_all(
                "INSERT INTO sent VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        _text(sent.key),
                        _text(os.path.abspath(sent.path)),
                        *stamp,
                        sent.version_id,
                        sent.etag,
                        sent.uploaded_at.timestamp(),
                    )
                    for stamp, sent in pending
                ],
            )
        except JournalError as error:
            # The files go on: what is lost is that an interruption would send some of them again.
            self._path = None
            self._warn(f"What is sent can't be remembered from here on: {error.message}")

    def forget(self) -> None:
        """Forget all: the command has ended well."""
        self._pending.clear()
        if self._database is not None:
            self._database.hurry()
        self._close()
        if self._path is not None:
            _delete(self._path)

    def close(self) -> None:
        """Write what was noted, and let the same command go on from it."""
        self.flush()
        self._close()

    def _create(self, path: Path) -> bool:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(path, error) from error
        if not self._hold(path):
            return False
        self._database = Database(path)
        self._database.hurry()
        self._database.create(_SCHEMA)
        self._database.write(
            "INSERT INTO command VALUES (?, ?)", self.began_at.isoformat(), self._words
        )
        self._database.tune()
        return True

    def _hold(self, path: Path) -> bool:
        self._lock = lock(path.with_suffix(_LOCK_SUFFIX))
        if self._lock is None:
            # Two runs of one command, both of which may go on: the other one remembers.
            self._path = None
        return self._lock is not None

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self, path: Path) -> None:
        """Go on from what an earlier run wrote. Raises JournalError when it can't be read."""
        if not self._hold(path):
            return
        self._database = Database(path)
        self._database.tune()
        ((form,),) = self._database.rows("PRAGMA user_version")
        if form not in (0, _FORMAT):
            raise _of_another_release(path)
        if self._database.row("SELECT 1 FROM sqlite_master WHERE name = 'sent'") is None:
            # Killed before it was written.
            self._close()
            _delete(path)
            return
        row = self._database.row("SELECT began_at FROM command")
        if row is None:
            raise damaged(path, "it says nothing of its command")
        self.began_at = datetime.fromisoformat(row[0])
        self._database.create("CREATE INDEX IF NOT EXISTS sent_key ON sent (key)")
        ((self.found,),) = self._database.rows("SELECT count(DISTINCT key) FROM sent")
        self._database.has_begun = True


def open_sent(
    directory: Path | None,
    command: Sequence[object],
    *,
    now: datetime,
    lifetime: timedelta,
    restarts: bool,
    warn: Callable[[str], None],
) -> Sent:
    """Return what a command has sent, by all that says which files it sends where.

    What is older than `lifetime`, and with `restarts` all, is forgotten. Raises JournalError for
    what is there and can't be read; where nothing can be written it only warns.
    """
    words = json.dumps(command)
    if directory is None:
        return Sent(None, words, now, warn)
    name = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:40]
    path = directory / f"{name}{_SUFFIX}"
    _remove_old(directory, now - lifetime)
    if restarts:
        with contextlib.suppress(OSError):
            _delete(path)
    sent = Sent(path, words, now, warn)
    if path.exists():
        try:
            sent._open(path)  # noqa: SLF001 - it is this module's
        except BaseException:
            sent._close()  # noqa: SLF001
            raise
    return sent


def _of_another_release(path: Path) -> UnusableJournalError:
    return UnusableJournalError(
        "Another release of twobuckets has begun this upload, and what it wrote down of it, "
        f"{path}, has a form that this release can't continue from",
        hint="Let that release complete it, or send every file again with --restart.",
    )


def _remove_old(directory: Path, before: datetime) -> None:
    with contextlib.suppress(OSError):
        for path in directory.glob(f"*{_SUFFIX}"):
            newest = max(
                Path(f"{path}{ending}").stat().st_mtime
                for ending in ("", "-wal")
                if Path(f"{path}{ending}").exists()
            )
            if newest < before.timestamp():
                _delete(path)


def _delete(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    path.with_suffix(_LOCK_SUFFIX).unlink(missing_ok=True)


def _text(name: str) -> str:
    """Return a name as SQLite can hold it: a path need not be UTF-8."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")
