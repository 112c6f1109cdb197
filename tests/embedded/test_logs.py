"""Waiting for outcomes and `logs`, with real functions on the embedded AWS."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, make_pair
from tests.logs.service import wait_for_fates
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.logs.objects import AwaitedVersion
from twobuckets.logs.waiting import Fate, Policy, Tracker
from twobuckets.pipeline.retries import asynchronous

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.aws.clients import Aws

PROCESSOR = """
from twobuckets.processor import Reject

def process(file):
    print("reading", file.key)
    if "reject" in file.key:
        raise Reject("not one of ours")
    if "fail" in file.key:
        raise ValueError("no header")
"""


# Writes one outcome line a record.
LINES = """
import json
from urllib.parse import unquote_plus

def handler(event, context):
    for record in event["Records"]:
        print(json.dumps({"twobuckets": 1, "outcome": "archived", "bucket": "b",
                          "key": unquote_plus(record["s3"]["object"]["key"])}))
"""

ONCE = asynchronous(timedelta(seconds=60), retries=0)


def put(aws: Aws, bucket: str, keys: list[str]) -> list[AwaitedVersion]:
    staged = []
    for key in keys:
        answer = aws.s3.put_object(Bucket=bucket, Key=key, Body=b"content")
        staged.append(
            AwaitedVersion(key, answer.get("VersionId"), answer["ETag"], datetime.now(UTC), 7)
        )
    return staged


def wait(
    aws: Aws,
    staging: str,
    archive: str,
    group: str | None,
    staged: list[AwaitedVersion],
    **policy: Any,
) -> dict[str, Fate]:
    tracker = Tracker(
        s3=aws.s3,
        staging=staging,
        archive=archive,
        logs=aws.logs,
        log_group=group,
        now=lambda: datetime.now(UTC),
        sleep=time.sleep,
        policy=Policy(**policy),
    )
    fates = wait_for_fates(tracker, staged, timeout=timedelta(seconds=60))
    return {fate.key: fate for fate in fates}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["--stack", "local", "logs", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_file_is_told_as_the_processor_told_it(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twobuckets.toml").write_text('stack = "local"\n')
    (tmp_path / "processor.py").write_text(PROCESSOR)
    pipeline = App().pipeline
    good = [f"good {n} é+.csv" for n in range(25)]
    staged = put(embedded, pipeline.staging, [*good, "reject.csv", "fail.csv"])
    fates = wait(embedded, pipeline.staging, pipeline.archive, pipeline.log_group, staged)
    assert {fates[key].fate for key in good} == {"archived"}
    rejected, failed = fates["reject.csv"], fates["fail.csv"]
    assert (rejected.fate, rejected.attempts) == ("rejected", 1)
    assert (failed.fate, failed.is_final, failed.attempts) == ("failed", True, 3)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "no header")

    records = [json.loads(line) for line in run("--json").splitlines()]
    assert records[-1]["outcomes"]["archived"] == 25
    archived = [r for r in records if r.get("outcome") == "archived"]
    assert all(r["archive_version_id"] for r in archived)
    assert records[-1]["outcomes"]["failed"] == 3
    shown = run("--failed")
    assert shown.count("ValueError: no header") >= 3
    assert "good" not in shown
    lines = run("--key", "fail.csv")
    assert lines.count("reading fail.csv") == 3
    assert "reject.csv" not in lines
    request_id = next(r["request_id"] for r in records if r.get("key") == "reject.csv")
    assert "reading reject.csv" in run("--request-id", request_id)


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_a_pair_that_is_not_ours_is_understood_by_what_s3_and_lambda_say(
    embedded: Aws, log_format: str
):
    make_pair(embedded, log_format=log_format, timeout_seconds=3)
    staged = put(embedded, STAGING, ["fine one.csv", "fail+1.csv", "sleep.csv", "die.csv"])
    fates = wait(embedded, STAGING, ARCHIVE, f"/aws/lambda/{FUNCTION}", staged, retries=ONCE)
    assert fates["fine one.csv"].fate == "archived"
    failed = fates["fail+1.csv"]
    assert failed.fate == "failed"
    assert failed.error is not None
    assert failed.error.message == "no luck with fail+1.csv"
    late = fates["sleep.csv"]
    assert late.error is not None
    assert "timed out" in late.error.message
    assert fates["die.csv"].fate == "failed"


def test_a_follower_tells_each_outcome_once_until_it_is_interrupted(
    embedded: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    make_pair(embedded, source=LINES)
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", f"/aws/lambda/{FUNCTION}")
    wanted = [f"followed {n:02}" for n in range(30)]
    told: list[str] = []
    enough = threading.Event()

    def read(stream: IO[str]) -> None:
        for line in stream:
            key = json.loads(line).get("key", "")
            if key.startswith("followed"):
                told.append(key)
            if len(told) == len(wanted):
                enough.set()

    command = [sys.executable, "-m", "twobuckets", "--stack", "local", "--json"]
    with subprocess.Popen(
        [*command, "logs", "--follow"], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        reader = threading.Thread(target=read, args=[follower.stdout])
        reader.start()
        try:
            for key in wanted:
                put(embedded, STAGING, [key])
                time.sleep(0.05)
            assert enough.wait(60), told
            # Two more turns, in which nothing may come again.
            time.sleep(4)
        finally:
            follower.send_signal(signal.SIGINT)
            reader.join(20)
    assert follower.returncode == 130
    assert sorted(told) == wanted
