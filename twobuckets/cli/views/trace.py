"""How the life of a file looks to a person: a line for each thing that happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views
from twobuckets.text import visible
from twobuckets.trace.events import ARCHIVE, STAGING, TraceEvent
from twobuckets.trace.present import TracedState
from twobuckets.units import format_bytes, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLES: Final = {
    "archived": "green",
    "put": "bold",
    "upload-begun": "bold",
    "invoked": "",
    "reprocess": "bold cyan",
    "superseded": "yellow",
    "missing": "yellow",
    "deleted": "yellow",
    "rejected": "magenta",
}
_STATE_STYLES: Final = {
    "archived": "bold green",
    "rejected": "bold magenta",
    "failed": "bold red",
    "stuck": "bold red",
    "left-in-staging": "bold yellow",
    "retrying": "bold yellow",
    "in-job": "cyan",
    "deleted": "bold yellow",
}
_PLACES: Final = {STAGING: "in staging", ARCHIVE: "in the archive"}
_WIDTH: Final = 13


def _event(event: TraceEvent) -> Text:
    line = Text(f"  {shown(event.at, precision='milliseconds')} ", style="dim")
    line.append(f"{visible(event.event):<{_WIDTH}}", style=_STYLES.get(event.event, "bold red"))
    line.append(" " + ", ".join(_facts(event)))
    if event.error is not None:
        said = ": ".join(part for part in (event.error.type, event.error.message) if part)
        line.append(f"  {visible(said)}", style="red")
    if event.detail is not None:
        line.append(f"  {visible(event.detail)}")
    if event.error is not None:
        for row in event.error.trace.splitlines():
            line.append(f"\n      {visible(row)}", style="dim")
    return line


def _facts(event: TraceEvent) -> Iterator[str]:
    if event.place in _PLACES:
        yield _PLACES[event.place]
    if event.attempt is not None:
        yield f"attempt {event.attempt}"
    if event.duration is not None:
        yield format_duration(event.duration)
    if event.size_bytes is not None and event.place in _PLACES:
        yield format_bytes(event.size_bytes)
    if event.version_id is not None:
        yield f"version {visible(event.version_id)}"
    if event.archive_version_id is not None:
        yield f"archive version {visible(event.archive_version_id)}"
    for name, value in event.checksums.items():
        yield f"{visible(name)} {visible(value)}"
    if event.request_id is not None:
        yield f"request {visible(event.request_id)}"


def _state(state: TracedState) -> Text:
    line = Text("  now: ", style="bold")
    line.append(state.state, style=_STATE_STYLES.get(state.state, "bold"))
    if state.since is not None:
        line.append(f" since {shown(state.since)}")
    if state.state == "unknown":
        line.append("; neither S3 nor the log knows the key")
    if state.next is not None:
        line.append(f"; {visible(state.next)}")
    if state.next_at is not None:
        line.append(f" ({shown(state.next_at)})")
    if state.command is not None:
        line.append(f"\n  {visible(state.command)}", style="bold cyan")
    return line


VIEWS: Final[Views] = {
    TraceEvent: View(_event),
    TracedState: View(_state),
}
