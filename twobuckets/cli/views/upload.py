"""How uploads look: a line for each file, live progress, and what an interruption keeps."""

from __future__ import annotations

from typing import Final

from twobuckets.cli.times import shown
from twobuckets.cli.views import Pieces, Views, in_pieces
from twobuckets.prices import format_usd
from twobuckets.processor.contract import ARCHIVED
from twobuckets.text import visible
from twobuckets.units import counted, format_bytes, format_duration
from twobuckets.upload.files import Failed
from twobuckets.upload.plan import Planned, PlanSummary
from twobuckets.upload.run import Uploaded
from twobuckets.upload.send import Begun, Discarded, DiscardSummary, UploadSummary
from twobuckets.upload.unfinished import Kept


def _uploaded(record: Uploaded) -> Pieces:
    line = _tell_file("uploaded", "green", record.path, record.key, record.size_bytes)
    if record.resumed_bytes:
        line.append((f"  ({format_bytes(record.resumed_bytes)} were there already)", "dim"))
    if record.replaced:
        replaced = "  (replaced an object of that key that was not processed yet)"
        line.append((replaced, "yellow"))
    return line


def _planned(record: Planned) -> Pieces:
    line = _tell_file("would upload", "cyan", record.path, record.key, record.size_bytes)
    how = "one request" if record.parts == 1 else counted(record.parts, "part")
    return [*line, (f"  {how}, {record.content_type}", "dim")]


def _failed(record: Failed) -> Pieces:
    line = [
        ("failed", "bold red"),
        ("  ", ""),
        (visible(record.path), ""),
        (": ", ""),
        (visible(record.reason), ""),
    ]
    if record.hint:
        line.append((f"\n        {visible(record.hint)}", "dim"))
    if record.upload_id:
        kept = f"{format_bytes(record.kept_bytes)} of it are kept: the same command goes on"
        line.append((f"\n        {kept} from there.", "dim"))
    return line


def _kept(record: Kept) -> Pieces:
    share = f"{format_bytes(record.kept_bytes)} of {format_bytes(record.size_bytes)}"
    until = (
        f"until {shown(record.abort_at)}, when a lifecycle rule removes it"
        if record.abort_at is not None
        else "until somebody removes it: S3 named no lifecycle rule that does"
    )
    cost = (
        f"\n      Leaving it costs {format_usd(record.cost_month_usd)} a month. "
        "The same command goes on\n      from there; to drop it:\n      "
    )
    return [
        ("kept", "bold yellow"),
        ("  ", ""),
        (visible(record.path), ""),
        (f": {share} are in S3\n      {until}.", ""),
        (cost, "dim"),
        (visible(record.remedy), ""),
    ]


def _begun(record: Begun) -> Pieces:
    return _tell_drop("would drop", record)


def _discarded(record: Discarded) -> Pieces:
    return _tell_drop("dropped", record)


def _discard_summary(record: DiscardSummary) -> Pieces:
    if not record.found and not record.failed:
        return []
    count = counted(record.found, "incomplete upload")
    is_rehearsal = record.found and not record.dropped
    text = f"{count} {'would be dropped' if is_rehearsal else 'dropped'}"
    return [(text, ""), *_tell_failures(record.failed)]


def _plan_summary(record: PlanSummary) -> Pieces:
    text = (
        f"{counted(record.planned, 'file')}, {format_bytes(record.total_bytes)} would be uploaded"
    )
    return [(text, ""), *_tell_failures(record.failed)]


def _summary(record: UploadSummary) -> Pieces:
    rate = record.sent_bytes / max(record.duration.total_seconds(), 0.001)
    text = (
        f"{counted(record.uploaded, 'file')}, {format_bytes(record.total_bytes)} in "
        f"{format_duration(record.duration)} ({format_bytes(int(rate))}/s)"
    )
    if record.resumed_bytes:
        text += f", {format_bytes(record.resumed_bytes)} of it were there already"
    outcomes = [
        (f", {count:,} {fate}", "bold" if fate == ARCHIVED else "bold red")
        for fate, count in sorted((record.outcomes or {}).items())
    ]
    return [(text, "bold"), *_tell_failures(record.failed), *outcomes]


def _tell_file(verb: str, style: str, path: str, key: str, size_bytes: int) -> Pieces:
    line = [(verb, style), ("  ", ""), (visible(path), "")]
    if path.rpartition("/")[2] != key:
        line += [(" → ", "dim"), (visible(key), "")]
    return [*line, (f"  {format_bytes(size_bytes)}", "dim")]


def _tell_drop(verb: str, record: Begun | Discarded) -> Pieces:
    upload = f": its incomplete upload {visible(record.upload_id)}"
    return [(verb, "yellow"), ("  ", ""), (visible(record.path), ""), (upload, "dim")]


def _tell_failures(failed: int) -> Pieces:
    return [(f", {failed:,} failed", "bold red")] if failed else []


VIEWS: Final[Views] = {
    Uploaded: in_pieces(_uploaded),
    Planned: in_pieces(_planned),
    Failed: in_pieces(_failed),
    Kept: in_pieces(_kept),
    Begun: in_pieces(_begun),
    Discarded: in_pieces(_discarded),
    DiscardSummary: in_pieces(_discard_summary),
    PlanSummary: in_pieces(_plan_summary),
    UploadSummary: in_pieces(_summary),
}
