"""Doctor on a pair that is there but not as it should be: each way to break it has its name."""

from __future__ import annotations

import ast
import importlib
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from click.testing import CliRunner
from moto import mock_aws

import twobuckets.doctor
from tests.doctor.conftest import (
    ARCHIVE,
    BLOCK,
    FUNCTION,
    FUNCTION_ARN,
    REGION,
    STAGING,
    Answers,
    HandMadePair,
    Run,
    lifecycle_rules,
    log,
    make_clients,
    make_pair,
    notify,
    run_doctor,
)
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.cli.site import site_of
from twobuckets.doctor import COULD_NOT_LOOK, QUICK, list_checks, uploads
from twobuckets.doctor.findings import Check, Finder, Finding, Severity, finder
from twobuckets.doctor.remedies import FIXABLE
from twobuckets.pipeline import cors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.doctor.site import Site

READING_VERBS = ("Get", "List", "Describe", "Head", "Filter", "Simulate")
EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'


def rules(**changes: Any) -> dict[str, Any]:
    """Return the healthy lifecycle rule with changes; None takes a part out."""
    rule = lifecycle_rules()[0] | changes
    return {"Rules": [{name: value for name, value in rule.items() if value is not None}]}


def put_rules(pair: HandMadePair, **changes: Any) -> None:
    pair.s3.put_bucket_lifecycle_configuration(
        Bucket=STAGING, LifecycleConfiguration=rules(**changes)
    )


