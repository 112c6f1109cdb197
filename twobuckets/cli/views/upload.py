"""How uploads look: a line for each file, live progress, and what an interruption keeps."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from twobuckets.cli.views import human, plain, remote
from twobuckets.prices import format_usd
from twobuckets.text import visible
from twobuckets.units import format_bytes, format_duration, format_instant
from twobuckets.upload.files import Failed, File
from twobuckets.upload.parts import THRESHOLD_BYTES
from twobuckets.upload.plan import Planned, PlanSummary
from twobuckets.upload.run import Kept, Uploaded
from twobuckets.upload.send import Begun, Discarded, DiscardSummary, UploadSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, TaskID

    from twobuckets.cli.output import Output


_Pieces = list[tuple[str, str]]
"""Texts and their styles: joined they are the plain line, which thousands of small files need."""


@human.register(Uploaded)
def _uploaded(record: Uploaded) -> Text:
    return Text.assemble(*_tell_uploaded(record))


@plain.register(Uploaded)
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


@human.register(Planned)
def _planned(record: Planned) -> Text:
    line = _tell_file("would upload", "cyan", record.path, record.key, record.size_bytes)
    how = "one request" if record.parts == 1 else f"{record.parts:,} parts"
    return Text.assemble(*line, (f"  {how}, {record.content_type}", "dim"))


@human.register(Failed)
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


@human.register(Kept)
def _kept(record: Kept) -> Text:
    line = (
        Text("kept", style="bold yellow")
        .append("  ", style="not bold")
        .append_text(remote(record.path, "default not bold"))
    )
    share = f"{format_bytes(record.kept_bytes)} of {format_bytes(record.size_bytes)}"
    until = (
        f"until {format_instant(record.abort_at)}, when a lifecycle rule removes it"
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


@human.register(Begun)
def _begun(record: Begun) -> Text:
    line = Text("would drop", style="yellow").append("  ", style="default")
    line.append_text(remote(record.path, "default"))
    return line.append(f": its incomplete upload {remote(record.upload_id).plain}", style="dim")


@human.register(Discarded)
def _discarded(record: Discarded) -> Text:
    line = Text("dropped", style="yellow").append("  ", style="default")
    line.append_text(remote(record.path, "default"))
    return line.append(f": its incomplete upload {remote(record.upload_id).plain}", style="dim")


@human.register(DiscardSummary)
def _discard_summary(record: DiscardSummary) -> Text | None:
    if not record.found and not record.failed:
        return None
    count = f"{record.found:,} incomplete upload{'' if record.found == 1 else 's'}"
    is_rehearsal = record.found and not record.dropped
    text = f"{count} {'would be dropped' if is_rehearsal else 'dropped'}"
    return _with_failures(Text(text), record.failed)


@human.register(PlanSummary)
def _plan_summary(record: PlanSummary) -> Text:
    text = f"{_files(record.planned)}, {format_bytes(record.total_bytes)} would be uploaded"
    return _with_failures(Text(text), record.failed)


@human.register(UploadSummary)
def _summary(record: UploadSummary) -> Text:
    rate = record.sent_bytes / max(record.duration.total_seconds(), 0.001)
    text = (
        f"{_files(record.uploaded)}, {format_bytes(record.total_bytes)} in "
        f"{format_duration(record.duration)} ({format_bytes(int(rate))}/s)"
    )
    if record.resumed_bytes:
        text += f", {format_bytes(record.resumed_bytes)} of it were there already"
    line = _with_failures(Text(text, style="bold"), record.failed)
    for fate, count in sorted((record.outcomes or {}).items()):
        line.append(f", {count:,} {fate}", style="bold" if fate == "archived" else "bold red")
    return line


def _tell_file(verb: str, style: str, path: str, key: str, size_bytes: int) -> _Pieces:
    line = [(verb, style), ("  ", ""), (visible(path), "")]
    if path.rpartition("/")[2] != key:
        line += [(" → ", "dim"), (visible(key), "")]
    return [*line, (f"  {format_bytes(size_bytes)}", "dim")]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _with_failures(line: Text, failed: int) -> Text:
    if failed:
        line.append(f", {failed:,} failed", style="bold red")
    return line


class Bars:
    """Live progress: all files together, and each large one while it is under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._all: TaskID = progress.add_task("uploading", total=0)
        self._large: dict[str, TaskID] = {}
        self._total_bytes = 0

    def count(self, files: Iterable[File | Failed]) -> Iterator[File | Failed]:
        """Yield the files as they come, and take their sizes into the total."""
        for file in files:
            if isinstance(file, File):
                self._total_bytes += file.size_bytes
                self._progress.update(self._all, total=self._total_bytes)
            yield file

    def sent(self, file: File, count: int) -> None:
        """Advance by bytes of a file; called from any thread, with less than 0 for a retry."""
        self._progress.advance(self._all, count)
        if file.size_bytes >= THRESHOLD_BYTES:
            with self._lock:
                task = self._large.get(file.key)
                if task is None:
                    shown = remote(file.path).plain[-40:]
                    task = self._progress.add_task(shown, total=file.size_bytes)
                    self._large[file.key] = task
            self._progress.advance(task, count)

    def done(self, record: Uploaded | Failed) -> None:
        """Take a file off the display."""
        with self._lock:
            task = self._large.pop(record.key, None)
        if task is not None:
            self._progress.remove_task(task)


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a run is, told now and then; `total_bytes` is what was found so far."""

    type_name = "progress"

    sent_bytes: int
    total_bytes: int
    done: int


class Ticks:
    """Progress as JSON lines, one every few seconds: `Bars` for programs."""

    EVERY_SECONDS = 5.0

    def __init__(self, out: Output, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._told_at = monotonic()
        self._sent_bytes = self._total_bytes = self._done = 0

    def count(self, files: Iterable[File | Failed]) -> Iterator[File | Failed]:
        """Yield the files as they come, and take their sizes into the total."""
        for file in files:
            if isinstance(file, File):
                self._total_bytes += file.size_bytes
            yield file

    def sent(self, file: File, count: int) -> None:
        """Advance by bytes of a file; called from any thread, with less than 0 for a retry."""
        with self._lock:
            self._sent_bytes += count
            now = self._monotonic()
            if now - self._told_at < self.EVERY_SECONDS:
                return
            self._told_at = now
            self._out.record(Progressed(self._sent_bytes, self._total_bytes, self._done))

    def done(self, record: Uploaded | Failed) -> None:
        """Count a file that is over."""
        self._done += 1


@contextlib.contextmanager
def progress(out: Output) -> Iterator[Bars | Ticks | None]:
    """Yield live progress: on a terminal's stderr, as JSON lines, or None where nobody sees it."""
    if out.json:
        yield Ticks(out)
        return
    if not out.shows_progress:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with out.progress(*columns) as live:
        yield Bars(live)
