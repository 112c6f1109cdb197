"""The simulation against what can be told without one."""

from __future__ import annotations

import pytest

from tests.queueing import PLUMBING, Flow, Load, simulate


@pytest.mark.parametrize(
    ("load", "flow"),
    [
        # As fast as they come: nothing waits.
        (Load(10, 1, 0.5, 1), Flow(0, 0, 9.5, 0, 10)),
        # All at once: the last of 100 begins in the tenth round of ten.
        (Load(100, 1e9, 1, 10), Flow(90, 9, 10, 0, 100)),
        # A file that fails for good: three runs with pauses of 60 and 120 s between them.
        (Load(1, 1, 1, 1, fails_every=1), Flow(0, 0, 183, 1, 3)),
        # While it pauses, the others go on.
        (Load(4, 1e9, 1, 1, fails_every=2), Flow(3, 3, 186, 2, 8)),
        # One at once in the first minute, two in the second.
        (Load(180, 1e9, 1, 2, begins_with=1, more_a_minute=1), Flow(179, 119, 120, 0, 180)),
    ],
)
def test_a_load_becomes_what_arithmetic_says(load: Load, flow: Flow):
    found = simulate(load)
    assert (found.most_waiting, found.given_up, found.runs) == (
        flow.most_waiting,
        flow.given_up,
        flow.runs,
    )
    assert found.longest_wait == pytest.approx(flow.longest_wait, abs=1e-3)
    assert found.done_after == pytest.approx(flow.done_after, abs=1)


def test_the_plumbing_costs_what_its_requests_do():
    costs = [round(plumbing.usd_a_million(), 2) for plumbing in PLUMBING.values()]
    assert costs == [0.20, 0.50, 1.40, 1.90]
