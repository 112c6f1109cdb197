"""Live progress on stderr, and the same as JSON lines for programs."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.text import visible
from twobuckets.units import counted, format_bytes, format_duration
from twobuckets.upload.census import Census
from twobuckets.upload.files import STDIN, Failed, File
from twobuckets.upload.parts import THRESHOLD_BYTES
from twobuckets.upload.sent import SentBefore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, Task, TaskID

    from twobuckets.cli.output import Output
    from twobuckets.upload.run import Uploaded

_NAME_WIDTH: Final = 24
# Makes no total, as the name says.
_UNCOUNTED: Final = File(STDIN, "", 0)


class Bars:
    """Live progress: all files together, and each large one while it is under way."""

    def __init__(self, progress: Progress, census: Census) -> None:
        self._progress = progress
        self._census = census
        self._lock = threading.Lock()
        self._done = 0
        self._all: TaskID = progress.add_task("", total=None, files="")
        self._large: dict[str, TaskID] = {}

    def sent(self, file: File, count: int) -> None:
        """Advance by bytes of a file; called from any thread, with less than 0 for a retry."""
        self._progress.advance(self._all, count)
        self._update()
        if file.size_bytes >= THRESHOLD_BYTES:
            with self._lock:
                task = self._large.get(file.key)
                if task is None:
                    shown = visible(file.path)[-_NAME_WIDTH:]
                    task = self._progress.add_task(shown, total=file.size_bytes, files="")
                    self._large[file.key] = task
            self._progress.advance(task, count)

    def done(self, record: Uploaded | Failed | SentBefore) -> None:
        """Count a file, and take it off the display."""
        with self._lock:
            self._done += 1
            task = self._large.pop(record.key, None)
        if task is not None:
            self._progress.remove_task(task)
        if isinstance(record, SentBefore):
            self._progress.advance(self._all, record.size_bytes)
        self._update()

    def _update(self) -> None:
        census = self._census
        if census.is_complete:
            files = f"{self._done:,}/{counted(census.files, 'file')}"
            self._progress.update(self._all, total=census.size_bytes, files=files)
        else:
            self._progress.update(self._all, files=counted(self._done, "file"))


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
            from twobuckets.cli.records import Progressed

            self._out.record(Progressed(self._sent_bytes, self._total_bytes, self._done))

    def done(self, record: Uploaded | Failed | SentBefore) -> None:
        """Count a file that is over."""
        with self._lock:
            self._done += 1
            if isinstance(record, SentBefore):
                self._sent_bytes += record.size_bytes


@contextlib.contextmanager
def upload_progress(
    out: Output, files: Iterable[File | Failed] | None
) -> Iterator[Bars | Ticks | None]:
    """Yield live progress: on a terminal's stderr, as JSON lines, or None where nobody sees it.

    `files` are what is uploaded, to be counted beside it; None where they can't be seen twice.
    """
    if out.json:
        yield Ticks(out)
        return
    if not out.shows_progress:
        yield None
        return
    from rich.progress import BarColumn, ProgressColumn
    from rich.text import Text

    class Column(ProgressColumn):
        """Text about a task."""

        def __init__(self, tell: Callable[[Task], str], style: str = "") -> None:
            super().__init__()
            self._tell = tell
            self._style = style

        def render(self, task: Task) -> Text:
            return Text(self._tell(task), self._style)

    columns = (
        BarColumn(bar_width=12),
        Column(lambda task: task.fields["files"] or task.description),
        Column(_tell_bytes, "progress.download"),
        Column(_tell_rate, "progress.data.speed"),
        Column(_tell_time_left, "progress.remaining"),
    )
    counted_files = files if files is not None else [_UNCOUNTED]
    with Census(counted_files) as census, out.progress(*columns) as live:
        yield Bars(live, census)


def _tell_bytes(task: Task) -> str:
    done = format_bytes(int(task.completed))
    return done if task.total is None else f"{done} of {format_bytes(int(task.total))}"


def _tell_rate(task: Task) -> str:
    return f"{format_bytes(int(task.speed))}/s" if task.speed else ""


def _tell_time_left(task: Task) -> str:
    left = task.time_remaining
    if not left:
        return ""
    return f"{left:.0f}s left" if left < 10 else f"{format_duration(timedelta(seconds=left))} left"


@contextlib.contextmanager
def reprocess_progress(out: Output, objects: int) -> Iterator[Callable[[], None]]:
    """Yield what counts one object on: a bar with rate and time left, where somebody sees it."""
    if not out.shows_progress:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """Objects a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f}/s")

    columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with out.progress("reprocessing", *columns) as live:
        task = live.add_task("", total=objects)
        yield lambda: live.advance(task)
