"""The laws hold under every interleaving; for the article, or without one guard, they do not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.racemodel import article
from tests.racemodel.guards import GUARDS, Guard
from tests.racemodel.laws import LawBroken
from tests.racemodel.mutants import mutant_of_processor
from tests.racemodel.strategies import find_breach, scenarios
from tests.racemodel.world import ARCHIVE, Scenario, Upload, World


def run_settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )


@run_settings(200)
@given(scenarios())
def test_no_interleaving_loses_a_version(scenario: Scenario) -> None:
    World(scenario).run()


@pytest.mark.slow
@pytest.mark.parametrize("staging", ["versioned", "unversioned"])
@pytest.mark.parametrize("archive", ["versioned", "unversioned"])
def test_none_of_20_000_interleavings_loses_a_version(staging: str, archive: str) -> None:
    pair = scenarios(
        staging_versioned=staging == "versioned", archive_versioned=archive == "versioned"
    )

    @run_settings(5_000)
    @given(pair)
    def run(scenario: Scenario) -> None:
        World(scenario).run()

    run()


SMALL_PARTS = (
    ("copying", "LARGEST_COPY_BYTES = 5 * 1024**3", "LARGEST_COPY_BYTES = 0"),
    ("copying", "_PART_BYTES = 256 * 1024**2", "_PART_BYTES = 1"),
)


def run_in_parts(folder: Path, examples: int) -> None:
    processor = mutant_of_processor(folder, *SMALL_PARTS)

    @run_settings(examples)
    @given(scenarios())
    def run(scenario: Scenario) -> None:
        run_scenario_in_parts(scenario, processor)

    run()


def run_scenario_in_parts(scenario: Scenario, processor: ModuleType) -> None:
    world = World(scenario, processor)
    world.run()
    assert not world.s3.uploads or "killed" in "".join(world.scheduler.trace)


def test_no_interleaving_loses_a_version_that_is_copied_in_parts(mutants: Path) -> None:
    run_in_parts(mutants, 60)


@pytest.mark.slow
def test_none_of_3_000_interleavings_loses_a_version_that_is_copied_in_parts(
    mutants: Path,
) -> None:
    run_in_parts(mutants, 3_000)


def test_a_multipart_copy_that_is_not_aborted_on_failure_is_noticed(mutants: Path) -> None:
    # One invocation archives and deletes while the other one is about to begin its copy.
    twice = Scenario((Upload(b"A", events=2),), (0, 0, *[1] * 7, *[2] * 30))
    run_scenario_in_parts(twice, mutant_of_processor(mutants, *SMALL_PARTS))
    abort = ("copying", "        s3.abort_multipart_upload(**where)\n", "")
    careless = mutant_of_processor(mutants, *SMALL_PARTS, abort)
    with pytest.raises(AssertionError, match="uploads"):
        run_scenario_in_parts(twice, careless)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("says", ["lost", "archived unprocessed"])
def test_the_articles_handler_is_caught_losing_a_file(versioned: bool, says: str) -> None:
    strategy = scenarios(staging_versioned=versioned, archive_versioned=versioned)
    assert find_breach(run_article, strategy, 2_000, saying=says)


def run_article(scenario: Scenario) -> None:
    world = World(scenario)

    def process(bucket: str, key: str) -> None:
        body = world.client.get_object(Bucket=bucket, Key=key)["Body"]
        world.watch_process(key, body.read())

    world.handler = article.handler_over(world.client, ARCHIVE, process)
    world.run()


def test_without_the_condition_on_the_destination_a_copy_in_parts_breaks_a_law(
    mutants: Path,
) -> None:
    guard = next(guard for guard in GUARDS if "on the destination" in guard.what)
    require_needed(guard, mutants, *SMALL_PARTS)


@pytest.mark.parametrize("guard", GUARDS, ids=[guard.what for guard in GUARDS])
def test_without_a_guard_a_law_is_broken(mutants: Path, guard: Guard) -> None:
    require_needed(guard, mutants)


def require_needed(guard: Guard, folder: Path, *changes: tuple[str, str, str]) -> None:
    """Run the guard's scenario with it, and without it."""
    World(guard.scenario, mutant_of_processor(folder, *changes)).run()
    without = (guard.module, guard.source, guard.instead)
    careless = mutant_of_processor(folder, *changes, without)
    with pytest.raises(LawBroken, match=guard.says):
        World(guard.scenario, careless).run()
