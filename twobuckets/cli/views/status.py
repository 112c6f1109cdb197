"""How the pipeline at a glance looks to a person: one screen at 80 columns, without colour too."""

from __future__ import annotations

import os
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from twobuckets.cli.views import View, Views
from twobuckets.logs.recent import SUCCEEDED, OutcomesStatus
from twobuckets.logs.use import FunctionUse
from twobuckets.pipeline.console import ConsoleLinks
from twobuckets.pipeline.fleet import Condition, FleetStatus
from twobuckets.pipeline.lookups import Unread
from twobuckets.pipeline.status import (
    AGES,
    BucketStatus,
    FailureQueueStatus,
    FunctionStatus,
    JobQueueStatus,
    PartMissing,
    PartUnread,
    QueuesStatus,
    QueueStatus,
    SettingsStatus,
    StackStatus,
    StagingStatus,
    StatusSummary,
    WiringStatus,
)
from twobuckets.processor.contract import FAILED
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH: Final = 80
_LABEL: Final = 11
_BARS: Final = "▁▂▃▄▅▆▇█"
_SHORT_HASH: Final = 12
_OK: Final = "green"
_BAD: Final = "bold red"
_DIM: Final = "dim"


def labelled(label: str, *parts: Text | str) -> Text:
    """Return a line with its label; parts follow each other with a dot between them."""
    line = Text().append(f"{label:<{_LABEL}}", style="bold")
    line.append_text(Text(" · ").join([p if isinstance(p, Text) else Text(p) for p in parts]))
    return line


def _lines(lines: Iterable[Text]) -> Text:
    return Text("\n").join(lines)


def _unread(what: Unread) -> Text:
    return Text(f"not readable, needs {what.action}" if what.action else visible(what.reason), _BAD)


def _fact(value: bool | Unread, yes: str, no: str, *, bad: str = _BAD) -> Text:
    if isinstance(value, Unread):
        return Text(f"{yes}? ").append_text(_unread(value))
    return Text(yes, _OK) if value else Text(no, bad)


def _stack_status(stack: StackStatus) -> Text:
    is_well = stack.status.endswith("_COMPLETE") and "ROLLBACK" not in stack.status
    line = labelled(
        "Stack",
        Text(visible(stack.stack), "bold"),
        Text(stack.status, _OK if is_well else _BAD),
        f"changed {_ago(stack.changed_at)}",
    )
    return line.append(f"\n{'':{_LABEL}}{visible(stack.reason)}") if stack.reason else line


def _bucket_status(bucket: BucketStatus) -> Text:
    encryption = bucket.encryption
    facts = [
        _fact(bucket.is_private, "private", "PUBLIC ACCESS NOT BLOCKED"),
        _unread(encryption)
        if isinstance(encryption, Unread)
        else _fact(encryption is not None, f"encrypted {encryption}", "NOT ENCRYPTED"),
        _unread(bucket.versioning)
        if isinstance(bucket.versioning, Unread)
        else _fact(bucket.versioning == "Enabled", "versioned", "NOT VERSIONED"),
        _fact(bucket.is_tls_only, "TLS only", "plain HTTP allowed", bad="yellow"),
    ]
    return _lines(
        [
            labelled(
                bucket.role.capitalize(),
                visible(bucket.bucket),
                *(["there before the stack"] if bucket.is_existing is True else []),
            ),
            labelled("", *facts),
            labelled("", *_rules(bucket)),
        ]
    )


def _rules(bucket: BucketStatus) -> list[Text]:
    if isinstance(bucket.abort_uploads_days, Unread):
        rules = [Text("lifecycle ").append_text(_unread(bucket.abort_uploads_days))]
    else:
        days = bucket.abort_uploads_days
        noncurrent = bucket.noncurrent_days
        rules = [
            Text(f"uploads aborted after {days}d") if days else Text("uploads NEVER ABORTED", _BAD),
            Text(f"old versions kept {noncurrent}d" if noncurrent else "old versions kept"),
        ]
        if not bucket.runs_rules:
            rules.append(Text("rules not run here", _DIM))
    if isinstance(bucket.cors_origins, Unread):
        rules.append(Text("CORS ").append_text(_unread(bucket.cors_origins)))
    elif bucket.cors_origins:
        rules.append(Text("CORS " + visible(", ".join(bucket.cors_origins))))
    return rules


