"""What S3 asks Lambda to do is done, however much it is at once and whatever ends in between."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.embedded.pair import FUNCTION, STAGING, make_pair

if TYPE_CHECKING:
    from twobuckets.aws.clients import Aws


def test_three_hundred_files_at_once_are_all_archived(embedded: Aws):
    pair = make_pair(embedded)
    keys = {f"burst/{number:03}.txt" for number in range(300)}
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(pair.put, keys))
    pair.wait_for_archived(keys, seconds=120)
    seen = [json.loads(line)["saw"] for line in pair.lines() if line.startswith('{"saw"')]
    assert sorted(seen) == sorted(keys)


def test_a_function_that_raises_is_tried_three_times_under_one_request_id(embedded: Aws):
    pair = make_pair(embedded)
    pair.put("fail.txt")
    lines = pair.wait_for_lines('"saw": "fail.txt"', 3)
    assert len({json.loads(line)["request_id"] for line in lines}) == 1
    assert len(pair.wait_for_lines("[ERROR] ValueError: no luck with fail.txt", 3)) == 3
    assert pair.staged() == {"fail.txt"}


def test_after_the_last_try_the_event_is_in_the_on_failure_queue(embedded: Aws):
    pair = make_pair(embedded)
    queue_url = embedded.sqs.create_queue(QueueName="failures")["QueueUrl"]
    attributes = embedded.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    embedded.functions.put_function_event_invoke_config(
        FunctionName=FUNCTION,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": attributes["Attributes"]["QueueArn"]}},
    )
    pair.put("fail.txt")
    received = embedded.sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=10)["Messages"]
    body = json.loads(received[0]["Body"])
    assert body["requestPayload"]["Records"][0]["s3"]["object"]["key"] == "fail.txt"
    assert body["responsePayload"]["errorType"] == "ValueError"
    assert len(pair.wait_for_lines('"saw": "fail.txt"', 2)) == 2


def test_throttled_events_wait_and_are_not_lost(embedded: Aws):
    pair = make_pair(embedded)
    embedded.functions.put_function_concurrency(
        FunctionName=FUNCTION, ReservedConcurrentExecutions=1
    )
    keys = {f"{number}.txt" for number in range(30)}
    pair.put(*keys)
    pair.wait_for_archived(keys)
    assert len([line for line in pair.lines() if line.startswith("START")]) == 30


def test_a_function_that_takes_too_long_is_ended_and_says_so(embedded: Aws):
    pair = make_pair(embedded, timeout_seconds=1)
    embedded.functions.put_function_event_invoke_config(
        FunctionName=FUNCTION, MaximumRetryAttempts=0
    )
    pair.put("sleep.txt")
    assert pair.wait_for_lines("Task timed out after 1.00 seconds", 1)


def test_a_process_that_dies_fails_its_invocation_only(embedded: Aws):
    pair = make_pair(embedded)
    pair.put("die.txt", "well.txt")
    assert len(pair.wait_for_lines("Runtime exited with error: exit status 3", 3)) == 3
    assert pair.archived() == {"well.txt"}


def test_log_records_reach_the_log_in_lambdas_text_form(embedded: Aws):
    pair = make_pair(embedded)
    pair.put("a.txt")
    (line,) = pair.wait_for_lines("moving a.txt", 1)
    level, stamp, request_id, message = line.split("\t")
    assert (level, message) == ("[INFO]", "moving a.txt")
    assert stamp.endswith("Z")
    assert pair.wait_for_lines(f"END RequestId: {request_id}", 1)
    assert pair.wait_for_lines(f"REPORT RequestId: {request_id}\tDuration: ", 1)


def test_log_records_reach_the_log_in_lambdas_json_form(embedded: Aws):
    pair = make_pair(embedded, log_format="JSON")
    pair.put("fail.txt")
    (line, *_) = pair.wait_for_lines("moving fail.txt", 1)
    record = json.loads(line)
    assert (record["level"], record["logger"]) == ("INFO", "hand")
    (line, *_) = pair.wait_for_lines('"errorType": "ValueError"', 1)
    assert json.loads(line)["requestId"] == record["requestId"]
    (line, *_) = pair.wait_for_lines("platform.report", 1)
    assert json.loads(line)["record"]["status"] == "error"


def test_the_log_level_of_the_function_decides_what_is_logged(embedded: Aws):
    source = """
import logging

def handler(event, context):
    logging.debug("too little")
    logging.info("just enough")
"""
    pair = make_pair(embedded, source=source, log_format="JSON")
    embedded.functions.update_function_configuration(
        FunctionName=FUNCTION, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "INFO"}
    )
    pair.put("a.txt")
    assert pair.wait_for_lines("just enough", 1)
    assert not [line for line in pair.lines() if "too little" in line]


def test_an_invocation_that_waits_gets_the_result_and_the_tail_of_the_log(embedded: Aws):
    make_pair(embedded, source="def handler(event, context): print('hello'); return event\n")
    answer = embedded.functions.invoke(FunctionName=FUNCTION, Payload=b'{"a": 1}', LogType="Tail")
    assert json.load(answer["Payload"]) == {"a": 1}
    log = base64.b64decode(answer["LogResult"]).decode()
    assert log.splitlines()[1] == "hello"


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_the_report_tells_what_memory_an_invocation_took(embedded: Aws, log_format: str):
    source = "def handler(event, context): return len(bytearray(40 * 1024 * 1024))\n"
    make_pair(embedded, source=source, log_format=log_format)
    said = embedded.functions.invoke(FunctionName=FUNCTION, Payload=b"{}", LogType="Tail")
    log = base64.b64decode(said["LogResult"]).decode()
    used = int(re.search(r"(?:Max Memory Used: |maxMemoryUsedMB\W+)(\d+)", log)[1])  # type: ignore[index]
    assert 40 < used < 128, log


def test_a_function_that_cannot_be_imported_says_why_in_its_log(embedded: Aws):
    pair = make_pair(embedded, source="import rich\n")
    pair.put("a.txt")
    # Installed beside the server, but not what Lambda has.
    said = "[ERROR] Runtime.ImportModuleError: Unable to import module 'processor': No module named"
    assert pair.wait_for_lines(f"{said} 'rich'", 3)
    answer = embedded.functions.invoke(FunctionName=FUNCTION, Payload=b"{}")
    assert answer["FunctionError"] == "Unhandled"
    assert json.load(answer["Payload"])["errorType"] == "Runtime.ImportModuleError"


def test_events_name_key_version_and_size_as_s3_does(embedded: Aws):
    source = "import json\ndef handler(event, context): print(json.dumps(event))\n"
    pair = make_pair(embedded, source=source)
    embedded.s3.put_bucket_versioning(Bucket=STAGING, VersioningConfiguration={"Status": "Enabled"})
    put = embedded.s3.put_object(Bucket=STAGING, Key="a b/ü+.txt", Body=b"1234")
    (line,) = pair.wait_for_lines("Records", 1)
    (record,) = json.loads(line)["Records"]
    assert record["s3"]["object"]["key"] == "a+b/%C3%BC%2B.txt"
    assert record["s3"]["object"]["versionId"] == put["VersionId"]
    assert record["s3"]["object"]["size"] == 4
