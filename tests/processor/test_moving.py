"""One record after the other on moto: what is archived, what stays, and what is said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from twobuckets.processor import File, Reject
from twobuckets.processor.runtime import RecordsFailedError

from .conftest import ARCHIVE, STAGING, Pipeline


def test_a_processed_file_is_in_the_archive_only(pipeline: Pipeline) -> None:
    seen = []
    pipeline.process_with(lambda file: seen.append((file.key, file.read(), file.size)))

    [line] = pipeline.invoke(pipeline.upload("folder/a b+c.csv", b"1,2\n"))

    assert seen == [("folder/a b+c.csv", b"1,2\n", 4)]
    assert pipeline.staged() == {}
    assert pipeline.archived() == {"folder/a b+c.csv": b"1,2\n"}
    assert line["outcome"] == "archived"
    # Without a time that it can read, Lambda takes every line for INFO.
    assert line["level"] == "INFO"
    age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert (line["key"], line["size"], line["error"]) == ("folder/a b+c.csv", 4, None)
    assert list(line)[:11] == [
        "twobuckets",
        "outcome",
        "bucket",
        "key",
        "version_id",
        "etag",
        "size",
        "duration_ms",
        "request_id",
        "attempt",
        "error",
    ]


def test_metadata_headers_and_tags_survive_the_move(pipeline: Pipeline) -> None:
    record = pipeline.upload(
        "a",
        ContentType="text/csv",
        ContentEncoding="gzip",
        CacheControl="no-store",
        ContentDisposition='attachment; filename="x"',
        ContentLanguage="de",
        Metadata={"owner": "me"},
        Tagging="team=a%20b&x=1",
    )
    pipeline.invoke(record)

    head = pipeline.s3.head_object(Bucket=ARCHIVE, Key="a")
    assert head["ContentType"] == "text/csv"
    assert head["ContentEncoding"] == "gzip"
    assert head["CacheControl"] == "no-store"
    assert head["ContentDisposition"] == 'attachment; filename="x"'
    assert head["ContentLanguage"] == "de"
    assert head["Metadata"]["owner"] == "me"
    tags = pipeline.s3.get_object_tagging(Bucket=ARCHIVE, Key="a")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "a b", "x": "1"}


def test_one_failing_record_does_not_touch_the_others(pipeline: Pipeline) -> None:
    def process(file: File) -> None:
        if file.key == "bad":
            raise ValueError("cannot be")

    pipeline.process_with(process)
    records = [pipeline.upload(key) for key in ("one", "bad", "two")]

    with pytest.raises(RecordsFailedError, match=r"1 of 3 records failed.*'bad': ValueError"):
        pipeline.invoke(*records)

    assert [line["outcome"] for line in pipeline.lines] == ["archived", "failed", "archived"]
    error = pipeline.lines[1]["error"]
    assert (error["type"], error["message"]) == ("ValueError", "cannot be")
    assert "in process" in error["trace"]
    assert set(pipeline.staged()) == {"bad"}
    assert set(pipeline.archived()) == {"one", "two"}


def test_a_trace_begins_where_the_users_function_does(pipeline: Pipeline) -> None:
    def process(file: File) -> None:
        float("12,5")

    pipeline.process_with(process)
    with pytest.raises(RecordsFailedError):
        pipeline.invoke(pipeline.upload("bad"))

    [line] = pipeline.lines
    trace = line["error"]["trace"].splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1].endswith("in process")
    assert trace[-1] == "ValueError: could not convert string to float: '12,5'"
    assert "runtime.py" not in line["error"]["trace"]


def test_a_rejected_file_is_final_and_stays_in_staging(pipeline: Pipeline) -> None:
    def process(file: File) -> None:
        raise Reject("not a CSV")

    pipeline.process_with(process)
    [line] = pipeline.invoke(pipeline.upload("a"))

    assert line["outcome"] == "rejected"
    assert line["error"] == {"type": "Reject", "message": "not a CSV", "trace": ""}
    assert line["level"] == "ERROR"
    assert set(pipeline.staged()) == {"a"}
    assert pipeline.archived() == {}


def test_a_file_replaced_while_it_is_processed_is_superseded(pipeline: Pipeline) -> None:
    replacements: list[dict[str, Any]] = []

    def process(file: File) -> None:
        if not replacements:
            replacements.append(pipeline.upload("a", b"second"))

    pipeline.process_with(process)
    [first] = pipeline.invoke(pipeline.upload("a", b"first"))

    assert first["outcome"] == "superseded"
    assert pipeline.archived() == {}
    assert pipeline.staged() == {"a": b"second"}

    [second] = pipeline.invoke(replacements[0])
    assert second["outcome"] == "archived"
    assert pipeline.archived() == {"a": b"second"}
    assert pipeline.staged() == {}


def test_a_file_that_is_gone_is_missing(pipeline: Pipeline) -> None:
    record = pipeline.upload("a")
    pipeline.s3.delete_object(Bucket=STAGING, Key="a")

    [line] = pipeline.invoke(record)

    assert line["outcome"] == "missing"
    assert pipeline.archived() == {}


@contextmanager
def not_found(pipeline: Pipeline, is_meant: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """HEADs in staging that answer 404 though the object is there."""

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["Bucket"] == STAGING and is_meant(params):
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")

    events = pipeline.s3.meta.events
    events.register("before-parameter-build.s3.HeadObject", refuse)
    try:
        yield
    finally:
        events.unregister("before-parameter-build.s3.HeadObject", refuse)


def test_a_file_that_s3_lists_and_does_not_find_is_tried_again(pipeline: Pipeline) -> None:
    record = pipeline.upload("a")
    with (
        not_found(pipeline, lambda params: True),
        pytest.raises(RecordsFailedError, match="NotReadableYetError"),
    ):
        pipeline.invoke(record)
    assert pipeline.lines[0]["outcome"] == "failed"
    assert pipeline.staged() == {"a": b"content"}

    [again] = pipeline.invoke(record)
    assert again["outcome"] == "archived"
    assert pipeline.staged() == {}


@pytest.mark.parametrize("pair", ["versioned"], indirect=True)
def test_a_file_that_s3_finds_by_its_version_only_is_no_deleted_one(pipeline: Pipeline) -> None:
    record = pipeline.upload("a")
    with not_found(pipeline, lambda params: "VersionId" not in params):
        [line] = pipeline.invoke(record)
    assert line["outcome"] == "archived"
    assert pipeline.archived() == {"a": b"content"}


@pytest.mark.parametrize("pair", ["versioned"], indirect=True)
def test_a_file_that_comes_back_while_it_is_looked_for_is_not_missing(pipeline: Pipeline) -> None:
    record = pipeline.upload("a")
    marker = pipeline.s3.delete_object(Bucket=STAGING, Key="a")["VersionId"]

    def bring_back(params: dict[str, Any]) -> bool:
        if "VersionId" in params:
            pipeline.s3.delete_object(Bucket=STAGING, Key="a", VersionId=marker)
        return False

    with not_found(pipeline, bring_back):
        [line] = pipeline.invoke(record)
    assert line["outcome"] == "archived"


@pytest.mark.parametrize("conflicts", [1, 8])
def test_a_delete_that_meets_another_request_is_tried_again(
    pipeline: Pipeline, conflicts: int
) -> None:
    older, newer = pipeline.upload("a", b"older"), pipeline.upload("a", b"newer")
    left = [conflicts]

    def refuse(params: dict[str, Any], **_: Any) -> None:
        if "IfMatch" in params and left[0]:
            left[0] -= 1
            error: Any = {"Error": {"Code": "ConditionalRequestConflict", "Message": "409"}}
            raise ClientError(error, "DeleteObject")

    events = pipeline.s3.meta.events
    events.register("before-parameter-build.s3.DeleteObject", refuse)
    try:
        if conflicts == 1:
            pipeline.invoke(newer)
        else:
            with pytest.raises(RecordsFailedError, match="ContendedError"):
                pipeline.invoke(newer)
            assert pipeline.staged() == {"a": b"newer"}
            assert pipeline.invoke(newer)[0]["duplicate"]
    finally:
        events.unregister("before-parameter-build.s3.DeleteObject", refuse)
    assert pipeline.staged() == {}
    assert pipeline.invoke(older)[0]["outcome"] in ("superseded", "missing")
    assert pipeline.archived() == {"a": b"newer"}


def test_a_file_that_another_delivery_deletes_first_is_archived_all_the_same(
    pipeline: Pipeline,
) -> None:
    older, newer = pipeline.upload("a", b"older"), pipeline.upload("a", b"newer")
    version = {"VersionId": newer["s3"]["object"].get("versionId")}
    where = {"Bucket": STAGING, "Key": "a", **(version if version["VersionId"] else {})}

    def delete_first(params: dict[str, Any], **_: Any) -> None:
        if "IfMatch" in params:
            pipeline.s3.delete_object(**where)

    events = pipeline.s3.meta.events
    events.register("before-parameter-build.s3.DeleteObject", delete_first)
    try:
        [line] = pipeline.invoke(newer)
    finally:
        events.unregister("before-parameter-build.s3.DeleteObject", delete_first)
    assert line["outcome"] == "archived"
    assert pipeline.archived() == {"a": b"newer"}
    pipeline.invoke(older)
    assert pipeline.archived() == {"a": b"newer"}


def test_the_same_event_again_is_recognised(pipeline: Pipeline) -> None:
    runs = []
    pipeline.process_with(lambda file: runs.append(file.key))
    record = pipeline.upload("a")

    pipeline.invoke(record)
    [again] = pipeline.invoke(record)

    assert runs == ["a"]
    assert (again["outcome"], again["duplicate"]) == ("archived", True)
    assert set(pipeline.archived()) == {"a"}


def test_an_event_older_than_what_is_archived_is_skipped(pipeline: Pipeline) -> None:
    older = pipeline.upload("a", b"older")
    newer = pipeline.upload("a", b"newer")
    pipeline.invoke(newer)

    [late] = pipeline.invoke(older)

    assert late["outcome"] in ("superseded", "missing")
    assert pipeline.archived() == {"a": b"newer"}
    assert pipeline.staged() == {}
