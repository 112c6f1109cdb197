"""What the processor's benchmark makes of requests and seconds."""

import pytest

from tests.bench.processor.costs import count, dollars, markdown, start_seconds


def test_requests_cost_what_s3_charges_for_their_kind():
    small = {"HEAD": 3, "CopyObject": 1, "DeleteObject": 2, "connections": 2}
    assert count(small) == 6
    assert dollars(small) * 1e6 == pytest.approx(6.20)
    assert dollars({"ListObjectVersions": 1, "GET": 1}) * 1e6 == pytest.approx(5.40)


def test_the_first_invocation_has_its_share_of_a_vcpu():
    assert start_seconds(0.3, 0.1, 1769) == pytest.approx(0.4)
    assert start_seconds(0.3, 0.1, 512) == pytest.approx(0.6455, abs=1e-3)


def test_a_table_has_a_line_for_each_row():
    assert markdown(["a", "bb"], [["1", "2"]]).splitlines() == [
        "| a | bb |",
        "| - | -- |",
        "| 1 | 2  |",
    ]
