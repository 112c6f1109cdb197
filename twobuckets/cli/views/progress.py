"""Live progress on stderr, and the same as JSON lines for programs."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from rich.text import Text

from twobuckets.cli.records import Progressed
from twobuckets.cli.views import remote
from twobuckets.upload.files import Failed, File
from twobuckets.upload.parts import THRESHOLD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, Task, TaskID

    from twobuckets.cli.output import Output
    from twobuckets.upload.run import Uploaded


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
def upload_progress(out: Output) -> Iterator[Bars | Ticks | None]:
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


@contextlib.contextmanager
def reprocess_progress(out: Output, objects: int) -> Iterator[Callable[[], None]]:
    """Yield what counts one object on: a bar with rate and time left, where somebody sees it."""
    if not out.shows_progress:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TimeRemainingColumn

    class Speed(ProgressColumn):
        """Objects a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f}/s")

    columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with out.progress("reprocessing", *columns) as live:
        task = live.add_task("", total=objects)
        yield lambda: live.advance(task)
