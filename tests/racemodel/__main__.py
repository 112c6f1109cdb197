"""A storm: random interleavings with a seed of their own, over all laws, for as long as is asked.

    python -m tests.racemodel --schedules 100000 --seed 7

A third of them are the processor alone; the others have one, two or three runs of reprocess. In a
quarter of either somebody runs `doctor --fix` as well. Every breach is printed with what makes it
happen again; the exit status is 1 if there was any. Ctrl-C ends the storm early and says how far it
was. At the end stands how many schedules of each kind there were, and in how many of them each
misfortune struck.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

from tests.racemodel.actors import SameThread
from tests.racemodel.laws import LawBroken
from tests.racemodel.operators import add_doctor
from tests.racemodel.reprocessing import ReprocessWorld, Run
from tests.racemodel.strategies import RUNS_BYTES, SCENARIO_BYTES, read_runs, read_scenario
from tests.racemodel.world import ARCHIVE, Scenario, World

_SHOWN = 10


def main() -> int:
    """Run the storm and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.racemodel", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["ARCHIVE_BUCKET"] = ARCHIVE
    os.environ["TWOBUCKETS_PROCESS"] = "tests.racemodel.user:process"
    concurrent.futures.ThreadPoolExecutor = SameThread  # type: ignore[misc, assignment]
    began_at = time.monotonic()
    kinds: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    breaches = 0
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(options.schedules):
            kind, world = draw(options.seed, number)
            try:
                world.run()
            except LawBroken as broken:
                breaches += 1
                if breaches <= _SHOWN:
                    print(
                        f"{broken}\n  {describe(world)}\n  draw({options.seed}, {number})",
                        flush=True,
                    )
            kinds[kind] += 1
            struck.update(misfortunes_of(world))
    for counts in (kinds, struck):
        for name in sorted(counts):
            print(f"{counts[name]:>9,} {name}")
    seconds = time.monotonic() - began_at
    print(
        f"{kinds.total():,} schedules with seed {options.seed}: {breaches:,} breaches, "
        f"{seconds:.0f} s"
    )
    return 1 if breaches else 0


def draw(seed: int, number: int) -> tuple[str, World]:
    """Return one world of a storm, ready to run, and what kind it is."""
    dice = random.Random(f"{seed}/{number}")
    thrown = dice.randbytes(SCENARIO_BYTES)
    runs: tuple[Run, ...] = ()
    if dice.random() < 2 / 3:
        runs = read_runs(dice.randbytes(RUNS_BYTES))
    scenario = read_scenario(thrown)
    world = ReprocessWorld(scenario, runs) if runs else World(scenario)
    has_doctor = dice.random() < 1 / 4
    if has_doctor:
        add_doctor(world)
    return kind_of(scenario, len(runs), has_doctor=has_doctor), world


def kind_of(scenario: Scenario, runs: int, *, has_doctor: bool) -> str:
    staging = "versions" if scenario.staging_versioned else "no versions"
    archive = "versions" if scenario.archive_versioned else "no versions"
    doctor = " and doctor --fix" if has_doctor else ""
    reprocess = "1 run" if runs == 1 else f"{runs} runs"
    return f"{reprocess} of reprocess{doctor}, {staging} in staging, {archive} in the archive"


def misfortunes_of(world: World) -> Iterator[str]:
    """Name what went wrong in a world that has run, and what made it hard to tell its files."""
    scenario = world.scenario
    killed = [line for line in world.scheduler.trace if ": killed before" in line]
    happened = {
        "an event came twice": any(upload.events > 1 for upload in scenario.uploads),
        "the same bytes came again": (
            len({upload.body for upload in scenario.uploads}) < len(scenario.uploads)
        ),
        "the function died": any(not line.startswith("reprocess") for line in killed),
        "a run of reprocess died": any(line.startswith("reprocess") for line in killed),
        "the function failed": any(upload.failures for upload in scenario.uploads),
        "a file was rejected": any(upload.rejects for upload in scenario.uploads),
        "a copy was damaged": bool(scenario.corrupt_copies) and not world.s3.corrupt_copies,
        "a delete marker was removed": scenario.undelete,
    }
    return (f"with: {name}" for name, has_happened in happened.items() if has_happened)


def describe(world: World) -> str:
    runs = getattr(world, "runs", ())
    return f"{world.scenario}, {runs}"


if __name__ == "__main__":
    raise SystemExit(main())
