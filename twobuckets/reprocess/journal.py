"""The journal of one reprocess run: what is to be done, what was begun, what came of it.

One SQLite file a run. The plan is written into it before anything changes, so a plan of any length
needs no memory and the same command goes on where an earlier one stopped. Nothing here is needed
for safety: every change is conditional on what S3 holds at that moment. What the journal saves is
doing things twice.

Table `item`, one row an object: `key`, `kind` (copy, wake, restore, skip), `version_id`,
`etag`, `size`, `state`, `reason`, `staged_version_id`, `began_at` (seconds since 1970 by S3's
clock), `upload_id` (of a multipart copy), `job` (the number of the batch job that was to copy it, 0
for none), `is_chosen` (this version was asked for by itself). States:

    planned → begun → done            copied to staging, or woken there
              any   → failed | left   failed is tried again by --resume; left is final
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twobuckets.database import damaged
from twobuckets.reprocess.items import Change, Count, Item, State
from twobuckets.reprocess.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from twobuckets.database import Database
    from twobuckets.pipeline.versions import Version
    from twobuckets.reprocess.plan import Action

FORMAT: Final = 2
"""The number of this form of the tables; another release may have another one.

Whatever its number, `run` has `description`, `planned_at`, `approved` and `ended_at`.
"""
SCHEMA: Final = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE run (
  fingerprint TEXT NOT NULL, description TEXT NOT NULL, planned_at TEXT NOT NULL,
  approved INTEGER NOT NULL DEFAULT 0, ended_at TEXT,
  jobs INTEGER NOT NULL DEFAULT 0, job_id TEXT
);
CREATE TABLE item (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, version_id TEXT, etag TEXT,
  size INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT, staged_version_id TEXT, began_at REAL,
  upload_id TEXT, job INTEGER NOT NULL DEFAULT 0, is_chosen INTEGER NOT NULL
);
CREATE INDEX item_state ON item (state, id);
CREATE INDEX item_key ON item (key);
"""
_PAGE: Final = 500
LOCK_SUFFIX: Final = ".lock"
NOT_KNOWN: Final = ""
"""In place of a job's id: it was asked for, and the answer did not arrive."""

_ITEM_FIELDS: Final = tuple(field.name for field in fields(Item))
# Columns are our own names.
_SELECT_ITEMS: Final = (
    "SELECT " + ", ".join(_ITEM_FIELDS) + " FROM item"  # nosec B608  # noqa: S608
)


