"""How the live picture looks: one screen of 80 by 24, without colour too, or a line in a pipe."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, human
from twobuckets.cli.views.status import labelled, sparkline
from twobuckets.pipeline.lookups import Unread
from twobuckets.prices import format_usd
from twobuckets.processor.contract import ARCHIVED, FAILED, REJECTED
from twobuckets.text import visible
from twobuckets.units import counted, format_duration
from twobuckets.watch.gathering import WatchPicture

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLES: Final = {ARCHIVED: "green", FAILED: "bold red", REJECTED: "magenta"}
_KIND: Final = 11
_COUNT: Final = 9
_LABEL: Final = len(labelled("").plain)


def _picture(picture: WatchPicture) -> Text:
    screen = Text("\n").join(_lines(picture))
    # A line that is too long for the terminal is cut: the next ones keep their places.
    screen.no_wrap, screen.overflow = True, "ellipsis"
    return screen


def _lines(picture: WatchPicture) -> Iterator[Text]:
    cost = "under $0.01" if picture.hour_usd < 0.01 else format_usd(picture.hour_usd)
    head = Text(shown(picture.at), style="bold")
    yield head.append(f"   {counted(picture.requests, 'request')}, {cost} an hour   q ends", "dim")
    if picture.problem is not None:
        yield Text(f"No answer: {visible(picture.problem)}", style="bold red")
    yield Text()
    for record in (picture.staging, picture.queues, picture.failures):
        view = None if record is None else human(record)
        if isinstance(view, Text):
            first, *more = view.split("\n")
            # `status` has the bucket's name above.
            is_staging = record is picture.staging
            yield labelled("Staging", first[_LABEL:]) if is_staging else first
            yield from more
    if picture.in_flight is not None:
        yield labelled("In flight", counted(picture.in_flight, "invocation"))
    yield from _throttles(picture)
    yield Text()
    yield from _by_minute(picture)
    if picture.errors:
        yield Text()
    for number, error in enumerate(picture.errors):
        ago = format_duration(max(picture.at - error.last_at, timedelta()))
        line = labelled("" if number else "Errors", f"{error.tries:,} × {visible(error.error)}")
        yield line
        yield labelled("", Text(f"  last {ago} ago  {visible(error.last_key)}", "dim"))


def _throttles(picture: WatchPicture) -> Iterator[Text]:
    match picture.throttled_minutes:
        case Unread(action=action):
            yield labelled("Throttled", Text(f"not readable, needs {action}", "bold red"))
        case int() as minutes if minutes:
            said = f"in {counted(minutes, 'minute')} of the last 30"
            yield labelled("Throttled", Text(said, "bold yellow"))
        case _:
            return


def _by_minute(picture: WatchPicture) -> Iterator[Text]:
    if picture.log is not None:
        yield labelled("Log", Text(f"not readable, needs {picture.log.action}", "bold red"))
        return
    yield Text("Last 30 minutes", style="bold")
    rows = {"begun": picture.begun, **picture.outcomes}
    for kind, counts in rows.items():
        row = Text(f"  {visible(kind):<{_KIND}}", style=_STYLES.get(kind, ""))
        row.append(f"{sum(counts):>{_COUNT},}  ", style="bold")
        yield row.append(sparkline(counts), style=_STYLES.get(kind, ""))


def _line(picture: WatchPicture) -> str:
    """Return a look as one line: its time, then name=value, in the same order each time."""
    staged = picture.staging.staged if picture.staging is not None else None
    values: dict[str, str] = {}
    if staged is not None and not isinstance(staged, Unread):
        values["staged"] = str(staged.objects)
        values["bytes"] = str(staged.size_bytes)
        oldest = picture.at - staged.oldest_at if staged.oldest_at is not None else timedelta()
        values["oldest_seconds"] = f"{max(oldest, timedelta()).total_seconds():.0f}"
    if picture.in_flight is not None:
        values["in_flight"] = str(picture.in_flight)
    values["begun"] = str(sum(picture.begun))
    values |= {kind: str(sum(counts)) for kind, counts in picture.outcomes.items()}
    if picture.problem is not None:
        values["problem"] = picture.problem
    return f"{shown(picture.at)} " + " ".join(f"{n}={visible(v)}" for n, v in values.items())


VIEWS: Final[Views] = {
    WatchPicture: View(_picture, _line),
}