def open_to_everybody(pair: HandMadePair) -> None:
    pair.s3.put_public_access_block(
        Bucket=ARCHIVE, PublicAccessBlockConfiguration=dict.fromkeys(BLOCK, False)
    )
    policy = json.loads(pair.s3.get_bucket_policy(Bucket=ARCHIVE)["Policy"])
    policy["Statement"].append(
        {
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{ARCHIVE}/*",
        }
    )
    pair.s3.put_bucket_policy(Bucket=ARCHIVE, Policy=json.dumps(policy))


def configure(pair: HandMadePair, **changes: Any) -> None:
    pair.functions.update_function_configuration(FunctionName=FUNCTION, **changes)


def allow_s3(pair: HandMadePair, **conditions: Any) -> None:
    pair.functions.remove_permission(FunctionName=FUNCTION, StatementId="s3")
    pair.functions.add_permission(
        FunctionName=FUNCTION,
        StatementId="other",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        **conditions,
    )


BREAKAGES: dict[str, tuple[Callable[[HandMadePair], Any], set[str]]] = {
    "the notification is gone": (
        lambda p: p.s3.put_bucket_notification_configuration(
            Bucket=STAGING, NotificationConfiguration={}
        ),
        {"notification-missing"},
    ),
    "the notification names another function": (
        lambda p: notify(p.s3, FUNCTION_ARN.replace(FUNCTION, "other")),
        {"notification-target"},
    ),
    "the notification names an alias": (
        lambda p: notify(p.s3, FUNCTION_ARN + ":live"),
        {"notification-target"},
    ),
    "the notification leaves multipart uploads out": (
        lambda p: notify(p.s3, FUNCTION_ARN, Events=["s3:ObjectCreated:Put"]),
        {"notification-events"},
    ),
    "the notification is about deletions": (
        lambda p: notify(p.s3, FUNCTION_ARN, Events=["s3:ObjectRemoved:*"]),
        {"notification-missing"},
    ),
    "S3 may not call the function": (
        lambda p: p.functions.remove_permission(FunctionName=FUNCTION, StatementId="s3"),
        {"permission-missing"},
    ),
    "another bucket may call the function": (
        lambda p: allow_s3(p, SourceArn="arn:aws:s3:::other-bucket"),
        {"permission-missing"},
    ),
    "another account's bucket may call the function": (
        lambda p: allow_s3(p, SourceArn=f"arn:aws:s3:::{STAGING}", SourceAccount="999999999999"),
        {"permission-missing"},
    ),
    "the archive wakes the processor": (
        lambda p: p.s3.put_bucket_notification_configuration(
            Bucket=ARCHIVE,
            NotificationConfiguration={
                "LambdaFunctionConfigurations": [
                    {"LambdaFunctionArn": FUNCTION_ARN, "Events": ["s3:ObjectCreated:*"]}
                ]
            },
        ),
        {"loop"},
    ),
    "the function is gone": (
        lambda p: p.functions.delete_function(FunctionName=FUNCTION),
        {"function-missing"},
    ),
    "the function is switched off": (
        lambda p: p.functions.put_function_concurrency(
            FunctionName=FUNCTION, ReservedConcurrentExecutions=0
        ),
        {"concurrency-zero"},
    ),
    "the runtime is old": (
        lambda p: configure(p, Runtime="python3.8"),
        {"runtime-deprecated"},
    ),
    "the function archives elsewhere": (
        lambda p: configure(p, Environment={"Variables": {"ARCHIVE_BUCKET_NAME": "old-archive"}}),
        {"environment-archive"},
    ),
    "failures vanish": (
        lambda p: p.functions.delete_function_event_invoke_config(FunctionName=FUNCTION),
        {"failures-vanish"},
    ),
    "the log is kept for ever": (
        lambda p: p.logs.delete_retention_policy(logGroupName=f"/aws/lambda/{FUNCTION}"),
        {"log-retention"},
    ),
    "public access is not blocked": (
        lambda p: p.s3.delete_public_access_block(Bucket=STAGING),
        {"public-access-block"},
    ),
    "a policy opens the archive": (open_to_everybody, {"public-access-block", "public-bucket"}),
    "an ACL opens staging": (
        lambda p: (
            p.s3.delete_public_access_block(Bucket=STAGING),
            p.s3.put_bucket_acl(Bucket=STAGING, GrantRead=EVERYBODY),
        ),
        {"public-access-block", "public-bucket"},
    ),
    "versions are suspended": (
        lambda p: p.s3.put_bucket_versioning(
            Bucket=STAGING, VersioningConfiguration={"Status": "Suspended"}
        ),
        {"versioning"},
    ),
    "encryption is off": (lambda p: p.s3.delete_bucket_encryption(Bucket=ARCHIVE), {"encryption"}),
    "no rule clears uploads": (
        lambda p: put_rules(p, AbortIncompleteMultipartUpload=None),
        {"lifecycle-uploads"},
    ),
    "uploads are cleared below a prefix only": (
        lambda p: put_rules(p, Filter={"Prefix": "a/"}, NoncurrentVersionExpiration=None),
        {"lifecycle-uploads", "lifecycle-versions"},
    ),
    "the lifecycle rule is switched off": (
        lambda p: put_rules(p, Status="Disabled"),
        {"lifecycle-uploads", "lifecycle-versions"},
    ),
    "a rule deletes files that wait in staging": (
        lambda p: put_rules(p, Expiration={"Days": 7}),
        {"lifecycle-loses-files"},
    ),
    "a CORS rule hides the ETag": (
        lambda p: p.s3.put_bucket_cors(
            Bucket=STAGING,
            CORSConfiguration={
                "CORSRules": [{"AllowedMethods": ["PUT"], "AllowedOrigins": ["https://a.example"]}]
            },
        ),
        {"cors-etag"},
    ),
    "the archive is gone": (
        lambda p: p.s3.delete_bucket(Bucket=ARCHIVE),
        {"bucket-missing"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKAGES)
def test_each_breakage_has_its_name_and_nothing_else_has(pair: HandMadePair, name: str):
    break_it, expected = BREAKAGES[name]
    break_it(pair)
    run = run_doctor()
    assert run.checks == expected
    assert run.exit_code == 3
    assert run.lines[-1]["type"] == "summary"
    assert fixed_of(run) == {f["check"] for f in run.findings if f["fixable"]}


def fixed_of(run: Run) -> set[str]:
    """Return the checks of what `--fix` would mend, of a run's findings that are named to it."""
    named = [f"--check={check}" for check in run.checks]
    lines = run_doctor("--fix", "--dry-run", *named).lines
    return {line["check"] for line in lines if line["type"] == "action"}


@pytest.mark.parametrize("name", ["a policy opens the archive", "an ACL opens staging"])
def test_what_closes_a_bucket_leaves_its_policy_and_acl_as_they_are(pair: HandMadePair, name: str):
    BREAKAGES[name][0](pair)
    remedy = run_doctor("--check", "public-bucket").of("public-bucket")["remedy"]
    assert " s3api put-public-access-block " in remedy
    assert "IgnorePublicAcls=true" in remedy
    assert "RestrictPublicBuckets=true" in remedy


def test_markers_that_no_rule_clears_are_named_where_the_processor_puts_them(ours: HandMadePair):
    put_rules(ours, Expiration=None)
    found = run_doctor("--check", "buckets")
    assert found.checks == {"lifecycle-markers"}
    words = shlex.split(found.of("lifecycle-markers")["remedy"])
    written = json.loads(words[words.index("--lifecycle-configuration") + 1])
    ours.s3.put_bucket_lifecycle_configuration(Bucket=STAGING, LifecycleConfiguration=written)
    kept = ours.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"]
    assert rules(Expiration=None)["Rules"][0] in kept
    assert run_doctor("--check", "buckets").findings == []


def test_markers_can_go_where_versions_are_kept_on_purpose(ours: HandMadePair):
    put_rules(ours, Expiration=None, NoncurrentVersionExpiration=None)
    assert run_doctor("--check", "buckets").checks == {"lifecycle-versions", "lifecycle-markers"}


def test_somebody_elses_processor_need_not_leave_markers(pair: HandMadePair):
    put_rules(pair, Expiration=None)
    assert run_doctor("--check", "buckets").findings == []


def test_many_breakages_at_once_are_all_named(pair: HandMadePair):
    names = (
        "the notification leaves multipart uploads out",
        "S3 may not call the function",
        "the function is switched off",
        "the function archives elsewhere",
        "the runtime is old",
        "failures vanish",
        "the log is kept for ever",
        "public access is not blocked",
        "versions are suspended",
        "encryption is off",
        "a rule deletes files that wait in staging",
        "a CORS rule hides the ETag",
    )
    for name in names:
        BREAKAGES[name][0](pair)
    assert run_doctor().checks == set().union(*(BREAKAGES[name][1] for name in names))


def test_a_healthy_pair_is_silent(pair: HandMadePair):
    run = run_doctor()
    assert run.findings == []
    assert run.exit_code == 0


def test_without_fix_nothing_is_written(pair: HandMadePair, answers: Answers):
    for name in ("the notification is gone", "S3 may not call the function"):
        BREAKAGES[name][0](pair)
    del answers.calls[:]
    assert run_doctor().exit_code == 3
    assert len(answers.calls) > 20
    assert [call for call in answers.calls if not call.startswith(READING_VERBS)] == []


def test_a_missing_permission_of_the_role_is_named_with_its_resource(
    pair: HandMadePair, answers: Answers
):
    def deny_deletes(params: dict[str, Any]) -> dict[str, Any]:
        names = [v for k, v in params["body"].items() if k.startswith("ActionNames.member")]
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": name,
                    "EvalDecision": "implicitDeny" if name == "s3:DeleteObject" else "allowed",
                }
                for name in names
            ]
        }

    answers.give("SimulatePrincipalPolicy", deny_deletes)
    found = run_doctor().of("role-permission")
    assert "s3:DeleteObject" in found["detail"]
    assert f"arn:aws:s3:::{STAGING}/*" in found["detail"]
    assert found["remedy"].startswith("aws --region eu-central-1 --endpoint-url http")
    assert " iam put-role-policy --role-name hand-role " in found["remedy"]
    # Pasted a second time, for another action, it must not take away what it gave the first time.
    policy = json.loads(shlex.split(found["remedy"])[-1])
    assert policy["Statement"][0]["Action"] == ["s3:GetObject", "s3:DeleteObject"]


def test_what_may_not_be_read_is_neither_a_finding_nor_a_pass(pair: HandMadePair, answers: Answers):
    answers.refuse("GetBucketNotificationConfiguration")
    run = run_doctor("--check", "notification-missing")
    assert run.exit_code == 5
    (found,) = run.findings
    assert found["check"] == "could-not-look"
    assert found["severity"] == "unknown"
    assert found["permission"] == "s3:GetBucketNotification"
    assert "notification-missing" in found["detail"]


def test_what_may_not_be_read_does_not_hide_what_was_found(pair: HandMadePair, answers: Answers):
    answers.refuse("GetBucketCors")
    pair.s3.delete_bucket_encryption(Bucket=ARCHIVE)
    run = run_doctor()
    assert run.checks == {"could-not-look", "encryption"}
    assert run.exit_code == 3


def test_an_api_that_is_missing_is_told_without_a_permission(pair: HandMadePair, answers: Answers):
    answers.refuse("GetPolicy", "NotImplemented", 501)
    run = run_doctor("--check", "wiring")
    found = run.of("could-not-look")
    assert found["permission"] is None
    assert "NotImplemented" in found["detail"]


def test_a_check_of_a_bucket_that_is_gone_does_not_pass(pair: HandMadePair):
    for bucket in (STAGING, ARCHIVE):
        pair.s3.delete_bucket(Bucket=bucket)
    run = run_doctor("--check", "versioning")
    assert run.exit_code == 5
    assert run.of("could-not-look")["detail"] == (
        f"Could not read the bucket {STAGING}: it does not exist. Not checked: versioning."
    )
    assert run_doctor("--check", "versioning", "--check", "bucket-missing").checks == {
        "bucket-missing"
    }


@pytest.mark.parametrize("check", ["failure-queue", "failure-queue-missing"])
def test_neither_check_of_the_failure_queue_passes_when_the_queue_is_gone(
    pair: HandMadePair, tmp_path: Any, check: str
):
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/failures"
    (tmp_path / "twobuckets.toml").write_text(f'failure_queue_url = "{url}"\n')
    run = run_doctor("--check", check)
    if check == "failure-queue":
        assert (run.checks, run.exit_code) == ({"could-not-look"}, 5)
    else:
        assert (run.checks, run.exit_code) == ({check}, 3)


def test_a_finder_yields_findings_of_the_checks_that_it_declares_only(pair: HandMadePair):
    @finder("wiring", Check("declared", "It is."))
    def find(_: Site) -> Iterator[Finding]:
        for check in ("declared", "undeclared"):
            yield Finding(check=check, severity=Severity.INFO, subject="a", detail="b")

    found = find(site_of(App(), older_than=None))
    assert next(found).check == "declared"
    with pytest.raises(AssertionError, match="undeclared"):
        next(found)


def test_a_policy_that_denies_s3_the_call_is_left_to_a_person(pair: HandMadePair, answers: Answers):
    statement = {
        "Effect": "Deny",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:*",
        "Resource": FUNCTION_ARN,
    }
    answers.give("GetPolicy", {"Policy": json.dumps({"Statement": statement})})
    run = run_doctor("--check", "wiring")
    assert run.checks == {"permission-denied"}
    assert fixed_of(run) == set()


def unreachable(params: dict[str, Any]) -> dict[str, Any]:
    raise EndpointConnectionError(endpoint_url=params["url"])


def test_a_service_out_of_reach_does_not_keep_doctor_from_looking_at_the_others(
    pair: HandMadePair, answers: Answers
):
    for operation in ("SimulatePrincipalPolicy", "GetRole", "ListRolePolicies"):
        answers.give(operation, unreachable)
    answers.refuse("GetBucketEncryption", "ServerSideEncryptionConfigurationNotFoundError", 404)
    run = run_doctor()
    assert run.exit_code == 3
    assert run.checks == {"could-not-look", "encryption"}
    assert "Could not connect to the endpoint" in run.of("could-not-look")["detail"]


def test_without_s3_doctor_ends_with_one_message(pair: HandMadePair, answers: Answers):
    answers.give("HeadBucket", unreachable)
    answers.give("GetBucketVersioning", unreachable)
    run = run_doctor()
    assert run.exit_code == 1
    assert run.stderr.count("Could not connect to the endpoint") == 1
    assert "--endpoint-url" in run.stderr


def test_expired_credentials_end_the_run_with_one_message(pair: HandMadePair, answers: Answers):
    answers.refuse("HeadBucket", "ExpiredToken", 400)
    answers.refuse("GetFunctionConfiguration", "ExpiredTokenException", 400)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 5
    assert "have expired" in result.stderr


def test_check_runs_one_check_only(pair: HandMadePair, answers: Answers):
    BREAKAGES["the notification is gone"][0](pair)
    pair.s3.delete_bucket_encryption(Bucket=ARCHIVE)
    assert run_doctor("--check", "encryption").checks == {"encryption"}
    assert run_doctor("--check", "wiring").checks == {"notification-missing"}


def test_a_mistyped_check_is_a_usage_error_with_a_suggestion(pair: HandMadePair):
    result = CliRunner().invoke(cli, ["doctor", "--check", "notification-mising"])
    assert result.exit_code == 2
    assert "Did you mean notification-missing?" in result.stderr


def test_fail_on_problem_lets_notices_pass(pair: HandMadePair):
    BREAKAGES["the log is kept for ever"][0](pair)
    assert run_doctor("--fail-on", "problem").exit_code == 0
    assert run_doctor("--fail-on", "notice").exit_code == 3


def test_list_checks_shows_every_check_and_asks_aws_nothing(answers: Answers):
    result = CliRunner().invoke(cli, ["doctor", "--list-checks", "--json"])
    assert result.exit_code == 0
    *lines, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert summary == {"type": "summary", "checks": len(lines)}
    listed = {line["name"]: line["fixable"] for line in lines}
    assert (listed["notification-target"], listed["notification-events"]) == (False, True)
    assert {name for _, names in BREAKAGES.values() for name in names} <= set(listed)
    assert answers.calls == []


def test_a_plan_of_what_is_not_to_be_fixed_is_a_usage_error(answers: Answers):
    result = CliRunner().invoke(cli, ["doctor", "--dry-run"])
    assert result.exit_code == 2
    assert "--fix --dry-run" in result.stderr
    assert answers.calls == []


def test_every_finder_in_the_code_is_run():
    found = set()
    for module in Path(twobuckets.doctor.__file__).parent.glob("*.py"):
        name = f"twobuckets.doctor.{module.stem}".removesuffix(".__init__")
        members = vars(importlib.import_module(name)).values()
        found |= {member for member in members if isinstance(member, Finder)}
    assert found == {*QUICK, uploads.FINDER}


def test_what_fix_mends_are_checks_that_there_are():
    assert {check.name for check in list_checks()} >= FIXABLE


def test_every_id_in_the_code_is_listed():
    listed = {check.name for check in list_checks()} | {COULD_NOT_LOOK}
    used = set()
    for module in Path(twobuckets.doctor.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "check":
                value = node.value
                used |= {value.value} if isinstance(value, ast.Constant) else set()
    assert len(used) > 30
    assert used <= listed


def test_browsers_on_configured_origins_that_cannot_upload_are_named(
    pair: HandMadePair, tmp_path: Any
):
    origins = 'deploy.cors_origins = ["https://a.example", "https://b.example"]\n'
    (tmp_path / "twobuckets.toml").write_text(origins)
    pair.s3.put_bucket_cors(
        Bucket=STAGING,
        CORSConfiguration={
            "CORSRules": [
                {
                    "AllowedMethods": list(cors.METHODS),
                    "AllowedHeaders": ["content-type", "If-None-Match", "x-amz-*"],
                    "AllowedOrigins": ["https://a.*"],
                    "ExposeHeaders": ["etag"],
                }
            ]
        },
    )
    found = run_doctor().of("cors-missing")
    assert found["severity"] == "problem"
    assert "b.example" in found["detail"]
    assert "a.example" not in found["detail"]


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({}, None, ""),
        ({"AllowedMethods": ["PUT", "POST", "HEAD"]}, "notice", "GET, DELETE"),
        ({"AllowedMethods": ["GET", "HEAD", "DELETE"]}, "problem", "PUT, POST"),
        ({"AllowedHeaders": ["content-type"]}, "problem", "PUT"),
        ({"AllowedOrigins": ["http://a.example", "https://a.example.evil"]}, "problem", "PUT"),
    ],
)
def test_what_pages_can_not_send_of_what_is_signed_is_named_and_the_remedy_gives_it(
    pair: HandMadePair, tmp_path: Any, change: dict[str, Any], severity: str | None, says: str
):
    (tmp_path / "twobuckets.toml").write_text('deploy.cors_origins = ["https://a.example"]\n')
    rule = cors.rule_for(["https://a.example"]) | {"ID": "theirs"} | change
    pair.s3.put_bucket_cors(Bucket=STAGING, CORSConfiguration={"CORSRules": [rule]})
    run = run_doctor("--check", "cors-missing")
    if severity is None:
        assert run.checks == set()
        return
    assert run.of("cors-missing")["severity"] == severity
    assert says in run.of("cors-missing")["detail"]
    run_doctor("--check", "cors-missing", "--fix", "--yes")
    assert run_doctor("--check", "cors-missing").checks == set()
    written = pair.s3.get_bucket_cors(Bucket=STAGING)["CORSRules"]
    assert [r["ID"] for r in written] == [cors.RULE_ID, "theirs"]


def test_the_command_that_switches_a_losing_rule_off_changes_nothing_else(
    pair: HandMadePair, answers: Answers
):
    old = {"ID": "old", "Prefix": "logs/", "Status": "Enabled", "Expiration": {"Days": 7}}
    least = {"TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
    answers.give("GetBucketLifecycleConfiguration", {"Rules": [old, lifecycle_rules()[0]], **least})
    remedy = run_doctor("--check", "lifecycle-loses-files").of("lifecycle-loses-files")["remedy"]
    words = shlex.split(remedy)
    written = json.loads(words[words.index("--lifecycle-configuration") + 1])["Rules"]
    off = {"ID": "old", "Filter": {"Prefix": "logs/"}, "Status": "Disabled"}
    assert written == [off | {"Expiration": {"Days": 7}}, lifecycle_rules()[0]]
    assert words[-2:] == ["--transition-default-minimum-object-size", "varies_by_storage_class"]


def test_an_event_source_that_is_off_is_named(pair: HandMadePair, answers: Answers):
    queue_arn = "arn:aws:sqs:eu-central-1:123456789012:arrivals"
    pair.s3.put_bucket_notification_configuration(
        Bucket=STAGING,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": queue_arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    source = {
        "UUID": "a-uuid",
        "EventSourceArn": queue_arn,
        "State": "Disabled",
        "StateTransitionReason": "USER_INITIATED",
    }
    answers.give("ListEventSourceMappings", {"EventSourceMappings": [source]})
    found = run_doctor("--check", "wiring").of("event-source-disabled")
    assert found["remedy"].endswith("update-event-source-mapping --uuid a-uuid --enabled")


def test_plain_http_is_named_where_s3_speaks_tls_at_all(
    pair: HandMadePair, monkeypatch: pytest.MonkeyPatch
):
    pair.s3.delete_bucket_policy(Bucket=ARCHIVE)
    assert run_doctor("--check", "tls").checks == set()
    monkeypatch.delenv("TWOBUCKETS_ENDPOINT_URL")
    with mock_aws():
        clients = make_clients(boto3.Session(region_name=REGION))
        make_pair(**clients).s3.delete_bucket_policy(Bucket=ARCHIVE)
        found = run_doctor("--check", "tls").of("tls")
    assert found["subject"] == f"s3://{ARCHIVE}"
    assert "put-bucket-policy" in found["remedy"]


def test_a_policy_to_paste_names_its_bucket_as_the_region_names_things(
    pair: HandMadePair, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TWOBUCKETS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    with mock_aws():
        s3 = boto3.client("s3", region_name="cn-north-1")
        for bucket in (STAGING, ARCHIVE):
            location: Any = {"LocationConstraint": "cn-north-1"}
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
        remedies = [found["remedy"] for found in run_doctor("--check", "tls").findings]
    assert len(remedies) == 2
    assert f'"arn:aws-cn:s3:::{STAGING}"' in remedies[0]


def test_retries_that_are_off_are_named(pair: HandMadePair, answers: Answers):
    # moto keeps no 0.
    config = {"FunctionArn": FUNCTION_ARN + ":$LATEST", "MaximumRetryAttempts": 0}
    answers.give("ListFunctionEventInvokeConfigs", {"FunctionEventInvokeConfigs": [config]})
    assert run_doctor().checks == {"retries-off", "failures-vanish"}


def test_the_last_update_that_failed_is_told_with_lambdas_reason(
    pair: HandMadePair, answers: Answers
):
    real = pair.functions.get_function_configuration(FunctionName=FUNCTION)
    why = {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "the image is gone"}
    answers.give("GetFunctionConfiguration", real | why)
    assert "the image is gone" in run_doctor().of("function-state")["detail"]


def test_trouble_of_the_last_day_is_a_fact_and_no_failure(pair: HandMadePair, answers: Answers):
    values = {"invocations": 10.0, "errors": 4.0, "throttles": 2.0, "duration": 55_000.0}
    answers.give(
        "GetMetricData",
        {"MetricDataResults": [{"Id": name, "Values": [v]} for name, v in values.items()]},
    )
    run = run_doctor()
    assert "10 invocations" in run.of("last-day")["detail"]
    assert "4 failed, 2 were throttled" in run.of("last-day")["detail"]
    assert "the longest took 55s of the 1m that it may" in run.of("last-day")["detail"]
    assert run.exit_code == 0


def used_memory(used_mb: int, given_mb: int) -> str:
    return (
        "REPORT RequestId: 11111111-2222-3333-4444-555555555555\tDuration: 100.00 ms\t"
        f"Billed Duration: 100 ms\tMemory Size: {given_mb} MB\tMax Memory Used: {used_mb} MB\t\n"
    )


def test_memory_that_is_nearly_used_up_is_told_with_what_to_set(pair: HandMadePair):
    log(pair, used_memory(300, 512), used_memory(461, 512))
    run = run_doctor()
    assert run.checks == {"memory"}
    found = run.of("memory")
    assert "at most 461 of 512 MB" in found["detail"]
    assert found["remedy"].endswith("--memory-size 704")
    assert run.exit_code == 3


def test_memory_of_which_little_is_used_is_a_fact_and_no_failure(pair: HandMadePair):
    log(pair, used_memory(128, 1024))
    run = run_doctor()
    assert "at most 128 of 1,024 MB" in run.of("memory")["detail"]
    assert run.exit_code == 0


@pytest.mark.parametrize(("used_mb", "given_mb"), [(128, 512), (300, 1024), (460, 512)])
def test_memory_in_between_is_no_finding(pair: HandMadePair, used_mb: int, given_mb: int):
    log(pair, used_memory(used_mb, given_mb))
    assert "memory" not in run_doctor().checks


def test_an_environment_that_may_not_be_decrypted_is_no_wrong_one(
    pair: HandMadePair, answers: Answers
):
    configure(pair, Handler="twobuckets.processor.handler")
    answers.give("GetFunctionConfiguration", without_environment(pair))
    run = run_doctor("--check", "environment-archive")
    assert run.exit_code == 5
    assert run.of("could-not-look")["permission"] == "kms:Decrypt"


def without_environment(pair: HandMadePair, code: str = "AccessDeniedException") -> dict[str, Any]:
    """Return the function's configuration as Lambda tells it to whoever may not use its key."""
    real: dict[str, Any] = pair.functions.get_function_configuration(FunctionName=FUNCTION)
    return real | {"Environment": {"Error": {"ErrorCode": code, "Message": "no key"}}}


def test_an_environment_whose_key_is_disabled_is_told_with_lambdas_reason(
    pair: HandMadePair, answers: Answers
):
    answers.give("GetFunctionConfiguration", without_environment(pair, "KMSDisabledException"))
    found = run_doctor("--check", "environment-archive").of("could-not-look")
    assert "KMSDisabledException: no key" in found["detail"]
    assert found["permission"] is None


def test_an_invocation_is_not_said_to_have_taken_longer_than_it_may(
    pair: HandMadePair, answers: Answers
):
    # Lambda counts what it takes to end one.
    results = [{"Id": "duration", "Values": [60_200.0]}]
    answers.give("GetMetricData", {"MetricDataResults": results})
    assert "the longest ran into the time-out of 1m" in run_doctor().of("last-day")["detail"]


def test_a_stack_that_drifted_names_what_changed(
    pair: HandMadePair, answers: Answers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_STACK", "intake")
    checked_at = datetime(2026, 1, 1, tzinfo=UTC)
    drift = {"StackDriftStatus": "DRIFTED", "LastCheckTimestamp": checked_at}
    stack: dict[str, Any] = {"StackName": "intake", "StackStatus": "UPDATE_ROLLBACK_FAILED"}
    stack |= {"StackStatusReason": "no role", "DriftInformation": drift}
    answers.give("DescribeStacks", {"Stacks": [stack]})
    drifts = [{"LogicalResourceId": "Processor", "StackResourceDriftStatus": "MODIFIED"}]
    answers.give("DescribeStackResourceDrifts", {"StackResourceDrifts": drifts})
    run = run_doctor()
    assert "Processor (modified)" in run.of("stack-drift")["detail"]
    assert "UPDATE_ROLLBACK_FAILED: no role" in run.of("stack-state")["detail"]


def test_a_finding_is_readable_without_a_terminal(pair: HandMadePair):
    BREAKAGES["S3 may not call the function"][0](pair)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 3
    (line,) = result.stdout.splitlines()
    assert line.startswith("problem  permission-missing  hand-processor  -  S3 can't wake")
    assert line.endswith("$ twobuckets doctor --fix --check permission-missing")


def test_a_page_that_staging_takes_nothing_from_is_a_problem_and_its_rule_no_drift(
    pair: HandMadePair, answers: Answers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_STACK", "intake")
    page = "https://abc.execute-api.eu-west-1.amazonaws.com"
    outputs = [{"OutputKey": "PageUrl", "OutputValue": f"{page}/"}]
    drift = {"StackDriftStatus": "DRIFTED", "LastCheckTimestamp": datetime(2026, 1, 1, tzinfo=UTC)}
    stack: dict[str, Any] = {"StackName": "intake", "StackStatus": "UPDATE_COMPLETE"}
    stack |= {"Outputs": outputs, "DriftInformation": drift}
    answers.give("DescribeStacks", {"Stacks": [stack]})
    rule = cors.rule_for([page], "twobuckets-intake-page")
    added = {
        "PropertyPath": "/CorsConfiguration/CorsRules/1",
        "DifferenceType": "ADD",
        "ActualValue": json.dumps(rule),
    }
    drifted: dict[str, Any] = {
        "LogicalResourceId": "StagingBucket",
        "StackResourceDriftStatus": "MODIFIED",
        "PropertyDifferences": [added],
    }
    answers.give("DescribeStackResourceDrifts", {"StackResourceDrifts": [drifted]})
    run = run_doctor("--check", "cors-page", "--check", "stack-drift")
    assert run.checks == {"cors-page"}
    assert page in run.of("cors-page")["detail"]
    assert run.of("cors-page")["remedy"].endswith(" deploy")

    pair.s3.put_bucket_cors(Bucket=STAGING, CORSConfiguration={"CORSRules": [rule]})
    assert run_doctor("--check", "cors-page").checks == set()
    other = added | {"PropertyPath": "/VersioningConfiguration/Status"}
    drifted["PropertyDifferences"] = [added, other]
    answers.give("DescribeStackResourceDrifts", {"StackResourceDrifts": [drifted]})
    run = run_doctor("--check", "stack-drift")
    assert "StagingBucket (modified)" in run.of("stack-drift")["detail"]
