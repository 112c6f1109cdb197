"""One key is found among many events in few requests, and with what Lambda said of its requests."""

from __future__ import annotations

import time
from datetime import timedelta

from tests.logs.service import EPOCH, Clock, Service, Written, outcome_line
from twobuckets.logs.lines import FailedInvocation, Outcome
from twobuckets.logs.naming import iter_said

REQUEST = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


class Searched(Service):
    """A service that applies the patterns of words that are sent, as CloudWatch Logs does."""

    def _answer(self, params, **rest):
        import json

        pattern = json.loads(params["body"]).get("filterPattern", "")
        words = [word.strip('?"') for word in pattern.split()]
        self.filtered = lambda message: not any(word in message for word in words)
        return super()._answer(params, **rest)


def test_a_key_among_half_a_million_events_takes_few_requests():
    service = Searched(Clock(EPOCH + timedelta(days=2)))
    line = '{"twobuckets":1,"outcome":"archived","bucket":"intake-staging","key":"in/other-%d.csv"}'
    at = [EPOCH + timedelta(seconds=n / 10) for n in range(500_000)]
    service.written = [Written(str(n), when, when, line % n) for n, when in enumerate(at)]
    service.write(
        {"type": "platform.report", "record": {"requestId": REQUEST, "status": "timeout"}},
        after=20_000,
    )
    service.write(outcome_line("archived", "in/report.csv", request_id=REQUEST), after=20_070.5)
    client = service.client
    began = time.monotonic()
    said = list(
        iter_said(
            client, "g", {"in/report.csv"}, bucket="intake-staging", is_ours=True, start_at=EPOCH
        )
    )
    took = time.monotonic() - began
    assert [(key, type(one)) for key, one in said] == [
        ("in/report.csv", FailedInvocation),
        ("in/report.csv", Outcome),
    ]
    assert len(service.requests) <= 20
    # Most of it is the stand-in's own search.
    assert took < 3


def test_nothing_but_the_search_is_asked_of_a_key_that_nobody_named():
    service = Searched(Clock(EPOCH + timedelta(hours=1)))
    service.write(outcome_line("archived", "in/other.csv"))
    keys = {"in/report.csv"}
    said = iter_said(
        service.client, "g", keys, bucket="intake-staging", is_ours=True, start_at=EPOCH
    )
    assert list(said) == []
    assert len(service.requests) == 1
