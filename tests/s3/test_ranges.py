"""The law of parallel listing: any keys, any splits, any order of answers give the sorted keys."""

from bisect import bisect_right
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twobuckets.s3.answers import Marker
from twobuckets.s3.ranges import Gap, Page, Ranges, Slice

keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.from_regex(r"[0-9]{1,3}/obj-[0-9]{4}", fullmatch=True),
    st.from_regex(r"[a-c]{1,6}", fullmatch=True),
    st.integers(0, 3000).map("2026/11/{:04d}.gz".format),
)
key_sets = st.one_of(
    st.sets(keys, max_size=150),
    st.builds(
        lambda width, count: {f"{n % width:02d}/{n:05d}" for n in range(count)},
        st.integers(1, 40),
        st.integers(0, 400),
    ),
)


def page_of(bucket, prefix, marker, count):
    names = bucket if isinstance(bucket, list) else sorted(bucket)
    if prefix:
        names = [k for k in names if k.startswith(prefix)]
    start = bisect_right(names, marker.key)
    rows = names[start : start + count]
    following = Marker(rows[-1]) if rows and start + count < len(names) else None
    return Page(rows[0] if rows else None, rows[-1] if rows else None, following, rows)


def counting(part: Slice) -> list[str]:
    rows: list[str] = cast("list[str]", part.page.content)
    return [k for k in rows if part.end is None or k <= part.end]


def run(draw, bucket, *, prefix="", start_after="", size=3, most=8, most_pages=6, change=None):
    """List a bucket through a planner; answers arrive in an order drawn."""
    ranges = Ranges(prefix=prefix, start_after=start_after, most=most, most_pages=most_pages)
    waiting: list[tuple[Gap, Marker, int]] = []
    listed: list[str] = []
    asked = 0
    while not ranges.finished:
        waiting += [(gap, gap.marker, keys or size) for gap, keys in ranges.wanted()]
        asked = max(asked, len(waiting))
        while (part := ranges.take()) is not None:
            listed += counting(part)
        if not waiting:
            continue
        gap, marker, count = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
        ranges.absorb(gap, page_of(bucket, prefix, marker, count))
        assert sum(len(g.pages) for g in list(ranges._gaps)[1:]) <= most_pages
        if change is not None:
            change(bucket)
    assert not waiting
    assert asked <= most
    return listed


@given(st.data(), key_sets, st.integers(1, 20), st.integers(1, 12), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_a_listing_in_ranges_is_the_sorted_set_of_keys(data, bucket, size, most, most_pages):
    listed = run(data.draw, bucket, size=size, most=most, most_pages=most_pages)
    assert listed == sorted(bucket)


@given(st.data(), key_sets, st.sampled_from(["", "0", "1", "a", "2026/", "02/0"]), keys)
@settings(max_examples=40, deadline=None)
def test_prefix_and_start_hold_in_every_range(data, bucket, prefix, start_after):
    listed = run(data.draw, bucket, prefix=prefix, start_after=start_after)
    assert listed == sorted(k for k in bucket if k.startswith(prefix) and k > start_after)


@given(st.data(), key_sets, st.lists(keys, max_size=60))
@settings(max_examples=40, deadline=None)
def test_what_exists_all_the_while_is_listed_once_whatever_comes_and_goes(data, stable, passing):
    passing = [k for k in passing if k not in stable]
    bucket = set(stable)

    def change(bucket):
        if passing:
            key = passing.pop()
            (bucket.discard if key in bucket else bucket.add)(key)
            if data.draw(st.booleans()):
                passing.append(key)

    listed = run(data.draw, bucket, change=change)
    assert listed == sorted(set(listed))
    assert [k for k in listed if k in stable] == sorted(stable)


def rounds_of(bucket, *, most=32, most_pages=512):
    """Count the round trips when all open requests are answered together."""
    ranges = Ranges(most=most, most_pages=most_pages)
    rounds = requests = 0
    listed: list[str] = []
    bucket = sorted(bucket)
    while not ranges.finished:
        wanted = [(gap, gap.marker, keys or 1000) for gap, keys in ranges.wanted()]
        rounds += bool(wanted)
        requests += len(wanted)
        for gap, marker, count in wanted:
            ranges.absorb(gap, page_of(bucket, "", marker, count))
        while (part := ranges.take()) is not None:
            listed += counting(part)
    assert listed == bucket
    return rounds, requests


@pytest.mark.parametrize(
    ("bucket", "most_rounds"),
    [
        ({f"{n % 100:03d}/obj-{n:08d}.bin" for n in range(50_000)}, 12),
        ({f"2026/{n % 12 + 1:02d}/{n % 28 + 1:02d}/{n:07d}.gz" for n in range(50_000)}, 12),
        ({f"{n * 2654435761 % 2**32:08x}" for n in range(50_000)}, 12),
        ({f"file-{n}.csv" for n in range(50_000)}, 14),
    ],
    ids=["folders", "dates", "hashes", "counter"],
)
def test_fifty_pages_take_few_round_trips(bucket, most_rounds):
    rounds, requests = rounds_of(bucket)
    assert rounds <= most_rounds
    assert requests <= 4 * 50
    # Near to S3, where a few at a time are enough, hardly any should be in vain.
    assert rounds_of(bucket, most=4)[1] <= 2 * 50
