"""What lifecycle rules apply to, and how an incomplete upload ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from twobuckets.pipeline.lifecycle import Clearing, UploadEnd, end_of_upload

BEGUN = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)
TOLD = datetime(2026, 5, 6, tzinfo=UTC)


def rule(days: int = 3, status: str = "Enabled", **where: Any) -> dict[str, Any]:
    part = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days}}
    return {"ID": "r", "Status": status, **part, **where}


def end(*rules: dict[str, Any], told_at: datetime | None = None) -> UploadEnd:
    return end_of_upload("in/a", BEGUN, told_at=told_at, rules=rules, runs_rules=True)


def test_what_s3_says_of_the_upload_itself_is_its_end():
    assert end(told_at=TOLD) == UploadEnd(Clearing.BY_RULE, TOLD)


@pytest.mark.parametrize(
    "where",
    [
        {"Filter": {"Prefix": ""}},
        {"Filter": {}},
        {"Prefix": "in/"},
        {"Filter": {"Prefix": "in/"}},
        {"Filter": {"And": {"Prefix": "in/", "ObjectSizeGreaterThan": 1}}},
    ],
)
def test_where_it_says_nothing_the_rules_tell(where: dict[str, Any]):
    # Days count from the beginning, and the midnight after them is when it happens.
    found = end(rule(9, Filter={"Prefix": ""}), rule(3, **where))
    assert found == UploadEnd(Clearing.BY_RULE, datetime(2026, 5, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    "other", [rule(status="Disabled"), rule(Filter={"Prefix": "out/"}), {"Status": "Enabled"}]
)
def test_rules_that_do_not_reach_it_do_not_end_it(other: dict[str, Any]):
    assert end(other) == UploadEnd(Clearing.NONE)


def test_rules_that_could_not_be_read_leave_the_end_unknown():
    found = end_of_upload("a", BEGUN, told_at=None, rules=None, runs_rules=True)
    assert found == UploadEnd(Clearing.UNKNOWN)


def test_an_s3_that_runs_no_rules_ends_nothing():
    found = end_of_upload("a", BEGUN, told_at=TOLD, rules=[rule()], runs_rules=False)
    assert found == UploadEnd(Clearing.NOT_HERE)
