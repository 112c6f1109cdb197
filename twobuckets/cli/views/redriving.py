"""How dead letters look, and what became of them."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.views import View, Views
from twobuckets.pipeline.redriving import DeadLetters, Redriven, RedriveSummary
from twobuckets.text import visible
from twobuckets.units import counted


def _dead_letters(letters: DeadLetters) -> Text:
    text = Text(f"{visible(letters.queue)}  ", "bold")
    text.append(counted(letters.waiting, "message") if letters.waiting else "empty")
    if letters.taken:
        text.append(f", {letters.taken:,} more with somebody")
    sources = ", ".join(map(visible, letters.sources))
    return text.append(f", given up by {sources}" if sources else "", "dim")


def _redriven(redriven: Redriven) -> Text:
    text = Text(f"{visible(redriven.queue)}  ", "bold")
    text.append(f"{counted(redriven.moved, 'message')} moved back", "green")
    if redriven.left:
        text.append(f", {redriven.left:,} left", "bold red")
    for reason in redriven.reasons:
        text.append(f"\n  {visible(reason)}")
    return text


def _summary(summary: RedriveSummary) -> Text:
    if summary.outcome == "planned":
        return Text("Nothing was moved.")
    left = f", {summary.left:,} left" if summary.left else ""
    return Text(f"{counted(summary.moved, 'dead letter')} moved back{left}.")


VIEWS: Final[Views] = {
    DeadLetters: View(_dead_letters),
    Redriven: View(_redriven),
    RedriveSummary: View(_summary),
}
