"""What a selection lets through where a filter pattern can't tell."""

from __future__ import annotations

from datetime import timedelta

from tests.logs.service import EPOCH, Clock, Service
from twobuckets.logs.selection import LineSelection, Selector, iter_selected

HEAD = "Traceback (most recent call last):\n"
TRACES = {
    stream: [
        HEAD,
        f'  File "{stream}.py", line 3, in handler\n',
        "    go()\n",
        f"KeyError: '{stream}'",
    ]
    for stream in ("a", "b")
}


def log_of_split_traces() -> Service:
    """Return a log in which two invocations print their traces line by line, at the same time."""
    service = Service(Clock(EPOCH + timedelta(hours=1)))
    service.filtered = lambda message: "Traceback" not in message
    service.write("all is well", after=1, stream="a")
    for a, b in zip(TRACES["a"], TRACES["b"], strict=True):
        service.write(a, after=2, stream="a")
        service.write(b, after=2, stream="b")
    service.write("next file", after=3, stream="a")
    return service


def test_a_trace_that_comes_line_by_line_is_shown_whole_and_nothing_else_is():
    service = log_of_split_traces()
    selection = LineSelection(failed=True)
    shown = list(iter_selected(service.client, "g", selection, start_at=EPOCH))
    for stream, trace in TRACES.items():
        assert [s.event.message for s in shown if s.event.log_stream == stream] == trace
    assert len(shown) == 8


def test_a_pattern_is_kept_until_a_trace_comes_line_by_line():
    service = log_of_split_traces()
    assert Selector(LineSelection(failed=True)).pattern
    list(iter_selected(service.client, "g", LineSelection(failed=True), start_at=EPOCH))
    assert ["filterPattern" in request for request in service.requests] == [True, False]