def _staging_status(staging: StagingStatus) -> Text:
    staged, uploads = staging.staged, staging.uploads
    lines = []
    if isinstance(staged, Unread):
        lines.append(labelled("", Text("objects ").append_text(_unread(staged))))
    elif not staged.objects:
        lines.append(labelled("", Text("no objects wait", _OK)))
    else:
        more = "" if staged.is_all else "more than "
        oldest = f"oldest {_ago(staged.oldest_at)}" if staged.oldest_at else ""
        objects = counted(staged.objects, "object")
        count = Text(f"{more}{objects}, {format_bytes(staged.size_bytes)}", "bold")
        lines += [labelled("", count, oldest), labelled("", _ages(staged.by_age))]
    if isinstance(uploads, Unread):
        lines.append(labelled("", Text("incomplete uploads ").append_text(_unread(uploads))))
    elif uploads.uploads:
        oldest = f", oldest {_ago(uploads.oldest_at)}" if uploads.oldest_at else ""
        lines.append(labelled("", counted(uploads.uploads, "incomplete upload") + oldest))
    return _lines(lines)


def _ages(by_age: Sequence[int]) -> Text:
    """Return the age classes, each with a bar as high as its share and its count."""
    names = [f"<{format_duration(age)}" for age in AGES] + [f"≥{format_duration(AGES[-1])}"]
    shown = [
        f"{name} {_bar(count, max(by_age))} {count:,}"
        for name, count in zip(names, by_age, strict=True)
        if count
    ]
    return Text("age " + "  ".join(shown))


