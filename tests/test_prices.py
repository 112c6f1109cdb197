"""What storage and requests cost, as an estimate."""

from __future__ import annotations

import pytest

from twobuckets.prices import US_EAST_1, format_usd

GB = 1024**3


def test_a_terabyte_of_standard_costs_its_list_price():
    assert US_EAST_1.month_usd(1024 * GB) == pytest.approx(23.55, abs=0.01)


def test_a_storage_class_nobody_knows_costs_as_standard():
    assert US_EAST_1.month_usd(GB, "NEW_CLASS") == US_EAST_1.month_usd(GB)
    assert US_EAST_1.month_usd(GB, "DEEP_ARCHIVE") < US_EAST_1.month_usd(GB) / 20


def test_a_move_of_100_000_objects_costs_its_copies():
    assert US_EAST_1.requests_usd(writes=100_000, reads=100_000) == pytest.approx(0.54)


def test_another_regions_prices_keep_their_proportions():
    elsewhere = US_EAST_1.scaled_to(0.046)
    assert elsewhere.month_usd(GB) == pytest.approx(0.046)
    assert elsewhere.month_usd(GB, "GLACIER") == pytest.approx(0.0072)
    assert elsewhere.writes_usd == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "$0"), (0.0004, "<$0.01"), (3.071, "$3.07"), (1234.5, "$1,234")],
)
def test_amounts_are_shown_with_digits_that_say_something(amount: float, shown: str):
    assert format_usd(amount) == shown
