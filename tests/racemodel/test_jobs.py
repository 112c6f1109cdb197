"""Jobs beside invocations: every law of the pipeline holds for them as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from tests.racemodel.guards import GUARDS
from tests.racemodel.jobs import JobWorld
from tests.racemodel.mutants import mutant_of_processor
from tests.racemodel.strategies import find_breach, scenarios
from tests.racemodel.test_racemodel import run_settings
from tests.racemodel.world import Scenario, Upload


@run_settings(150)
@given(scenarios())
def test_no_interleaving_with_jobs_breaks_a_law(scenario: Scenario) -> None:
    JobWorld(scenario).run()


@pytest.mark.slow
def test_none_of_10_000_interleavings_with_jobs_breaks_a_law() -> None:
    @run_settings(10_000)
    @given(scenarios())
    def run(scenario: Scenario) -> None:
        JobWorld(scenario).run()

    run()


def test_two_events_of_a_version_have_one_job_unless_both_looked_before() -> None:
    one_after_the_other = JobWorld(Scenario((Upload(b"A", events=2),)))
    one_after_the_other.run()
    assert one_after_the_other.begun == 1
    most = 0
    for turn in range(8):
        world = JobWorld(Scenario((Upload(b"A", events=2),), schedule=(0, *[0, 1] * turn)))
        world.run()
        most = max(most, world.begun)
    assert most <= 2


def test_a_job_that_archives_whatever_is_there_is_caught(mutants: Path) -> None:
    """The pins are what makes an hour between looking and archiving harmless."""
    guard = next(guard for guard in GUARDS if guard.what == "the version and condition of a read")
    processor = mutant_of_processor(mutants, (guard.module, guard.source, guard.instead))

    def run(scenario: Scenario) -> None:
        JobWorld(scenario, processor).run()

    assert find_breach(run, scenarios(staging_versioned=True), 4_000)
