"""`twobuckets watch`: the pipeline live."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from twobuckets.cli import command
from twobuckets.cli.options import DURATION
from twobuckets.cli.records import WatchSummary
from twobuckets.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twobuckets.cli.app import App

_SHORTEST: Final = timedelta(seconds=1)


@command("watch")
@click.option("--every", type=DURATION, default="5s", show_default=True, help="How often to look.")
@click.option("--count", type=click.IntRange(1), help="Look so often, then end.")
@click.pass_obj
def watch(app: App, every: timedelta, count: int | None) -> None:
    """Watch the pipeline live: what comes, what becomes of it, what waits, what fails.

    A screen on a terminal, until q or Ctrl-C; a line for each look in a pipe. The log is read at
    every look; staging is listed every ten seconds or, with many files in it, less often, so that
    watching costs less than a cent an hour. A lost network is said, and waited for.

    \b
      twobuckets watch
      twobuckets watch --every 1m --count 60 --json
    """
    if every < _SHORTEST:
        raise UsageError("--every is at least a second")
    if not app.out.is_terminal:
        app.finish(_look_again(app, every, count, app.out.record, _waits(app)))
        return
    from twobuckets.cli.keyboard import is_pressed, single_keys

    with single_keys():
        with app.out.screen() as show:
            summary = _look_again(
                app, every, count, show, lambda seconds: is_pressed("qQ", seconds)
            )
        app.finish(summary)


def _waits(app: App) -> Callable[[float], bool]:
    def wait(seconds: float) -> bool:
        app.sleep(seconds)
        return False

    return wait


def _look_again(
    app: App,
    every: timedelta,
    count: int | None,
    show: Callable[[object], None],
    is_ended: Callable[[float], bool],
) -> WatchSummary:
    """Look again and again until it is ended; `is_ended` waits meanwhile."""
    from twobuckets.watch.gathering import Watcher

    began_at = app.now()
    watcher = Watcher(app.aws, app.pipeline, app.prices, now=began_at)
    looks = 0
    try:
        while True:
            looked_at = app.now()
            show(watcher.look(looked_at))
            looks += 1
            if looks == count or is_ended(
                max(0.1, (looked_at + every - app.now()).total_seconds())
            ):
                break
    except KeyboardInterrupt:
        # Ctrl-C is how one stops to watch.
        pass
    return WatchSummary(
        looks=looks,
        watched=app.now() - began_at,
        outcomes=watcher.minutes.told,
        requests=watcher.expense.requests,
        cost_usd=round(watcher.expense.usd, 6),
    )
