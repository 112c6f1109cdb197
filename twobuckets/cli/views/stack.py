"""How plans, stack events and what `destroy` finds look to a person."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.views import View, Views
from twobuckets.stack.destroy import Contents, DestroySummary
from twobuckets.stack.events import StackEvent
from twobuckets.stack.existing import ExistingBucket
from twobuckets.stack.plan import (
    DeploySummary,
    ParameterChange,
    Plan,
    ResourceAction,
    ResourceChange,
)
from twobuckets.text import shell_word, visible
from twobuckets.units import counted, format_bytes

_SIGNS = {
    ResourceAction.ADD: ("+", "green", "is added"),
    ResourceAction.CHANGE: ("~", "cyan", "changes"),
    ResourceAction.MAY_REPLACE: ("?", "yellow", "MAY BE REPLACED"),
    ResourceAction.REPLACE: ("!", "bold red", "IS REPLACED"),
    ResourceAction.DELETE: ("-", "bold red", "IS DELETED"),
    ResourceAction.RELEASE: ("-", "yellow", "LEAVES THE STACK"),
}
_SHORT_HASH = 12


def _plan(plan: Plan) -> Text:
    name = visible(plan.stack)
    if not plan.steps:
        return Text(f"The stack {name} is up to date: no change.")
    lines = []
    if plan.changes:
        lines.append(Text(f"The stack {name} " + ("is created:" if plan.creates else "changes:")))
        lines += [_change(change) for change in plan.changes]
        lines += [_parameter(change) for change in plan.parameters]
    lines += map(_existing_bucket, plan.existing_buckets)
    return Text("\n").join(lines)


def _existing_bucket(bucket: ExistingBucket) -> Text:
    """Return what happens to a bucket that the stack did not make."""
    name = Text(visible(bucket.bucket), "bold")
    if bucket.is_released:
        line = name.append(" stays, with all that is in it", "yellow")
    else:
        line = name.append(f", there already, is the {bucket.role} bucket and stays yours", "")
    for change in bucket.changes:
        line.append(f"\n  ~ {visible(change)}", "red" if ": DELETES" in change else "cyan")
    for notice in bucket.notices:
        line.append(f"\n    {visible(notice)}", "yellow")
    return line


def _change(change: ResourceChange) -> Text:
    sign, style, words = _SIGNS[change.action]
    line = Text().append(f"  {sign} ", style=style)
    line.append(change.resource, style="bold")
    line.append(f" ({change.resource_type.removeprefix('AWS::')})", style="dim")
    if change.action is not ResourceAction.ADD:
        line.append(f" {words}", style=style)
    if change.properties and change.action in (
        ResourceAction.CHANGE,
        ResourceAction.MAY_REPLACE,
        ResourceAction.REPLACE,
    ):
        line.append(": " + ", ".join(visible(name) for name in change.properties))
    if change.endangers_data:
        line.append(f"\n      {_fate(change)}", style=style)
    return line


def _fate(change: ResourceChange) -> str:
    """Return what becomes of the data in the resource that is there now."""
    present = visible(change.physical_id or change.resource)
    if change.keeps_old or change.action is ResourceAction.RELEASE:
        return f"{present} stays with all that is in it, but the pipeline no longer uses it."
    return f"{present} would go with ALL THAT IS IN IT."


def _parameter(change: ParameterChange) -> Text:
    before, after = (_shown(value) for value in (change.before, change.after))
    return Text(f"    {change.parameter}: {before} → {after}", style="dim")


def _shown(value: str | None) -> str:
    if not value:
        return "(none)"
    # An artifact's key is its hash, of which the beginning is enough to tell two apart.
    is_artifact = value.endswith(".zip") and len(value) > 2 * _SHORT_HASH
    return visible(value[:_SHORT_HASH] + "….zip" if is_artifact else value)


def _stack_event(event: StackEvent) -> Text | None:
    if event.status.endswith("_IN_PROGRESS") and not event.is_of_stack:
        return None
    style = _status_style(event.status)
    line = Text().append(f"{event.happened_at:%H:%M:%S}Z ", style="dim")
    line.append(f"{event.status:<22} ", style=style)
    line.append(visible(event.resource), style="bold" if event.is_of_stack else "")
    if event.reason:
        line.append(f"  {visible(event.reason)}", style=style)
    return line


def _stack_event_line(event: StackEvent) -> str:
    parts = [f"{event.happened_at:%H:%M:%S}Z", event.status, visible(event.resource)]
    return "  ".join([*parts, visible(event.reason)] if event.reason else parts)


def _status_style(status: str) -> str:
    if "FAILED" in status or "ROLLBACK" in status:
        return "red"
    return "green" if status.endswith("_COMPLETE") else "cyan"


def _deploy_summary(summary: DeploySummary) -> Text | None:
    name = visible(summary.stack)
    match summary.outcome:
        case "deployed":
            lines = [Text(f"Deployed {name}.", style="bold green")]
            lines += [
                Text(f"  {visible(key):<16} {visible(value)}")
                for key, value in summary.outputs.items()
            ]
            command = f"twobuckets --stack {shell_word(summary.stack)} upload FILE --wait"
            return Text("\n").join([*lines, Text(f"Try it: {command}")])
        case "unchanged" | "followed":
            return None
        case _:
            return Text("Nothing was changed.")


def _contents(contents: Contents) -> Text:
    counts = [
        _some(contents.objects, "object"),
        _some(contents.noncurrent_versions, "noncurrent version"),
        _some(contents.delete_markers, "delete marker"),
        _some(contents.incomplete_uploads, "incomplete upload"),
    ]
    held = ", ".join(count for count in counts if count)
    line = Text(f"  {visible(contents.bucket)}: ")
    if not held:
        return line.append("empty")
    line.append(held, style="bold red" if contents.has_data else "")
    return line.append(f" ({format_bytes(contents.size_bytes)})" if contents.size_bytes else "")


def _some(number: int, what: str) -> str:
    return counted(number, what) if number else ""


def _destroy_summary(summary: DestroySummary) -> Text:
    if summary.outcome != "destroyed":
        return Text("Nothing was changed.")
    removed = [
        _some(summary.versions, "version"),
        _some(summary.uploads, "incomplete upload"),
    ]
    said = ", ".join(part for part in removed if part)
    line = Text().append(f"Destroyed {visible(summary.stack)}", style="bold green")
    return line.append(f", with {said}." if said else ".")


VIEWS: Final[Views] = {
    Plan: View(_plan),
    StackEvent: View(_stack_event, _stack_event_line),
    DeploySummary: View(_deploy_summary),
    Contents: View(_contents),
    ExistingBucket: View(_existing_bucket),
    DestroySummary: View(_destroy_summary),
}