class Journal:
    """An open journal, held by this process alone until it is closed."""

    def __init__(self, db: Database, lock: int) -> None:
        self.path = db.path
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
        (text,) = self._run("description")
        return dict(json.loads(text))

    @property
    def planned_at(self) -> datetime:
        """When the plan was made."""
        (text,) = self._run("planned_at")
        return datetime.fromisoformat(text)

    @property
    def is_approved(self) -> bool:
        """Tell whether the plan is complete and somebody agreed to it."""
        return self.db.has_begun

    @property
    def is_ended(self) -> bool:
        """Tell whether the run came to its end."""
        return self._run("ended_at") != (None,)

    def add(self, actions: Iterable[Action]) -> None:
        """Write a plan's actions, in their order, at once when they are exhausted."""
        with self.db.writing() as db:
            db.executemany(
                "INSERT INTO item (key, kind, version_id, etag, size, state, reason, is_chosen)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        action.key,
                        action.kind,
                        action.version_id,
                        action.etag,
                        action.size,
                        State.LEFT if action.kind is Kind.SKIP else State.PLANNED,
                        action.reason,
                        action.is_chosen,
                    )
                    for action in actions
                ),
            )

    def approve(self) -> None:
        """Note that the plan may be applied, from now on by `--resume` too."""
        with self.db.writing() as db:
            db.execute("UPDATE run SET approved = 1")
        self.db.has_begun = True

    def end(self, now: datetime) -> None:
        """Note that the run came to its end."""
        with self.db.writing() as db:
            db.execute("UPDATE run SET ended_at = ?", (now.isoformat(),))

    def reopen_failed(self) -> int:
        """Plan failed items again and return how many there are."""
        with self.db.writing() as db:
            db.execute("UPDATE run SET ended_at = NULL")
            # One that was begun may have arrived: what S3 holds is looked at first.
            return db.execute(
                "UPDATE item SET state = CASE WHEN began_at IS NULL THEN ? ELSE ? END"
                " WHERE state = ?",
                (State.PLANNED, State.BEGUN, State.FAILED),
            ).rowcount

    def begin(self, items: Iterable[Item], now: float) -> None:
        """Note on disk, before the first call for them, that items are being worked on."""
        with self.db.writing() as db:
            db.executemany(
                "UPDATE item SET state = ?, began_at = ? WHERE id = ?",
                [(State.BEGUN, now, item.id) for item in items],
            )

    def note(self, changes: Iterable[Change]) -> None:
        """Write what came of items, all in one transaction."""
        with self.db.writing() as db:
            db.executemany(
                "UPDATE item SET state = ?, reason = ?,"
                " staged_version_id = coalesce(?, staged_version_id) WHERE id = ?",
                [(c.state, c.reason, c.staged_version_id, c.id) for c in changes],
            )

    def iter_items(
        self, *states: State, kinds: tuple[str, ...] = (), job: int | None = None
    ) -> Iterator[Item]:
        """Yield items that are in one of the states (any, without states), in the plan's order.

        With `job`, only those of the batch job with that number.
        Items may be changed while this goes on: it reads a page at a time, each by its place.
        """
        last = 0
        where = f"state IN ({_marks(states)})" if states else "1"
        if kinds:
            where += f" AND kind IN ({_marks(kinds)})"
        if job is not None:
            where += f" AND job = {job:d}"
        while True:
            rows = self.db.rows(
                f"{_SELECT_ITEMS} WHERE {where} AND id > ? ORDER BY id LIMIT ?",
                *states,
                *kinds,
                last,
                _PAGE,
            )
            if not rows:
                return
            for row in rows:
                yield _item(row)
            last = rows[-1][0]

    def counts(self) -> list[Count]:
        """Return how many objects and bytes are in each state, by kind and reason."""
        rows = self.db.rows(
            "SELECT kind, state, reason, count(*), total(size) FROM item"
            " GROUP BY kind, state, reason ORDER BY count(*) DESC"
        )
        return [
            Count(kind, State(state), reason, n, int(size)) for kind, state, reason, n, size in rows
        ]

    def begin_job(self, now: float, *, kinds: tuple[str, ...]) -> int:
        """Note that every planned item of these kinds falls to a batch job; return its number.

        As long as nobody knows whether that job was created, it is the same job again.
        """
        (number, job_id) = self._run("jobs", "job_id")
        if job_id == NOT_KNOWN:
            return int(number)
        with self.db.writing() as db:
            db.execute("UPDATE run SET jobs = jobs + 1, job_id = ?", (NOT_KNOWN,))
            db.executemany(
                "UPDATE item SET state = ?, began_at = ?, job = ? WHERE state = ? AND kind = ?",
                [(State.BEGUN, now, number + 1, State.PLANNED, kind) for kind in kinds],
            )
        return int(number) + 1

    def withdraw_job(self) -> None:
        """Note that the last batch job copied nothing: what fell to it is planned as before."""
        with self.db.writing() as db:
            db.execute(
                "UPDATE item SET state = ?, began_at = NULL, job = 0"
                " WHERE job > 0 AND job = (SELECT jobs FROM run) AND state = ?",
                (State.PLANNED, State.BEGUN),
            )
            db.execute("UPDATE run SET job_id = NULL")

    def never_began(self, items: Iterable[Item]) -> None:
        """Note that a batch job has surely not copied some items."""
        with self.db.writing() as db:
            db.executemany(
                "UPDATE item SET began_at = NULL, job = 0 WHERE id = ?",
                [(item.id,) for item in items],
            )

    def wake_instead(self, item: Item, waiting: Version, reason: str) -> None:
        """Plan to wake the processor for a file that waits in staging, in place of a copy."""
        with self.db.writing() as db:
            db.execute(
                "UPDATE item SET kind = 'wake', state = ?, reason = ?, version_id = ?, etag = ?,"
                " size = ?, began_at = NULL WHERE id = ?",
                (
                    State.PLANNED,
                    reason,
                    waiting.version_id,
                    waiting.etag,
                    waiting.size_bytes,
                    item.id,
                ),
            )

    def restore_instead(self, item: Item) -> None:
        """Plan to ask an object back from where it can't be read, in place of a copy."""
        with self.db.writing() as db:
            db.execute(
                "UPDATE item SET kind = 'restore', state = ?, began_at = NULL WHERE id = ?",
                (State.PLANNED, item.id),
            )

    def has_unchecked_copies(self) -> bool:
        """Tell whether a batch job made, or still makes, copies that nobody has looked at."""
        unchecked = self.db.row(
            "SELECT 1 FROM item WHERE job > 0 AND kind = 'copy' AND state IN (?, ?) LIMIT 1",
            State.BEGUN,
            State.FAILED,
        )
        return self.job_id is not None or unchecked is not None

    def has_planned(self, kinds: tuple[str, ...]) -> bool:
        """Tell whether anything of these kinds has not been begun."""
        return next(self.iter_items(State.PLANNED, kinds=kinds), None) is not None

    def items_of(self, key: str) -> list[Item]:
        """Return the items of a key, in the plan's order."""
        rows = self.db.rows(f"{_SELECT_ITEMS} WHERE key = ? ORDER BY id", key)
        return [_item(row) for row in rows]

    def find(self, key: str, version_id: str | None) -> Item | None:
        """Return the item of one version, or None."""
        row = self.db.row(f"{_SELECT_ITEMS} WHERE key = ? AND version_id IS ?", key, version_id)
        return None if row is None else _item(row)

    @property
    def job_id(self) -> str | None:
        """The S3 Batch Operations job that does the copies, until its report was read.

        NOT_KNOWN between the request to create it and S3's answer.
        """
        (job_id,) = self._run("job_id")
        return None if job_id is None else str(job_id)

    @property
    def jobs(self) -> int:
        """How many S3 Batch Operations jobs the run has had."""
        (jobs,) = self._run("jobs")
        return int(jobs)

    def note_job(self, job_id: str | None) -> None:
        """Write down the job that does the copies, or that it is over."""
        with self.db.writing() as db:
            db.execute("UPDATE run SET job_id = ?", (job_id,))

    def note_upload(self, item: Item, upload_id: str) -> None:
        """Write down a multipart copy in the breath that creates it, so that it can be aborted."""
        with self.db.writing() as db:
            db.execute("UPDATE item SET upload_id = ? WHERE id = ?", (upload_id, item.id))

    def _run(self, *columns: str) -> tuple[Any, ...]:
        # Columns are our own names.
        row = self.db.row(f"SELECT {', '.join(columns)} FROM run")  # nosec B608  # noqa: S608
        if row is None:
            raise damaged(self.path, "it says nothing of its run")
        return row

    def discard(self) -> None:
        """Delete the journal: its plan was not agreed to."""
        self.db.close()
        # One that stays, in a folder that may no longer be written to, is nothing to go on with.
        with contextlib.suppress(OSError):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self.path.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)
        os.close(self._lock)


def _item(row: tuple[Any, ...]) -> Item:
    # SQLite knows neither enumerations nor booleans.
    columns = dict(zip(_ITEM_FIELDS, row, strict=True))
    return Item(**columns | {"state": State(columns["state"]), "is_chosen": bool(row[-1])})


def _marks(values: tuple[object, ...]) -> str:
    return ", ".join("?" * len(values))
