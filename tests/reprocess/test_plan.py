"""What is decided for an object, from what both buckets show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.pipeline.versions import Version
from twobuckets.reprocess.plan import Kind, Rules, decide, plan_listed, plan_staged
from twobuckets.reprocess.run import Brake, Rate, limited

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


def version(key: str = "k", version_id: str | None = "v1", **changes: object) -> Version:
    return replace(Version(key, version_id, "e1", 5, NOW), **changes)  # type: ignore[arg-type]


def test_what_is_archived_is_copied_pinned_to_its_version():
    action = decide("k", version(), None, Rules())
    assert action is not None
    assert (action.kind, action.version_id, action.etag) == (Kind.COPY, "v1", "e1")


def test_what_is_under_a_delete_marker_in_staging_does_not_wait_there():
    marker = version(version_id="m1", etag="", is_delete_marker=True)
    action = decide("k", version(), marker, Rules())
    assert action is not None
    assert (action.kind, action.version_id) == (Kind.COPY, "v1")
    nothing = decide("k", None, marker, Rules())
    assert nothing is not None
    assert nothing.kind is Kind.SKIP


def test_what_waits_in_staging_is_woken_and_never_written_over():
    staged = version(version_id="s1", etag="e2")
    action = decide("k", version(), staged, Rules())
    assert action is not None
    assert (action.kind, action.version_id, action.etag) == (Kind.WAKE, "s1", "e2")
    pinned = decide("k", version(), staged, Rules(), pinned=True)
    assert pinned is not None
    assert pinned.kind is Kind.SKIP


def test_a_question_about_archived_versions_leaves_staged_files_alone():
    rules = Rules(since=NOW - timedelta(hours=1))
    assert decide("k", None, version(), rules) is None
    skipped = decide("k", version(), version(), rules)
    assert skipped is not None
    assert skipped.kind is Kind.SKIP


def test_a_frozen_object_is_skipped_or_asked_back_or_when_restored_copied():
    frozen = version(storage_class="DEEP_ARCHIVE")
    kinds = [
        getattr(decide("k", found, None, rules), "kind", None)
        for found, rules in (
            (frozen, Rules()),
            (frozen, Rules(restores=True)),
            (replace(frozen, is_restored=True), Rules()),
            (version(storage_class="GLACIER_IR"), Rules()),
        )
    ]
    assert kinds == [Kind.SKIP, Kind.RESTORE, Kind.COPY, Kind.COPY]


def test_the_time_of_archiving_bounds_what_is_selected():
    rules = Rules(since=NOW, until=NOW + timedelta(hours=1))
    assert decide("k", version(modified_at=NOW - timedelta(seconds=1)), None, rules) is None
    assert decide("k", version(modified_at=NOW), None, rules) is not None
    assert decide("k", version(modified_at=NOW + timedelta(hours=1)), None, rules) is None


def test_as_of_takes_the_version_of_that_time_and_a_deleted_file_is_not_brought_back():
    versions = [
        version(version_id="v3", modified_at=NOW),
        version(version_id="m", modified_at=NOW - timedelta(hours=1), is_delete_marker=True),
        version(version_id="v1", modified_at=NOW - timedelta(hours=2)),
    ]

    def chosen(as_of: timedelta | None) -> list[str | None]:
        rules = Rules(as_of=None if as_of is None else NOW - as_of)
        return [a.version_id for a in plan_listed(versions, [], rules)]

    assert chosen(None) == ["v3"]
    assert chosen(timedelta(hours=2)) == ["v1"]
    assert chosen(timedelta(minutes=30)) == []
    assert chosen(timedelta(hours=3)) == []


@given(st.sets(KEYS), st.sets(KEYS))
def test_two_listings_give_each_key_one_action_in_s3s_order(archived: set[str], staged: set[str]):
    def order(keys: set[str]) -> list[str]:
        return sorted(keys, key=lambda key: key.encode())

    actions = list(
        plan_listed(
            [version(key) for key in order(archived)],
            [version(key, "s") for key in order(staged)],
            Rules(),
        )
    )
    assert [a.key for a in actions] == order(archived | staged)
    assert {a.key for a in actions if a.kind is Kind.WAKE} == staged
    assert {a.key for a in actions if a.kind is Kind.COPY} == archived - staged


def test_a_glob_and_a_limit_narrow_what_is_done_and_skips_do_not_count():
    frozen = [version(f"a{i}", storage_class="GLACIER") for i in range(3)]
    plain = [version(f"b{i}.csv") for i in range(5)] + [version("c.txt")]
    actions = list(limited(plan_listed([*frozen, *plain], [], Rules(matches=("*.csv", "a*"))), 2))
    assert [a.key for a in actions] == ["a0", "a1", "a2", "b0.csv", "b1.csv"]


def test_a_rate_lets_no_more_than_so_many_begin():
    clock = [0.0]
    rate = Rate(10, monotonic=lambda: clock[0], sleep=lambda s: clock.__setitem__(0, clock[0] + s))
    for _ in range(21):
        rate()
    assert 1.99 <= clock[0] <= 2.01


def test_throttles_halve_the_rate_each_half_minute_they_go_on():
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    def now() -> float:
        return clock[0]

    rate = Rate(10, monotonic=now, sleep=pause)
    brake = Brake(rate, lambda: clock[0] < 70, monotonic=now)
    begun: list[float] = []
    while clock[0] < 120:
        brake()
        begun.append(clock[0])
    per_second = [sum(start <= at < start + 10 for at in begun) / 10 for start in (10, 45, 75, 105)]
    assert per_second == pytest.approx([10, 5, 2.5, 2.5], abs=0.2)


def test_what_is_stuck_is_woken_as_it_is_and_what_has_a_reason_not_to_is_skipped():
    old = version("old", "s1", modified_at=NOW - timedelta(days=2))
    found = [(version("a", "s2"), None), (version("b"), "may be under way"), (old, None)]
    actions = list(plan_staged(found, Rules(since=NOW - timedelta(days=1))))
    assert [(a.key, a.kind, a.version_id, a.reason) for a in actions] == [
        ("a", Kind.WAKE, "s2", None),
        ("b", Kind.SKIP, "v1", "may be under way"),
    ]
