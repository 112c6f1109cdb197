"""The simulation behind the manual's table, held against the embedded AWS at small scale."""

from __future__ import annotations

from tests.embedded.test_triggers import Pipeline, pipeline
from tests.queueing import Load, simulate

__all__ = ["pipeline"]

SLOW_SECONDS = 1.5


def test_files_wait_and_fail_as_simulated(pipeline: Pipeline):
    load = Load(12, 1e9, SLOW_SECONDS, at_once=3, fails_every=12, pause=1)
    simulated = simulate(load)
    assert pipeline.deploy("ordered", at_once=load.at_once).exit_code == 0
    for number in range(load.at_once):
        pipeline.put(f"warm/{number}", "slow")
    pipeline.wait_until_processed()
    before = len(pipeline.notes())
    for number in range(load.files):
        text = "slow" if (number + 1) % load.fails_every else "slow fail"
        pipeline.put(f"load/{number:02}", text)
    dead = "local-ordered-failures.fifo"
    pipeline.wait_until(lambda: pipeline.in_queue(dead) == simulated.given_up)
    notes = pipeline.notes()[before:]
    runs = [note for note in notes if note["what"] == "start"]
    assert len(runs) == simulated.runs
    running = 0
    for note in notes:
        running += {"start": 1, "end": -1, "fail": -1}[note["what"]]
        assert running <= load.at_once
    took = notes[-1]["at"] - runs[0]["at"]
    # Invocations have costs that the simulation knows nothing of, and machines have other things
    # to do; nothing is done sooner than it can be.
    assert simulated.done_after - 0.5 <= took <= 3 * simulated.done_after + 5
