"""Opens the run that a command is about: one to go on with, or a new one with its plan."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.errors import UsageError
from twobuckets.reprocess import journals
from twobuckets.units import format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from twobuckets.reprocess.choice import Choice
    from twobuckets.reprocess.journal import Journal
    from twobuckets.reprocess.plan import Action
    from twobuckets.settings import Pipeline

_KEPT: Final = timedelta(days=30)
"""How long the journal of an ended run is kept."""


def place_of(endpoint_url: str, pipeline: Pipeline) -> str:
    """Return what tells the runs of one pipeline from those of others."""
    return json.dumps([endpoint_url, pipeline.staging, pipeline.archive])


@contextlib.contextmanager
def open_run(
    directory: Path,
    choice: Choice,
    *,
    place: str,
    plan: Callable[[], Iterable[Action]],
    now: datetime,
    note: Callable[[str], None],
    warn: Callable[[str], None],
    resume: bool = False,
    restart: bool = False,
    dry_run: bool = False,
) -> Iterator[Journal]:
    """Yield the run to go on with, or a new one with its plan; forget a plan nobody agreed to.

    With `resume` it is the last unfinished run, whatever was asked for in it; with `restart`, or
    for a `dry_run`, always a new one. `note` hears that an earlier run goes on, `warn` of journals
    that are of no use.

    Raises UsageError when there is nothing to resume or too little is chosen, and when a batch job
    of the run to be replaced has made copies that were not looked at; JournalError for a journal
    that can't be read or written; TwoBucketsError when another process is at the run.
    """
    if not resume:
        choice.require_one_source()
    fingerprint = choice.fingerprint(place)
    if not dry_run:
        journals.remove_old(directory, before=now - _KEPT)
    found = None
    if resume:
        found = journals.require_unfinished(directory, place=place)
    elif not dry_run:
        found = journals.find_unfinished(
            directory,
            place=place,
            fingerprint=fingerprint,
            # Where everything is planned anew, it is enough to say what can't be gone on with.
            unusable=(lambda error: warn(error.message)) if restart else journals.refuse,
        )
    if found is not None and restart:
        with found:
            _require_checked(found)
    elif found is not None:
        with found:
            if not dry_run:
                note(_reopen(found))
            yield found
        return
    journal = journals.create(
        directory,
        fingerprint=fingerprint,
        description={
            "command": choice.words(),
            "place": place,
            "restores": choice.restore,
        },
        now=now,
    )
    try:
        journal.add(plan())
        yield journal
    finally:
        if journal.is_approved:
            journal.close()
        else:
            journal.discard()


def _require_checked(journal: Journal) -> None:
    """Raise UsageError when a batch job has copied what nobody would look at any more."""
    if not journal.has_unchecked_copies():
        return
    job = f" {journal.job_id}" if journal.job_id else ""
    cancel = (
        f"To stop its job first: aws s3control update-job-status --job-id{job} "
        "--requested-job-status Cancelled --account-id …"
        if journal.job_id
        else "It ends when all is looked at."
    )
    raise UsageError(
        f"Could not plan anew: the S3 Batch Operations job{job} of the run of "
        f"{format_instant(journal.planned_at)} has made copies, and each has to be looked at first",
        hint=f"The same command without --restart does that. {cancel}",
    )


def _reopen(journal: Journal) -> str:
    """Plan again what failed in a run, and return that it goes on, in words."""
    again = journal.reopen_failed()
    return (
        f"Going on with the run of {format_instant(journal.planned_at)}"
        + (f", {again:,} that failed are tried again" if again else "")
        + "; --restart plans anew"
    )
