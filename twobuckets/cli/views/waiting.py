"""How the fate of something that was put into staging looks to a person."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.views import View, Views
from twobuckets.logs.waiting import Fate
from twobuckets.processor.contract import ARCHIVED, FAILED, REJECTED, SUBMITTED
from twobuckets.text import visible
from twobuckets.units import format_duration

_STYLES = {ARCHIVED: "green", FAILED: "bold red", REJECTED: "red", SUBMITTED: "cyan"}


def _fate(fate: Fate) -> Text:
    line = Text(f"{fate.fate:12}", style=_STYLES.get(fate.fate, "yellow"))
    line.append(visible(fate.key))
    if fate.error is not None:
        line.append(f"  {visible(fate.error.type)}: {visible(fate.error.message)}", style="red")
    if fate.detail is not None:
        line.append(f"  {visible(fate.detail)}", style="dim")
    if not fate.is_final and fate.fate != SUBMITTED:
        line.append("  it is tried again", style="dim")
    line.append(f"  {format_duration(fate.waited)}", style="dim")
    return line


VIEWS: Final[Views] = {
    Fate: View(_fate),
}
