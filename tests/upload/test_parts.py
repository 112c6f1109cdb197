"""Part plans keep S3's limits for every size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.errors import UsageError
from twobuckets.upload.parts import (
    LEAST_PART_BYTES,
    MIB,
    MOST_OBJECT_BYTES,
    MOST_PART_BYTES,
    MOST_PARTS,
    PREFERRED_PART_BYTES,
    count_parts_in_flight,
    plan_parts,
    stream_part_bytes,
)

SIZES = st.one_of(
    st.integers(0, MOST_OBJECT_BYTES),
    st.integers(0, 200 * MIB),
    # The sizes around which a rounding error would show.
    st.builds(
        lambda parts, size, off: max(0, min(MOST_OBJECT_BYTES, parts * size * MIB + off)),
        st.integers(1, MOST_PARTS),
        st.integers(5, 5 * 1024),
        st.integers(-1, 1),
    ),
)


@given(SIZES)
def test_every_automatic_plan_is_within_the_limits(size: int):
    plan = plan_parts(size)
    assert 1 <= plan.count <= MOST_PARTS
    assert LEAST_PART_BYTES <= plan.part_bytes <= MOST_PART_BYTES
    last = plan.part(plan.count)
    assert last.offset + last.length == size
    assert 0 < last.length <= plan.part_bytes or size == 0


@given(st.integers(1, 3000 * MIB), st.integers(5 * MIB, 200 * MIB))
def test_the_parts_cover_the_file_once_and_in_order(size: int, part_bytes: int):
    end = 0
    for number, part in enumerate(plan_parts(size, part_bytes=part_bytes), 1):
        assert (part.number, part.offset) == (number, end)
        end += part.length
    assert end == size


@given(SIZES, st.integers(1, 6 * 1024 * MIB))
def test_a_wish_is_kept_exactly_or_refused(size: int, wish: int):
    try:
        plan = plan_parts(size, part_bytes=wish)
    except UsageError:
        assert not LEAST_PART_BYTES <= wish <= MOST_PART_BYTES or -(-size // wish) > MOST_PARTS
    else:
        assert plan.part_bytes == wish
        assert plan.count <= MOST_PARTS


def test_ordinary_files_get_parts_of_8_mib():
    assert plan_parts(1024 * MIB).part_bytes == PREFERRED_PART_BYTES
    assert plan_parts(1024 * MIB).count == 128


def test_parts_in_flight_are_one_more_than_a_second_of_the_bandwidth_limit_fills():
    assert count_parts_in_flight(None, bytes_per_second=500_000, part_bytes=None) == 2
    assert count_parts_in_flight(None, bytes_per_second=30 * MIB, part_bytes=None) == 5
    assert count_parts_in_flight(None, bytes_per_second=30 * MIB, part_bytes=100 * MIB) == 2
    unlimited = count_parts_in_flight(None, bytes_per_second=None, part_bytes=None)
    assert count_parts_in_flight(None, bytes_per_second=10**10, part_bytes=None) == unlimited
    assert count_parts_in_flight(9, bytes_per_second=500_000, part_bytes=None) == 9


def test_an_object_larger_than_s3_allows_is_refused():
    assert plan_parts(MOST_OBJECT_BYTES).count == MOST_PARTS
    with pytest.raises(UsageError, match=r"48\.8 TiB"):
        plan_parts(MOST_OBJECT_BYTES + 1)


def test_a_wish_for_too_many_parts_names_the_size_that_works():
    size = 50_000 * 5 * MIB
    with pytest.raises(UsageError, match="50,000 parts") as refused:
        plan_parts(size, part_bytes=5 * MIB)
    assert "--part-size 25MiB" in str(refused.value.hint)
    assert plan_parts(size, part_bytes=25 * MIB).count == MOST_PARTS


def test_there_is_no_part_outside_the_plan():
    plan = plan_parts(20 * MIB)
    for number in (0, plan.count + 1):
        with pytest.raises(IndexError):
            plan.part(number)


def test_the_parts_of_a_stream_grow_and_reach_terabytes():
    sizes = [stream_part_bytes(number) for number in range(1, MOST_PARTS + 1)]
    assert sizes[0] == PREFERRED_PART_BYTES
    assert all(a <= b <= 2 * a for a, b in itertools.pairwise(sizes))
    assert sizes[-1] <= MOST_PART_BYTES
    assert sum(sizes) > 7 * 1024 * 1024 * MIB
    assert sum(sizes[:1000]) < 8 * 1024 * MIB
