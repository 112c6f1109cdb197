"""`twobuckets logs`: what the processor logged."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import INSTANT
from twobuckets.cli.records import LogsSummary
from twobuckets.cli.times import shown
from twobuckets.errors import NotFoundError, UsageError
from twobuckets.logs.lines import Entry, FailedInvocation, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.logs.selection import LineSelection, Selected


@command("logs")
@click.option(
    "--since", type=INSTANT, default="1h", show_default=True, help="From this instant or age on."
)
@click.option("--until", type=INSTANT, help="Up to this instant or age.")
@click.option("--follow", "-f", is_flag=True, help="Keep showing what comes in, until Ctrl-C.")
@click.option(
    "--key",
    metavar="KEY",
    shell_complete=completes("staged_or_archived_keys"),
    help="All lines of the invocations that touched this key.",
)
@click.option("--request-id", metavar="ID", help="All lines of one request and its retries.")
@click.option("--failed", is_flag=True, help="Failures only, with their traces.")
@click.option("--final", is_flag=True, help="Only the last word on each file.")
@click.option("--summary", is_flag=True, help="Files counted by outcome and error, with examples.")
@click.option("--raw", is_flag=True, help="The log's own lines as they are.")
@click.pass_obj
def logs(
    app: App,
    since: datetime,
    until: datetime | None,
    follow: bool,
    key: str | None,
    request_id: str | None,
    failed: bool,
    final: bool,
    summary: bool,
    raw: bool,
) -> None:
    """Show what the processor logged, across all streams, in time order.

    One line for each file's outcome, and what else the processor and Lambda said. A processor
    that is not ours is shown as well: by its own lines and Lambda's.

    --since and --until take an age, such as 90s, 15m or 2d, today, yesterday, a weekday, or a date
    and time, which is in UTC unless it has an offset or --local is given.

    \b
      twobuckets logs --failed --since 1d
      twobuckets logs --summary --final --since 1d
      twobuckets logs --since '2026-05-04 13:30'
      twobuckets logs --key in/report.csv
      twobuckets logs --follow
    """
    if follow and until is not None:
        raise UsageError("--follow has no end, and --until sets one", hint="Leave one of them out.")
    if until is not None and until < since:
        raise UsageError("--until lies before --since, so nothing can lie in between")
    if (final or summary) and (follow or raw):
        raise UsageError(
            "--final and --summary need the end of the time they are about, and --follow and --raw "
            "show lines as they come"
        )
    from twobuckets.logs.selection import LineSelection, iter_selected

    group = _require_log_group(app)
    selection = LineSelection(key=key, request_id=request_id, failed=failed)
    if follow:
        found = _follow(app, group, selection, since)
    else:
        found = iter_selected(app.aws.logs, group, selection, start_at=since, end_at=until)
    if final or summary:
        _show_ends(app, group, (entry for _, entry in found), since, final=final, summary=summary)
        return
    with_trace = failed or request_id is not None or key is not None
    counts: Counter[str] = Counter()
    with contextlib.nullcontext() if follow else app.out.bulk():
        for event, entry in found:
            counts[_count_as(entry)] += 1
            if app.json:
                app.out.record(event if raw else entry)
            elif raw and not app.out.is_terminal:
                app.out.raw(event.message.rstrip("\r\n") + "\n")
            else:
                app.out.record(event if raw else entry if with_trace else _without_trace(entry))
    if not counts and not app.json and not app.out.is_terminal:
        # A pipe gets no summary, and nothing at all would leave open whether anything was read.
        app.out.note(f"No matching entries in {group} since {shown(since)} (see --since)")
    app.finish(
        LogsSummary(log_group=group, entries=counts.total(), outcomes=dict(counts), start_at=since)
    )


def _show_ends(
    app: App, group: str, entries: Iterable[Entry], since: datetime, *, final: bool, summary: bool
) -> None:
    """Show the last word on each file, or files by outcome and error, or these of those."""
    from twobuckets.logs.groups import group_outcomes, iter_final

    entries = iter_final(entries) if final else entries
    counts: Counter[str] = Counter()
    with app.out.bulk():
        if summary:
            for files in group_outcomes(entries):
                counts[files.outcome] += files.files
                app.out.record(files)
        else:
            for entry in entries:
                counts[_count_as(entry)] += 1
                app.out.record(entry if app.json else _without_trace(entry))
    if not counts and not app.json and not app.out.is_terminal:
        app.out.note(f"No outcomes in {group} since {shown(since)} (see --since)")
    app.finish(
        LogsSummary(log_group=group, entries=counts.total(), outcomes=dict(counts), start_at=since)
    )


def _count_as(entry: Entry) -> str:
    """Return the name under which an entry is counted in the summary."""
    match entry:
        case Outcome():
            return entry.outcome
        case FailedInvocation():
            return "failed-invocation"
        case _:
            return "line"


def _without_trace(entry: Entry) -> Entry:
    """Return an entry as one line: an error's trace is shown where somebody looks at errors."""
    match entry:
        case Outcome(error=error) if error is not None:
            return entry._replace(error=error._replace(trace=""))
        case FailedInvocation(error=error):
            return replace(entry, error=error._replace(trace=""))
        case _:
            return entry


def _require_log_group(app: App) -> str:
    group = app.pipeline.log_group
    if group is None:
        raise NotFoundError(
            "The processor's log group is not known",
            hint="Name function or log_group in twobuckets.toml, or set TWOBUCKETS_LOG_GROUP.",
        )
    return group


def _follow(app: App, group: str, selection: LineSelection, since: datetime) -> Iterator[Selected]:
    from twobuckets.logs.events import Follower, follow
    from twobuckets.logs.selection import Selector

    follower = Follower(app.aws.logs, group, start_at=since, pattern=selection.pattern)
    selector = Selector(selection)
    is_told = False
    for event in follow(follower, now=app.now, sleep=app.sleep):
        if event is not None:
            yield from selector.pick(event)
            follower.pattern = selector.pattern
        elif not follower.exists and not is_told:
            is_told = True
            app.out.note(f"The log group {group} does not exist yet; waiting for the first run")
