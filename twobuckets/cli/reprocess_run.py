"""A run of `reprocess` on its way: a canary first, then all, and what came of each object."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.cli.waiting import GOOD_ENDS, Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from twobuckets.cli.app import App
    from twobuckets.cli.failure_list import FailureList
    from twobuckets.logs.waiting import Fate
    from twobuckets.reprocess.journal import Journal, Reprocessed
    from twobuckets.reprocess.run import Brake, Rate
    from twobuckets.s3.engine import Sender

_MOST_GROUPS: Final = 1000
"""Different errors that are counted apart."""


@dataclass(frozen=True, slots=True)
class OutcomeGroup:
    """What --wait saw of objects that have their error in common; `example` is a key of them."""

    fate: str
    error: str | None
    objects: int
    example: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that failed, as `--failed-to` lists it."""

    key: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: objects by what came of them; `outcomes` counts what --wait saw."""

    type_name = "summary"

    done: int
    failed: int
    left: int
    planned: int
    copied: int
    """How many of those planned are in staging, and their archived versions still to be deleted."""
    outcomes: dict[str, int]
    failures: dict[str, int]


def summarize_run(journal: Journal, outcomes: Counter[str] | None = None) -> Summary:
    """Return how a run ended, or how far it is, with the outcomes that were waited for."""
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for count in journal.counts():
        states[count.state] += count.objects
        if count.state == "failed":
            failures[count.reason or ""] += count.objects
    return Summary(
        done=states["done"],
        failed=states["failed"],
        left=states["left"],
        planned=states["planned"] + states["begun"] + states["copied"],
        copied=states["copied"],
        outcomes=dict(outcomes or ()),
        failures=dict(failures),
    )


@dataclass(slots=True)
class Run:
    """A run on its way: shows what comes of each object and remembers what failed."""

    app: App
    sender: Sender
    journal: Journal
    rate: Rate
    workers: int
    timeout: timedelta
    advance: Callable[[], None]
    failures: FailureList
    unnamed: Collection[str] = ()
    """Invocations that failed without naming a file, which this run can't be about."""
    brake: Brake = field(init=False)
    outcomes: Counter[str] = field(default_factory=Counter)
    groups: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    examples: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from twobuckets.reprocess.run import Brake

        self.brake = Brake(self.rate, self.throttles, self.tell_rate)

    def go(self, objects: int, *, canary: int | None, wait: bool) -> None:
        """Apply the plan, a canary of it first if asked to, and end the command."""
        try:
            self._go(objects, canary=canary, wait=wait)
        except KeyboardInterrupt:
            done = summarize_run(self.journal).done
            self.app.out.note(
                f"Stopped: {done:,} done in this run. The same command, or --resume, goes on; "
                "--status shows how far it came"
            )
            raise

    def _go(self, objects: int, *, canary: int | None, wait: bool) -> None:
        if canary is not None and canary < objects:
            with contextlib.closing(self.apply(canary)) as results:
                failed = self.watch(results, wait=True)
            if failed:
                self.app.out.warn(
                    f"{failed:,} of the first {canary:,} did not make it, so the other "
                    f"{objects - canary:,} stay as they are; the same command, or --resume, goes "
                    "on with them"
                )
                self.finish()
                return
        # Whatever ends the loop, what came of objects is noted while the journal is open.
        with contextlib.closing(self.apply(None)) as results:
            self.watch(results, wait=wait)
        summary = summarize_run(self.journal)
        if not summary.failed:
            self.journal.end(self.app.now())
        self.finish()

    def begin(self) -> None:
        """Wait for an object's turn, and count it."""
        self.brake()
        self.advance()

    def apply(self, most: int | None) -> Generator[Reprocessed, None, None]:
        from twobuckets.reprocess.run import apply

        return apply(
            self.app.aws,
            self.sender,
            self.journal,
            self.app.pipeline,
            now=self.app.now,
            pace=self.begin,
            workers=self.workers,
            most=most,
        )

    def throttles(self) -> bool:
        """Tell whether Lambda throttled the function in the last minutes."""
        from twobuckets.reprocess.run import count_throttles

        app, function = self.app, self.app.pipeline.function
        if function is None:
            return False
        return count_throttles(app.aws.cloudwatch, function, app.now()) > 0

    def tell_rate(self, per_second: float) -> None:
        """Say that fewer files are begun from here on."""
        self.app.out.warn(
            f"Lambda throttles {self.app.pipeline.function}: at most {per_second:,.3g} files a "
            "second from here on"
        )

    def watch(self, results: Iterator[Reprocessed], *, wait: bool) -> int:
        """Show results, and with `wait` their outcomes; return how many failed."""
        from twobuckets.logs.waiting import Staged

        outcomes = Outcomes(self.app, self.timeout, self.count) if wait else None
        failed = 0
        for result in results:
            self.app.out.record(result)
            if result.state == "failed":
                failed += 1
                self.failures.add(Failure(result.key))
            elif outcomes is not None and result.state == "done" and result.kind != "restore":
                outcomes.add(
                    Staged(
                        result.key,
                        result.staged_version_id,
                        result.etag or "",
                        self.app.now(),
                        result.size,
                    )
                )
        if outcomes is None:
            return failed
        outcomes.wait()
        return failed + outcomes.bad

    def count(self, fate: Fate) -> None:
        """Count one outcome, by its error; list it where somebody has to look after it."""
        self.outcomes[fate.fate] += 1
        error = f"{fate.error.type}: {fate.error.message}" if fate.error else fate.detail
        group = fate.fate, None if fate.fate == "archived" else error
        if group not in self.groups and len(self.groups) >= _MOST_GROUPS:
            group = fate.fate, "many different errors"
        self.groups[group] += 1
        self.examples.setdefault(group, fate.key)
        if fate.fate not in GOOD_ENDS:
            self.failures.add(Failure(fate.key))

    def finish(self) -> None:
        self.failures.complete()
        for (fate, error), objects in self.groups.most_common():
            example = self.examples[fate, error]
            self.app.out.record(OutcomeGroup(fate, error, objects, example))
        summary = summarize_run(self.journal, self.outcomes)
        bad = any(fate not in GOOD_ENDS for fate in self.outcomes)
        self.app.finish(
            summary, attention=bool(summary.failed or summary.left or bad or self.unnamed)
        )
