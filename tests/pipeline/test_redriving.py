"""Dead letters whose like the embedded AWS doesn't make: of others, and of other kinds of queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import Stubber
from click.testing import CliRunner

from tests.doctor.conftest import Answers, HandMadePair, answers, moto_clients, pair
from twobuckets.aws.clients import Aws, FixedIdentity
from twobuckets.cli import cli
from twobuckets.pipeline.facts import Facts
from twobuckets.pipeline.redriving import DeadLetters, Redriver
from twobuckets.settings import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["answers", "moto_clients", "pair"]

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:intake"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/arrivals"
LETTERS = DeadLetters("dead", "https://sqs/123456789012/dead", 1, 0, ())
IS_OF_LAMBDA = {"ErrorCode": {"DataType": "Number", "StringValue": "200"}}


@pytest.fixture
def stubs() -> Iterator[tuple[Aws, Stubber, Stubber]]:
    """Clients that reach nothing, and the scripted answers of Lambda and SQS."""
    aws = Aws(identity=FixedIdentity("http://127.0.0.1:9", "eu-central-1", "key", "secret"))
    with Stubber(aws.functions) as functions, Stubber(aws.sqs) as sqs:
        functions.add_response("get_function_configuration", {"FunctionArn": ARN})
        yield aws, functions, sqs
        functions.assert_no_pending_responses()
        sqs.assert_no_pending_responses()


def redriver_of(aws: Aws) -> Redriver:
    pipeline = Pipeline(stack=None, staging="incoming", archive="done", function=ARN)
    return Redriver(Facts(aws, pipeline, datetime.now(UTC)), lambda _: None)


def letter(number: int, body: str, **more: Any) -> dict[str, Any]:
    return {"MessageId": f"id-{number}", "ReceiptHandle": f"r-{number}", "Body": body, **more}


def notification(bucket: str) -> str:
    return json.dumps({"Records": [{"s3": {"bucket": {"name": bucket}}}]})


def test_letters_of_others_in_a_shared_queue_stay_whatever_they_hold(
    stubs: tuple[Aws, Stubber, Stubber],
):
    aws, functions, sqs = stubs
    functions.add_response("list_event_source_mappings", {"EventSourceMappings": []})
    messages = [
        letter(0, notification("incoming"), MessageAttributes=IS_OF_LAMBDA),
        letter(1, notification("elsewhere"), MessageAttributes=IS_OF_LAMBDA),
        letter(2, json.dumps({"requestPayload": 1, "requestContext": "odd"})),
        letter(3, json.dumps({"source": "aws.batch", "detail": "odd"})),
        letter(4, json.dumps({"source": "aws.batch", "detail": {"container": None}})),
        letter(5, "[" * 100_000),
    ]
    sqs.add_response("receive_message", {"Messages": messages})
    functions.add_response(
        "invoke",
        {"StatusCode": 202},
        {
            "FunctionName": ARN,
            "InvocationType": "Event",
            "Payload": notification("incoming").encode(),
        },
    )
    sqs.add_response(
        "delete_message_batch",
        {"Successful": [{"Id": "0"}], "Failed": []},
        {"QueueUrl": LETTERS.queue_url, "Entries": [{"Id": "0", "ReceiptHandle": "r-0"}]},
    )
    sqs.add_response("receive_message", {})
    sqs.add_response("change_message_visibility_batch", {"Successful": [], "Failed": []})
    [done] = redriver_of(aws).redrive(LETTERS)
    assert (done.moved, done.left) == (1, 5)
    assert "it tells of no file in incoming" in done.reasons


def test_a_letter_goes_back_to_a_standard_queue_in_its_group(
    stubs: tuple[Aws, Stubber, Stubber],
):
    aws, functions, sqs = stubs
    mappings: Any = [{"EventSourceArn": QUEUE}]
    functions.add_response("list_event_source_mappings", {"EventSourceMappings": mappings})
    sqs.add_response("get_queue_url", {"QueueUrl": URL})
    sqs.add_response("get_queue_attributes", {"Attributes": {"QueueArn": QUEUE}})
    attributes = {"DeadLetterQueueSourceArn": QUEUE, "MessageGroupId": "tenant"}
    message = letter(0, "anything", Attributes=attributes)
    sqs.add_response("receive_message", {"Messages": [message]})
    sqs.add_response(
        "send_message_batch",
        {"Successful": [{"Id": "0", "MessageId": "new", "MD5OfMessageBody": "x"}], "Failed": []},
        {
            "QueueUrl": URL,
            "Entries": [{"Id": "0", "MessageBody": "anything", "MessageGroupId": "tenant"}],
        },
    )
    sqs.add_response("delete_message_batch", {"Successful": [{"Id": "0"}], "Failed": []})
    sqs.add_response("receive_message", {})
    assert [done.moved for done in redriver_of(aws).redrive(LETTERS)] == [1]


def test_what_went_back_is_told_when_the_rest_is_refused(pair: HandMadePair, answers: Answers):
    redrive = {"deadLetterTargetArn": f"{QUEUE}-dead", "maxReceiveCount": 3}
    attributes = {
        "QueueArn": QUEUE,
        "RedrivePolicy": json.dumps(redrive),
        "ApproximateNumberOfMessages": "2",
    }
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [{"EventSourceArn": QUEUE}]})
    answers.give("GetQueueUrl", {"QueueUrl": URL})
    answers.give("GetQueueAttributes", {"Attributes": attributes})
    source = {"DeadLetterQueueSourceArn": QUEUE}
    answers.give("ReceiveMessage", {"Messages": [letter(0, "anything", Attributes=source)]})
    answers.give("SendMessageBatch", {"Successful": [{"Id": "0"}]})

    def refuse_what_follows(_: dict[str, Any]) -> dict[str, Any]:
        answers.refuse("ReceiveMessage")
        return {"Successful": [{"Id": "0"}]}

    answers.give("DeleteMessageBatch", refuse_what_follows)
    ended = CliRunner().invoke(cli, ["redrive", "--yes", "--json"])
    assert ended.exit_code == 5, ended.output
    moved = [line for line in map(json.loads, ended.stdout.splitlines()) if "moved" in line]
    assert [line["moved"] for line in moved] == [1]
    # What SQS keeps in both places is not counted as moved, nor sent for ever.
    answers.give("ReceiveMessage", {"Messages": [letter(0, "anything", Attributes=source)]})
    refused = {"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}
    answers.give("DeleteMessageBatch", {"Failed": [refused]})
    ended = CliRunner().invoke(cli, ["redrive", "--yes", "--json"])
    assert ended.exit_code == 1, ended.output
    assert "ReceiptHandleIsInvalid" in ended.stderr
    assert '"moved"' not in ended.stdout
