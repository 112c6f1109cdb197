"""Reading and following a log group: nothing lost, nothing twice, in time order."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.logs.service import EPOCH, Clock, Service, Written
from twobuckets.errors import NotFoundError
from twobuckets.logs.events import OVERLAP, Follower, LogEvent, follow, in_time_order, iter_events

GROUP = "/aws/lambda/intake"


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def test_all_pages_are_read_also_when_some_are_empty():
    service = Service(Clock(EPOCH + seconds(5000)), page_size=7, empty_pages=True)
    for number in range(40):
        service.write(f"line {number}", after=number)
    events = list(iter_events(service.client, GROUP, start_at=EPOCH))
    assert [e.message for e in events] == [f"line {n}" for n in range(40)]
    assert len(service.requests) == 12


def test_a_range_of_time_includes_both_its_ends():
    service = Service(Clock(EPOCH + seconds(5000)))
    for number in range(10):
        service.write(str(number), after=number)
    events = iter_events(
        service.client, GROUP, start_at=EPOCH + seconds(3), end_at=EPOCH + seconds(5)
    )
    assert [e.message for e in events] == ["3", "4", "5"]


def test_a_missing_group_is_said_to_be_missing():
    service = Service(Clock(), exists=False)
    with pytest.raises(NotFoundError, match=GROUP):
        list(iter_events(service.client, GROUP))


def event(number: int, second: int) -> LogEvent:
    at = EPOCH + seconds(second)
    return LogEvent(at, at, "", "s", str(number))


@given(st.lists(st.integers(0, 50)), st.integers(1, 20))
def test_events_within_the_window_come_out_in_order(offsets: list[int], window: int):
    # Each event is at most `window` places from where it belongs.
    ordered = sorted(offsets)
    events = [event(i, second) for i, second in enumerate(ordered)]
    moved = [
        e
        for start in range(0, len(events), window)
        for e in reversed(events[start : start + window])
    ]
    result = list(in_time_order(moved, window=window))
    assert [e.logged_at for e in result] == [e.logged_at for e in events]
    assert {e.event_id for e in result} == {e.event_id for e in events}


def test_pages_that_jump_back_are_put_in_order():
    service = Service(Clock(EPOCH + seconds(5000)), page_size=10)
    for number in range(100):
        service.write(str(number), after=number)
    service.shuffle = lambda events: events[50:] + events[:50]
    events = iter_events(service.client, GROUP, start_at=EPOCH)
    assert [e.message for e in events] == [str(n) for n in range(100)]


arrivals = st.lists(
    st.tuples(
        st.integers(0, 600).map(float),
        st.floats(0, OVERLAP.total_seconds()),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=60,
)


@given(
    arrivals,
    st.lists(st.floats(0.5, 90), min_size=1, max_size=40),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([timedelta(), timedelta(minutes=20), timedelta(minutes=-20)]),
)
def test_a_follower_loses_nothing_and_tells_nothing_twice(
    arrivals: list[tuple[float, float, str]],
    pauses: list[float],
    page_size: int,
    tells_time: bool,
    skew: timedelta,
):
    clock = Clock()
    service = Service(clock, page_size=page_size, tells_time=tells_time, skew=skew)
    for number, (after, late, stream) in enumerate(arrivals):
        logged_at = EPOCH + skew + seconds(after)
        service.written.append(
            Written(str(number), logged_at, logged_at + seconds(late), str(number), stream)
        )
    follower = Follower(service.client, GROUP, start_at=EPOCH + skew)
    told: list[str] = []
    for pause in pauses:
        told += [e.event_id for e in follower.poll(clock.now())]
        clock.sleep(pause)
    # Whatever was not readable by now is told in the turns to come, a deep one among them.
    clock.sleep(2000)
    told += [e.event_id for e in follower.poll(clock.now())]
    assert sorted(told) == sorted(str(n) for n in range(len(arrivals)))


def test_a_turn_that_breaks_off_is_taken_again_without_loss():
    clock = Clock(EPOCH + seconds(100))
    service = Service(clock, page_size=5)
    for number in range(20):
        service.write(str(number), after=number)
    follower = Follower(service.client, GROUP, start_at=EPOCH)
    first = [e.message for e in islice(follower.poll(clock.now()), 3)]
    second = [e.message for e in follower.poll(clock.now())]
    assert first == ["0", "1", "2"]
    assert second == [str(n) for n in range(3, 20)]


def test_a_silent_group_is_asked_at_most_every_few_seconds():
    clock = Clock()
    service = Service(clock)
    turns = follow(
        Follower(service.client, GROUP, start_at=EPOCH), now=clock.now, sleep=clock.sleep
    )
    assert list(islice(turns, 30)) == [None] * 30
    assert len(service.requests) == 30
    assert clock.slept[-1] == 5
    assert sum(clock.slept) > 100


def test_a_group_that_appears_later_is_followed_from_its_first_line():
    clock = Clock()
    service = Service(clock, exists=False)
    turns = follow(
        Follower(service.client, GROUP, start_at=EPOCH), now=clock.now, sleep=clock.sleep
    )
    assert next(turns) is None
    service.exists = True
    service.write("hello", after=0.5, late=0.2, stream="new")
    event = next(turns)
    assert event is not None
    assert event.message == "hello"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 60), max_size=30),
    st.lists(st.integers(-1, 65).map(lambda s: 1000 * s) | st.integers(0, 65_000), max_size=8),
    st.integers(1, 5),
)
def test_a_range_that_is_cut_anywhere_holds_the_same_events(
    written: list[int], cut_after_ms: list[int], page_size: int
):
    service = Service(Clock(EPOCH + seconds(5000)), page_size=page_size)
    for number, after in enumerate(written):
        service.write(str(number), after=after)
    read = partial(
        iter_events, service.client, GROUP, start_at=EPOCH + seconds(5), end_at=EPOCH + seconds(50)
    )
    cuts = sorted(EPOCH + timedelta(milliseconds=after) for after in cut_after_ms)
    assert list(read(cuts=cuts)) == list(read())
