"""Hypothesis strategies for scenarios, and the search for one that breaks a law."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import islice

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests.racemodel.laws import LawBroken
from tests.racemodel.reprocessing import Run
from tests.racemodel.world import Scenario, Upload

BODIES = (b"A", b"BB", b"CCC", b"DDDD")
_DEATHS = 13  # a try dies before one of its first calls, or, as often, not at all
_LONG, _LONGEST = 40, 124
SCENARIO_BYTES = 7 + 5 * len(BODIES) + _LONGEST


class _Dice:
    """Numbers read off the bytes that Hypothesis drew; all zeros are the smallest of everything.

    A whole scenario is one draw, because Hypothesis spends longer on drawing a list of small
    things, each by itself, than a run takes.
    """

    def __init__(self, thrown: bytes) -> None:
        self._thrown = iter(thrown)

    def below(self, number: int) -> int:
        return next(self._thrown) % number

    def coin(self) -> bool:
        return self.below(2) == 1

    def rest(self, length: int) -> bytes:
        return bytes(islice(self._thrown, length))


def scenarios(
    *,
    staging_versioned: bool | None = None,
    archive_versioned: bool | None = None,
    repeats_bodies: bool | None = None,
) -> st.SearchStrategy[Scenario]:
    """Up to four uploads of one key, on any kind of pair or on the given one."""
    read = partial(
        read_scenario,
        staging_versioned=staging_versioned,
        archive_versioned=archive_versioned,
        repeats_bodies=repeats_bodies,
    )
    return _thrown(SCENARIO_BYTES).map(read)


def read_scenario(
    thrown: bytes,
    *,
    staging_versioned: bool | None = None,
    archive_versioned: bool | None = None,
    repeats_bodies: bool | None = None,
) -> Scenario:
    """Return the scenario that SCENARIO_BYTES bytes mean."""
    dice = _Dice(thrown)
    count = 1 + dice.below(len(BODIES))
    flags = dice.below(256)

    def flag(bit: int) -> bool:
        return bool(flags >> bit & 1)

    keeps_all = not flag(1) if archive_versioned is None else archive_versioned
    # Without versions in the archive nothing tells a later upload of the same bytes from the
    # object that was seen: there the order is not guaranteed, and the docs say so.
    repeats = keeps_all and (flag(2) if repeats_bodies is None else repeats_bodies)
    bodies = BODIES[:2] * 2 if repeats else BODIES
    return Scenario(
        uploads=tuple(_upload(dice, body) for body in bodies)[:count],
        staging_versioned=not flag(0) if staging_versioned is None else staging_versioned,
        archive_versioned=keeps_all,
        undelete=flag(3),
        corrupt_copies=int(flag(4)),
        repeated_write=dice.below(13),
        conflicting_write=dice.below(13),
        unfound_head=dice.below(13),
        page_size=1 if flag(5) else 1000,
        writes_per_second=100 if flag(6) else 1,
        asks_early=flag(7),
        schedule=_schedule(dice),
    )


def _thrown(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


def _upload(dice: _Dice, body: bytes) -> Upload:
    deaths = _death(dice), _death(dice)
    return Upload(
        body,
        events=1 + dice.coin(),
        failures=dice.coin(),
        deaths=deaths,
        rejects=dice.below(6) == 5,
    )


def _death(dice: _Dice) -> int | None:
    number = dice.below(2 * _DEATHS)
    return number - 1 if 0 < number <= _DEATHS else None


def _schedule(dice: _Dice) -> tuple[int, ...]:
    """A short one, a long one, or bursts: after its end, nothing is interleaved."""
    kind, length = dice.below(3), dice.below(256)
    if kind == 0:
        return tuple(dice.rest(length % 21))
    if kind == 1:
        return tuple(dice.rest(_LONG + length % (_LONGEST - _LONG + 1)))
    bursts = dice.rest(4 + length % 13)
    # An actor goes on for up to 16 steps before another one has its turn.
    return tuple(actor for n in bursts for actor in [n & 7] * (1 + (n >> 3) % 16))


def _run(dice: _Dice) -> Run:
    deaths = [(None, *range(10))[dice.below(11)] for _ in range(2)]
    lost = [1 + dice.below(9) for _ in range(2)]
    return Run(
        deaths=tuple(deaths[: dice.below(3)]),
        lost=frozenset(lost[: dice.below(3)]),
        lists=dice.coin(),
    )


def read_runs(thrown: bytes) -> tuple[Run, ...]:
    """Return the runs of reprocess, one to three, that RUNS_BYTES bytes mean."""
    dice = _Dice(thrown)
    return tuple(_run(dice) for _ in range(1 + dice.below(3)))


RUNS_BYTES = 1 + 3 * 7
RUNS = _thrown(RUNS_BYTES).map(read_runs)
"""One run of reprocess over the key, or two, or three."""


def find_breach(
    run: Callable[[Scenario], None],
    strategy: st.SearchStrategy[Scenario],
    examples: int,
    *,
    saying: str = "",
) -> Scenario | None:
    """Return a scenario in which a law is broken with such a message, None if none is found."""

    def breaks(scenario: Scenario) -> bool:
        try:
            run(scenario)
        except LawBroken as broken:
            return saying in str(broken)
        return False

    try:
        return find(
            strategy,
            breaks,
            settings=settings(
                max_examples=examples,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
            ),
            random=random.Random(0),
        )
    except NoSuchExample:
        return None
