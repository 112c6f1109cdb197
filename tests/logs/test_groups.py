"""Outcomes grouped by error, the last word on each file, and which failures are chosen by both."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.logs.errors import KINDS, matches, pattern_of
from twobuckets.logs.events import LogEvent
from twobuckets.logs.failures import UNREJECTED, find_failed, in_turn
from twobuckets.logs.groups import group_outcomes, iter_final
from twobuckets.logs.lines import iter_entries

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def line(
    number: int, key: str, kind: str = "failed", error: str = "", message: str = ""
) -> LogEvent:
    """Return the event of an outcome, a second after the one before it."""
    at = START + timedelta(seconds=number)
    fields = {
        "twobuckets": 1,
        "outcome": kind,
        "bucket": "staging",
        "key": key,
        "version_id": f"v-{key}",
        "request_id": f"r-{key}",
        "error": {"type": error, "message": message} if error else None,
    }
    return LogEvent(at, at, json.dumps(fields), "stream", str(number))


MESS = [
    line(0, "a", error="KeyError", message="'id 17' in a"),
    line(1, "b", error="KeyError", message="'id 18' in b"),
    line(2, "c", error="ValueError", message="no"),
    line(3, "d", "rejected", error="Reject", message="no table"),
    line(4, "e", error="TimedOut", message="too long"),
    line(5, "a", error="KeyError", message="'id 17' in a"),
    line(6, "c", "archived"),
]


def failed(kinds: tuple[str, ...] = UNREJECTED, errors: tuple[str, ...] = ()) -> list[str]:
    return [outcome.key for outcome in find_failed(MESS, kinds=kinds, errors=errors)]


def test_failures_with_one_error_are_one_group_with_files_tries_and_times():
    groups = {(g.outcome, g.error): g for g in group_outcomes(iter_entries(MESS))}
    first = groups["failed", "KeyError: 'id 17' in …"]
    assert (first.files, first.tries, first.examples) == (2, 3, ("a", "b"))
    assert (first.first_at, first.last_at) == (START, START + timedelta(seconds=5))
    assert {kind for kind, _ in groups} == {"failed", "rejected", "timed-out", "archived"}


def test_the_last_word_on_each_file_is_its_only_one():
    last = [(entry.key, entry.outcome) for entry in iter_final(iter_entries(MESS))]  # type: ignore[union-attr]
    assert last == [
        ("b", "failed"),
        ("d", "rejected"),
        ("e", "failed"),
        ("a", "failed"),
        ("c", "archived"),
    ]


def test_what_was_rejected_is_chosen_only_when_it_is_asked_for():
    assert failed() == ["a", "e", "b"]
    assert failed(kinds=("rejected",)) == ["d"]
    assert failed(kinds=("timed-out",)) == ["e"]


def test_failures_are_chosen_by_their_error():
    assert failed(errors=("KeyError*",)) == ["a", "b"]
    assert failed(errors=("keyerror*",)) == []
    assert failed(kinds=KINDS, errors=("Reject*", "TimedOut*")) == ["d", "e"]


@pytest.mark.parametrize("error", ["KeyError: 'id 17' in …", "Bad[1]: * in 0xdeadbeef?", "x"])
def test_the_pattern_of_an_error_means_it_and_what_differs_in_numbers_only(error: str):
    pattern = pattern_of(error)
    assert matches(error, [pattern])
    assert matches(error.replace("17", "4711").replace("…", "in/other"), [pattern])
    assert not matches(f"Other{error}", [pattern])


@given(st.text())
def test_every_error_is_meant_by_its_own_pattern(error: str):
    assert matches(error, [pattern_of(error)])


@given(st.lists(st.lists(st.integers())))
def test_taking_turns_loses_nothing_and_begins_with_one_of_each(groups: list[list[int]]):
    taken = list(in_turn(groups))
    assert sorted(taken) == sorted(number for group in groups for number in group)
    firsts = [group[0] for group in groups if group]
    assert taken[: len(firsts)] == firsts
