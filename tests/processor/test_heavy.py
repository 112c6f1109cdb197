"""Which files are a job's, and what AWS Batch is asked for them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.processor import contract, events
from twobuckets.processor.heavy import Jobs, Submitted, find_jobs, job_name
from twobuckets.processor.looking import Staged

MOMENT = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = "a film & more\x1b ü.mp4"
ENVIRON = {
    contract.HEAVY_QUEUE: "intake-heavy",
    contract.HEAVY_DEFINITION: "intake-heavy",
    contract.HEAVY_LARGER_THAN: "1000",
    contract.HEAVY_MATCH: "*.mp4,in/*.mov",
    contract.HEAVY_TIMEOUT: "3600",
}


@pytest.fixture
def batch(fake_credentials: None) -> Any:
    return boto3.client("batch", region_name="eu-central-1")


def jobs_by(client: Any, environ: dict[str, str] = ENVIRON) -> Jobs:
    jobs = find_jobs(environ, lambda: client)
    assert jobs is not None
    return jobs


def staged() -> Staged:
    return Staged("staging", KEY, "v1", "etag", 5, MOMENT, {})


def job(job_id: str, status: str) -> dict[str, Any]:
    return {"jobId": job_id, "jobName": "name", "status": status}


@pytest.mark.parametrize(
    ("key", "size_bytes", "expected"),
    [
        ("a.bin", 1000, False),
        ("a.bin", 1001, True),
        ("deep/er/film.mp4", 0, True),
        ("in/film.mov", 0, True),
        ("out/film.mov", 0, False),
        ("film.MP4", 0, False),
    ],
)
def test_a_job_takes_what_is_larger_or_matches(key: str, size_bytes: int, expected: bool):
    assert jobs_by(None).take(key, size_bytes) is expected


def test_without_a_size_only_keys_count_and_without_a_queue_nothing():
    by_key = jobs_by(None, ENVIRON | {contract.HEAVY_LARGER_THAN: "0"})
    assert not by_key.take("a.bin", 10**15)
    assert find_jobs({}, lambda: None) is None


def test_a_version_without_a_job_gets_one_that_wakes_the_handler_for_exactly_it(batch: Any):
    name = job_name("staging", KEY, "v1")
    asked: dict[str, Any] = {}
    batch.meta.events.register(
        "provide-client-params.batch.SubmitJob", lambda params, **_: asked.update(params)
    )
    with Stubber(batch) as stub:
        # One that has ended is no reason not to try again.
        ended = {"jobSummaryList": [job("old", "FAILED"), job("older", "SUCCEEDED")]}
        filters = [{"name": "JOB_NAME", "values": [name]}]
        stub.add_response("list_jobs", ended, {"jobQueue": "intake-heavy", "filters": filters})
        stub.add_response("submit_job", {"jobId": "new", "jobName": name})
        assert jobs_by(batch).submit(staged(), "0055") == Submitted("new", True, 3600)
    assert (asked["jobName"], asked["jobQueue"]) == (name, "intake-heavy")
    [variable] = asked["containerOverrides"]["environment"]
    assert variable["name"] == contract.WAKE
    [record] = events.parse_event(json.loads(variable["value"])).records
    assert isinstance(record, events.Arrival)
    assert (record.key, record.version_id, record.etag) == (KEY, "v1", "etag")
    assert (record.sequencer, record.size_bytes) == ("0055", 5)


@pytest.mark.parametrize("status", ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"])
def test_a_version_that_has_a_job_gets_no_other(batch: Any, status: str):
    with Stubber(batch) as stub:
        stub.add_response("list_jobs", {"jobSummaryList": [job("first", status)]})
        assert jobs_by(batch).submit(staged(), None) == Submitted("first", False, 3600)


@given(st.text(), st.text(), st.text())
def test_a_name_is_one_that_batch_takes_and_of_one_version_only(key: str, one: str, other: str):
    name = job_name("staging", key, one)
    assert len(name) <= 128
    assert name.replace("-", "").isalnum()
    assert (name == job_name("staging", key, other)) == (one == other)
