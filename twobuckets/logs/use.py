"""What the function's invocations took lately, by Lambda's reports: time, memory and money."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.logs.events import iter_events
from twobuckets.logs.lines import InvocationReport, Outcome, iter_entries
from twobuckets.logs.recent import RECENT, or_unread
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.pipeline.status import PartUnread
from twobuckets.prices import function_usd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twobuckets.logs.lines import Entry
    from twobuckets.pipeline.facts import Facts

_MOST_ENTRIES: Final = 20_000
"""Where counting stops."""
_PATTERN: Final = '?twobuckets ?"platform.report" ?"REPORT RequestId"'


@dataclass(frozen=True, slots=True)
class FunctionUse:
    """What the function's invocations since `since` took.

    `memory_mb` is what each is given, by the latest report, and `max_memory_used_mb` the most that
    one used. `median` and `p99` are of their durations. `thousand_usd` is an estimate of what the
    function costs for a thousand files at list prices, without requests to S3: a file is one with
    an outcome, or an invocation where there are no outcome lines. What no report tells is None.
    `is_all` is false when counting stopped early.
    """

    function: str
    since: datetime
    invocations: int
    files: int
    memory_mb: int | None
    max_memory_used_mb: int | None
    median: timedelta | None
    p99: timedelta | None
    thousand_usd: float | None
    is_all: bool


def describe_use(facts: Facts) -> FunctionUse | PartUnread | None:
    """Return what the last hour's invocations took, or why that can't be told.

    None where there is no log group or no function, and where nothing ran.
    """
    log_group, function = facts.pipeline.log_group, facts.pipeline.function
    if log_group is None or function is None:
        return None
    try:
        configuration = facts.function.configuration()
    except CouldNotLook:
        return None  # the function's own part says why
    architecture = next(iter(configuration.get("Architectures", ())), "x86_64")
    since = facts.now - RECENT
    events = iter_events(facts.aws.logs, log_group, start_at=since, pattern=_PATTERN)
    use = or_unread(
        "Use",
        log_group,
        lambda: sum_up(function, iter_entries(events), since=since, architecture=architecture),
    )
    return use if isinstance(use, PartUnread) or use.invocations else None


def sum_up(
    function: str, entries: Iterable[Entry], *, since: datetime, architecture: str
) -> FunctionUse:
    """Return what the reports among log entries say together."""
    reports: list[InvocationReport] = []
    files: set[tuple[str, str | None, str | None]] = set()
    read = 0
    for entry in entries:
        match entry:
            case InvocationReport():
                reports.append(entry)
            case Outcome():
                files.add((entry.key, entry.version_id, entry.etag))
            case _:
                continue
        read += 1
        if read == _MOST_ENTRIES:
            break
    durations = sorted(report.duration for report in reports if report.duration is not None)
    used = [r.max_memory_used_mb for r in reports if r.max_memory_used_mb is not None]
    count = len(files) or len(reports)
    gb_seconds = sum(
        report.duration.total_seconds() * report.memory_mb / 1024
        for report in reports
        if report.duration is not None and report.memory_mb is not None
    )
    usd = function_usd(gb_seconds, len(reports), architecture)
    return FunctionUse(
        function=function,
        since=since,
        invocations=len(reports),
        files=count,
        memory_mb=next((r.memory_mb for r in reversed(reports) if r.memory_mb is not None), None),
        max_memory_used_mb=max(used, default=None),
        median=_of_hundred(durations, 50),
        p99=_of_hundred(durations, 99),
        thousand_usd=usd / count * 1000 if gb_seconds else None,
        is_all=read < _MOST_ENTRIES,
    )


def _of_hundred(durations: list[timedelta], rank: int) -> timedelta | None:
    """Return the smallest of sorted durations that so many of a hundred do not exceed."""
    return durations[-(-len(durations) * rank // 100) - 1] if durations else None
