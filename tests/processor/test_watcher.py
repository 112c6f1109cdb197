"""What the watcher counts, and the line of metrics that CloudWatch reads."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from moto import mock_aws

from twobuckets.processor import contract, watcher


@pytest.fixture
def environ(lambda_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (
        (watcher.STAGING_BUCKET, "staging-bucket"),
        (watcher.STACK, "intake"),
        (watcher.STUCK_SECONDS, "600"),
    ):
        lambda_environment.setenv(name, value)
    return lambda_environment


def test_every_page_is_counted_and_the_line_is_what_cloudwatch_reads(
    environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with mock_aws():
        s3 = watcher._client()
        s3.create_bucket(Bucket="staging-bucket")
        for number in range(1_005):
            s3.put_object(Bucket="staging-bucket", Key=f"k{number}", Body=b"ab")
        s3.put_object(Bucket="staging-bucket", Key="folder/", Body=b"")
        s3.create_multipart_upload(Bucket="staging-bucket", Key="u")
        assert watcher.handler({}, None) == {"staged": 1_005, "stuck": 0, "uploads": 1}
        later = datetime.now(UTC) + timedelta(minutes=11)
        seen = watcher.look(s3, os.environ, later, None)
        assert (seen.files, seen.stuck) == (1_005, 1_005)
        environ.setenv("TWOBUCKETS_FOLDERS", "process")
        # With no time left it tells what it saw, and that this is not all.
        spent: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 1_000)
        cut = watcher.look(s3, os.environ, later, spent)
        assert (cut.files, cut.is_all) == (1_000, False)
        assert watcher.look(s3, os.environ, later, None).files == 1_006
    line = json.loads(capsys.readouterr().out)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "twobuckets"
    assert directive["Dimensions"] == [["Stack"]]
    # Embedded metric format specification: every metric and dimension is a member of the line.
    assert {metric["Name"] for metric in directive["Metrics"]} <= line.keys()
    assert all(isinstance(line[metric["Name"]], int | float) for metric in directive["Metrics"])
    assert (line["Stack"], line["StagedFiles"], line["StagedBytes"]) == ("intake", 1_005, 2_010)
    assert abs(line["_aws"]["Timestamp"] / 1000 - datetime.now(UTC).timestamp()) < 60


def test_a_file_that_is_a_jobs_is_stuck_only_when_all_its_tries_are_over(
    environ: pytest.MonkeyPatch,
):
    for name, value in (
        (contract.HEAVY_QUEUE, "intake-heavy"),
        (contract.HEAVY_LARGER_THAN, "3"),
        (contract.HEAVY_MATCH, "a film/*.mp4"),
        (contract.HEAVY_TIMEOUT, "3600"),
    ):
        environ.setenv(name, value)
    with mock_aws():
        s3 = watcher._client()
        s3.create_bucket(Bucket="staging-bucket")
        for key, body in (("small", b"abc"), ("large", b"abcd"), ("a film/é.mp4", b"")):
            s3.put_object(Bucket="staging-bucket", Key=key, Body=body)
        now = datetime.now(UTC)
        for age, stuck in ((timedelta(minutes=11), 1), (timedelta(hours=3, minutes=11), 3)):
            assert watcher.look(s3, os.environ, now + age, None).stuck == stuck


def test_what_can_not_be_listed_is_an_error_and_no_line(
    environ: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with mock_aws(), pytest.raises(Exception, match="NoSuchBucket"):
        watcher.handler({}, None)
    assert capsys.readouterr().out == ""
