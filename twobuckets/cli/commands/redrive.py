"""`twobuckets redrive`: moves what was given up on back to where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.options import dry_run_option, yes_option
from twobuckets.units import counted

if TYPE_CHECKING:
    from twobuckets.cli.app import App
    from twobuckets.pipeline.redriving import DeadLetters, Redriver


@command("redrive")
@click.option(
    "--count", "most", type=click.IntRange(1), metavar="N", help="Move N messages, not all."
)
@click.option(
    "--rate", type=click.FloatRange(0.1), metavar="N", help="Move at most N messages a second."
)
@dry_run_option
@yes_option
@click.pass_obj
def redrive(app: App, most: int | None, rate: float | None, dry_run: bool, yes: bool) -> None:
    """Move dead letters back to where they came from.

    What a queue in front of the processor gave up on goes back to that queue, what Lambda gave up
    on to the processor, once what was wrong is mended. Each message is sent before it is deleted;
    a file that is archived meanwhile is not archived again. Anything that is none of the
    processor's stays, and the exit status is 3 then.

    \b
      twobuckets --stack intake redrive --count 10
    """
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.lookups import CouldNotLook
    from twobuckets.pipeline.redriving import Redriver, RedriveSummary, find_dead_letters

    facts = Facts(app.aws, app.pipeline, app.now())
    try:
        with app.out.waiting("Looking for dead letters"):
            found = find_dead_letters(facts)
            redriver = Redriver(facts, app.sleep)
    except CouldNotLook as reason:
        raise reason.explained from None
    app.out.stream(found)
    waiting = sum(letters.waiting for letters in found)
    if not waiting or dry_run:
        app.finish(RedriveSummary("planned" if dry_run else "redriven", 0, 0))
        return
    moving = waiting if most is None else min(most, waiting)
    app.confirm(f"Move {counted(moving, 'message')} back?", yes=yes)
    moved = left = 0
    for letters in found:
        if most is None or moved + left < most:
            rest = None if most is None else most - moved - left
            done = _redrive(app, redriver, letters, rest, rate)
            moved, left = moved + done[0], left + done[1]
    app.finish(RedriveSummary("redriven", moved, left), attention=left > 0)


def _redrive(
    app: App, redriver: Redriver, letters: DeadLetters, most: int | None, rate: float | None
) -> tuple[int, int]:
    """Redrive one queue, showing how far it is, and return how many moved and how many stay."""
    from twobuckets.pipeline.redriving import Redriven

    moved, left = 0, 0
    reasons: dict[str, None] = {}
    try:
        with app.out.progress(
            "{task.description}", "{task.completed:,}/{task.total:,}"
        ) as progress:
            task = progress.add_task(f"Redriving {letters.queue}", total=letters.waiting)
            for done in redriver.redrive(letters, most=most, rate=rate):
                moved, left = moved + done.moved, left + done.left
                reasons |= dict.fromkeys(done.reasons)
                progress.update(task, completed=moved + left)
    finally:
        # Whatever ended it: what went back by then did.
        if moved or left:
            app.out.record(Redriven(letters.queue, moved, left, tuple(reasons)))
    return moved, left
