"""How many requests are in flight, on simulated servers."""

import itertools

import pytest

from twobuckets.s3.engine.limit import Limit


def simulate(limit, *, latency, most_a_second=10_000.0, busy_per_answer=0.0, seconds=6.0):
    """Run a loop that keeps as many requests open as allowed; returns answers a second at the end.

    The server answers each after `latency`, but no more a second than it can; this process needs
    `busy_per_answer` seconds for each.
    """
    now, answered, owed, history = 0.0, 0, 0.0, []
    while now < seconds:
        rate = min(limit.now / latency, most_a_second)
        started_at = now
        wait = 0.005
        owed += rate * wait
        answers = int(owed)
        owed -= answers
        busy = min(answers * busy_per_answer, 0.05)
        now = started_at + max(wait, busy)
        limit.note(started_at, started_at + max(0.0, wait - busy), answers, full=True)
        answered += answers
        history.append(limit.now)
    return history


@pytest.mark.parametrize(("latency", "expected"), [(0.03, 256), (0.1, 256)])
def test_a_distant_server_gets_as_many_as_allowed(latency, expected):
    assert simulate(Limit(256, 0.0), latency=latency)[-1] == expected


def test_a_process_that_is_busy_itself_asks_for_no_more():
    assert set(simulate(Limit(256, 0.0), latency=0.001, busy_per_answer=0.001)) == {32}


def test_a_server_at_its_limit_is_not_loaded_more():
    history = simulate(Limit(1024, 0.0), latency=0.03, most_a_second=1000)
    assert max(history) <= 128
    assert sorted(history)[len(history) // 2] <= 64


def test_a_distant_server_is_reached_within_a_tenth_of_a_second():
    history = simulate(Limit(256, 0.0), latency=0.03, seconds=0.1)
    assert history[-1] == 256


def test_leaps_are_for_the_start():
    limit = Limit(1024, 0.0)
    limit.slow_down(0.0)
    history = simulate(limit, latency=0.03, seconds=3.0)
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(history))


def test_a_process_that_is_mostly_but_not_always_busy_asks_for_more():
    # At 64 in flight it is busy for 70 % of the time, at 91 for all of it.
    history = simulate(Limit(256, 0.0), latency=0.02, busy_per_answer=0.00022)
    assert 85 <= history[-1] <= 120


def test_what_a_busy_moment_costs_is_not_taken_for_the_servers_limit():
    limit = Limit(256, 0.0)
    # More answers with 64, and then the handshakes of 64 new connections for a tenth of a second.
    grown = 0
    for turn, answers, waited in ((1, 100, 0.04), (2, 200, 0.04), (3, 20, 0.0)):
        before, grown = grown, limit.now
        limit.note(turn * 0.101 - waited, turn * 0.101, answers, full=True)
    assert limit.now == grown > before > 0


def test_a_refusal_halves_the_number_once_a_moment():
    limit = Limit(256, 0.0)
    limit.slow_down(1.0)
    limit.slow_down(1.1)
    assert limit.now == 16
    limit.slow_down(2.5)
    assert limit.now == 8


def test_the_number_is_never_more_than_allowed():
    assert max(simulate(Limit(50, 0.0), latency=0.03)) == 50
    assert Limit(8, 0.0).now == 8
