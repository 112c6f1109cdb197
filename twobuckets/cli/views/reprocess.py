"""How a reprocess run looks to a person."""

from __future__ import annotations

import json
from typing import Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views
from twobuckets.prices import format_usd
from twobuckets.processor.contract import ARCHIVED
from twobuckets.reprocess.batch import BatchJob, BatchPermissions
from twobuckets.reprocess.items import Count, Item, Reprocessed, State
from twobuckets.reprocess.journals import RunStatus
from twobuckets.reprocess.plan import Kind
from twobuckets.reprocess.run import PlanTotals
from twobuckets.reprocess.running import OutcomeGroup, RunSummary
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes

_STYLES = {State.DONE: "green", State.FAILED: "bold red", State.LEFT: "yellow"}
_WORDS = {
    ("copy", State.DONE): "copied back",
    ("wake", State.DONE): "woken",
    ("restore", State.LEFT): "asked back",
}


def _planned(plan: PlanTotals) -> Text:
    lines = []
    if plan.copies:
        copies = counted(plan.copies, "is copied back", "are copied back")
        lines.append(
            f"{copies} to staging; the archive keeps what it has until the copy is archived, "
            "and after that as noncurrent versions"
        )
    if plan.wakes:
        waits = counted(plan.wakes, "waits", "wait")
        lines.append(f"{waits} in staging: the processor is woken for each")
    if plan.restores:
        lines.append(f"{counted(plan.restores, 'is', 'are')} asked back from Glacier")
    lines += [
        f"{counted(count, 'is', 'are')} skipped: {visible(why)}"
        for why, count in plan.skipped.items()
    ]
    if plan.objects:
        lines.append(
            f"{counted(plan.objects, 'object')}, {format_bytes(plan.total_bytes)}; "
            f"about {counted(plan.requests, 'request')}, "
            f"{format_usd(plan.cost_usd)} at us-east-1 list prices, without what the function costs"
        )
    return Text("\n".join(lines) if lines else "Nothing to reprocess.")


def _item(item: Item) -> Text:
    line = Text(f"{item.kind:8}", style="yellow" if item.kind == Kind.SKIP else "")
    line.append(visible(item.key))
    if item.reason:
        line.append(f"  {visible(item.reason)}", style="dim")
    return line


def _reprocessed(result: Reprocessed) -> Text:
    word = _WORDS.get((result.kind, result.state), str(result.state))
    line = Text(f"{word:12}", style=_STYLES.get(result.state, ""))
    line.append(visible(result.key))
    if result.reason:
        line.append(f"  {visible(result.reason)}", style="dim")
    return line


def _batch_job(job: BatchJob) -> Text:
    line = Text(f"S3 Batch Operations job {visible(job.job_id)}: {visible(job.status)}")
    line.append(f", {job.succeeded:,} of {job.tasks:,} copied, {job.failed:,} failed")
    if job.reason:
        line.append(f"  {visible(job.reason)}", style="yellow")
    return line


def _batch_permissions(needs: BatchPermissions) -> Text:
    return Text(json.dumps({"trust": needs.trust, "permissions": needs.permissions}, indent=2))


def _run_status(status: RunStatus) -> Text:
    if status.is_ended:
        end = "ended"
    elif status.process is not None:
        end = f"under way (process {status.process})"
    else:
        end = "not ended; the same command, or --resume, goes on"
    return Text(
        f"twobuckets {visible(status.command)}\n"
        f"planned {shown(status.planned_at)}, {end}\njournal {visible(status.journal)}"
    )


def _count(count: Count) -> Text:
    line = Text(f"{count.objects:>10,} {count.kind:8}{count.state:8}")
    line.append(f"{format_bytes(count.bytes):>12}  {visible(count.reason or '')}")
    return line


def _outcome_group(group: OutcomeGroup) -> Text:
    line = Text(f"{group.objects:>10,} × {group.fate:12}")
    line.stylize("green" if group.fate == ARCHIVED else "red")
    if group.error is not None:
        line.append(visible(group.error))
        line.append(f"  such as {visible(group.example)}", style="dim")
    return line


def _summary(summary: RunSummary) -> Text:
    parts = [f"{summary.done:,} done"]
    if summary.failed:
        parts.append(f"{summary.failed:,} failed")
    if summary.left:
        parts.append(f"{summary.left:,} left as they are")
    if summary.planned:
        parts.append(f"{summary.planned:,} still to do")
    parts += [f"{count:,} {fate}" for fate, count in summary.outcomes.items()]
    lines = [", ".join(parts)]
    worst = sorted(summary.failures.items(), key=lambda entry: -entry[1])
    lines += [f"{count:>10,} × {visible(reason)}" for reason, count in worst]
    return Text("\n".join(lines))


VIEWS: Final[Views] = {
    PlanTotals: View(_planned),
    Item: View(_item),
    Reprocessed: View(_reprocessed),
    BatchJob: View(_batch_job),
    BatchPermissions: View(_batch_permissions),
    RunStatus: View(_run_status),
    Count: View(_count),
    OutcomeGroup: View(_outcome_group),
    RunSummary: View(_summary),
}
