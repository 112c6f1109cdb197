"""The remedy of doctor for what is archived and still in staging, in every interleaving."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.racemodel.laws import LawBroken
from tests.racemodel.operators import add_doctor
from tests.racemodel.reprocessing import ReprocessWorld, Run
from tests.racemodel.strategies import RUNS, scenarios
from tests.racemodel.test_racemodel import run_settings
from tests.racemodel.world import Scenario, Upload, World
from twobuckets.doctor import remedies

# Actor 0 is doctor, 1 the client, and from 2 on come the events.
UPLOADED = (1, 1)


@run_settings(60)
@given(scenarios())
def test_no_interleaving_with_doctor_loses_a_version(scenario: Scenario) -> None:
    world = World(scenario)
    add_doctor(world)
    world.run()


@run_settings(60)
@given(scenarios(repeats_bodies=False), RUNS)
def test_no_interleaving_with_doctor_and_reprocess_loses_a_version(
    scenario: Scenario, runs: tuple[Run, ...]
) -> None:
    world = ReprocessWorld(scenario, runs)
    add_doctor(world)
    world.run()


def test_what_a_dead_function_has_archived_is_deleted() -> None:
    # It dies between the copy and the delete.
    world = World(Scenario((Upload(b"A", deaths=(5,)),), (*UPLOADED, *[2] * 6, *[0] * 9)))
    add_doctor(world)
    world.run()
    assert "doctor: DeleteObject" in world.scheduler.trace


def test_without_the_proof_that_it_is_archived_a_law_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remedies, "is_archived", lambda site, staged: True)
    world = World(Scenario((Upload(b"A"),), (*UPLOADED, *[0] * 9)))
    add_doctor(world)
    with pytest.raises(LawBroken, match="lost"):
        world.run()
