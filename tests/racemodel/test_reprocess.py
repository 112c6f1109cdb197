"""Reprocessing in every interleaving with uploads, the processor, crashes and itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import given

from tests.racemodel.laws import LawBroken
from tests.racemodel.reprocessing import ReprocessWorld, Run, naive_reprocess
from tests.racemodel.strategies import RUNS, find_breach, scenarios
from tests.racemodel.test_racemodel import function_environment, run_settings
from tests.racemodel.world import Scenario, Upload
from twobuckets.reprocess import moving, overtaken, plan

__all__ = ["function_environment"]


@run_settings(150)
@given(scenarios(repeats_bodies=False), RUNS)
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
        repeats_bodies=False,
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


class Guard(NamedTuple):
    """A safeguard: the text that makes it, what stands there without it, and who then loses.

    In the schedule actor 0 reprocesses, 1 is the client, and from 2 on come the events.
    """

    room: ModuleType
    without: tuple[tuple[str, str], ...]
    scenario: Scenario
    run: Run = Run()


ONE, TWO = (Upload(b"A"),), (Upload(b"A"), Upload(b"BB"))
TWICE = (Upload(b"A", events=2),)
UPLOADED = (1, 1)
ARCHIVED = (*UPLOADED, *[2] * 14)

GUARDS = {
    "nothing is put over a file that waits": Guard(
        moving,
        (("self._staging, item.key, if_absent=True\n", "self._staging, item.key\n"),),
        # The second upload comes between the look at both buckets and the copy.
        Scenario(TWO, (*ARCHIVED, *[0] * 4, 1, *[0] * 9)),
    ),
    "the archived version is deleted by its id": Guard(
        moving,
        (
            ("[_version(item) for item", "[ObjectVersion(item.key) for item"),
            ('results[item.key, item.version_id or ""]', "next(iter(results.values()))"),
        ),
        Scenario(ONE, (*ARCHIVED, *[0] * 9)),
    ),
    "nothing is deleted before the copy is known to have arrived": Guard(
        moving,
        (
            ("answer, Response) and answer.ok:", "answer, Response):"),
            # A refusal names no version in staging either, which alone would be enough.
            ("(again or staged_version_id not in NO_VERSION)", "True"),
        ),
        # The file is archived between the listings of the two buckets, and about to be deleted.
        Scenario(ONE, (0, 0, *UPLOADED, *[2] * 7, *[0] * 9, *[2] * 5)),
        Run(lists=True),
    ),
    "a staged file that the archived one may have been made of is no copy of it": Guard(
        moving,
        (("                and staged.came_from(source)\n", ""),),
        Scenario(ONE, (0, 0, *UPLOADED, *[2] * 7, *[0] * 9, *[2] * 5)),
        Run(lists=True),
    ),
    "an archive without versions keeps its object": Guard(
        moving,
        (("deletes = item.kind == Kind.MOVE and (", "deletes = ("),),
        # The copy is archived before the delete comes.
        Scenario(ONE, (*ARCHIVED, *[0] * 4, *[3] * 14, *[0] * 5), archive_versioned=False),
    ),
    "only what is the archive's current version is brought back": Guard(
        moving,
        (('(item.version_id or "") if item.is_chosen else ""', 'item.version_id or ""'),),
        # A second upload comes and is archived between the plan and the copy.
        Scenario(TWO, (*ARCHIVED, 0, 0, 0, 1, *[3] * 14, *[0] * 9)),
    ),
    "a copy that something newer has overtaken is taken back": Guard(
        moving,
        (
            (
                "        if item.is_chosen:\n            return None\n        overtaken",
                "        if True:\n            return None\n        overtaken",
            ),
        ),
        # While it is copied, a second upload comes, is archived and leaves staging.
        Scenario(TWO, (*ARCHIVED, *[0] * 5, 1, *[3] * 14, *[0] * 10)),
    ),
    "what was archived of such a copy is taken back too": Guard(
        overtaken,
        (("if _origin_of(v) in ids]", "if False]"),),
        Scenario(TWO, (*ARCHIVED, *[0] * 5, 1, *[3] * 14, 0, *[4] * 14, *[0] * 9)),
    ),
    "a copy in staging without versions does not replace the archived one": Guard(
        moving,
        (("(again or staged_version_id not in NO_VERSION)", "True"),),
        # One invocation is about to delete while the other one has archived and deleted.
        Scenario(
            TWICE,
            (*UPLOADED, *[3] * 7, *[2] * 14, *[0] * 9, *[3] * 5),
            staging_versioned=False,
        ),
    ),
    "a copy that a late delete marker can hide does not replace the archived one": Guard(
        plan,
        (("or is_covered or", "or"),),
        # As before, with an older upload under the key: the marker's condition is an ETag, which
        # the copy has as well.
        Scenario(
            (Upload(b"A"), Upload(b"BB", events=2)),
            (1, *UPLOADED, *[4] * 8, *[3] * 15, *[0] * 9, *[4] * 5),
        ),
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
    if guard.room is overtaken:
        monkeypatch.setattr(moving, "find_overtaken", mutant.find_overtaken)
        careless = {}
    with pytest.raises(LawBroken):
        ReprocessWorld(guard.scenario, (guard.run,), **careless).run()


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
