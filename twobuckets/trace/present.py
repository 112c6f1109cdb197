"""What is true of a key now, and what happens next."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.logs.lines import CRASHED, NOT_LOADED, OUT_OF_MEMORY, RAISED, TIMED_OUT
from twobuckets.pipeline.lifecycle import Clearing, end_of_noncurrent
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.pipeline.retries import DEFAULT, DELIVERY, LONGEST_TIMEOUT, retries_of_arrivals
from twobuckets.pipeline.versions import NO_VERSION
from twobuckets.processor.contract import (
    ARCHIVED,
    FAILED,
    JOB_TRIES,
    REJECTED,
    SUBMITTED,
    stands_for_folder,
)
from twobuckets.processor.copies import Copy
from twobuckets.text import shell_word
from twobuckets.trace.events import ARCHIVE, PROCESSOR, STAGING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.retries import Retries
    from twobuckets.pipeline.versions import Version
    from twobuckets.trace.events import KeyHistory, TraceEvent

_FAILURES: Final = frozenset({FAILED, TIMED_OUT, OUT_OF_MEMORY, CRASHED, NOT_LOADED, RAISED})
NEEDS_YOU: Final = frozenset({"failed", "rejected", "stuck", "left-in-staging"})
"""The states out of which a key does not come by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedState:
    """What is true of a key now, and what happens next.

    `state` is `archived`, `waiting` for the processor, `in-job`, `retrying`, `failed`, `rejected`,
    `stuck` without a word of why, `left-in-staging` though it is archived, `folder`, `uploading`,
    `deleted` or `unknown`. `since` is when that began, `place` the bucket of `version_id`. `next`
    says what happens without you, at `next_at` at the latest; `command` is what to run.
    """

    key: str
    state: str
    needs_you: bool
    since: datetime | None = None
    place: str | None = None
    version_id: str | None = None
    next: str | None = None
    next_at: datetime | None = None
    command: str | None = None


class Presence:
    """What decides what is true of a key: the pipeline's retries, its rules, the time."""

    def __init__(self, facts: Facts, *, program: str) -> None:
        self._facts = facts
        self._now = facts.now
        self._program = program
        self._retries = _retries(facts)
        self._timeout = _timeout(facts)

    def of(
        self, life: KeyHistory, events: Sequence[TraceEvent], *, begun_here: Mapping[str, str] = {}
    ) -> TracedState:
        """Return what is true of a key after what happened to it, in time order."""
        staged = _current(life.staged)
        if staged is not None:
            return self._of_staged(life, staged, events)
        archived = _current(life.archived)
        if archived is not None:
            return TracedState(
                key=life.key,
                state=ARCHIVED,
                needs_you=False,
                since=_archived_at(events, archived),
                place=ARCHIVE,
                version_id=archived.version_id,
                command=self._command("get", life.key, "FILE --in archive"),
            )
        if life.uploads:
            return self._of_upload(life, begun_here)
        if life.staged or life.archived:
            return self._of_deleted(life)
        return TracedState(key=life.key, state="unknown", needs_you=False)

    def _of_staged(
        self, life: KeyHistory, staged: Version, events: Sequence[TraceEvent]
    ) -> TracedState:
        def state(
            name: str,
            since: datetime,
            next_: str | None = None,
            next_at: datetime | None = None,
            command: str | None = None,
        ) -> TracedState:
            return TracedState(
                key=life.key,
                state=name,
                needs_you=name in NEEDS_YOU,
                since=since,
                place=STAGING,
                version_id=staged.version_id,
                next=next_,
                next_at=next_at,
                command=command,
            )

        put_at = staged.modified_at
        if self._skips(staged):
            return state("folder", put_at, "it stands for a folder, and stays")
        over_at = put_at + self._retries.stuck_after
        if any(_is_copy(copy, staged, self._facts.pipeline.staging) for copy in life.archived):
            if self._now < over_at:
                return state("waiting", put_at, "it is archived, and the processor deletes it here")
            return state("left-in-staging", put_at, command=f"{self._program} doctor --fix")
        word = _last_word(events, staged)
        if word is not None and _is_with_job(word, events, staged):
            return state("in-job", word.at, "a job of AWS Batch has it; `doctor` says how it does")
        if word is None or word.event not in {*_FAILURES, REJECTED}:
            if self._now < over_at:
                return state("waiting", put_at, "the processor is told of it", over_at)
            return state("stuck", put_at, command=f"{self._program} doctor")
        again = self._command("reprocess", life.key)
        if word.event == REJECTED:
            said = "nothing is tried again; once the processor or the file is right:"
            return state("rejected", word.at, said, command=again)
        # Deaths carry no number, so as many tries as were seen are counted.
        tries = word.attempt or _count_tries(events, staged)
        next_at = word.at + self._retries.pause_after(tries)
        may_end_at = next_at + self._timeout + DELIVERY
        if not self._retries.is_last(tries) and self._now < may_end_at:
            of = f" of {self._retries.attempts}" if self._retries.attempts is not None else ""
            said = f"{self._retries.by} tries it again, for the {_ordinal(tries + 1)} time{of}"
            return state("retrying", word.at, said, next_at)
        said = "nothing is tried again; once the processor or the file is right:"
        return state("failed", word.at, said, command=again)

    def _of_upload(self, life: KeyHistory, begun_here: Mapping[str, str]) -> TracedState:
        upload = life.uploads[-1]
        path = begun_here.get(upload.upload_id)
        end = self._facts.end_of_upload(self._facts.pipeline.staging, upload)
        following = {
            Clearing.BY_RULE: "a lifecycle rule aborts it unless it is completed",
            Clearing.NONE: "no lifecycle rule aborts it",
            Clearing.UNKNOWN: "whether a lifecycle rule aborts it could not be read",
            Clearing.NOT_HERE: "the embedded AWS runs no lifecycle rules, so nothing aborts it",
        }[end.clearing]
        key = shell_word(life.key, otherwise="KEY")
        return TracedState(
            key=life.key,
            state="uploading",
            needs_you=False,
            since=upload.initiated_at,
            place=STAGING,
            next=following,
            next_at=end.at,
            command=f"{self._program} upload {shell_word(path, otherwise='FILE')} --key {key}"
            if path is not None
            else None,
        )

    def _of_deleted(self, life: KeyHistory) -> TracedState:
        """Say of a key that only has versions below a delete marker what can be brought back."""
        place, versions = (ARCHIVE, life.archived) if life.archived else (STAGING, life.staged)
        marker = next((v for v in versions if v.is_delete_marker), None)
        newest = next((v for v in versions if not v.is_delete_marker), None)
        since = marker.modified_at if marker is not None else None
        expires_at = None
        if newest is not None and since is not None and self._facts.runs_rules:
            bucket = getattr(self._facts.pipeline, place)
            with contextlib.suppress(CouldNotLook):
                rules = self._facts.buckets.lifecycle(bucket)
                expires_at = end_of_noncurrent(rules, life.key, since)
        can_be_read = newest is not None and newest.version_id is not None
        return TracedState(
            key=life.key,
            state="deleted",
            needs_you=False,
            since=since,
            place=place,
            version_id=newest.version_id if newest is not None else None,
            next="its newest version expires" if expires_at is not None else None,
            next_at=expires_at,
            command=self._command(
                "get", life.key, f"FILE --in {place} --version-id {newest.version_id}"
            )
            if newest is not None and can_be_read
            else None,
        )

    def _skips(self, staged: Version) -> bool:
        try:
            skips = self._facts.function.skips_folders
        except CouldNotLook:
            skips = False
        return skips and stands_for_folder(staged.key, staged.size_bytes)

    def _command(self, name: str, key: str, rest: str = "") -> str:
        return f"{self._program} {name} {shell_word(key, otherwise='KEY')} {rest}".rstrip()


