"""What `doctor --fix` changes, and what it must not."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import boto3
import pytest

from tests.doctor.conftest import (
    ARCHIVE,
    FUNCTION,
    FUNCTION_ARN,
    REGION,
    STAGING,
    Answers,
    HandMadePair,
    lifecycle_rules,
    log,
    notify,
    outcome,
    put,
    run_doctor,
    wiring_of,
)
from twobuckets.pipeline.entries import Ids, aborting_rule

pytestmark = pytest.mark.slow


def test_dry_run_changes_nothing(pair: HandMadePair, answers: Answers):
    pair.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    put(pair, "a")
    del answers.calls[:]
    run = run_doctor("--fix", "--dry-run", "--older-than", "0s")
    reading = ("Get", "List", "Describe", "Head", "Filter", "Simulate")
    assert [call for call in answers.calls if not call.startswith(reading)] == []
    assert {line["check"] for line in run.lines if line["type"] == "action"} == {
        "notification-missing",
        "stuck-never-invoked",
    }


def test_without_a_terminal_it_asks_for_yes(pair: HandMadePair):
    pair.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    run = run_doctor("--fix")
    assert run.exit_code == 2
    assert "Give --yes" in run.stderr
    assert wiring_of(pair) == {}


def test_wiring_comes_back_beside_foreign_configurations(pair: HandMadePair, moto_url: str):
    sqs = boto3.client("sqs", region_name=REGION, endpoint_url=moto_url)
    sqs.create_queue(QueueName="audit")
    foreign = {
        "Id": "audit",
        "QueueArn": f"arn:aws:sqs:{REGION}:123456789012:audit",
        "Events": ["s3:ObjectRemoved:*"],
    }
    pair.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration={"QueueConfigurations": [foreign]}
    )
    pair.functions.remove_permission(FunctionName=FUNCTION, StatementId="s3")
    run = run_doctor("--fix", "--yes")
    assert run.exit_code == 0
    assert wiring_of(pair)["QueueConfigurations"] == [foreign]
    assert run_doctor().findings == []


def test_missing_events_are_added_and_the_filter_stays(pair: HandMadePair):
    filter_ = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}
    notify(pair.s3, FUNCTION_ARN, Events=["s3:ObjectCreated:Put"], Filter=filter_)
    assert run_doctor("--fix", "--yes").exit_code == 0
    (route,) = wiring_of(pair)["LambdaFunctionConfigurations"]
    assert route["Events"] == ["s3:ObjectCreated:*"]
    assert route["Filter"]["Key"]["FilterRules"][0]["Value"] == "in/"


def route(name: str, *events: str, prefix: str = "") -> dict[str, Any]:
    told = [f"s3:ObjectCreated:{event}" for event in events]
    configuration = {"Id": name, "LambdaFunctionArn": FUNCTION_ARN, "Events": told}
    if not prefix:
        return configuration
    return configuration | {
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    }


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (
            [route("a", "Put"), route("b", "Post")],
            {"a": "Put Copy CompleteMultipartUpload", "b": "Post"},
        ),
        (
            [route("narrow", "Post", prefix="in/big/"), route("wide", "Put", prefix="in/")],
            {"narrow": "Post", "wide": "Put Copy CompleteMultipartUpload"},
        ),
        (
            [route("in", "Put", prefix="in/"), route("out", "Put", prefix="out/")],
            {"in": "*", "out": "*"},
        ),
    ],
    ids=["of the same keys", "of keys that others are part of", "of different keys"],
)
def test_several_configurations_are_completed_without_two_for_one_event(
    pair: HandMadePair, routes: list[Any], expected: dict[str, str]
):
    pair.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration={"LambdaFunctionConfigurations": routes}
    )
    assert run_doctor("--fix", "--yes", "--check", "notification-events").exit_code == 0
    written = wiring_of(pair)["LambdaFunctionConfigurations"]
    told = {c["Id"]: " ".join(e.rpartition(":")[2] for e in c["Events"]) for c in written}
    assert told == expected
    assert run_doctor("--check", "wiring").findings == []


def test_a_permission_is_given_also_where_another_one_has_a_name_like_its(
    pair: HandMadePair, answers: Answers
):
    taken = f"twobuckets-{STAGING}"

    def refuse_a_second(params: Any) -> Any:
        # moto takes it.
        if json.loads(params["body"])["StatementId"] != taken:
            return None
        return {
            "Error": {"Code": "ResourceConflictException", "Message": "exists"},
            "ResponseMetadata": {"HTTPStatusCode": 409},
        }

    answers.give("AddPermission", refuse_a_second)
    pair.functions.remove_permission(FunctionName=FUNCTION, StatementId="s3")
    pair.functions.add_permission(
        FunctionName=FUNCTION,
        StatementId=taken,
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn=f"arn:aws:s3:::{STAGING}",
        SourceAccount="999999999999",
    )
    assert run_doctor("--fix", "--yes", "--check", "permission-missing").exit_code == 0
    assert run_doctor("--check", "wiring").findings == []
    statements = json.loads(pair.functions.get_policy(FunctionName=FUNCTION)["Policy"])["Statement"]
    assert len(statements) == 2


def test_lifecycle_and_cors_rules_of_others_stay(pair: HandMadePair):
    rule = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}}
    theirs = {**rule, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    pair.s3.put_bucket_lifecycle_configuration(
        Bucket=STAGING, LifecycleConfiguration={"Rules": [theirs]}
    )
    cors = {"AllowedMethods": ["PUT"], "AllowedOrigins": ["https://a.example"]}
    pair.s3.put_bucket_cors(Bucket=STAGING, CORSConfiguration={"CORSRules": [cors]})
    named = ("lifecycle-uploads", "lifecycle-versions", "cors-etag")
    run = run_doctor("--fix", "--yes", *(f"--check={name}" for name in named))
    assert run.exit_code == 0
    rules = pair.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"]
    assert {r["ID"] for r in rules} == {
        "theirs",
        "twobuckets-abort-incomplete-uploads",
        "twobuckets-expire-noncurrent-versions",
    }
    (kept,) = pair.s3.get_bucket_cors(Bucket=STAGING)["CORSRules"]
    assert kept["AllowedOrigins"] == ["https://a.example"]
    assert kept["ExposeHeaders"] == ["ETag"]
    assert run_doctor().findings == []


def test_on_a_pair_made_by_hand_versions_expire_only_when_that_is_asked_for_by_name(
    pair: HandMadePair,
):
    pair.s3.put_bucket_lifecycle_configuration(
        Bucket=STAGING,
        LifecycleConfiguration={"Rules": [lifecycle_rules()[0] | {"Filter": {"Prefix": "tmp/"}}]},
    )
    run = run_doctor("--fix", "--yes", "--check", "buckets")
    assert run.exit_code == 3
    assert "Only when it is named: twobuckets doctor --fix --check lifecycle-versions" in run.stderr
    assert "the only copies" in run.of("lifecycle-versions")["detail"]
    kept = pair.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"]
    assert [r["ID"] for r in kept] == ["mine", "twobuckets-abort-incomplete-uploads"]


def test_lifecycle_rules_have_the_days_of_the_settings(pair: HandMadePair, tmp_path: Any):
    (tmp_path / "twobuckets.toml").write_text(
        "deploy.abort_incomplete_uploads_days = 1\ndeploy.noncurrent_version_days = 90\n"
    )
    pair.s3.delete_bucket_lifecycle(Bucket=STAGING)
    checks = ("--check", "lifecycle-uploads", "--check", "lifecycle-versions")
    run = run_doctor("--fix", "--yes", *checks)
    says = [line["says"] for line in run.lines if line["type"] == "action"]
    assert says == [
        "abort incomplete uploads after 1 day; other rules stay",
        "expire noncurrent versions after 90 days; other rules stay",
    ]
    abort, expire = pair.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"]
    assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
    assert expire["NoncurrentVersionExpiration"]["NoncurrentDays"] == 90


OLD_RULE: dict[str, Any] = {
    "ID": "theirs",
    "Prefix": "logs/",
    "Status": "Enabled",
    "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
}


def test_rules_of_the_old_form_and_the_least_size_of_transitions_stay_what_they_are(
    pair: HandMadePair, answers: Answers
):
    least = {"TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
    written: list[Any] = []

    def accept(params: Any) -> Any:
        written.append(params)
        return {}

    def tell(params: Any) -> Any:
        if params["url"] not in [other["url"] for other in written]:
            return {"Rules": [OLD_RULE], **least}
        # What S3 tells of the rules once they are written.
        prefixed = OLD_RULE | {"Filter": {"Prefix": OLD_RULE["Prefix"]}}
        prefixed.pop("Prefix")
        return {"Rules": [prefixed, aborting_rule(Ids().uploads_end, 3)], **least}

    answers.give("GetBucketLifecycleConfiguration", tell)
    answers.give("PutBucketLifecycleConfiguration", accept)
    assert run_doctor("--fix", "--yes", "--check", "lifecycle-uploads").exit_code == 0
    staging, archive = written
    for params in (staging, archive):
        size = params["headers"]["x-amz-transition-default-minimum-object-size"]
        assert size == "varies_by_storage_class"
        root = ET.fromstring(params["body"])
        prefixes = [rule.findtext("{*}Filter/{*}Prefix") for rule in root]
        assert prefixes == ["logs/", ""]
        assert [rule.find("{*}Prefix") for rule in root] == [None, None]


def test_the_archive_variable_is_mended_and_others_stay(pair: HandMadePair):
    variables = {"ARCHIVE_BUCKET_NAME": "old", "SECRET": "s3cr3t"}
    pair.functions.update_function_configuration(
        FunctionName=FUNCTION, Environment={"Variables": variables}
    )
    run = run_doctor("--fix", "--yes")
    assert "s3cr3t" not in json.dumps(run.lines) + run.stderr
    got = pair.functions.get_function_configuration(FunctionName=FUNCTION)
    assert got["Environment"]["Variables"] == variables | {"ARCHIVE_BUCKET_NAME": ARCHIVE}


def test_variables_that_can_no_longer_be_read_are_not_written(pair: HandMadePair, answers: Answers):
    variables = {"ARCHIVE_BUCKET_NAME": "old", "SECRET": "s3cr3t"}
    pair.functions.update_function_configuration(
        FunctionName=FUNCTION, Environment={"Variables": variables}
    )
    real = pair.functions.get_function_configuration(FunctionName=FUNCTION)
    unreadable = {"Error": {"ErrorCode": "AccessDeniedException", "Message": "no key"}}
    told = [real | {"Environment": unreadable}, real]
    answers.give("GetFunctionConfiguration", lambda _: told.pop() if told else None)
    run = run_doctor("--fix", "--yes", "--check", "environment-archive")
    (applied,) = [line for line in run.lines if line["type"] == "applied"]
    assert (applied["done"], applied["failed_count"], run.exit_code) == (0, 1, 3)
    assert "UpdateFunctionConfiguration" not in answers.calls


DELETE_ARCHIVED = ("--fix", "--yes", "--check", "stuck", "--older-than", "0s")


def keys_in_sight(pair: HandMadePair) -> list[str]:
    return [item["Key"] for item in pair.s3.list_objects_v2(Bucket=STAGING).get("Contents", [])]


def versions_of(pair: HandMadePair) -> list[str]:
    listed = pair.s3.list_object_versions(Bucket=STAGING)
    return [version["VersionId"] for version in listed.get("Versions", [])]


def test_only_the_version_that_is_proven_archived_is_deleted_and_no_older_one_comes_to_light(
    pair: HandMadePair,
):
    (first,) = put(pair, "a", body=b"kept below")
    put(pair, "a")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    run = run_doctor(*DELETE_ARCHIVED)
    assert [line["done"] for line in run.lines if line["type"] == "applied"] == [1]
    assert versions_of(pair) == [first["VersionId"]]
    assert keys_in_sight(pair) == []
    assert run_doctor(*DELETE_ARCHIVED).findings == []


def test_where_nothing_lies_under_what_is_deleted_no_marker_is_left(pair: HandMadePair):
    put(pair, "a", "a longer key")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    pair.s3.delete_object(Bucket=STAGING, Key="a longer key")
    assert run_doctor(*DELETE_ARCHIVED).exit_code == 0
    listed = pair.s3.list_object_versions(Bucket=STAGING, Prefix="a")
    named = [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]
    assert {entry["Key"] for entry in named} == {"a longer key"}


@pytest.mark.parametrize(
    "message",
    [
        "Access Denied because object protected by object lock.",
        "Mfa Authentication must be used for this request",
    ],
)
def test_a_version_that_may_not_be_deleted_is_left_with_its_reason_and_the_others_go(
    pair: HandMadePair, answers: Answers, message: str
):
    put(pair, "a", "locked")
    for key in ("a", "locked"):
        pair.s3.put_object(Bucket=ARCHIVE, Key=key, Body=b"content")
    refused = {
        "Error": {"Code": "AccessDenied", "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    answers.give("DeleteObject", lambda params: refused if "locked" in params["url"] else None)
    run = run_doctor(*DELETE_ARCHIVED)
    [applied] = [line for line in run.lines if line["type"] == "applied"]
    assert (applied["done"], applied["left_count"], applied["failed_count"]) == (1, 1, 0)
    assert message in applied["left"][0]
    assert keys_in_sight(pair) == ["locked"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "InvalidRequest", "The object was stored using a form of Server Side Encryption."),
        (403, "AccessDenied", "User: u is not authorized to perform: kms:Decrypt on the resource"),
    ],
)
def test_an_object_that_can_not_be_looked_at_hides_nothing_of_the_others(
    pair: HandMadePair, answers: Answers, status: int, code: str, message: str
):
    put(pair, "a", "closed")
    for key in ("a", "closed"):
        pair.s3.put_object(Bucket=ARCHIVE, Key=key, Body=b"content")

    def refuse(params: dict[str, Any], *, in_words: bool) -> dict[str, Any] | None:
        if "closed" not in params["url"]:
            return None
        error = {"Code": code, "Message": message} if in_words else {"Code": str(status)}
        return {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}

    answers.give("HeadObject", lambda params: refuse(params, in_words=False))
    answers.give("GetObject", lambda params: refuse(params, in_words=True))
    run = run_doctor(
        "--older-than", "0s", "--check", "stuck-archived", "--check", "stuck-in-progress"
    )
    assert run.of("stuck-archived")["objects"] == ["a"]
    assert run.of("stuck-in-progress")["objects"] == ["closed"]


def test_what_is_uploaded_while_an_archived_version_is_deleted_stays_in_sight(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a", body=b"oldest")
    put(pair, "a")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    newest: list[str] = []

    def upload_first(_: Any) -> None:
        if not newest:
            newest.append(put(pair, "a", body=b"newest")[0]["VersionId"])

    answers.give("DeleteObject", upload_first)
    run_doctor(*DELETE_ARCHIVED)
    assert keys_in_sight(pair) == ["a"]
    assert pair.s3.head_object(Bucket=STAGING, Key="a")["VersionId"] == newest[0]


def test_a_delete_that_conflicts_with_another_request_is_tried_again(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a", body=b"oldest")
    put(pair, "a")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    conflict = {
        "Error": {"Code": "ConditionalRequestConflict", "Message": "Conflict"},
        "ResponseMetadata": {"HTTPStatusCode": 409},
    }
    refusals = [conflict, conflict]
    answers.give("DeleteObject", lambda _: refusals.pop() if refusals else None)
    assert run_doctor(*DELETE_ARCHIVED).exit_code == 0
    assert answers.calls.count("DeleteObject") == 4
    assert keys_in_sight(pair) == []


def test_while_conflicts_go_on_an_archived_version_stays(pair: HandMadePair, answers: Answers):
    put(pair, "a", body=b"oldest")
    (top,) = put(pair, "a")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    answers.refuse("DeleteObject", "ConditionalRequestConflict", 409)
    run = run_doctor(*DELETE_ARCHIVED)
    (applied,) = [line for line in run.lines if line["type"] == "applied"]
    assert (applied["done"], applied["failed_count"], run.exit_code) == (0, 1, 3)
    assert pair.s3.head_object(Bucket=STAGING, Key="a")["VersionId"] == top["VersionId"]


def test_what_left_the_archive_since_the_plan_is_not_deleted(pair: HandMadePair, answers: Answers):
    put(pair, "a")
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    asked: list[str] = []

    def vanish(params: Any) -> Any:
        asked.append(params["url"])
        if len(asked) < 2:
            return None
        missing = {"Code": "404", "Message": "Not Found"}
        return {"Error": missing, "ResponseMetadata": {"HTTPStatusCode": 404}}

    answers.give("HeadObject", vanish)
    run = run_doctor("--fix", "--yes", "--check", "stuck", "--older-than", "0s")
    (applied,) = [line for line in run.lines if line["type"] == "applied"]
    assert (applied["done"], applied["left_count"]) == (0, 1)
    assert run.exit_code == 3
    assert "DeleteObject" not in answers.calls


def test_waking_sends_s3s_form_to_somebody_elses_processor(pair: HandMadePair, answers: Answers):
    pair.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    (answer,) = put(pair, "a b+ü")
    sent: list[Any] = []

    def accept(params: Any) -> Any:
        sent.append((params["headers"]["X-Amz-Invocation-Type"], json.loads(params["body"])))
        return {"StatusCode": 202}

    answers.give("Invoke", accept)
    only = ("--check", "wiring", "--check", "stuck")
    run = run_doctor("--fix", "--yes", "--older-than", "0s", *only)
    assert run.exit_code == 0
    assert "until it is through, doctor finds them still" in run.stderr
    ((kind, event),) = sent
    assert kind == "Event"
    staged = event["Records"][0]["s3"]["object"]
    assert staged["key"] == "a+b%2B%C3%BC"
    assert staged["versionId"] == answer["VersionId"]


def test_what_failed_is_woken_only_when_it_is_named(ours: HandMadePair, answers: Answers):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer))
    sent: list[Any] = []

    def accept(params: Any) -> Any:
        sent.append(json.loads(params["body"]))
        return {"StatusCode": 202}

    answers.give("Invoke", accept)
    run = run_doctor("--fix", "--yes", "--older-than", "0s")
    assert sent == []
    assert run.exit_code == 3
    assert "--check stuck-failed" in run.stderr
    run = run_doctor("--fix", "--yes", "--older-than", "0s", "--check", "stuck-failed")
    assert run.exit_code == 0
    etag = answer["ETag"].strip('"')
    wake = {"bucket": STAGING, "key": "a", "version_id": answer["VersionId"]}
    assert sent == [{"twobuckets": 1, "wake": [wake | {"etag": etag, "size": 7}]}]


def test_what_the_processor_did_not_find_and_is_there_now_is_woken(
    ours: HandMadePair, answers: Answers
):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, "missing", error=None, reason="no longer in staging"))
    answers.give("Invoke", {"StatusCode": 202})
    assert run_doctor("--fix", "--yes", "--older-than", "0s", "--check", "stuck").exit_code == 0
    assert answers.calls.count("Invoke") == 1
