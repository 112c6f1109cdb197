"""How uploads look: a line for each file, live progress, and what an interruption keeps."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, remote
from twobuckets.prices import format_usd
from twobuckets.processor.contract import ARCHIVED
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes, format_duration
from twobuckets.upload.files import Failed
from twobuckets.upload.plan import Planned, PlanSummary
from twobuckets.upload.run import Uploaded
from twobuckets.upload.send import Begun, Discarded, DiscardSummary, UploadSummary
from twobuckets.upload.unfinished import Kept

_Pieces = list[tuple[str, str]]
"""Texts and their styles: joined they are the plain line, which thousands of small files need."""


def _uploaded(record: Uploaded) -> Text:
    return Text.assemble(*_tell_uploaded(record))


def _uploaded_plainly(record: Uploaded) -> str:
    return "".join([text for text, _ in _tell_uploaded(record)])


def _tell_uploaded(record: Uploaded) -> _Pieces:
    line = _tell_file("uploaded", "green", record.path, record.key, record.size_bytes)
    if record.resumed_bytes:
        line.append((f"  ({format_bytes(record.resumed_bytes)} were there already)", "dim"))
    if record.replaced:
        replaced = "  (replaced an object of that key that was not processed yet)"
        line.append((replaced, "yellow"))
    return line


def _planned(record: Planned) -> Text:
    line = _tell_file("would upload", "cyan", record.path, record.key, record.size_bytes)
    how = "one request" if record.parts == 1 else counted(record.parts, "part")
    return Text.assemble(*line, (f"  {how}, {record.content_type}", "dim"))


def _failed(record: Failed) -> Text:
    line = (
        Text("failed", style="bold red")
        .append("  ", style="not bold")
        .append_text(remote(record.path, "default not bold"))
    )
    line.append(": ", style="default not bold").append_text(
        remote(record.reason, "default not bold")
    )
    if record.hint:
        line.append("\n        ").append_text(remote(record.hint, "dim not bold"))
    if record.upload_id:
        line.append(
            f"\n        {format_bytes(record.kept_bytes)} of it are kept: the same command goes on "
            "from there.",
            style="dim not bold",
        )
    return line


def _kept(record: Kept) -> Text:
    line = (
        Text("kept", style="bold yellow")
        .append("  ", style="not bold")
        .append_text(remote(record.path, "default not bold"))
    )
    share = f"{format_bytes(record.kept_bytes)} of {format_bytes(record.size_bytes)}"
    until = (
        f"until {shown(record.abort_at)}, when a lifecycle rule removes it"
        if record.abort_at is not None
        else "until somebody removes it: S3 named no lifecycle rule that does"
    )
    line.append(f": {share} are in S3\n      {until}.", style="default not bold")
    line.append(
        f"\n      Leaving it costs {format_usd(record.cost_month_usd)} a month. "
        "The same command goes on\n      from there; to drop it:\n      ",
        style="dim not bold",
    )
    return line.append(visible(record.remedy), style="not bold")


def _begun(record: Begun) -> Text:
    line = Text("would drop", style="yellow").append("  ", style="default")
    line.append_text(remote(record.path, "default"))
    return line.append(f": its incomplete upload {remote(record.upload_id).plain}", style="dim")


def _discarded(record: Discarded) -> Text:
    line = Text("dropped", style="yellow").append("  ", style="default")
    line.append_text(remote(record.path, "default"))
    return line.append(f": its incomplete upload {remote(record.upload_id).plain}", style="dim")


def _discard_summary(record: DiscardSummary) -> Text | None:
    if not record.found and not record.failed:
        return None
    count = counted(record.found, "incomplete upload")
    is_rehearsal = record.found and not record.dropped
    text = f"{count} {'would be dropped' if is_rehearsal else 'dropped'}"
    return _with_failures(Text(text), record.failed)


def _plan_summary(record: PlanSummary) -> Text:
    text = (
        f"{counted(record.planned, 'file')}, {format_bytes(record.total_bytes)} would be uploaded"
    )
    return _with_failures(Text(text), record.failed)


def _summary(record: UploadSummary) -> Text:
    rate = record.sent_bytes / max(record.duration.total_seconds(), 0.001)
    text = (
        f"{counted(record.uploaded, 'file')}, {format_bytes(record.total_bytes)} in "
        f"{format_duration(record.duration)} ({format_bytes(int(rate))}/s)"
    )
    if record.resumed_bytes:
        text += f", {format_bytes(record.resumed_bytes)} of it were there already"
    line = _with_failures(Text(text, style="bold"), record.failed)
    for fate, count in sorted((record.outcomes or {}).items()):
        line.append(f", {count:,} {fate}", style="bold" if fate == ARCHIVED else "bold red")
    return line


def _tell_file(verb: str, style: str, path: str, key: str, size_bytes: int) -> _Pieces:
    line = [(verb, style), ("  ", ""), (visible(path), "")]
    if path.rpartition("/")[2] != key:
        line += [(" → ", "dim"), (visible(key), "")]
    return [*line, (f"  {format_bytes(size_bytes)}", "dim")]


def _with_failures(line: Text, failed: int) -> Text:
    if failed:
        line.append(f", {failed:,} failed", style="bold red")
    return line


VIEWS: Final[Views] = {
    Uploaded: View(_uploaded, _uploaded_plainly),
    Planned: View(_planned),
    Failed: View(_failed),
    Kept: View(_kept),
    Begun: View(_begun),
    Discarded: View(_discarded),
    DiscardSummary: View(_discard_summary),
    PlanSummary: View(_plan_summary),
    UploadSummary: View(_summary),
}
