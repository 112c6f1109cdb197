"""How each record looks to a person: one file a room, loaded with the command that shows it.

A room registers its records: `@human.register` for the terminal and, where a pipe should get
something else than the same text, `@plain.register`. None shows nothing.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from rich.text import Text

from twobuckets.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType


@singledispatch
def human(record: object) -> RenderableType | None:
    """Return what a terminal shows for a record."""
    raise TypeError(f"{type(record).__name__} has no view")


@singledispatch
def plain(record: object) -> str | None:
    """Return the line, or lines, that a pipe gets for a record."""
    view = human(record)
    if view is None or isinstance(view, Text):
        return view.plain if view is not None else None
    raise TypeError(f"{type(record).__name__} has a view for terminals only")


def remote(text: str, style: str = "") -> Text:
    """Return text that came from outside as one line that is no markup and moves no cursor."""
    return Text(visible(text), style=style)