def _bar(count: int, highest: int) -> str:
    return _BARS[max(0, -(-count * len(_BARS) // highest) - 1)] if count else " "


def sparkline(counts: Sequence[int]) -> str:
    """Return a bar for each count, as high as its share of the highest."""
    highest = max(counts, default=0)
    return "".join(_bar(count, highest) if count else "." for count in counts)


def _function_status(function: FunctionStatus) -> Text:
    name = Text(visible(function.function))
    found = function.configuration
    if isinstance(found, Unread):
        return labelled("Processor", name, _unread(found))
    is_well = found.state == "Active" and found.last_update in (None, "Successful")
    state = found.state if is_well else f"{found.state}, last update {found.last_update}"
    reserved = function.reserved_concurrency
    facts = [
        f"{found.runtime} {found.architecture}",
        f"{found.memory_mb:,} MB",
        f"time-out {format_duration(found.timeout)}",
    ]
    if isinstance(reserved, Unread):
        concurrency = Text("concurrency ").append_text(_unread(reserved))
    elif reserved == 0:
        concurrency = Text("THROTTLED TO 0", _BAD)
    else:
        concurrency = Text("" if reserved is None else f"concurrency {reserved:,}")
    lines = [
        labelled("Processor", name, Text(state, _OK if is_well else _BAD), *_if_any(concurrency)),
        labelled("", *facts, f"changed {_ago(_instant(found.changed_at))}"),
        labelled("", _code(found.code_sha256, function)),
    ]
    if found.state_reason:
        lines.append(labelled("", Text(visible(found.state_reason), _BAD)))
    return _lines(lines)


def _if_any(text: Text) -> list[Text]:
    return [text] if text.plain else []


def _code(deployed: str, function: FunctionStatus) -> Text:
    short, built = deployed[:_SHORT_HASH], function.built_sha256
    if built is None:
        return Text(f"code {short}, none built here to compare")
    if built == deployed and not function.is_built_current:
        text = Text(f"code {short}, the artifact built here, ")
        return text.append("whose source has changed since", "yellow")
    if built == deployed:
        return Text(f"code {short}, the artifact built here", _OK)
    return Text(f"code {short}, NOT the artifact built here ({built[:_SHORT_HASH]})", "yellow")


def _wiring_status(wiring: WiringStatus) -> Text:
    if isinstance(wiring.events, Unread):
        woken = Text("notification ").append_text(_unread(wiring.events))
    elif wiring.events:
        woken = Text("woken by " + visible(", ".join(wiring.events)), _OK)
    elif wiring.others:
        woken = Text("NOTIFIES OTHERS, NOT THE PROCESSOR", _BAD)
    else:
        woken = Text("NOTHING WAKES THE PROCESSOR", _BAD)
    permitted = (
        Text("by way of others")
        if wiring.is_permitted is None
        else _fact(wiring.is_permitted, "S3 may invoke it", "S3 MAY NOT INVOKE IT")
    )
    facts = [woken, permitted]
    lines = [labelled("Wiring", *facts)]
    lines += [labelled("", f"also notifies {visible(other)}") for other in wiring.others]
    return _lines(lines)


def _outcomes_status(outcomes: OutcomesStatus) -> Text:
    if not outcomes.counts:
        return labelled("Last hour", "no outcomes")
    counts = [
        _outcome_count(outcomes, kind, count) for kind, count in sorted(outcomes.counts.items())
    ]
    line = labelled("Last hour", *([] if outcomes.is_all else ["more than"]), *counts)
    return line.append(f"  {sparkline(outcomes.over_time)}")


def _outcome_count(outcomes: OutcomesStatus, kind: str, count: int) -> Text:
    """Say how many files had an outcome, and how many tries where that is another number."""
    tries = outcomes.tries.get(kind, 0)
    invocations = counted(count, "invocation") + " "
    said = f"{invocations if outcomes.counts_invocations else f'{count:,} '}{visible(kind)}"
    if kind != SUCCEEDED and tries > count:
        said += f" ({tries:,} tries)"
    return Text(said, _BAD if kind == FAILED else "")


def _function_use(use: FunctionUse) -> Text:
    more = "" if use.is_all else "more than "
    said = [more + counted(use.invocations, "invocation")]
    if use.max_memory_used_mb is not None and use.memory_mb is not None:
        said.append(f"{use.max_memory_used_mb:,} of {use.memory_mb:,} MB used at most")
    if use.median is not None and use.p99 is not None:
        said.append(f"median {_exact(use.median)}, p99 {_exact(use.p99)}")
    lines = [labelled("Use", *said)]
    if use.thousand_usd is not None:
        cost = f"about ${use.thousand_usd:.4f} for a thousand files, without requests to S3"
        lines.append(labelled("", cost))
    return _lines(lines)


def _exact(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _queues_status(status: QueuesStatus) -> Text:
    if isinstance(status.queues, Unread):
        return labelled("Queue", _unread(status.queues))
    return _lines(map(_queue, status.queues))


def _queue(queue: QueueStatus) -> Text:
    name = visible(queue.queue)
    if isinstance(queue.waiting, Unread):
        return labelled("Queue", name, _unread(queue.waiting))
    counts = [
        f"{count:,} {words}"
        for count, words in (
            (queue.waiting, "waiting"),
            (queue.taken, "being processed"),
            (queue.delayed, "delayed"),
        )
        if count
    ]
    parts: list[Text | str] = [*counts] or [Text("empty", _OK)]
    if isinstance(queue.oldest, Unread):
        parts.append(Text("oldest ").append_text(_unread(queue.oldest)))
    elif queue.oldest is not None:
        parts.append(f"oldest {format_duration(queue.oldest)}")
    lines = [labelled("Queue", name, *parts)]
    if isinstance(queue.given_up, Unread):
        lines.append(labelled("", Text("given up ").append_text(_unread(queue.given_up))))
    elif queue.dead_letter_queue is None:
        lines.append(labelled("", Text("gives nothing up: it has no dead-letter queue", "yellow")))
    elif queue.given_up:
        given_up = Text(f"{counted(queue.given_up, 'message')} given up", _BAD)
        lines.append(labelled("", given_up.append(f" in {visible(queue.dead_letter_queue)}")))
    return _lines(lines)


def _job_queue_status(status: JobQueueStatus) -> Text:
    name = visible(status.job_queue)
    if status.state is None:
        return labelled("Jobs", name, Text("DOES NOT EXIST", _BAD))
    if isinstance(status.state, Unread):
        return labelled("Jobs", name, _unread(status.state))
    if isinstance(status.jobs, Unread):
        return labelled("Jobs", name, _unread(status.jobs))
    parts: list[Text | str] = [
        f"{count:,} {state.lower()}" for state, count in status.jobs.items() if count
    ] or [Text("none under way", _OK)]
    if status.state != "ENABLED":
        parts.append(Text(visible(status.state), _BAD))
    return labelled("Jobs", name, *parts)


def _failure_queue_status(queue: FailureQueueStatus) -> Text:
    if isinstance(queue.waiting, Unread):
        return labelled("Given up", _unread(queue.waiting))
    name = visible(queue.queue_url.rpartition("/")[2])
    depth = queue.waiting + queue.taken
    if not depth:
        return labelled("Given up", Text("nothing", _OK).append(f" in {name}"))
    return labelled("Given up", Text(counted(depth, "event"), _BAD).append(f" in {name}"))


def _part_unread(part: PartUnread) -> Text:
    return labelled(part.part, _unread(Unread(part.reason, part.action)))


def _part_missing(part: PartMissing) -> Text:
    label = "Processor" if part.part == "function" else part.part.capitalize()
    return labelled(label, Text(visible(part.name), "bold"), Text("DOES NOT EXIST", _BAD))


def _settings_status(settings: SettingsStatus) -> Text:
    by_origin: dict[str, list[str]] = {}
    for setting in settings.settings:
        stack, is_output, _ = setting.origin.partition(", output ")
        if is_output:
            # The values are what the lines above are about.
            by_origin.setdefault(f"outputs of {stack}", []).append(setting.setting)
        else:
            item = f"{setting.setting}={_value(setting.value)}"
            by_origin.setdefault(_origin(setting.origin), []).append(item)
    lines: list[Text] = []
    for origin, items in by_origin.items():
        label = "" if lines else "Settings"
        wrapped = textwrap.wrap(
            visible(f"{origin}: {', '.join(items)}"),
            _WIDTH - _LABEL,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for text in wrapped:
            lines.append(labelled(label, Text(text, _DIM)))
            label = ""
    return _lines(lines)


def _origin(origin: str) -> str:
    """Return where a setting came from, a file as seen from here."""
    seen_from_here = os.path.relpath(origin) if Path(origin).is_absolute() else origin
    return min(origin, seen_from_here, key=len)


def _value(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, tuple):
        return "[" + " ".join(str(item) for item in value) + "]"
    return str(value)


def _status_summary(summary: StatusSummary) -> Text | None:
    if not summary.unread:
        return None
    return Text(f"{summary.unread} of the above could not be read.", _BAD)


def _instant(text: str) -> datetime:
    """Return Lambda's way of writing an instant, such as `2026-05-04T13:30:00.000+0000`."""
    return datetime.fromisoformat(text)


def _ago(instant: datetime | None) -> str:
    if instant is None:
        return "?"
    return f"{format_duration(max(datetime.now(UTC) - instant, timedelta(0)))} ago"


def _console_links(links: ConsoleLinks) -> Text:
    # A link is never broken, so that a terminal opens it.
    named = (
        ("stack", links.stack),
        ("staging", links.staging),
        ("function", links.function),
        ("log", links.log),
        ("archive", links.archive),
    )
    shown = [f"{name:<9}{link}" for name, link in named if link is not None]
    return _lines(
        [labelled("" if number else "Console", Text(text)) for number, text in enumerate(shown)]
    )


_CONDITIONS: Final = {
    Condition.STUCK: _BAD,
    Condition.FAILING: _BAD,
    Condition.GONE: _BAD,
    Condition.UNREAD: "yellow",
    Condition.QUIET: _OK,
}


def _fleet_status(one: FleetStatus) -> Text:
    line = Text(f"{one.condition:<8} ", _CONDITIONS.get(one.condition, ""))
    line.append(f"{visible(one.stack)} ", "bold").append(f"{visible(one.region)}", _DIM)
    said = []
    if one.staged is not None:
        oldest = f", oldest {_ago(one.oldest_at)}" if one.oldest_at is not None else ""
        said.append(f"{counted(one.staged, 'file')} in staging{oldest}")
    if one.failed:
        said.append(f"{one.failed:,} failed in the last hour")
    if one.given_up:
        said.append(f"{one.given_up:,} given up")
    if one.problem is not None:
        said.append(visible(one.problem))
    return line.append("  " + " · ".join(said))


VIEWS: Final[Views] = {
    FleetStatus: View(_fleet_status),
    ConsoleLinks: View(_console_links),
    StackStatus: View(_stack_status),
    BucketStatus: View(_bucket_status),
    StagingStatus: View(_staging_status),
    FunctionStatus: View(_function_status),
    WiringStatus: View(_wiring_status),
    OutcomesStatus: View(_outcomes_status),
    FunctionUse: View(_function_use),
    QueuesStatus: View(_queues_status),
    JobQueueStatus: View(_job_queue_status),
    FailureQueueStatus: View(_failure_queue_status),
    PartUnread: View(_part_unread),
    PartMissing: View(_part_missing),
    SettingsStatus: View(_settings_status),
    StatusSummary: View(_status_summary),
}
