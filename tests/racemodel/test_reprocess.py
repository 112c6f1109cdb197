"""Reprocessing in every interleaving with uploads, the processor, crashes and itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import given

from tests.racemodel.__main__ import draw
from tests.racemodel.laws import LawBroken
from tests.racemodel.mutants import mutant_of_processor
from tests.racemodel.reprocessing import ReprocessWorld, Run, hasty_reprocess, naive_reprocess
from tests.racemodel.strategies import RUNS, find_breach, scenarios
from tests.racemodel.test_racemodel import run_settings
from tests.racemodel.world import Scenario, Upload
from twobuckets.reprocess import moving


@run_settings(150)
@given(scenarios(), RUNS)
def test_no_interleaving_with_reprocess_loses_a_version(
    scenario: Scenario, runs: tuple[Run, ...]
) -> None:
    ReprocessWorld(scenario, runs).run()


@pytest.mark.slow
@pytest.mark.parametrize("staging", ["versioned", "unversioned"])
@pytest.mark.parametrize("archive", ["versioned", "unversioned"])
def test_none_of_8_000_interleavings_with_reprocess_loses_a_version(
    staging: str, archive: str
) -> None:
    pair = scenarios(
        staging_versioned=staging == "versioned",
        archive_versioned=archive == "versioned",
    )

    @run_settings(2_000)
    @given(pair, RUNS)
    def run(scenario: Scenario, runs: tuple[Run, ...]) -> None:
        ReprocessWorld(scenario, runs).run()

    run()


def test_a_look_at_staging_before_the_uploads_is_not_relied_on() -> None:
    # The answer to a first look gets lost; by the next one three uploads have come, and the
    # invocation that archived the last of them has died under its own delete marker.
    uploads = (Upload(b"A"), Upload(b"BB"), Upload(b"CCC", deaths=(8, 1)))
    schedule = (*[0] * 16, *[1] * 6, *[4] * 11, *[0] * 8)
    scenario = Scenario(uploads, schedule, page_size=1)
    ReprocessWorld(scenario, (Run(deaths=(7,), lost=frozenset([1])),)).run()


@pytest.mark.parametrize("staging_versioned", [True, False])
@pytest.mark.parametrize("archive_versioned", [True, False])
def test_what_is_reprocessed_is_really_processed_again(
    staging_versioned: bool, archive_versioned: bool
) -> None:
    # The client uploads, then the processor archives, and only then reprocess begins.
    scenario = Scenario(
        uploads=(Upload(b"A"),),
        schedule=(0,) * 3 + (2,) * 40,
        staging_versioned=staging_versioned,
        archive_versioned=archive_versioned,
    )
    world = ReprocessWorld(scenario, [])
    runs: list[bytes] = []
    watch = world.watch_process

    def count(key: str, body: bytes) -> None:
        runs.append(body)
        watch(key, body)

    world.watch_process = count  # type: ignore[method-assign]
    world.run()
    with world._installed():
        world._add_run("reprocess", Run())
        world.scheduler.run()
    assert runs == [b"A", b"A"]
    assert [s.body for s in world.archive.visible()] == [b"A"]
    assert world.staging.visible() == []


@pytest.mark.parametrize("archive_versioned", [True, False])
def test_copy_then_delete_is_caught_losing_a_file(archive_versioned: bool) -> None:
    def run(scenario: Scenario) -> None:
        world = ReprocessWorld(scenario, [])
        naive_reprocess(world)
        world.run()

    strategy = scenarios(
        staging_versioned=True,
        archive_versioned=archive_versioned,
        repeats_bodies=False,
    )
    assert find_breach(run, strategy, 3_000, saying="lost")


ONE, TWO = (Upload(b"A"),), (Upload(b"A"), Upload(b"BB"))
UPLOADED = (1, 1)
ARCHIVED = (*UPLOADED, *[2] * 14)

# In the schedules actor 0 reprocesses, 1 is the client, and from 2 on come the events. With two
# runs, 0 and 1 reprocess and 2 is the client.
REJECTED = Scenario(
    # The second upload comes when the copy lies in staging, is taken first, and is no good.
    (Upload(b"A"), Upload(b"BB", rejects=True)),
    (*ARCHIVED, *[0] * 6, 1, *[4] * 20, *[3] * 20, *[0] * 20),
)
UNDER_A_LATE_MARKER = Scenario(
    # One invocation is about to hide what the other one has archived and deleted meanwhile; the
    # marker's condition is an ETag, which the copy that has come in between has as well.
    (Upload(b"A"), Upload(b"BB", events=2)),
    (1, *UPLOADED, *[4] * 6, *[3] * 12, *[0] * 7, *[4] * 3),
)
BEFORE_A_LATE_MARKER = Scenario(
    # As above, and the run has listed staging before anything was uploaded, and the archive when
    # the first delivery had archived the file and not hidden it yet.
    (Upload(b"A"), Upload(b"BB", events=2)),
    (*[0] * 2, 1, *UPLOADED, *[4] * 8, *[3] * 4, *[0] * 2, *[3] * 15, *[0] * 3, *[4] * 5, *[0] * 9),
)
OVERTAKEN = (*ARCHIVED, *[0] * 4, 1, *[3] * 14, 0, *[4] * 14)
HOLES = {
    "a copy that a rejected upload covers": (REJECTED, (Run(),)),
    "two runs and a newer upload": (
        # The second run plans, and copies when the first one's copy was archived and a newer file
        # was, too.
        Scenario(
            TWO,
            (
                *(2, 2, *[3] * 14, *[1] * 3, *[0] * 4, *[4] * 14, *[1] * 2, *[0] * 12),
                *(2, 2, *[5] * 14, *[1] * 20, *[6] * 14),
            ),
        ),
        (Run(), Run()),
    ),
    # A newer file is archived while the copy is made, which the processor takes at once.
    "an older copy over a newer file": (Scenario(TWO, OVERTAKEN), (Run(),)),
    "an older copy over a newer file, without versions": (
        Scenario(TWO, OVERTAKEN, archive_versioned=False),
        (Run(),),
    ),
    "a copy that a late delete marker covers": (UNDER_A_LATE_MARKER, (Run(),)),
    "a copy of what was not hidden yet, under a late delete marker": (
        BEFORE_A_LATE_MARKER,
        (Run(lists=True),),
    ),
}


@pytest.mark.parametrize(("scenario", "runs"), HOLES.values(), ids=HOLES)
def test_what_was_archived_stays_archived(scenario: Scenario, runs: tuple[Run, ...]) -> None:
    ReprocessWorld(scenario, runs).run()


def test_a_copy_of_what_was_damaged_does_not_replace_what_was_made_good() -> None:
    # Found by a storm: reprocess reads the archived object before the function has verified it.
    kind, world = draw(6003, 9185)
    assert world.scenario.corrupt_copies, kind
    world.run()


@pytest.mark.parametrize("scenario", [REJECTED, UNDER_A_LATE_MARKER])
def test_deleting_what_was_copied_before_it_is_archived_again_is_caught(
    scenario: Scenario,
) -> None:
    world = ReprocessWorld(scenario, [])
    hasty_reprocess(world)
    with pytest.raises(LawBroken, match=r"lost|not kept"):
        world.run()


@pytest.mark.parametrize(
    "hole",
    ["an older copy over a newer file", "an older copy over a newer file, without versions"],
)
def test_without_the_age_of_a_copy_that_was_brought_back_a_law_is_broken(
    hole: str, mutants: Path
) -> None:
    text = "        if not _came_after(brought, origin):\n            return False\n"
    careless = mutant_of_processor(mutants, ("looking", text, ""))
    scenario, runs = HOLES[hole]
    with pytest.raises(LawBroken, match=r"lost|not kept"):
        ReprocessWorld(scenario, runs, careless).run()


class Guard(NamedTuple):
    """A safeguard: the text that makes it, what stands there without it, and who then loses."""

    room: ModuleType
    without: tuple[tuple[str, str], ...]
    scenario: Scenario
    run: Run = Run()


GUARDS = {
    "nothing is put over a file that waits": Guard(
        moving,
        (("                if_absent=True,\n                headers", "                headers"),),
        # The second upload comes between the look at both buckets and the copy.
        Scenario(TWO, (*ARCHIVED, *[0] * 4, 1, *[0] * 9)),
    ),
    "only what is the archive's current version is brought back": Guard(
        moving,
        (('(item.version_id or "") if item.is_chosen else ""', 'item.version_id or ""'),),
        # A second upload comes and is archived between the plan and the copy.
        Scenario(TWO, (*ARCHIVED, 0, 0, 0, 1, *[3] * 14, *[0] * 9)),
    ),
}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_without_a_guard_of_reprocess_a_law_is_broken(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReprocessWorld(guard.scenario, (guard.run,)).run()
    # Dataclasses look for their module among those that are imported.
    monkeypatch.setitem(sys.modules, "mutant", ModuleType("mutant"))
    mutant = mutant_of(guard, tmp_path)
    careless = {guard.room.__name__.rpartition(".")[2]: mutant}
    with pytest.raises(LawBroken):
        ReprocessWorld(guard.scenario, (guard.run,), **careless).run()


def test_without_its_guard_two_runs_and_a_newer_upload_break_a_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mutant", ModuleType("mutant"))
    guard = GUARDS["only what is the archive's current version is brought back"]
    scenario, runs = HOLES["two runs and a newer upload"]
    with pytest.raises(LawBroken, match="which is not current"):
        ReprocessWorld(scenario, runs, moving=mutant_of(guard, tmp_path)).run()


def mutant_of(guard: Guard, folder: Path) -> ModuleType:
    """Return a room of the code without one guard, whose text stands in one place."""
    assert guard.room.__file__ is not None
    source = Path(guard.room.__file__).read_text("utf-8")
    for text, instead in guard.without:
        assert source.count(text) == 1, f"{source.count(text)} x {text!r}"
        source = source.replace(text, instead)
    path = folder / "mutant.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location("mutant", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
