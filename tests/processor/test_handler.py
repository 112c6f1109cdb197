"""The handler with users' code of every kind: what is said, what is retried, what goes on."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.processor.conftest import ARCHIVE, STAGING, Pipeline
from twobuckets.processor import File, Reject, handler
from twobuckets.processor.events import UnknownEventError
from twobuckets.processor.outcome import redact
from twobuckets.processor.runtime import ConfigurationError, RecordsFailedError, load_process


def returns_generator(file: File) -> Any:
    return (line for line in file.lines())


def exits(file: File) -> None:
    raise SystemExit(7)


def runs_out_of_memory(file: File) -> None:
    raise MemoryError


def fills_the_disk(file: File) -> None:
    raise OSError(28, "No space left on device", "/tmp/x")


async def _coroutine() -> None:
    pass


def returns_coroutine(file: File) -> Any:
    return _coroutine()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raises_unprintable(file: File) -> None:
    raise UnprintableError


@pytest.mark.parametrize(
    ("process", "error_type"),
    [
        (exits, "SystemExit"),
        (runs_out_of_memory, "MemoryError"),
        (fills_the_disk, "OSError"),
        (returns_generator, "ConfigurationError"),
        (returns_coroutine, "ConfigurationError"),
        (raises_unprintable, "UnprintableError"),
    ],
)
def test_code_that_goes_wrong_is_an_outcome_and_the_next_record_is_served(
    pipeline: Pipeline, process: Any, error_type: str
) -> None:
    pipeline.process_with(lambda file: process(file) if file.key == "bad" else None)
    with pytest.raises(RecordsFailedError):
        pipeline.invoke(pipeline.upload("bad"), pipeline.upload("good"))
    bad, good = pipeline.lines
    assert (bad["outcome"], bad["error"]["type"]) == ("failed", error_type)
    assert good["outcome"] == "archived"
    assert set(pipeline.staged()) == {"bad"}


def test_a_stream_that_is_left_open_or_closed_is_no_matter(pipeline: Pipeline) -> None:
    opened = []

    def process(file: File) -> None:
        opened.append(file.open())
        opened[-1].read(1)
        with file.open() as stream:
            stream.read()
            stream.close()

    pipeline.process_with(process)
    [line] = pipeline.invoke(pipeline.upload("a"))
    assert line["outcome"] == "archived"
    assert opened[0].closed


def test_a_thread_that_reads_on_after_process_gets_an_error_of_its_own(
    pipeline: Pipeline,
) -> None:
    errors = []
    returned = threading.Event()
    threads = []

    def read_late(stream: Any) -> None:
        returned.wait(5)
        try:
            stream.read()
        except ValueError as error:
            errors.append(str(error))

    def process(file: File) -> None:
        threads.append(threading.Thread(target=read_late, args=(file.open(),)))
        threads[0].start()

    pipeline.process_with(process)
    [line] = pipeline.invoke(pipeline.upload("a"))
    returned.set()
    threads[0].join()
    assert line["outcome"] == "archived"
    assert "closed" in errors[0]


def test_what_process_returns_is_noted_without_its_value(pipeline: Pipeline) -> None:
    pipeline.process_with(lambda file: "a-secret-thing")
    [line] = pipeline.invoke(pipeline.upload("a"))
    assert line["outcome"] == "archived"
    assert line["notes"] == ["process returned a str; what it returns is ignored"]


def test_a_user_who_closes_stdout_loses_no_outcome_line(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    kept = io.StringIO()
    monkeypatch.setattr(sys, "__stdout__", kept)
    pipeline.process_with(lambda file: monkeypatch.setattr(sys, "stdout", closed))
    handler({"Records": [pipeline.upload("a")]}, pipeline.context)
    monkeypatch.undo()
    assert json.loads(kept.getvalue())["outcome"] == "archived"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-colon", "module:function"),
        ("no_such_module:process", "importing 'no_such_module' failed"),
        ("json:no_such_function", "no function"),
        ("tests.processor.test_handler:_coroutine", "coroutine"),
    ],
)
def test_a_function_that_cannot_be_used_is_said_and_archives_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setenv("TWOBUCKETS_PROCESS", name)
    with pytest.raises(RecordsFailedError, match="ConfigurationError"):
        pipeline.invoke(pipeline.upload("a"))
    assert says in pipeline.lines[0]["error"]["message"]
    assert pipeline.archived() == {}


def test_a_broken_user_module_is_tried_again_in_the_next_invocation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "brokenmodule.py"
    module.write_text("raise SystemExit(1)")
    with pytest.raises(ConfigurationError, match="SystemExit"):
        load_process("brokenmodule:process")
    module.write_text("def process(file): pass")
    assert callable(load_process("brokenmodule:process"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARCHIVE_BUCKET", ""),
        ("TWOBUCKETS_RECORD_CONCURRENCY", "many"),
        ("TWOBUCKETS_COPY_CONCURRENCY", "0"),
    ],
)
def test_a_wrong_setting_names_its_variable(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        pipeline.invoke(pipeline.upload("a"))


def test_an_archive_that_is_the_staging_bucket_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", STAGING)
    with pytest.raises(RecordsFailedError, match="only copy"):
        pipeline.invoke(pipeline.upload("a"))
    assert set(pipeline.staged()) == {"a"}


def test_a_missing_permission_is_named(pipeline: Pipeline) -> None:
    def refuse(params: Any, **_: Any) -> None:
        error: Any = {"Error": {"Code": "403", "Message": "Forbidden"}}
        raise ClientError(error, "HeadObject")

    record = pipeline.upload("a")
    events = pipeline.s3.meta.events
    # S3 gives both, or none, to whoever has s3:GetObject.
    asked = ("before-parameter-build.s3.HeadObject", "before-parameter-build.s3.GetObject")
    for event in asked:
        events.register(event, refuse)
    try:
        with pytest.raises(RecordsFailedError, match="s3:ListBucket"):
            pipeline.invoke(record)
    finally:
        for event in asked:
            events.unregister(event, refuse)
    assert pipeline.lines[0]["error"]["type"] == "PermissionError"


def test_an_unknown_event_is_an_error(lambda_environment: Any) -> None:
    with pytest.raises(UnknownEventError, match="greeting"):
        handler({"greeting": "hello"}, None)


def sqs(*bodies: object) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "eventSource": "aws:sqs",
                "body": json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "2"},
            }
            for number, body in enumerate(bodies)
        ]
    }


def test_only_the_failed_messages_of_a_queue_come_back(pipeline: Pipeline) -> None:
    def process(file: File) -> None:
        if file.key == "bad":
            raise ValueError
        if file.key == "rejected":
            raise Reject

    pipeline.process_with(process)
    records = [pipeline.upload(key) for key in ("good", "bad", "rejected", "also good")]
    bodies: list[object] = [{"Records": [record]} for record in records]
    answer = handler(sqs(*bodies, {"no": "event"}), pipeline.context)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m4"}]}
    assert {line["attempt"] for line in pipeline.outcomes()} == {2}
    assert set(pipeline.archived()) == {"good", "also good"}


def deletion_of(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "eventName": "ObjectRemoved:Delete"}


def fails_if_bad(file: File) -> None:
    if file.key == "bad":
        raise ValueError("no luck")
    if file.key == "rejected":
        raise Reject("never")


def test_what_is_no_arrival_is_one_line_and_no_failure(pipeline: Pipeline) -> None:
    record = pipeline.upload("a")
    pipeline.process_with(fails_if_bad)
    event = {"Records": [deletion_of(record), record, deletion_of(record)]}
    assert handler(event, pipeline.context) == {"archived": 1, "ignored": 2}
    [plain] = [line for line in pipeline.written() if "outcome" not in line]
    assert plain["message"] == "ignored what is no file's arrival: ObjectRemoved:Delete (2)"
    assert plain["level"] == "INFO"
    assert set(pipeline.archived()) == {"a"}


def test_an_object_that_stands_for_a_folder_is_left_where_it_is(pipeline: Pipeline) -> None:
    seen: list[str] = []
    pipeline.process_with(lambda file: seen.append(file.key))
    records = [pipeline.upload("in/", b""), pipeline.upload("in/a", b""), pipeline.upload("b/")]
    assert handler({"Records": records}, pipeline.context) == {"archived": 2, "ignored": 1}
    assert seen == ["in/a", "b/"]
    assert set(pipeline.staged()) == {"in/"}
    [plain] = [line for line in pipeline.written() if "outcome" not in line]
    assert plain["message"].endswith("arrival: an empty object for a folder (1)")


def test_an_object_that_stands_for_a_folder_is_a_file_where_that_is_set_or_asked_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pipeline.upload("in/", b"")
    item = first["s3"]["object"]
    wake = {"bucket": STAGING, "key": "in/", "etag": item["eTag"], "size": 0}
    wake["version_id"] = item.get("versionId")
    assert handler({"twobuckets": 1, "wake": [wake]}, pipeline.context) == {"archived": 1}
    monkeypatch.setenv("TWOBUCKETS_FOLDERS", "process")
    second = pipeline.upload("out/", b"")
    assert handler({"Records": [second]}, pipeline.context) == {"archived": 1}
    assert pipeline.staged() == {}


def through_sns(event: object) -> dict[str, Any]:
    sent = {"Type": "Notification", "MessageId": "n", "Message": json.dumps(event)}
    return {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": sent}]}


def test_a_file_that_comes_through_sns_is_archived_and_a_failed_one_is_retried(
    pipeline: Pipeline,
) -> None:
    pipeline.process_with(fails_if_bad)
    good, bad = ({"Records": [pipeline.upload(key)]} for key in ("good", "bad"))
    assert handler(through_sns(good), pipeline.context) == {"archived": 1}
    with pytest.raises(RecordsFailedError, match="no luck"):
        handler(through_sns(bad), pipeline.context)
    assert set(pipeline.staged()) == {"bad"}


def test_of_a_pipe_s_messages_only_the_failed_come_back(pipeline: Pipeline) -> None:
    pipeline.process_with(fails_if_bad)
    good, bad = (pipeline.upload(key) for key in ("good", "bad"))
    event = sqs(
        {"Records": [good]},
        through_sns({"Records": [bad]})["Records"][0]["Sns"],
        {"Records": [deletion_of(good)]},
        {"Service": "Amazon S3", "Event": "s3:TestEvent"},
    )["Records"]
    answer = handler(event, pipeline.context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert (set(pipeline.archived()), set(pipeline.staged())) == ({"good"}, {"bad"})


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_batch_operations_get_a_result_for_each_task(pipeline: Pipeline, version: str) -> None:
    pipeline.process_with(fails_if_bad)
    tasks: list[dict[str, Any]] = []
    for number, key in enumerate(("good", "bad", "rejected", "gone")):
        record = pipeline.upload(key) if key != "gone" else {"s3": {"object": {"key": key}}}
        item = record["s3"]["object"]
        where = (
            {"s3BucketArn": f"arn:aws:s3:::{STAGING}"}
            if version == "1.0"
            else {"s3Bucket": STAGING}
        )
        task = {"taskId": f"t{number}", "s3Key": key, "s3VersionId": item.get("versionId")}
        tasks.append(task | where)
    event = {
        "invocationSchemaVersion": version,
        "invocationId": "i",
        "job": {"id": "j"},
        "tasks": [*tasks, {"taskId": "t4"}],
    }
    answer = handler(event, pipeline.context)
    results = answer.pop("results")
    assert answer == {
        "invocationSchemaVersion": version,
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": "i",
    }
    assert [(result["taskId"], result["resultCode"]) for result in results] == [
        ("t0", "Succeeded"),
        ("t1", "TemporaryFailure"),
        ("t2", "PermanentFailure"),
        ("t3", "PermanentFailure"),
        ("t4", "PermanentFailure"),
    ]
    said = [result["resultString"] for result in results]
    assert said[:2] == ["archived", "failed: ValueError: no luck"]
    assert said[3].startswith("missing: ")
    assert set(pipeline.archived()) == {"good"}


def test_the_attempt_counts_the_retries_that_this_environment_has_seen(
    pipeline: Pipeline,
) -> None:
    def process(file: File) -> None:
        raise ValueError

    pipeline.process_with(process)
    record = pipeline.upload("a")
    for attempt in (1, 2):
        with pytest.raises(RecordsFailedError):
            pipeline.invoke(record)
        assert pipeline.lines[0]["attempt"] == attempt


def test_records_run_side_by_side_when_told_to(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWOBUCKETS_RECORD_CONCURRENCY", "3")
    together = threading.Barrier(3, timeout=5)
    pipeline.process_with(lambda file: together.wait() and None)
    lines = pipeline.invoke(*(pipeline.upload(key) for key in "abc"))
    assert [line["outcome"] for line in lines] == ["archived"] * 3


def test_a_wake_up_event_archives_exactly_the_version_it_names(pipeline: Pipeline) -> None:
    record = pipeline.upload("a+b %2B c", b"stuck")
    item = record["s3"]["object"]
    wake = {
        "bucket": STAGING,
        "key": "a+b %2B c",
        "version_id": item.get("versionId"),
        "etag": item["eTag"],
        "size": 5,
    }
    handler({"twobuckets": 1, "wake": [wake]}, pipeline.context)
    assert pipeline.archived() == {"a+b %2B c": b"stuck"}
    assert pipeline.staged() == {}


def test_time_running_out_is_written_down_before_it_does(pipeline: Pipeline) -> None:
    deadline = time.monotonic() + 0.8
    pipeline.context = SimpleNamespace(
        aws_request_id="r",
        get_remaining_time_in_millis=lambda: int((deadline - time.monotonic()) * 1000),
    )

    def process(file: File) -> None:
        file.open().read(3)
        if file.key == "slow":
            time.sleep(0.9)

    pipeline.process_with(process)
    slow, waiting = pipeline.upload("slow", b"0123456789"), pipeline.upload("waiting")
    lines = pipeline.invoke(slow, waiting)

    foretold = [line for line in lines if line["outcome"] == "failed"]
    assert [line["key"] for line in foretold] == ["slow", "waiting"]
    assert foretold[0]["error"]["type"] == "TimeoutForeseen"
    assert "bytes read of 10" in foretold[0]["error"]["message"]
    # It went on after all, and the last line of a version is the one that counts.
    assert [line["outcome"] for line in lines[2:]] == ["archived", "archived"]


def test_a_replaced_file_that_breaks_the_reader_is_superseded_and_not_failed(
    pipeline: Pipeline,
) -> None:
    def process(file: File) -> None:
        stream = file.open()
        stream.read(1)
        pipeline.upload("a", b"y" * 1_000_000)
        stream.seek(900_000)
        if stream.read(10) == b"x" * 10:  # a version can be read on, an ETag cannot
            assert file.version_id is not None

    pipeline.process_with(process)
    [line] = pipeline.invoke(pipeline.upload("a", b"x" * 1_000_000))
    assert line["outcome"] == "superseded"
    assert pipeline.archived() == {}


def test_secrets_and_signed_urls_are_taken_out_of_errors(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    url = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIAX&X-Amz-Signature=abc123def&x=1"

    def process(file: File) -> None:
        token = "hunter2"
        raise ValueError(f"{url} {secret} password={token} AKIAIOSFODNN7EXAMPLE")

    pipeline.process_with(process)
    with pytest.raises(RecordsFailedError) as raised:
        pipeline.invoke(pipeline.upload("a"))
    text = json.dumps(pipeline.lines) + str(raised.value)
    for hidden in ("abc123def", secret, "AKIAIOSFODNN7EXAMPLE", "=hunter2"):
        assert hidden not in text
    assert "https://b.s3.amazonaws.com/k" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "GET https://h/k?X-Amz-Signature=ff&a=b failed",
            "GET https://h/k?[signature removed] failed",
        ),
        ("Authorization: AWS4-HMAC-SHA256 Credential=x/y", "Authorization: [removed]"),
        ("postgres://me:pw@host/db", "postgres://me:[removed]@host/db"),
        ('{"aws_session_token": "abc"}', '{"aws_session_token": "[removed]"}'),
        ("an ordinary line, key=value", "an ordinary line, key=value"),
    ],
)
def test_redaction_leaves_the_rest_of_a_line(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_long_error_is_trimmed_to_its_telling_end(pipeline: Pipeline) -> None:
    def process(file: File) -> None:
        raise ValueError("x" * 100_000)

    pipeline.process_with(process)
    with pytest.raises(RecordsFailedError) as raised:
        pipeline.invoke(pipeline.upload("a"))
    assert len(json.dumps(pipeline.lines[0])) < 20_000
    assert len(str(raised.value)) < 1_000


AWKWARD_KEYS = [
    "a b",
    "a+b",
    "a%2Bb",
    "%",
    "\u00fc",
    "u\u0308",
    "🪣/🪣",
    "/leading",
    "trailing/",
    "a//b",
    "a/../b",
    "..",
    "x" * 1024,
    "\u00e9" * 512,
    "line\nbreak\r\ttab",
    "bell\x07\x1b[31m",
    "quote'\"",
    "*?",
    "${aws:username}",
    "[bold]x[/bold]",
    " leading and trailing ",
    "a&b=c;d#e",
    "<xml>&amp;",
]


def test_any_key_goes_round_unchanged(pipeline: Pipeline) -> None:
    keys = AWKWARD_KEYS
    if pipeline.s3.get_bucket_versioning(Bucket=STAGING).get("Status") == "Enabled":
        # moto cannot list versions of keys with control characters; the embedded AWS can.
        keys = [key for key in AWKWARD_KEYS if "\x07" not in key]
    given: list[str] = []
    pipeline.process_with(lambda file: given.append(file.key))
    lines = pipeline.invoke(*(pipeline.upload(key, key.encode()) for key in keys))
    assert [(line["outcome"], line["key"]) for line in lines] == [("archived", k) for k in keys]
    assert given == keys
    for key in keys:
        body = pipeline.s3.get_object(Bucket=ARCHIVE, Key=key)["Body"].read()
        assert body == key.encode()
    assert pipeline.s3.list_objects_v2(Bucket=STAGING)["KeyCount"] == 0


def test_metadata_without_room_for_our_record_is_kept_whole(pipeline: Pipeline) -> None:
    def refuse(params: Any, **_: Any) -> None:
        if "twobuckets-origin" in params["Metadata"]:
            error: Any = {"Error": {"Code": "MetadataTooLarge", "Message": "2 KB"}}
            raise ClientError(error, "CopyObject")

    record = pipeline.upload("a", Metadata={"long": "x" * 1_900})
    events = pipeline.s3.meta.events
    events.register("before-parameter-build.s3.CopyObject", refuse)
    try:
        pipeline.invoke(record)
    finally:
        events.unregister("before-parameter-build.s3.CopyObject", refuse)
    head = pipeline.s3.head_object(Bucket=ARCHIVE, Key="a")
    assert head["Metadata"] == {"long": "x" * 1_900}


def test_headers_that_cannot_be_signed_are_copied_by_s3_itself(pipeline: Pipeline) -> None:
    def describe(parsed: Any, **_: Any) -> None:
        if "Metadata" in parsed:
            parsed["ContentDisposition"] = "attachment; filename=\u00fc.pdf"
            parsed["Metadata"]["owner"] = "J\u00fcrgen"

    directives = []
    record = pipeline.upload("a", Metadata={"kept": "yes"}, ContentType="text/csv")
    events = pipeline.s3.meta.events
    listen: dict[str, Any] = {
        "after-call.s3.HeadObject": describe,
        "before-parameter-build.s3.CopyObject": lambda params, **_: directives.append(
            (params["MetadataDirective"], "Metadata" in params)
        ),
    }
    for name, listener in listen.items():
        events.register(name, listener)
    try:
        [line] = pipeline.invoke(record)
    finally:
        for name, listener in listen.items():
            events.unregister(name, listener)
    assert line["outcome"] == "archived"
    assert directives == [("COPY", False)]
    head = pipeline.s3.head_object(Bucket=ARCHIVE, Key="a")
    assert (head["Metadata"], head["ContentType"]) == ({"kept": "yes"}, "text/csv")


def test_an_expiry_that_is_no_date_stays_one_in_the_past(pipeline: Pipeline) -> None:
    def describe(parsed: Any, **_: Any) -> None:
        # As botocore reads "Expires: 0".
        if "Metadata" in parsed:
            parsed["ExpiresString"] = "0"

    expiries = []
    record = pipeline.upload("a")
    events = pipeline.s3.meta.events
    listen: dict[str, Any] = {
        "after-call.s3.HeadObject": describe,
        "before-parameter-build.s3.CopyObject": lambda params, **_: expiries.append(
            params.get("Expires")
        ),
    }
    for name, listener in listen.items():
        events.register(name, listener)
    try:
        pipeline.invoke(record)
    finally:
        for name, listener in listen.items():
            events.unregister(name, listener)
    assert expiries == [datetime(1970, 1, 1, tzinfo=UTC)]


def test_an_origin_record_that_an_uploader_forged_is_not_believed(pipeline: Pipeline) -> None:
    forged = json.dumps(
        {
            "bucket": STAGING,
            "version_id": None,
            "etag": "x",
            "sequencer": "FFFF",
            "staged_at": "2999-01-01T00:00:00Z",
        }
    )
    seen: list[dict[str, str]] = []
    pipeline.process_with(lambda file: seen.append(dict(file.metadata)))
    pipeline.invoke(pipeline.upload("a", b"1", Metadata={"twobuckets-origin": forged, "x": "y"}))
    [line] = pipeline.invoke(pipeline.upload("a", b"2"))
    assert line["outcome"] == "archived"
    assert seen[0] == {"x": "y"}
    assert pipeline.archived() == {"a": b"2"}


def test_a_probe_is_archived_without_process_and_only_a_real_one(pipeline: Pipeline):
    seen: list[str] = []
    pipeline.process_with(lambda file: seen.append(file.key))
    marked = {"twobuckets-probe": "one"}
    probe = pipeline.upload("twobuckets-probe/one", Metadata=marked)
    (line,) = pipeline.invoke(probe)
    assert (line["outcome"], line["notes"]) == (
        "archived",
        ["a probe, which process() does not see"],
    )
    assert seen == []
    # Somebody's file is processed, whatever its key and metadata look like.
    files = [
        pipeline.upload("twobuckets-probe/two"),
        pipeline.upload("twobuckets-probe/three", Metadata=marked),
        pipeline.upload("one", Metadata=marked),
    ]
    assert [line["outcome"] for line in pipeline.invoke(*files)] == ["archived"] * 3
    assert seen == ["twobuckets-probe/two", "twobuckets-probe/three", "one"]
