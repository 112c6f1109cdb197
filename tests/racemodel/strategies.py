"""Hypothesis strategies for scenarios, and the search for one that breaks a law."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests.racemodel.laws import LawBroken
from tests.racemodel.world import Scenario, Upload

BODIES = (b"A", b"BB", b"CCC", b"DDDD")
_DEATHS = 13  # a try dies before one of its first calls, or, as often, not at all

# A whole upload is one number, so that drawing a scenario costs little; 0 is one without trouble.
_upload_codes = st.integers(0, 2 * 2 * (2 * _DEATHS) ** 2 - 1)
_quiet_codes = st.integers(0, 1)


def _bursts(numbers: bytes) -> tuple[int, ...]:
    """A schedule in which an actor goes on for up to 16 steps before another one has its turn."""
    return tuple(actor for n in numbers for actor in [n & 7] * (1 + (n >> 3) % 16))


bursts = st.binary(min_size=4, max_size=16).map(_bursts)
# Left alone, Hypothesis draws short ones, and after a schedule's end nothing is interleaved.
schedules = st.binary(max_size=20).map(tuple) | st.binary(min_size=40).map(tuple) | bursts


def _upload(code: int, body: bytes) -> Upload:
    code, comes_twice = divmod(code, 2)
    code, fails_once = divmod(code, 2)
    deaths = (number - 1 if 0 < number <= _DEATHS else None for number in divmod(code, 2 * _DEATHS))
    return Upload(body, events=1 + comes_twice, failures=fails_once, deaths=tuple(deaths))


def scenarios(
    *,
    staging_versioned: bool | None = None,
    archive_versioned: bool | None = None,
    repeats_bodies: bool | None = None,
    is_quiet: bool = False,
) -> st.SearchStrategy[Scenario]:
    """Up to four uploads of one key, on any kind of pair or on the given one.

    Quiet ones have no deaths, no failures, no lost answers, no corrupt copies and no operator.
    """

    def scenario(
        codes: list[int], flags: int, repeated_write: int, schedule: tuple[int, ...]
    ) -> Scenario:
        def flag(bit: int) -> bool:
            return bool(flags >> bit & 1)

        keeps_all = not flag(1) if archive_versioned is None else archive_versioned
        # Without versions in the archive nothing tells a later upload of the same bytes from the
        # object that was seen: there the order is not guaranteed, and the docs say so.
        repeats = keeps_all and (flag(2) if repeats_bodies is None else repeats_bodies)
        bodies = BODIES[:2] * 2 if repeats else BODIES
        return Scenario(
            uploads=tuple(map(_upload, codes, bodies)),
            schedule=schedule,
            staging_versioned=not flag(0) if staging_versioned is None else staging_versioned,
            archive_versioned=keeps_all,
            undelete=flag(3) and not is_quiet,
            corrupt_copies=int(flag(4) and not is_quiet),
            repeated_write=repeated_write,
            page_size=1 if flag(5) else 1000,
            writes_per_second=100 if flag(6) else 1,
        )

    repeated_writes = st.just(0) if is_quiet else st.integers(0, 12)
    codes = st.lists(_quiet_codes if is_quiet else _upload_codes, min_size=1, max_size=len(BODIES))
    return st.builds(scenario, codes, st.integers(0, 127), repeated_writes, schedules)


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
