"""How findings look: what, why, since when and how much, and the command that fixes it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views
from twobuckets.doctor import CheckListing, ChecksSummary
from twobuckets.doctor.findings import Finding, Severity
from twobuckets.doctor.remedies import Applied, FixAction
from twobuckets.doctor.summary import DoctorSummary, FleetFindings
from twobuckets.prices import format_usd
from twobuckets.text import shell_word, visible, wrapped
from twobuckets.units import counted, format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

_STYLES: Final = {
    Severity.PROBLEM: "bold red",
    Severity.NOTICE: "yellow",
    Severity.UNKNOWN: "magenta",
    Severity.INFO: "cyan",
}
_WORTH_TELLING: Final = 0.01
_INDENT: Final = "         "
_BAR_WIDTH: Final = 40
_LABEL_WIDTH: Final = 14


def _finding(finding: Finding) -> Text:
    text = Text()
    text.append(f"{finding.severity.value:<8} ", style=_STYLES[finding.severity])
    text.append(finding.check, style="bold")
    text.append(f"  {visible(finding.subject)}")
    if facts := _facts(finding):
        fits = text.cell_len + len(facts) + 4 <= shutil.get_terminal_size().columns
        text.append(f"  ({facts})" if fits else f"\n{_INDENT}({facts})")
    text.append(f"\n{_wrapped(finding.detail)}")
    if finding.error:
        text.append(f"\n{_INDENT}{visible(finding.error)}", style=_STYLES[finding.severity])
    for example in finding.examples:
        text.append(f"\n{_INDENT}  {visible(example)}")
    if finding.remedy:
        text.append(f"\n{_INDENT}$ {visible(finding.remedy)}", style="green")
    return text


def _wrapped(sentence: str) -> str:
    """Return prose in lines that fit the terminal; commands and keys are never broken."""
    return wrapped(visible(sentence), max(40, shutil.get_terminal_size().columns - 1), _INDENT)


def _facts(finding: Finding) -> str:
    facts = []
    if finding.count > 1:
        facts.append(f"{finding.count:,}")
    if finding.size_bytes is not None:
        facts.append(format_bytes(finding.size_bytes))
    if finding.cost_month_usd is not None and finding.cost_month_usd >= _WORTH_TELLING:
        facts.append(f"about {format_usd(finding.cost_month_usd)} a month")
    if finding.oldest_at is not None:
        facts.append(f"since {shown(finding.oldest_at, precision='minutes')}")
    return ", ".join(facts)


def _finding_line(finding: Finding) -> str:
    fields = [finding.severity.value, finding.check, finding.subject, _facts(finding) or "-"]
    words = [finding.detail, finding.error]
    if finding.examples:
        words.append(f"For example {' '.join(map(_word, finding.examples))}")
    words.append(finding.remedy and f"$ {finding.remedy}")
    return "  ".join([*map(visible, fields), visible(" ".join(word for word in words if word))])


def _word(example: str) -> str:
    return shell_word(example, otherwise=visible(example))


def _check(check: CheckListing) -> Text:
    text = Text(f"{check.name:<24}", style="bold")
    text.append(f" {check.family:<9} {'--fix' if check.fixable else '':<6} {check.says}", style="")
    return text


def _checks_there_are(summary: ChecksSummary) -> Text:
    return Text(counted(summary.checks, "check"))


def _no_checks_line(_: ChecksSummary) -> None:
    """Lines are checks only."""


def _action(action: FixAction) -> Text:
    text = Text("would ", style="bold")
    text.append(f"{visible(action.says)}  {visible(action.subject)}")
    if action.count > 1:
        text.append(f"  ({action.count:,})")
    return text


def _applied(applied: Applied) -> Text:
    text = Text("done  " if not applied.failed_count else "FAILED ", style="bold")
    text.append(f"{visible(applied.says)}  {visible(applied.subject)}: {applied.done:,} done")
    for count, words, some in (
        (applied.left_count, "left as they are", applied.left),
        (applied.failed_count, "failed", applied.failed),
    ):
        if count:
            text.append(f", {count:,} {words}")
            for one in some:
                text.append(f"\n{_INDENT}{visible(one)}")
    return text


def _summary(summary: DoctorSummary) -> Text:
    text = Text()
    text.append_text(_bars("Staged, by age", summary.ages or {}))
    causes = {check.removeprefix("stuck-"): n for check, n in (summary.causes or {}).items()}
    text.append_text(_bars("Stuck, by cause", causes))
    if summary.staged is not None:
        text.append("When doctor looked: " if summary.fixed else "")
        text.append(f"{counted(summary.staged, 'object')} in staging")
        text.append(f" ({format_bytes(summary.staged_bytes or 0)}), {summary.stuck:,} stuck")
        text.append(f"{_not_asked_for(summary)}{_since(summary)}\n")
    text.append(_verdict(summary), style="bold")
    return text


def _bars(title: str, counts: Mapping[str, int]) -> Text:
    """Return a distribution as bars that need no colour and no more than 80 columns."""
    text = Text()
    if not counts:
        return text
    text.append(f"{title}\n", style="bold")
    most = max(counts.values())
    for label, count in counts.items():
        bar = "█" * max(1, round(_BAR_WIDTH * count / most))
        text.append(f"{label:>{_LABEL_WIDTH}}  {bar} {count:,}\n")
    return text


def _since(summary: DoctorSummary) -> str:
    """Say from when on objects count, where somebody may wonder why none does."""
    if not summary.staged or summary.stuck or summary.stuck_after is None:
        return ""
    age = format_duration(summary.stuck_after)
    return f":\nfiles younger than {age} may still be under way; --older-than 1m takes them in"


def _not_asked_for(summary: DoctorSummary) -> str:
    """Say how many stuck objects the findings leave out, where they do."""
    left_out = (summary.stuck or 0) - sum((summary.causes or {}).values())
    if not summary.checks or left_out <= 0:
        return ""
    return f", {left_out:,} of them for causes that were not asked for"


def _verdict(summary: DoctorSummary) -> str:
    counts = (
        (summary.problems, "problem", "problems"),
        (summary.notices, "notice", "notices"),
        (summary.unknown, "check could not run", "checks could not run"),
    )
    said = ", ".join(counted(count, one, many) for count, one, many in counts if count)
    if summary.fixed:
        fixed = f"{counted(summary.fixed, 'finding')} fixed"
        return f"{fixed}, {said} left" if said else f"{fixed}, none left."
    return said or _fine(summary)


def _fine(summary: DoctorSummary) -> str:
    if summary.checks:
        fine = f"The checks asked for ({', '.join(summary.checks)}) found nothing"
    else:
        # What is under way may still fail.
        fine = "Nothing is wrong so far" if summary.staged else "Nothing is wrong"
    notes = summary.findings
    return f"{fine}; {counted(notes, 'note')}." if notes else f"{fine}."


def _summary_lines(_: DoctorSummary) -> None:
    """The exit status says it; lines are findings only."""


def _fleet_findings(one: FleetFindings) -> Text:
    counts = (
        (one.problems, "problem", "bold red"),
        (one.notices, "notice", "yellow"),
        (one.unknown, "unknown", "yellow"),
    )
    worst = next((name for count, name, _ in counts if count), "fine")
    style = next((style for count, _, style in counts if count), "green")
    line = Text(f"{'error' if one.error else worst:<8} ", "bold red" if one.error else style)
    line.append(f"{visible(one.stack)} ", "bold").append(visible(one.region), "dim")
    said = [counted(count, name) for count, name, _ in counts[:2] if count]
    if one.unknown:
        said.append(f"{one.unknown:,} could not be looked at")
    if said:
        line.append("  " + ", ".join(said))
    for more in (one.error, one.worst):
        if more is not None:
            line.append(f"\n         {visible(more)}")
    if one.error is None and one.worst is not None:
        line.append(f"\n         {visible(one.command)}", "bold cyan")
    return line


VIEWS: Final[Views] = {
    FleetFindings: View(_fleet_findings),
    Finding: View(_finding, _finding_line),
    CheckListing: View(_check),
    ChecksSummary: View(_checks_there_are, _no_checks_line),
    FixAction: View(_action),
    Applied: View(_applied),
    DoctorSummary: View(_summary, _summary_lines),
}
