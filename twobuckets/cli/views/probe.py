"""How a probe's way looks to a person: a line for each stage."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views
from twobuckets.probe.sending import ProbeStage, ProbeSummary
from twobuckets.text import visible
from twobuckets.units import counted, format_duration

_SAYS: Final = {
    "signed": "credentials were there",
    "stored": "S3 has it in staging",
    "told": "Lambda began an invocation",
    "started": "the processor turned to it",
    "archived": "it is in the archive",
    "seen": "known here",
}


def _stage(stage: ProbeStage) -> Text:
    line = Text(f"{stage.stage:<9}", style="bold")
    line.append(f"{format_duration(stage.took):>8}  {_SAYS[stage.stage]:<28}")
    return line.append(shown(stage.at, precision="milliseconds"), style="dim")


def _summary(summary: ProbeSummary) -> Text:
    took = format_duration(summary.took)
    if summary.arrived:
        line = Text(f"Arrived in {took}", style="bold green")
    else:
        line = Text(f"Did not arrive: {summary.fate} after {took}", style="bold red")
    if summary.error is not None:
        line.append(f"  {visible(summary.error.type)}: {visible(summary.error.message)}", "red")
    if summary.detail is not None:
        line.append(f"  {visible(summary.detail)}", "")
    if summary.kept_because is not None:
        return line.append(f"; not cleaned up: {visible(summary.kept_because)}", "bold red")
    line.append(f"; {counted(summary.removed, 'version')} of it deleted again", "")
    if summary.leftovers:
        line.append(f", with what {counted(summary.leftovers, 'earlier probe')} left", "")
    if summary.skew is not None:
        line.append(f"; this machine's clock is off by {format_duration(summary.skew)}", "yellow")
    return line


VIEWS: Final[Views] = {
    ProbeStage: View(_stage),
    ProbeSummary: View(_summary),
}