def _retries(facts: Facts) -> Retries:
    try:
        return retries_of_arrivals(facts)
    except CouldNotLook:
        return DEFAULT


def _timeout(facts: Facts) -> timedelta:
    try:
        return facts.function.timeout()
    except CouldNotLook:
        return LONGEST_TIMEOUT


def _current(versions: Iterable[Version]) -> Version | None:
    newest = next(iter(versions), None)
    return None if newest is None or newest.is_delete_marker else newest


def _is_copy(archived: Version, staged: Version, staging: str) -> bool:
    if archived.is_delete_marker or archived.modified_at < staged.modified_at:
        return False
    return archived.copy_of(staged, staging) in (Copy.PROVEN, Copy.ALIKE)


def _archived_at(events: Sequence[TraceEvent], archived: Version) -> datetime:
    """Return when a version came to the archive, to the log's millisecond where a line tells."""
    if archived.version_id in NO_VERSION:
        return archived.modified_at
    told = [e.at for e in events if e.archive_version_id == archived.version_id]
    return min(told, default=archived.modified_at)


def _is_about(event: TraceEvent, staged: Version) -> bool:
    if event.place != PROCESSOR or event.at < staged.modified_at.replace(microsecond=0):
        return False
    return event.version_id in (None, staged.version_id) or staged.version_id in NO_VERSION


def _is_with_job(word: TraceEvent, events: Sequence[TraceEvent], staged: Version) -> bool:
    """Tell whether a job has a version, and will try it again if this word is of a failure."""
    if word.event == SUBMITTED:
        return True
    was_handed_over = any(e.event == SUBMITTED and _is_about(e, staged) for e in events)
    return word.event in _FAILURES and was_handed_over and (word.attempt or 1) < JOB_TRIES


def _last_word(events: Sequence[TraceEvent], staged: Version) -> TraceEvent | None:
    return next((e for e in reversed(events) if _is_about(e, staged)), None)


def _count_tries(events: Sequence[TraceEvent], staged: Version) -> int:
    return sum(_is_about(e, staged) and e.event in _FAILURES for e in events)


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 % 10 != 1 else 0, "th")
    return f"{number}{ending}"
