"""The journals of all runs: a new one, the one to go on with, the last one, the old ones.

Each run's is a file of its own in one folder, and held by a lock beside it while a process works on
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.database import (
    Database,
    JournalError,
    UnusableJournalError,
    damaged,
    explain_os_error,
    lock,
)
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.reprocess.journal import FORMAT, LOCK_SUFFIX, SCHEMA, Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from twobuckets.reprocess.items import Item

_SUFFIX: Final = ".journal"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run on record: what was asked for, when, and where its journal is."""

    command: str
    planned_at: datetime
    is_ended: bool
    process: int | None
    """The process that works on it."""
    journal: str


def create(
    directory: Path, *, fingerprint: str, description: Mapping[str, Any], now: datetime
) -> Journal:
    """Create the journal of a new run. Raises JournalError when it can't be written."""
    journal = _open(_new_path(directory, now.strftime("%Y%m%dT%H%M%S")))
    assert journal is not None
    try:
        journal.db.create(SCHEMA)
        journal.db.write(
            "INSERT INTO run (fingerprint, description, planned_at) VALUES (?, ?, ?)",
            fingerprint,
            json.dumps(description),
            now.isoformat(),
        )
    except BaseException:
        journal.discard()
        raise
    return journal


def _new_path(directory: Path, stem: str) -> Path:
    path = directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1000):
            path = directory / f"{stem}-{number:03d}{_SUFFIX}"
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                break
    except OSError as error:
        raise explain_os_error(path, error) from error
    return path


def refuse(error: UnusableJournalError) -> None:
    """Raise what is wrong with a journal."""
    raise error


def find_unfinished(
    directory: Path,
    *,
    place: str,
    fingerprint: str | None = None,
    unusable: Callable[[UnusableJournalError], None] = refuse,
) -> Journal | None:
    """Return the newest run about a pipeline that was agreed to and has not ended.

    With `fingerprint`, only a run that was asked for in the same words. `unusable` hears of each
    that is damaged or of another release, and by default raises that. Raises JournalError for one
    that can't be read now, TwoBucketsError when another process is at it.
    """
    for path in reversed(_paths(directory)):
        with contextlib.ExitStack() as stack:
            held = _open(path)
            journal = stack.enter_context(held or _open_to_read(path))
            try:
                row = _run_of(journal)
            except UnusableJournalError as error:
                unusable(error)
                continue
            if row is None or row.place != place or not row.approved or row.ended_at is not None:
                continue
            if row.format != FORMAT:
                unusable(_of_another_release(path, row))
                continue
            if fingerprint not in (None, row.fingerprint):
                continue
            if held is None:
                raise TwoBucketsError(
                    f"This run is under way already: process {find_process(path) or 'unknown'} "
                    f"works on it (planned {row.planned_at})",
                    hint="`twobuckets reprocess --status` shows how far it is.",
                )
            stack.pop_all()
            journal.db.has_begun = True
            return journal
    return None


def _of_another_release(path: Path, row: _Run) -> UnusableJournalError:
    which = "an older" if row.format < FORMAT else "a newer"
    return UnusableJournalError(
        f"A run of this pipeline has not ended, and {which} release of twobuckets planned it "
        f"({row.planned_at}: {row.command}). Its journal, {path}, has another form than this "
        "release can go on with",
        hint="Let that release complete it, or plan anew with --restart: what both buckets hold is "
        "looked at again, so nothing is lost or done twice.",
    )


def require_unfinished(directory: Path, *, place: str) -> Journal:
    """Return the newest unfinished run about a pipeline. Raises UsageError when there is none."""
    journal = find_unfinished(directory, place=place)
    if journal is None:
        raise UsageError(
            "There is no unfinished reprocess run of this pipeline to go on with",
            hint="`twobuckets reprocess --status` shows the last run.",
        )
    return journal


def open_newest(directory: Path, *, place: str | None) -> Journal | None:
    """Return the newest run about a pipeline for reading, even while a process works on it.

    Without a `place`, that of any pipeline. Raises JournalError for one that can't be read,
    TwoBucketsError for one in the form of another release.
    """
    for path in reversed(_paths(directory)):
        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(_open_to_read(path))
            row = _run_of(journal)
            if row is not None and row.approved and place in (None, row.place):
                if row.format != FORMAT:
                    raise _of_another_release(path, row)
                stack.pop_all()
                return journal
    return None


