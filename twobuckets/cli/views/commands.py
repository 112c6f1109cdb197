"""How commands end, where the records before it have not said it all."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.records import (
    BuildSummary,
    CompletionSummary,
    CredentialsSummary,
    HelpSummary,
    InitSummary,
    LogsSummary,
    PresignSummary,
)
from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, nothing
from twobuckets.text import visible
from twobuckets.units import counted


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


VIEWS: Final[Views] = {
    BuildSummary: View(nothing),
    CompletionSummary: View(nothing),
    CredentialsSummary: View(nothing),
    HelpSummary: View(nothing),
    InitSummary: View(nothing),
    LogsSummary: View(_logs_summary, nothing),
    PresignSummary: View(nothing),
}
