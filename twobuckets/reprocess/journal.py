"""The journal of one reprocess run: what is to be done, what was begun, what came of it.

One SQLite file a run. The plan is written into it before anything changes, so a plan of any length
needs no memory and the same command goes on where an earlier one stopped. Nothing here is needed
for safety: every change is conditional on what S3 holds at that moment. What the journal saves is
doing things twice.

Table `item`, one row an object: `key`, `kind` (move, copy, wake, restore, skip), `version_id`,
`etag`, `size`, `state`, `reason`, `staged_version_id`, `began_at` (seconds since 1970), `upload_id`
(of a multipart copy), `is_chosen` (this version was asked for by itself). States:

    planned → begun → copied → done           a move: copied to staging, then deleted from archive
              begun ────────→ done            a copy that keeps the archived version, or a wake-up
              any   ────────→ failed | left   failed is tried again by --resume; left is final
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import sqlite3
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twobuckets.errors import TwoBucketsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from twobuckets.reprocess.plan import Action

SCHEMA: Final = """
CREATE TABLE run (
  fingerprint TEXT NOT NULL, description TEXT NOT NULL, planned_at TEXT NOT NULL,
  approved INTEGER NOT NULL DEFAULT 0, ended_at TEXT,
  job_id TEXT
);
CREATE TABLE item (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, version_id TEXT, etag TEXT,
  size INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT, staged_version_id TEXT, began_at REAL,
  upload_id TEXT, is_chosen INTEGER NOT NULL
);
CREATE INDEX item_state ON item (state, id);
CREATE INDEX item_key ON item (key);
"""
_PAGE: Final = 500
_SUFFIX: Final = ".journal"
_LOCK_SUFFIX: Final = ".lock"


class State(enum.StrEnum):
    """How far one object has come."""

    PLANNED = "planned"
    BEGUN = "begun"
    COPIED = "copied"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the journal; `began_at` is in seconds since 1970."""

    id: int
    key: str
    kind: str
    version_id: str | None
    etag: str | None
    size: int
    state: State
    reason: str | None
    staged_version_id: str | None
    began_at: float | None
    upload_id: str | None
    is_chosen: bool


