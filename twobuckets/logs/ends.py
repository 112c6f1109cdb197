"""What became of many objects: followed until each has come to an end, and counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from twobuckets.errors import CredentialsError, TwoBucketsError
from twobuckets.logs.waiting import Policy, Tracker
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.pipeline.retries import (
    DEFAULT,
    Retries,
    most_patient,
    retries_of_arrivals,
    retries_of_wakes,
)
from twobuckets.processor.contract import ARCHIVED, SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime, timedelta

    from twobuckets.aws.clients import Aws
    from twobuckets.logs.objects import AwaitedVersion
    from twobuckets.logs.waiting import Fate
    from twobuckets.settings import Pipeline

GOOD_ENDS: Final = frozenset({ARCHIVED, SUPERSEDED})
"""What nobody has to look after once it was uploaded: a newer version has an end of its own."""


class Ends:
    """Yields what becomes of each object, and counts what is final; the `good` need nobody."""

    def __init__(self, tracker: Tracker, good: frozenset[str] = GOOD_ENDS) -> None:
        self.counts: Counter[str] = Counter()
        """How many objects had each fate."""
        self._good = good
        self._tracker = tracker
        self._added = 0

    @property
    def waiting(self) -> int:
        """How many objects have not come to an end."""
        return self._added - self.counts.total()

    @property
    def bad(self) -> int:
        """How many objects came to an end that somebody has to look after."""
        return self.counts.total() - sum(self.counts[fate] for fate in self._good)

    @property
    def problems(self) -> tuple[TwoBucketsError, ...]:
        """What could not be read on the way, so that outcomes may be late or missing."""
        return tuple(self._tracker.problems)

    def is_good(self, fate: Fate) -> bool:
        """Tell whether nobody has to look after an object that came to this end."""
        return fate.fate in self._good

    def add(self, staged: AwaitedVersion) -> Iterator[Fate]:
        """Wait for one more object, and yield what is known of the others by now."""
        self._added += 1
        self._tracker.add(staged)
        return self._count(self._tracker.poll())

    def wait(self, timeout: timedelta) -> Iterator[Fate]:
        """Yield the rest as it comes."""
        return self._count(self._tracker.wait(timeout))

    def _count(self, fates: Iterable[Fate]) -> Iterator[Fate]:
        for fate in fates:
            if fate.is_final:
                self.counts[fate.fate] += 1
            yield fate


def follow_ends(
    aws: Aws,
    pipeline: Pipeline,
    *,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
    tells_retries: bool = False,
    wakes: bool = False,
    good: frozenset[str] = GOOD_ENDS,
) -> Ends:
    """Return what follows objects through a pipeline, with what is known of it.

    `wakes` says that the processor is also woken by hand, which is retried as Lambda does it.
    """
    return Ends(
        Tracker(
            s3=aws.s3,
            staging=pipeline.staging,
            archive=pipeline.archive,
            logs=aws.logs if pipeline.log_group is not None else None,
            log_group=pipeline.log_group,
            now=now,
            sleep=sleep,
            policy=Policy(
                retries=_read_retries(Facts(aws, pipeline, now()), wakes=wakes),
                tells_retries=tells_retries,
            ),
        ),
        good,
    )


def _read_retries(facts: Facts, *, wakes: bool) -> Retries:
    """Return how what is followed is tried again; of what is also woken, the more patient way."""
    try:
        arrivals = retries_of_arrivals(facts)
        return most_patient(arrivals, retries_of_wakes(facts)) if wakes else arrivals
    except CredentialsError:
        raise
    except (CouldNotLook, TwoBucketsError):
        # Without the permission, Lambda's own number is right unless somebody changed it.
        return DEFAULT
