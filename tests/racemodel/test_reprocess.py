"""Reprocessing in every interleaving with uploads, the processor, crashes and itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.racemodel.reprocessing import ReprocessWorld, Run, naive_reprocess
from tests.racemodel.strategies import bursts, find_breach, scenarios
from tests.racemodel.test_racemodel import function_environment, run_settings
from tests.racemodel.world import Scenario, Upload
from twobuckets.reprocess import moving

__all__ = ["function_environment"]

_DEATHS = st.lists(st.none() | st.integers(0, 9), max_size=2).map(tuple)
RUNS = st.lists(
    st.builds(Run, deaths=_DEATHS, lost=st.frozensets(st.integers(1, 9), max_size=2)),
    min_size=1,
    max_size=2,
).map(tuple)


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
        is_quiet=True,
        repeats_bodies=False,
    )
    assert find_breach(run, strategy, 3_000, saying="lost")


def mutant_of_moving(folder: Path, *changes: tuple[str, str]) -> ModuleType:
    """Return the moving room with each change made in the one place that it has."""
    assert moving.__file__ is not None
    source = Path(moving.__file__).read_text("utf-8")
    for text, instead in changes:
        assert source.count(text) == 1, f"{source.count(text)} x {text!r}"
        source = source.replace(text, instead)
    path = folder / "moving_mutant.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location("moving_mutant", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GUARDS = {
    "nothing is put over a file that waits": [
        ("self._staging, item.key, if_absent=True)", "self._staging, item.key)"),
    ],
    "the archived version is deleted by its id": [
        ("[_version(item, pins=False) for item", "[ObjectVersion(item.key) for item"),
        ('results[item.key, item.version_id or ""]', "next(iter(results.values()))"),
    ],
    "nothing is deleted before the copy is known to have arrived": [
        ("answer, Response) and answer.ok:", "answer, Response):"),
    ],
    "a staged file that is older than the archived one is no copy of it": [
        ("                and staged.modified_at > source.modified_at\n", ""),
    ],
    "an archive without versions keeps its object": [
        ("deletes = item.kind == Kind.MOVE and (", "deletes = ("),
    ],
    "a copy in staging without versions does not replace the archived one": [
        ("(again or staged_version_id not in NO_VERSION)", "True"),
    ],
}


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported by name, as dataclasses need it."""
    import sys

    monkeypatch.setitem(sys.modules, "moving_mutant", ModuleType("moving_mutant"))
    return tmp_path


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_of_reprocess_a_law_is_broken(importable: Path, guard: str) -> None:
    mutant = mutant_of_moving(importable, *GUARDS[guard])

    def run(scenario: Scenario) -> None:
        ReprocessWorld(scenario, (Run(),), moving=mutant).run()

    pair = {
        "staging_versioned": "staging without versions" not in guard,
        "archive_versioned": "an archive without" not in guard,
    }
    single = st.builds(
        Scenario,
        uploads=st.just((Upload(b"A"),)),
        schedule=bursts,
        **{name: st.just(value) for name, value in pair.items()},
    )
    strategy = scenarios(**pair, is_quiet=True, repeats_bodies=False) | single
    assert find_breach(run, strategy, 4_000)
