"""How each record looks to a person: one file a room, loaded with the first record that it shows.

A file has a table, `VIEWS`: what a terminal shows for a record and, where a pipe should get
something else than the same text, what a pipe gets. None shows nothing. `FILES` says in which file
the records of which modules are looked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from twobuckets.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

FILES: Final = {
    "twobuckets.artifact": "artifact",
    "twobuckets.cli": "commands",
    "twobuckets.doctor": "doctor",
    "twobuckets.links": "links",
    "twobuckets.local": "local",
    "twobuckets.logs": "logs",
    "twobuckets.logs.recent": "status",
    "twobuckets.logs.use": "status",
    "twobuckets.logs.waiting": "waiting",
    "twobuckets.manual": "manual",
    "twobuckets.pipeline": "status",
    "twobuckets.pipeline.redriving": "redriving",
    "twobuckets.probe": "probe",
    "twobuckets.reprocess": "reprocess",
    "twobuckets.stack": "stack",
    "twobuckets.trace": "trace",
    "twobuckets.upload": "upload",
    "twobuckets.watch": "watch",
    "twobuckets.upload.credentials": "presign",
    "twobuckets.upload.page": "presign",
    "twobuckets.upload.presign": "presign",
}
"""The module, or package, that defines a record → the file here that shows it."""


class View(NamedTuple):
    """How one kind of record looks: on a terminal and, where that differs, in a pipe."""

    human: Callable[[Any], RenderableType | None]
    plain: Callable[[Any], str | None] | None = None


Views: TypeAlias = Mapping[type, View]
Pieces: TypeAlias = list[tuple[str, str]]
"""Texts and their styles: joined they are the plain line, for which nothing of rich is loaded."""

# Records come by the hundred thousand.
_FOUND: Final[dict[type, View]] = {}


def human(record: object) -> RenderableType | None:
    """Return what a terminal shows for a record."""
    return _view_of(type(record)).human(record)


def plain(record: object) -> str | None:
    """Return the line, or lines, that a pipe gets for a record."""
    view = _view_of(type(record))
    if view.plain is not None:
        return view.plain(record)
    from rich.text import Text

    shown = view.human(record)
    if shown is None or isinstance(shown, Text):
        return shown.plain if shown is not None else None
    raise TypeError(f"{type(record).__name__} has a view for terminals only")


def views_of(file: str) -> Views:
    """Return the table of one of `FILES`."""
    views: Views = importlib.import_module(f"{__name__}.{file}").VIEWS
    return views


def _view_of(record_type: type) -> View:
    view = _FOUND.get(record_type)
    if view is None:
        view = _FOUND[record_type] = _find_view(record_type)
    return view


def _find_view(record_type: type) -> View:
    module = record_type.__module__
    while module not in FILES:
        module = module.rpartition(".")[0]
        if not module:
            raise TypeError(f"{record_type.__name__} has no view")
    try:
        return views_of(FILES[module])[record_type]
    except KeyError:
        raise TypeError(f"{record_type.__name__} has no view") from None


def in_pieces(tell: Callable[[Any], Pieces]) -> View:
    """Return the view of records that pieces of text tell of; no pieces show nothing."""

    def human(record: Any) -> Text | None:
        from rich.text import Text

        pieces = tell(record)
        return Text.assemble(*pieces) if pieces else None

    def plain(record: Any) -> str | None:
        return "".join([text for text, _ in tell(record)]) or None

    return View(human, plain)


def remote(text: str, style: str = "") -> Text:
    """Return text that came from outside as one line that is no markup and moves no cursor."""
    from rich.text import Text

    return Text(visible(text), style=style)


def nothing(_: object) -> None:
    """Show nothing: the records before it said it all."""
