"""How the processor did lately: files by what became of them, over a short time, at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from twobuckets.errors import AccessError, CredentialsError, TwoBucketsError
from twobuckets.logs.events import iter_events
from twobuckets.logs.lines import (
    FAILURE_PATTERN,
    OUTCOME_OR_FAILURE_PATTERN,
    FailedInvocation,
    InvocationReport,
    Outcome,
    iter_entries,
)
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.status import PartUnread
from twobuckets.processor.contract import FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mypy_boto3_logs import CloudWatchLogsClient

    from twobuckets.logs.lines import Entry
    from twobuckets.pipeline.facts import Facts

SLOTS: Final = 12
"""Into how many equal slots the files of a period are counted."""

SUCCEEDED: Final = "succeeded"
"""What became of an invocation of a processor that writes no outcome lines, and ended well."""

RECENT: Final = timedelta(hours=1)
"""What counts as lately."""
_T = TypeVar("_T")
_MOST_ENTRIES: Final = 50_000
"""Where counting stops."""
_ANY_END_PATTERN: Final = f'{FAILURE_PATTERN} ?"REPORT RequestId"'
"""Every end of an invocation, and the starts that tell it from code that could not be loaded."""


@dataclass(frozen=True, slots=True)
class OutcomesStatus:
    """What became of files since `since`.

    `counts` are files by their last outcome, each file once however often it was tried, and `tries`
    outcomes by kind. A processor that writes no outcome lines does not say which file it worked
    on: then `counts_invocations` is true, and each is counted by its request. `over_time` counts by
    the time of the last outcome in `SLOTS` slots, the latest last. `is_all` is false when counting
    stopped early: there are at least as many.
    """

    log_group: str
    since: datetime
    counts: Mapping[str, int]
    tries: Mapping[str, int]
    over_time: tuple[int, ...]
    is_all: bool
    counts_invocations: bool = False


def read_recent(
    logs: CloudWatchLogsClient,
    log_group: str,
    *,
    since: datetime,
    now: datetime,
    is_ours: bool = True,
) -> OutcomesStatus:
    """Return what became of files since an instant, counting no further than a glance takes.

    Of a processor that is not ours Lambda's reports tell which invocations ended well.
    Raises NotFoundError when the group does not exist, and AccessError.
    """
    pattern = OUTCOME_OR_FAILURE_PATTERN if is_ours else _ANY_END_PATTERN
    events = iter_events(logs, log_group, start_at=since, pattern=pattern)
    return count_outcomes(log_group, iter_entries(events), since=since, now=now)


def describe_recent(facts: Facts) -> OutcomesStatus | PartUnread | None:
    """Return what became of the last hour's files, or why that can't be told.

    None where there is no log group or no function.
    """
    log_group = facts.pipeline.log_group
    if log_group is None:
        return None
    is_ours = True
    try:
        is_ours = facts.function.is_ours
    except Gone:
        return None
    except CouldNotLook:
        # Outcome lines are looked for then: whatever else is there says too little.
        pass
    logs, since = facts.aws.logs, facts.now - RECENT
    return or_unread(
        "Last hour",
        log_group,
        lambda: read_recent(logs, log_group, since=since, now=facts.now, is_ours=is_ours),
    )


def or_unread(part: str, log_group: str, read: Callable[[], _T]) -> _T | PartUnread:
    """Return what reading the log gives, or, as a part of a status, why it can't be read.

    Raises CredentialsError, after which nothing else can be read either.
    """
    try:
        return read()
    except CredentialsError:
        raise
    except AccessError:
        return PartUnread(part, "access denied", "logs:FilterLogEvents")
    except TwoBucketsError as error:
        reason = error.message.removeprefix(f"Could not read the log group {log_group}: ")
        return PartUnread(part, reason, None)


def count_outcomes(
    log_group: str, entries: Iterable[Entry], *, since: datetime, now: datetime
) -> OutcomesStatus:
    """Return the files that log entries in time order tell of, by what became of them.

    Once there are outcome lines, Lambda's reports of success say nothing more.
    """
    tries: Counter[str] = Counter()
    files: dict[tuple[str, str | None, str | None], tuple[str, datetime]] = {}
    invocations: dict[str, tuple[str, datetime]] = {}
    read = 0
    for entry in entries:
        match entry:
            case Outcome():
                file = entry.key, entry.version_id, entry.etag
                files[file] = entry.outcome, entry.logged_at
                tries[entry.outcome] += 1
                # A try that died without naming the file was followed by this one.
                invocations.pop(entry.request_id or "", None)
            case FailedInvocation():
                invocations[entry.request_id or entry.log_stream] = FAILED, entry.logged_at
                tries[FAILED] += 1
            case InvocationReport(status="success"):
                invocations[entry.request_id] = SUCCEEDED, entry.logged_at
            case _:
                continue
        read += 1
        if read == _MOST_ENTRIES:
            break
    ends = list(files.values())
    # Of a processor of ours, an invocation that died without a word is a file all the same.
    ends += [end for end in invocations.values() if not files or end[0] == FAILED]
    over_time = [0] * SLOTS
    for _, at in ends:
        slot = int(SLOTS * ((at - since) / (now - since)))
        over_time[min(max(slot, 0), SLOTS - 1)] += 1
    return OutcomesStatus(
        log_group=log_group,
        since=since,
        counts=dict(Counter(kind for kind, _ in ends)),
        tries=dict(tries),
        over_time=tuple(over_time),
        is_all=read < _MOST_ENTRIES,
        counts_invocations=bool(invocations) and not files,
    )
