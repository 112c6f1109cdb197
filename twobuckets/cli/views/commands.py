"""How commands end, where the records before it have not said it all."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.records import (
    BuildSummary,
    CredentialsSummary,
    HelpSummary,
    InitSummary,
    LogsSummary,
    PresignSummary,
)
from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, nothing
from twobuckets.text import visible


def _logs_summary(summary: LogsSummary) -> Text:
    if not summary.entries:
        since = shown(summary.start_at, precision="minutes")
        return Text(
            f"No matching entries in {visible(summary.log_group)}\nsince {since} (see --since).",
            style="dim",
        )
    parts = [f"{count:,} {visible(name)}" for name, count in sorted(summary.outcomes.items())]
    return Text(", ".join(parts), style="dim")


VIEWS: Final[Views] = {
    BuildSummary: View(nothing),
    CredentialsSummary: View(nothing),
    HelpSummary: View(nothing),
    InitSummary: View(nothing),
    LogsSummary: View(_logs_summary, nothing),
    PresignSummary: View(nothing),
}
