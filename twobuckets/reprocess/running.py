"""A run on its way: a canary first, then all, and what came of each object."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from twobuckets.logs.ends import follow_ends
from twobuckets.logs.objects import AwaitedVersion
from twobuckets.logs.waiting import Fate
from twobuckets.processor.contract import ARCHIVED
from twobuckets.reprocess.items import Reprocessed, State
from twobuckets.reprocess.plan import Kind
from twobuckets.reprocess.run import Brake, Rate, apply, count_throttles
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from datetime import datetime, timedelta

    from twobuckets.aws.clients import Aws
    from twobuckets.logs.ends import Ends
    from twobuckets.reprocess.journal import Journal
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline

_MOST_GROUPS: Final = 1000
"""Different errors that are counted apart."""
_GOOD_ENDS: Final = frozenset({ARCHIVED})
"""What was to be processed again was, only then: a copy that is superseded never is."""


@dataclass(frozen=True, slots=True)
class OutcomeGroup:
    """What --wait saw of objects that have their error in common; `example` is a key of them."""

    fate: str
    error: str | None
    objects: int
    example: str


@dataclass(frozen=True, slots=True)
class FailedObject:
    """An object that failed, as a list of failures has it."""

    key: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """From here until the next object is begun, `objects` are only waited for."""

    objects: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended: objects by what came of them; `outcomes` counts what --wait saw."""

    type_name: ClassVar[str] = "summary"

    done: int
    failed: int
    left: int
    planned: int
    outcomes: dict[str, int]
    failures: dict[str, int]


def summarize_run(journal: Journal, outcomes: Counter[str] | None = None) -> RunSummary:
    """Return how a run ended, or how far it is, with the outcomes that were waited for."""
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for count in journal.counts():
        states[count.state] += count.objects
        if count.state is State.FAILED:
            failures[count.reason or ""] += count.objects
    return RunSummary(
        done=states[State.DONE],
        failed=states[State.FAILED],
        left=states[State.LEFT],
        planned=states[State.PLANNED] + states[State.BEGUN],
        outcomes=dict(outcomes or ()),
        failures=dict(failures),
    )


Said: TypeAlias = Reprocessed | Fate | Waiting
"""What a run tells on its way."""


@dataclass(slots=True, kw_only=True)
class Run:
    """A run on its way: yields what comes of each object and counts how they ended.

    `begun` is called for each object that is begun, `warn` with what slows the run down or stops
    it before its end.
    """

    aws: Aws
    sender: Sender
    journal: Journal
    pipeline: Pipeline
    rate: Rate
    workers: int
    timeout: timedelta
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    begun: Callable[[], None]
    warn: Callable[[str], None]
    outcomes: Counter[str] = field(default_factory=Counter)
    _brake: Brake = field(init=False)
    _groups: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    _examples: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._brake = Brake(self.rate, self._throttles, self._tell_rate)

    def go(self, objects: int, *, canary: int | None, wait: bool) -> Generator[Said, None, None]:
        """Apply the plan of so many objects, a canary of it first if asked to.

        Close it before the journal: what came of objects is noted in it to the last.
        """
        if canary is not None and canary < objects:
            failed = yield from self._pass(canary, wait=True)
            if failed:
                self.warn(
                    f"{failed:,} of the first {canary:,} did not make it, so the other "
                    f"{counted(objects - canary, 'stays as it is', 'stay as they are')}; the same "
                    "command, or --resume, goes on with them"
                )
                return
        yield from self._pass(None, wait=wait)
        if not summarize_run(self.journal).failed:
            self.journal.end(self.now())

    def groups(self) -> Iterator[OutcomeGroup]:
        """Yield the outcomes by their error, the most frequent first."""
        for (fate, error), objects in self._groups.most_common():
            yield OutcomeGroup(fate, error, objects, self._examples[fate, error])

    def summary(self) -> RunSummary:
        """Return how the run ended, or how far it is."""
        return summarize_run(self.journal, self.outcomes)

    @property
    def needs_attention(self) -> bool:
        """Tell whether somebody has to look after something."""
        summary = self.summary()
        bad = any(fate not in _GOOD_ENDS for fate in self.outcomes)
        return bool(summary.failed or summary.left or bad)

    @staticmethod
    def is_bad(record: Reprocessed | Fate) -> bool:
        """Tell whether somebody has to look after one object."""
        if isinstance(record, Reprocessed):
            return record.state is State.FAILED
        return record.is_final and record.fate not in _GOOD_ENDS

    def _pass(self, most: int | None, *, wait: bool) -> Generator[Said, None, int]:
        """Apply at most so many, and with `wait` their outcomes; return how many failed."""
        ends = None
        if wait:
            ends = follow_ends(
                self.aws,
                self.pipeline,
                now=self.now,
                sleep=self.sleep,
                wakes=True,
                good=_GOOD_ENDS,
            )
        failed = 0
        # Whatever ends the loop, what came of objects is noted while the journal is open.
        with contextlib.closing(self._apply(most)) as results:
            for result in results:
                yield result
                if result.state is State.FAILED:
                    failed += 1
                elif (
                    ends is not None and result.state is State.DONE and result.kind != Kind.RESTORE
                ):
                    yield from self._count(ends.add(self._staged(result)))
        if ends is None:
            return failed
        yield Waiting(ends.waiting)
        yield from self._count(ends.wait(self.timeout))
        self._tell_problems(ends)
        return failed + ends.bad

    def _apply(self, most: int | None) -> Generator[Reprocessed, None, None]:
        return apply(
            self.aws,
            self.sender,
            self.journal,
            self.pipeline,
            now=self.now,
            pace=self._begin,
            workers=self.workers,
            most=most,
        )

    def _begin(self) -> None:
        """Wait for an object's turn, and count it."""
        self._brake()
        self.begun()

    def _staged(self, result: Reprocessed) -> AwaitedVersion:
        return AwaitedVersion(
            result.key,
            result.staged_version_id,
            result.etag or "",
            self.now(),
            result.size,
        )

    def _throttles(self) -> bool:
        """Tell whether Lambda throttled the function in the last minutes."""
        function = self.pipeline.function
        if function is None:
            return False
        return count_throttles(self.aws.cloudwatch, function, self.now()) > 0

    def _tell_rate(self, per_second: float) -> None:
        self.warn(
            f"Lambda throttles {self.pipeline.function}: at most {per_second:,.3g} files a "
            "second from here on"
        )

    def _tell_problems(self, ends: Ends) -> None:
        for problem in ends.problems:
            self.warn(f"{problem.message}; outcomes may be late or missing")

    def _count(self, fates: Iterable[Fate]) -> Iterator[Fate]:
        """Yield outcomes, those that are final counted by their error."""
        for fate in fates:
            if fate.is_final:
                self._count_end(fate)
            yield fate

    def _count_end(self, fate: Fate) -> None:
        self.outcomes[fate.fate] += 1
        error = f"{fate.error.type}: {fate.error.message}" if fate.error else fate.detail
        group = fate.fate, None if fate.fate == ARCHIVED else error
        if group not in self._groups and len(self._groups) >= _MOST_GROUPS:
            group = fate.fate, "many different errors"
        self._groups[group] += 1
        self._examples.setdefault(group, fate.key)
