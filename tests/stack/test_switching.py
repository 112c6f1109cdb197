"""Which deployments change what wakes the processor, and who is woken then."""

from __future__ import annotations

import pytest

from twobuckets.stack.plan import ParameterChange, Plan
from twobuckets.stack.switching import switches


@pytest.mark.parametrize(
    ("before", "after", "is_switch"),
    [
        ("queue", "ordered", True),
        ("ordered", "notification", True),
        # Deployed before there was a choice.
        (None, "queue", True),
        (None, "notification", False),
    ],
)
def test_a_change_of_the_trigger_is_a_switch(before: str | None, after: str, is_switch: bool):
    changes = (ParameterChange("Trigger", before, after), ParameterChange("Timeout", "1", "2"))
    plan = Plan("intake", False, (), changes, "change-set", "stack")
    assert switches(plan) is is_switch
    assert not switches(Plan("intake", False, (), changes[1:], "change-set", "stack"))
