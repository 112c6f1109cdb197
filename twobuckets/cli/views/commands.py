"""How commands end, where the records before it have not said it all."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.records import (
    BuildSummary,
    CompletionSummary,
    CredentialsSummary,
    FleetSummary,
    HelpSummary,
    InitSummary,
    LinkSummary,
    LogsSummary,
    PresignSummary,
    ReadSummary,
    TracedKey,
    TraceSummary,
    WatchSummary,
)
from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, nothing
from twobuckets.prices import format_usd
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes, format_duration


def _logs_summary(summary: LogsSummary) -> Text:
    if not summary.entries:
        since = shown(summary.start_at, precision="minutes")
        return Text(
            f"No matching entries in {visible(summary.log_group)}\nsince {since} (see --since).",
            style="dim",
        )
    parts = [_entries(count, name) for name, count in sorted(summary.outcomes.items())]
    return Text(", ".join(parts), style="dim")


def _entries(count: int, name: str) -> str:
    # Outcomes are words that have no plural: 3 archived.
    if name in ("line", "failed-invocation"):
        return counted(count, name.replace("-", " "))
    return f"{count:,} {visible(name)}"


def _read_summary(summary: ReadSummary) -> Text | None:
    if summary.file is None:
        return None
    text = Text(f"{visible(summary.file)}: {format_bytes(summary.read_bytes)} of ", style="bold")
    return text.append(f"{visible(summary.key)} in {visible(summary.bucket)}")


def _trace_summary(summary: TraceSummary) -> Text | None:
    if summary.keys < 2:
        return None
    needs = counted(summary.needs_you, "needs you", "need you")
    return Text(f"{counted(summary.keys, 'key')}, of which {needs}.", style="dim")


def _watch_summary(summary: WatchSummary) -> Text:
    watched = format_duration(summary.watched)
    told = counted(summary.outcomes, "outcome")
    cost = "under $0.01" if summary.cost_usd < 0.01 else format_usd(summary.cost_usd)
    return Text(f"Watched for {watched}: {told}, {counted(summary.looks, 'look')}, {cost}.", "dim")


VIEWS: Final[Views] = {
    BuildSummary: View(nothing),
    CompletionSummary: View(nothing),
    CredentialsSummary: View(nothing),
    FleetSummary: View(nothing),
    HelpSummary: View(nothing),
    InitSummary: View(nothing),
    LinkSummary: View(nothing),
    LogsSummary: View(_logs_summary, nothing),
    PresignSummary: View(nothing),
    ReadSummary: View(_read_summary),
    TracedKey: View(lambda traced: Text(visible(traced.key), style="bold")),
    TraceSummary: View(_trace_summary),
    WatchSummary: View(_watch_summary, nothing),
}