_ITEM_FIELDS: Final = tuple(field.name for field in fields(Item))
_SELECT_ITEMS: Final = "SELECT " + ", ".join(_ITEM_FIELDS) + " FROM item"  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Change:
    """A new state of one item."""

    id: int
    state: State
    reason: str | None = None
    staged_version_id: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many objects and bytes of one kind are in one state, and the reason they share."""

    kind: str
    state: State
    reason: str | None
    objects: int
    bytes: int


class Journal:
    """An open journal, held by this process alone until it is closed."""

    def __init__(self, path: Path, db: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self.db = db
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other processes have it."""
        self.db.close()
        os.close(self._lock)

    @property
    def description(self) -> dict[str, Any]:
        """What was asked for, as the command wrote it."""
        (text,) = self.db.execute("SELECT description FROM run").fetchone()
        return dict(json.loads(text))

    @property
    def planned_at(self) -> datetime:
        """When the plan was made."""
        (text,) = self.db.execute("SELECT planned_at FROM run").fetchone()
        return datetime.fromisoformat(text)

    @property
    def is_approved(self) -> bool:
        """Tell whether the plan is complete and somebody agreed to it."""
        return bool(self.db.execute("SELECT approved FROM run").fetchone()[0])

    @property
    def is_ended(self) -> bool:
        """Tell whether the run came to its end."""
        return self.db.execute("SELECT ended_at FROM run").fetchone()[0] is not None

    def add(self, actions: Iterable[Action]) -> None:
        """Write a plan's actions, in their order, at once when they are exhausted."""
        with self.db:
            self.db.executemany(
                "INSERT INTO item (key, kind, version_id, etag, size, state, reason, is_chosen)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        action.key,
                        action.kind,
                        action.version_id,
                        action.etag,
                        action.size,
                        State.LEFT if action.kind == "skip" else State.PLANNED,
                        action.reason,
                        action.is_chosen,
                    )
                    for action in actions
                ),
            )

    def keep_archived(self, keys: Iterable[str]) -> None:
        """Plan copies instead of moves for some keys: their archived versions stay."""
        with self.db:
            self.db.executemany(
                "UPDATE item SET kind = 'copy' WHERE key = ? AND kind = 'move'",
                ((key,) for key in keys),
            )

    def approve(self) -> None:
        """Note that the plan may be applied, from now on by `--resume` too."""
        with self.db:
            self.db.execute("UPDATE run SET approved = 1")

    def end(self, now: datetime) -> None:
        """Note that the run came to its end."""
        with self.db:
            self.db.execute("UPDATE run SET ended_at = ?", (now.isoformat(),))

    def reopen_failed(self) -> int:
        """Plan failed items again and return how many there are."""
        with self.db:
            self.db.execute("UPDATE run SET ended_at = NULL")
            # One that had been copied needs only its delete; `settle` looks at what S3 holds.
            return self.db.execute(
                "UPDATE item SET state = CASE WHEN began_at IS NULL THEN ? ELSE ? END"
                " WHERE state = ?",
                (State.PLANNED, State.BEGUN, State.FAILED),
            ).rowcount

    def begin(self, items: Iterable[Item], now: float) -> None:
        """Note on disk, before the first call for them, that items are being worked on."""
        with self.db:
            self.db.executemany(
                "UPDATE item SET state = ?, began_at = ? WHERE id = ?",
                [(State.BEGUN, now, item.id) for item in items],
            )

    def note(self, changes: Iterable[Change]) -> None:
        """Write what came of items, all in one transaction."""
        with self.db:
            self.db.executemany(
                "UPDATE item SET state = ?, reason = ?,"
                " staged_version_id = coalesce(?, staged_version_id) WHERE id = ?",
                [(c.state, c.reason, c.staged_version_id, c.id) for c in changes],
            )

    def iter_items(self, *states: State, kinds: tuple[str, ...] = ()) -> Iterator[Item]:
        """Yield items that are in one of the states (any, without states), in the plan's order.

        Items may be changed while this goes on: it reads a page at a time, each by its place.
        """
        last = 0
        where = f"state IN ({_marks(states)})" if states else "1"
        if kinds:
            where += f" AND kind IN ({_marks(kinds)})"
        while True:
            rows = self.db.execute(
                f"{_SELECT_ITEMS} WHERE {where} AND id > ? ORDER BY id LIMIT ?",
                (*states, *kinds, last, _PAGE),
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield _item(row)
            last = rows[-1][0]

    def counts(self) -> list[Count]:
        """Return how many objects and bytes are in each state, by kind and reason."""
        rows = self.db.execute(
            "SELECT kind, state, reason, count(*), total(size) FROM item"
            " GROUP BY kind, state, reason ORDER BY count(*) DESC"
        )
        return [
            Count(kind, State(state), reason, n, int(size)) for kind, state, reason, n, size in rows
        ]

    def begin_all(self, now: float, *, kinds: tuple[str, ...]) -> None:
        """Note that every planned item of these kinds is begun."""
        with self.db:
            self.db.executemany(
                "UPDATE item SET state = ?, began_at = ? WHERE state = ? AND kind = ?",
                [(State.BEGUN, now, State.PLANNED, kind) for kind in kinds],
            )

    def find(self, key: str, version_id: str | None) -> Item | None:
        """Return the item of one version, or None."""
        row = self.db.execute(
            f"{_SELECT_ITEMS} WHERE key = ? AND version_id IS ?", (key, version_id)
        ).fetchone()
        return None if row is None else _item(row)

    @property
    def job_id(self) -> str | None:
        """The S3 Batch Operations job that does the copies, until its report was read."""
        found: tuple[str | None] = self.db.execute("SELECT job_id FROM run").fetchone()
        return found[0]

    def note_job(self, job_id: str | None) -> None:
        """Write down the job that does the copies, or that it is over."""
        with self.db:
            self.db.execute("UPDATE run SET job_id = ?", (job_id,))

    def note_upload(self, item: Item, upload_id: str) -> None:
        """Write down a multipart copy in the breath that creates it, so that it can be aborted."""
        with self.db:
            self.db.execute("UPDATE item SET upload_id = ? WHERE id = ?", (upload_id, item.id))

    def discard(self) -> None:
        """Delete the journal: its plan was not agreed to."""
        self.db.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.with_suffix(_LOCK_SUFFIX).unlink(missing_ok=True)
        os.close(self._lock)


def create(
    directory: Path, *, fingerprint: str, description: Mapping[str, Any], now: datetime
) -> Journal:
    """Create the journal of a new run.

    Raises TwoBucketsError when the folder can't be written to.
    """
    stem = now.strftime("%Y%m%dT%H%M%S")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1000):
            path = directory / f"{stem}-{number:03d}{_SUFFIX}"
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                break
        journal = _open(path)
        assert journal is not None
        journal.db.executescript(SCHEMA)
        with journal.db:
            journal.db.execute(
                "INSERT INTO run (fingerprint, description, planned_at) VALUES (?, ?, ?)",
                (fingerprint, json.dumps(description), now.isoformat()),
            )
    except (OSError, sqlite3.Error) as error:
        raise TwoBucketsError(
            f"Could not write the journal of this run in {directory}: {error}",
            hint="Without it an interrupted run could not go on. Free some room or permission "
            "there, or point XDG_STATE_HOME to a folder that can be written to.",
        ) from error
    return journal


