"""How log entries look to a person: one line for each outcome, coloured by it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Final, get_args

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views
from twobuckets.logs.events import LogEvent
from twobuckets.logs.groups import ErrorGroup
from twobuckets.logs.lines import (
    Entry,
    FailedInvocation,
    InvocationReport,
    InvocationStart,
    LogLine,
    Outcome,
    PlatformLine,
)
from twobuckets.processor.contract import (
    ARCHIVED,
    FAILED,
    MISSING,
    REJECTED,
    SUBMITTED,
    SUPERSEDED,
)
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.processor.contract import Failure

_STYLES: Final = {
    ARCHIVED: "green",
    FAILED: "bold red",
    REJECTED: "magenta",
    SUPERSEDED: "yellow",
    MISSING: "yellow",
    SUBMITTED: "cyan",
}
_LEVEL_STYLES: Final = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "WARN": "yellow"}
_WIDTH: Final = 10


def _shortened(message: str) -> str:
    """Return what a line of Lambda's in JSON says in two words: its kind and how it ended."""
    try:
        fields = json.loads(message)
        status = fields["record"].get("status", "")
        return f"{fields['type'].removeprefix('platform.')} {status}".rstrip()
    except (ValueError, TypeError, KeyError, AttributeError):
        return message


def _entry(entry: Entry | LogEvent) -> Text:
    return Text.assemble(*_parts(entry))


def _entry_line(entry: Entry | LogEvent) -> str:
    # Without a Text, which takes longer than everything else done for a line.
    return "".join(text for text, _ in _parts(entry))


Part = tuple[str, str]
"""A piece of a line that is safe to show, and its style."""


def _parts(said: Entry | LogEvent) -> Iterator[Part]:
    if isinstance(said, LogEvent):
        yield "\n".join(visible(line) for line in said.message.splitlines()), ""
        return
    yield shown(said.logged_at, precision="milliseconds") + " ", "dim"
    match said:
        case Outcome():
            yield from _outcome(said)
        case FailedInvocation():
            yield f"{said.reason:<{_WIDTH}} ", "bold red"
            yield f"invocation {visible(said.request_id or '(unknown)')}", ""
            yield _error(said.error)
        case InvocationStart():
            yield f"{'start':<{_WIDTH}} {visible(said.request_id)}", "dim"
        case InvocationReport():
            yield f"{'end':<{_WIDTH}} {_report(said)}", "dim"
        case PlatformLine():
            yield f"{'':<{_WIDTH}} {visible(_shortened(said.message))}", "dim"
        case LogLine():
            level = said.level or ""
            yield f"{visible(level).lower():<{_WIDTH}} ", _LEVEL_STYLES.get(level, "")
            first, *more = said.message.splitlines() or [""]
            yield visible(first), ""
            yield from _indented(more)
    if isinstance(said, Outcome | FailedInvocation) and said.error:
        yield from _indented(said.error.trace.splitlines())


def _outcome(outcome: Outcome) -> Iterator[Part]:
    style = _STYLES.get(outcome.outcome, "")
    yield f"{visible(outcome.outcome):<{_WIDTH}} ", style
    yield visible(outcome.key), "bold"
    numbers = []
    if outcome.size_bytes is not None:
        numbers.append(format_bytes(outcome.size_bytes))
    if outcome.duration is not None:
        numbers.append(_duration(outcome.duration))
    if outcome.attempt is not None and outcome.attempt > 1:
        numbers.append(f"attempt {outcome.attempt}")
    if numbers:
        yield f"  {', '.join(numbers)}", "dim"
    if outcome.error is not None:
        yield _error(outcome.error)
    job = f"job {outcome.job_id}" if outcome.job_id is not None else None
    for said in (outcome.reason, job, *outcome.notes):
        if said:
            yield f"  {visible(said)}", style


def _error(error: Failure) -> Part:
    said = ": ".join(part for part in (error.type, error.message) if part)
    return f"  {visible(said)}", "red"


def _report(report: InvocationReport) -> str:
    said = [visible(report.request_id), visible(report.status)]
    if report.duration is not None:
        said.append(_duration(report.duration))
    if report.max_memory_used_mb is not None and report.memory_mb is not None:
        said.append(f"{report.max_memory_used_mb} of {report.memory_mb} MB")
    return "  ".join(said)


def _duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _indented(lines: list[str]) -> Iterator[Part]:
    for text in lines:
        yield f"\n    {visible(text)}", "dim"


_VIEW: Final = View(_entry, _entry_line)


def _error_group(group: ErrorGroup) -> Text:
    text = Text(
        f"{group.files:>7,} {group.outcome:<{_WIDTH}}", _STYLES.get(group.outcome, "bold red")
    )
    if group.error is not None:
        text.append(f"  {visible(group.error)}", style="bold")
    tries = f", {counted(group.tries, 'try', 'tries')}" if group.tries > group.files else ""
    text.append(f"\n{'':>8}{shown(group.first_at)} to {shown(group.last_at)}{tries}", style="dim")
    for example in group.examples:
        text.append(f"\n{'':>8}{visible(example)}")
    return text


def _error_group_line(group: ErrorGroup) -> str:
    fields = (
        str(group.files),
        group.outcome,
        group.error or "-",
        shown(group.first_at),
        shown(group.last_at),
        str(group.tries),
        *group.examples,
    )
    return "\t".join(map(visible, fields))


VIEWS: Final[Views] = {
    **dict.fromkeys((*get_args(Entry), LogEvent), _VIEW),
    ErrorGroup: View(_error_group, _error_group_line),
}
