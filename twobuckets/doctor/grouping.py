"""Groups the objects that stay in staging by why.

The order of the questions: is it proven to be in the archive; what did the log say of it; did its
notification leave it out; can anything wake the processor at all; could its code be loaded at that
time; did an invocation die, or Lambda throttle, at that time, which makes it likely and no more;
may it still be under way. Only when all of that says nothing, the event was lost.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from twobuckets.doctor import function
from twobuckets.doctor.causes import JOB_CHECK, Cause, Evidence, LastWord, read_evidence
from twobuckets.doctor.findings import Finding, Severity
from twobuckets.doctor.staging import is_archived, iter_staged, lock_of, version_staged
from twobuckets.doctor.stuck import (
    FAILURES,
    JOB_RUNNING,
    MANY,
    MOST_EXPLAINED,
    RETRIED,
    WHY,
    Stuck,
    StuckGroup,
)
from twobuckets.doctor.summary import StagedTotals
from twobuckets.doctor.unlogged import explain_nameless, explain_unlogged, match_nameless
from twobuckets.parallel import map_ordered, map_unordered
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.retries import DELIVERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.retries import Retries
    from twobuckets.pipeline.versions import Version

_MOST_YOUNG: Final = 10_000
"""How many objects that are not stuck by their age are looked for in the log."""
_SAMPLES: Final = 16
"""How many objects of a group are looked for in the archive before all of them are."""
_MOST_LOOKED_FOR: Final = 2_000
_MOST_GROUPS: Final = 40

# What keeps the processor from doing anything once it is woken.
_FIRST: Final = (
    function.find_missing_function,
    function.find_switched_off,
    function.find_bad_state,
)


def examine(site: Site) -> Stuck:
    """Return what is stuck and why.

    Lists staging once and reads the log once, whatever is stuck. Raises CouldNotLook.
    """
    stuck: dict[str, Version] = {}
    young: dict[str, Version] = {}
    more = 0
    stuck_after = site.stuck_after
    totals = StagedTotals(readable_bytes=site.readable_bytes, stuck_after=stuck_after)
    for row in iter_staged(site):
        age = site.now - row.modified_at
        is_stuck = age >= stuck_after
        totals.add(row.key, age, row.size_bytes or 0, is_stuck=is_stuck)
        if is_stuck and len(stuck) < MOST_EXPLAINED:
            stuck[row.key] = version_staged(row)
        elif is_stuck:
            more += 1
        elif len(young) < _MOST_YOUNG:
            young[row.key] = version_staged(row)
    if not stuck and not young:
        return Stuck(totals)
    unread: CouldNotLook | None = None
    try:
        evidence = read_evidence(site, stuck | young)
    except Gone:
        evidence = Evidence()
    except CouldNotLook as reason:
        evidence, unread = Evidence(), reason
    _look_at_jobs(site, evidence)
    groups = list(_groups(site, stuck, young, evidence, log_is_read=unread is None))
    for group in groups:
        is_stuck = group.cause.check != JOB_RUNNING
        for staged in group.objects:
            if is_stuck and staged.key in young:
                totals.call_stuck(staged.size_bytes)
            elif not is_stuck and staged.key in stuck:
                totals.call_under_way(staged.size_bytes)
    groups = _join_small(_split_archived(site, groups))
    groups.sort(key=lambda group: -len(group.objects))
    return Stuck(totals, tuple(groups), more, unread, _find_what_comes_first(site))


def _look_at_jobs(site: Site, evidence: Evidence) -> None:
    """Make what AWS Batch says of jobs the last word on the objects that they have."""
    if not evidence.jobs:
        return
    try:
        found = site.facts.jobs.find(job_id for job_id, _ in evidence.jobs.values())
    except CouldNotLook as reason:
        found, unseen = {}, str(reason)
    else:
        unseen = "AWS Batch does not know the job any more"
    for key, (job_id, at) in evidence.jobs.items():
        job = found.get(job_id)
        word = evidence.last_words[key]
        if job is not None and job.is_under_way:
            # What it said of an earlier try is not its last word.
            evidence.last_words[key] = LastWord(at, Cause(JOB_RUNNING, ""), None, ended_well=True)
        elif word.cause == Cause(JOB_CHECK, job_id):
            said = f"{job.status}: {job.reason}".rstrip(": ") if job is not None else unseen
            cause = evidence.cause(JOB_CHECK, said)
            evidence.last_words[key] = LastWord(at, cause, None, ended_well=True)


def _groups(
    site: Site,
    stuck: Mapping[str, Version],
    young: Mapping[str, Version],
    evidence: Evidence,
    *,
    log_is_read: bool,
) -> Iterable[StuckGroup]:
    groups: dict[tuple[str, str], StuckGroup] = {}

    def put(staged: Version, cause: Cause, why: str, *, is_last: bool = True) -> None:
        group = groups.setdefault((cause.check, cause.error), StuckGroup(cause, why))
        group.objects.append(staged)
        group.trying += not is_last

    retries = site.retries
    # Where a try before that was not the last, the next would have ended by now and said something.
    over_at = site.now - (retries.pause + site.timeout + DELIVERY)
    unlogged = []
    for key, staged in stuck.items():
        word = evidence.last_words.get(key)
        if word is None:
            unlogged.append(staged)
        else:
            is_last = word.cause.check not in RETRIED or _is_last(word, retries, over_at)
            put(staged, word.cause, WHY[word.cause.check], is_last=is_last)
    unlogged_young = []
    for key, staged in young.items():
        word = evidence.last_words.get(key)
        if word is None:
            unlogged_young.append(staged)
        elif word.cause.check in FAILURES and _is_last(word, retries, over_at):
            put(staged, word.cause, WHY[word.cause.check])
    died = match_nameless(site, unlogged + unlogged_young, evidence)
    for staged in unlogged_young:
        match = died.get(staged.key)
        if match is not None and retries.is_last(match.deaths):
            put(staged, *explain_nameless(match))
    if unlogged:
        for staged, cause, why in explain_unlogged(
            site, unlogged, evidence, died, log_is_read=log_is_read
        ):
            put(staged, cause, why)
    return groups.values()


def _is_last(word: LastWord, retries: Retries, over_at: datetime) -> bool:
    """Tell whether nothing more will come of an object by itself after what was said of it last."""
    is_counted_out = word.attempt is not None and retries.is_last(word.attempt)
    return word.ended_well or is_counted_out or word.at < over_at


def _find_what_comes_first(site: Site) -> Finding | None:
    """Return the finding that has to be fixed before waking the processor can do anything."""
    for find in _FIRST:
        try:
            finding = next(find(site), None)
        except CouldNotLook:
            continue
        if finding is not None and finding.severity is Severity.PROBLEM:
            return finding
    return None


def _split_archived(site: Site, groups: list[StuckGroup]) -> Iterator[StuckGroup]:
    """Yield the groups, and what is proven to be archived as a group of its own."""
    archived: list[Version] = []
    looked = map_ordered(lambda group: (group, _archived_among(site, group)), groups, workers=4)
    for group, found in looked:
        archived += found
        if found:
            gone = {staged.key for staged in found}
            group.objects = [staged for staged in group.objects if staged.key not in gone]
        if group.objects:
            yield group
    deletable: list[Version] = []
    locked: dict[str, list[Version]] = {}
    for staged, lock in map_ordered(lambda one: (one, _lock_of(site, one)), archived):
        (deletable if lock is None else locked.setdefault(lock, [])).append(staged)
    if deletable:
        yield StuckGroup(Cause("stuck-archived", ""), WHY["stuck-archived"], deletable)
    for lock, objects in locked.items():
        yield StuckGroup(Cause("stuck-locked", lock), WHY["stuck-locked"], objects)


def _lock_of(site: Site, staged: Version) -> str | None:
    try:
        return lock_of(site, staged)
    except CouldNotLook:
        return None


def _archived_among(site: Site, group: StuckGroup) -> list[Version]:
    """Return what is in the archive: a sample is looked for first, and all if one of it is there.

    What was rejected, or can't be looked for, stays what it is.
    """
    if group.cause.check in ("stuck-rejected", "stuck-own-key"):
        return []
    objects = group.objects
    step = max(1, len(objects) // _SAMPLES)
    sample = objects[::step][:_SAMPLES]
    try:
        found = _look_for(site, sample)
        if not found or len(sample) == len(objects):
            return found
        asked = {staged.key for staged in sample}
        rest = (staged for staged in objects if staged.key not in asked)
        return found + _look_for(site, itertools.islice(rest, _MOST_LOOKED_FOR))
    except CouldNotLook:
        return []


def _look_for(site: Site, objects: Iterable[Version]) -> list[Version]:
    looked = map_unordered(lambda staged: (staged, is_archived(site, staged)), objects)
    return [staged for staged, is_there in looked if is_there]


def _join_small(groups: Iterable[StuckGroup]) -> list[StuckGroup]:
    """Return at most so many groups as a person reads; the smallest become one for each check."""
    ordered = sorted(groups, key=lambda group: -len(group.objects))
    joined: dict[str, StuckGroup] = {}
    for group in ordered[_MOST_GROUPS:]:
        check = group.cause.check
        others = joined.setdefault(check, StuckGroup(Cause(check, MANY), group.why))
        others.objects += group.objects
    return ordered[:_MOST_GROUPS] + list(joined.values())