def find_unfinished(directory: Path, *, fingerprint: str | None = None) -> Journal | None:
    """Return the newest run that was agreed to, has not ended, and that no process works on.

    With `fingerprint`, only a run that was asked for in the same words.
    """
    for path in reversed(_paths(directory)):
        journal = _open(path)
        if journal is None:
            continue
        row = _run_of(journal)
        if row is not None and row[1] and row[2] is None and fingerprint in (None, row[0]):
            return journal
        journal.close()
    return None


def open_newest(directory: Path) -> Journal | None:
    """Return the newest run for reading, even while another process works on it."""
    for path in reversed(_paths(directory)):
        connection = sqlite3.connect(path)
        journal = Journal(path, connection, os.open(os.devnull, os.O_RDONLY))
        row = _run_of(journal)
        if row is not None and row[1]:
            return journal
        journal.close()
    return None


def remove_old(directory: Path, *, before: datetime) -> None:
    """Delete journals of runs that ended before an instant, and of plans nobody agreed to."""
    for path in _paths(directory):
        journal = _open(path)
        if journal is None:
            continue
        row = _run_of(journal)
        ended = row is not None and row[2] is not None and row[2] < before.isoformat()
        unused = row is None or (not row[1] and row[3] < before.isoformat())
        if ended or unused:
            journal.discard()
        else:
            journal.close()


def _paths(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{_SUFFIX}"))


def _open(path: Path) -> Journal | None:
    """Open a journal and hold it; None when another process holds it."""
    # A file of its own: closing any descriptor of SQLite's file would drop SQLite's own locks.
    lock = os.open(path.with_suffix(_LOCK_SUFFIX), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    connection = sqlite3.connect(path)
    # With a write-ahead log a crash of the process loses nothing, and a commit costs no fsync.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return Journal(path, connection, lock)


def _run_of(journal: Journal) -> tuple[str, int, str | None, str] | None:
    """Return fingerprint, approval, end and plan time; None of a file that is no whole journal."""
    try:
        row: tuple[str, int, str | None, str] | None = journal.db.execute(
            "SELECT fingerprint, approved, ended_at, planned_at FROM run"
        ).fetchone()
    except sqlite3.DatabaseError:
        return None
    return row


def _item(row: tuple[Any, ...]) -> Item:
    # SQLite knows neither enumerations nor booleans.
    columns = dict(zip(_ITEM_FIELDS, row, strict=True))
    return Item(**columns | {"state": State(columns["state"]), "is_chosen": bool(row[-1])})


def _marks(values: tuple[object, ...]) -> str:
    return ", ".join("?" * len(values))


def require_unfinished(directory: Path) -> Journal:
    """Return the newest unfinished run. Raises UsageError when there is none."""
    journal = find_unfinished(directory)
    if journal is None:
        raise UsageError(
            "There is no unfinished reprocess run to go on with",
            hint="`twobuckets reprocess --status` shows the last run.",
        )
    return journal
