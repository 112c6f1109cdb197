"""`--wait`: follows what was put into staging until each of it is archived or has failed."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from twobuckets.errors import TwoBucketsError
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from twobuckets.cli.app import App
    from twobuckets.logs.waiting import Fate, Staged, Tracker

GOOD_ENDS: Final = frozenset({"archived", "superseded"})
"""What nobody has to look after: a newer version of a key has an end of its own."""


class Outcomes:
    """Shows what becomes of each object, and counts it; `ended` gets each fate that is final."""

    def __init__(
        self,
        app: App,
        timeout: timedelta,
        ended: Callable[[Fate], None],
        *,
        tells_retries: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._app = app
        self._timeout = timeout
        self._ended = ended
        self._tracker = _track(app, tells_retries=tells_retries)
        self._added = 0

    @property
    def waiting(self) -> int:
        """How many objects have not come to an end."""
        return self._added - self.counts.total()

    @property
    def bad(self) -> int:
        """How many objects came to an end that somebody has to look after."""
        return self.counts.total() - sum(self.counts[fate] for fate in GOOD_ENDS)

    def add(self, staged: Staged) -> None:
        """Wait for one more object, and show what is known of the others by now."""
        self._added += 1
        self._tracker.add(staged)
        self._show(self._tracker.poll())

    def wait(self) -> None:
        """Show the rest as it comes, and what could not be asked on the way."""
        files = counted(self.waiting, "file")
        with self._app.out.waiting(f"Waiting for the processor: {files}"):
            self._show(self._tracker.wait(self._timeout))
        for problem in self._tracker.problems:
            self._app.out.warn(f"{problem.message}; outcomes may be late or missing")

    def _show(self, fates: Iterable[Fate]) -> None:
        for fate in fates:
            self._app.out.record(fate)
            if fate.is_final:
                self.counts[fate.fate] += 1
                self._ended(fate)


def _track(app: App, *, tells_retries: bool) -> Tracker:
    from twobuckets.logs.waiting import Policy, Tracker, find_attempts

    pipeline = app.pipeline
    attempts = Policy().attempts
    if pipeline.function is not None:
        # Without the permission, Lambda's own number is right unless somebody changed it.
        with contextlib.suppress(TwoBucketsError):
            attempts = find_attempts(app.aws.functions, pipeline.function)
    return Tracker(
        s3=app.aws.s3,
        staging=pipeline.staging,
        archive=pipeline.archive,
        logs=app.aws.logs if pipeline.log_group is not None else None,
        log_group=pipeline.log_group,
        now=app.now,
        sleep=app.sleep,
        policy=Policy(attempts=attempts, tells_retries=tells_retries),
    )