def find_items(
    directory: Path,
    keys: Collection[str],
    *,
    place: str,
    unusable: Callable[[JournalError], None],
) -> Iterator[tuple[RunStatus, Item]]:
    """Yield what the runs about a pipeline did with each of some keys, the oldest run first.

    Plans that nobody agreed to are left out. `unusable` hears of each journal that can't be read,
    or has the form of another release.
    """
    for path in _paths(directory):
        try:
            with _open_to_read(path) as journal:
                row = _run_of(journal)
                if row is None or not row.approved or row.place != place:
                    continue
                if row.format != FORMAT:
                    raise _of_another_release(path, row)
                status = status_of(journal)
                items = [item for key in keys for item in journal.items_of(key)]
        except JournalError as error:
            unusable(error)
            continue
        yield from ((status, item) for item in items)


def find_process(path: Path) -> int | None:
    """Return the id of the process that works on a journal, None when none does."""
    try:
        lock = os.open(path.with_suffix(LOCK_SUFFIX), os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.read(lock, 20)
        return int(text) if text.isdigit() else None
    finally:
        os.close(lock)
    return None


def status_of(journal: Journal) -> RunStatus:
    """Return what there is to know of a run beside its counts."""
    return RunStatus(
        command=journal.description["command"],
        planned_at=journal.planned_at,
        is_ended=journal.is_ended,
        process=find_process(journal.path),
        journal=str(journal.path),
    )


def remove_old(directory: Path, *, before: datetime) -> None:
    """Delete journals of runs that ended before an instant, and of plans nobody agreed to.

    One that can't be read, or is in use, stays: that is said where it matters.
    """
    for path in _paths(directory):
        with contextlib.suppress(JournalError):
            journal = _open(path)
            if journal is not None and _is_over(journal, before):
                journal.discard()
            elif journal is not None:
                journal.close()


def _is_over(journal: Journal, before: datetime) -> bool:
    try:
        row = _run_of(journal)
    except JournalError:
        return False
    if row is None or row.format != FORMAT:
        return False
    ended = row.ended_at is not None and row.ended_at < before.isoformat()
    return ended or (not row.approved and row.planned_at < before.isoformat())


def _paths(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{_SUFFIX}"))


def _open(path: Path) -> Journal | None:
    """Open a journal and hold it; None when another process holds it. Raises JournalError."""
    # A file of its own: closing any descriptor of SQLite's file would drop SQLite's own locks.
    held = lock(path.with_suffix(LOCK_SUFFIX))
    if held is None:
        return None
    try:
        database = Database(path)
    except BaseException:
        os.close(held)
        raise
    database.tune()
    return Journal(database, held)


def _open_to_read(path: Path) -> Journal:
    database = Database(path, reads_only=True)
    try:
        database.rows("SELECT 1 FROM sqlite_master")
    except JournalError:
        # A reader, too, writes beside the file, unless nobody else can: as in a read-only folder.
        if os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
            database.close()
            raise
        database.read_unlocked()
    return Journal(database, os.open(os.devnull, os.O_RDONLY))


class _Run(NamedTuple):
    """What a journal says of its run as a whole; `format` is the number of its tables' form."""

    format: int
    fingerprint: str | None
    approved: int
    ended_at: str | None
    planned_at: str
    command: str
    place: str | None


def _run_of(journal: Journal) -> _Run | None:
    """Return what a journal says of its run; None of one that was begun and not written.

    Raises JournalError for a file that is damaged, or can't be read now.
    """
    ((number,),) = journal.db.rows("PRAGMA user_version")
    if journal.db.row("SELECT 1 FROM sqlite_master WHERE name = 'run'") is None:
        return None
    # One of two texts.
    fingerprint = "fingerprint" if number == FORMAT else "NULL"
    columns = f"{fingerprint}, approved, ended_at, planned_at, description"
    row = journal.db.row(f"SELECT {columns} FROM run")  # nosec B608  # noqa: S608
    if row is None:
        return None
    fingerprint, approved, ended_at, planned_at, text = row
    try:
        description = json.loads(text)
        command, place = str(description.get("command")), description.get("place")
    except (ValueError, TypeError, AttributeError):
        raise damaged(journal.path, "it does not say what its run is about") from None
    return _Run(number, fingerprint, approved, ended_at, planned_at, command, place)
