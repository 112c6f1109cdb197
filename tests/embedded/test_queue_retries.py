"""A queue in front of a processor made by hand: its settings say how often a file is tried."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.doctor.conftest import run_doctor
from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, make_pair
from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.embedded.pair import Pair
    from twobuckets import local
    from twobuckets.aws.clients import Aws

TRIES = 5
PROCESSOR = """
import json, urllib.parse

def handler(event, context):
    for message in event["Records"]:
        for record in json.loads(message["body"]).get("Records", []):
            key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
            print("processing", key)
            raise ValueError(f"no luck with {key}")
"""


def put_queue_in_front(pair: Pair, *, visible_after: int) -> str:
    """Lead the events of the pair through a queue that gives a message up after five receipts."""
    aws = pair.aws
    dead = aws.sqs.create_queue(QueueName="hand-dead")["QueueUrl"]
    redrive = {"deadLetterTargetArn": arn_of(aws, dead), "maxReceiveCount": TRIES}
    url = aws.sqs.create_queue(
        QueueName="hand-arrivals",
        Attributes={"VisibilityTimeout": str(visible_after), "RedrivePolicy": json.dumps(redrive)},
    )["QueueUrl"]
    let_s3_send = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn_of(aws, url),
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [let_s3_send]})
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    aws.functions.create_event_source_mapping(
        FunctionName=FUNCTION, EventSourceArn=arn_of(aws, url), BatchSize=1
    )
    route = {"QueueArn": arn_of(aws, url), "Events": ["s3:ObjectCreated:*"]}
    aws.s3.put_bucket_notification_configuration(
        Bucket=STAGING,
        NotificationConfiguration={"QueueConfigurations": [route]},  # type: ignore[list-item]
    )
    return dead


def arn_of(aws: Aws, url: str) -> str:
    answer = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


@pytest.fixture
def pair(
    embedded: Aws, embedded_server: local.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Pair:
    """A pair that the settings name, with the embedded AWS's credentials."""
    for name, value in (
        ("TWOBUCKETS_STAGING", STAGING),
        ("TWOBUCKETS_ARCHIVE", ARCHIVE),
        ("TWOBUCKETS_FUNCTION", FUNCTION),
        ("TWOBUCKETS_LOG_GROUP", f"/aws/lambda/{FUNCTION}"),
        ("TWOBUCKETS_ENDPOINT_URL", embedded_server.endpoint_url),
        ("AWS_ACCESS_KEY_ID", embedded_server.access_key),
        ("AWS_SECRET_ACCESS_KEY", embedded_server.secret_key),
        ("AWS_REGION", embedded_server.region),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return make_pair(embedded, source=PROCESSOR, timeout_seconds=3)


def test_a_wait_gives_a_file_up_at_the_fifth_of_five_tries(pair: Pair, tmp_path: Path):
    put_queue_in_front(pair, visible_after=3)
    (tmp_path / "a.csv").write_text("x")
    arguments = ["upload", "a.csv", "--wait", "--timeout", "2m", "--json"]
    shown = CliRunner().invoke(cli, arguments)
    fates = [json.loads(x) for x in shown.stdout.splitlines() if '"fate"' in x]
    final = [fate for fate in fates if fate["is_final"]]
    assert [(fate["fate"], fate["attempts"]) for fate in final] == [("failed", TRIES)], shown.output
    assert len(pair.wait_for_lines("processing a.csv", TRIES)) == TRIES


def test_doctor_says_that_the_queue_tries_again_and_how_often(pair: Pair):
    put_queue_in_front(pair, visible_after=60)
    pair.put("a.csv")
    pair.wait_for_lines("no luck with a.csv", 1)
    found = wait_for_finding()
    assert "failed so far, and SQS tries these again by itself, 5 times in all" in found["detail"]
    young = run_doctor("--check", "stuck")
    assert young.checks == set()
    assert young.lines[-1]["stuck_after"] == 120 + TRIES * 60


def wait_for_finding() -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        run = run_doctor("--check", "stuck", "--older-than", "0s")
        if run.checks == {"stuck-failed"}:
            return run.of("stuck-failed")
        assert time.monotonic() < deadline, run
