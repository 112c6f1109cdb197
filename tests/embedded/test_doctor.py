"""A pipeline on the embedded AWS, broken in every way: doctor names it, the remedy mends it.

One pipeline is deployed for all tests; each test leaves it as it was found, which doctor confirms.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import botocore.handlers
import pytest
from click.testing import CliRunner

from tests.doctor.conftest import BLOCK, Answers, Run
from tests.embedded import aws_command
from tests.embedded.conftest import aws_of, empty, empty_bucket
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws

STAGING = "local-staging-000000000000-us-east-1"
ARCHIVE = "local-archive-000000000000-us-east-1"
FUNCTION = "local-processor"
GROUP = f"/aws/lambda/{FUNCTION}"
ARN = f"arn:aws:lambda:us-east-1:000000000000:function:{FUNCTION}"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:local-failures"
ROLE_POLICY = "process-and-archive"
TIMEOUT = 4
"""Seconds that the function has: enough to start in, also where much else is going on."""

# Breaks as the function's environment says, so that mending is one call.
PROCESSOR = """
import os, signal, time
from twobuckets.processor import Reject

def process(file):
    match os.environ.get("BROKEN"):
        case "raise": raise ValueError(f"row 7 of {file.key} is bad")
        case "reject": raise Reject("no table")
        case "sleep": time.sleep(60)
        case "memory": raise MemoryError
        case "die": os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The deployed pipeline and what breaks it."""

    aws: Aws
    role: str

    def put(self, *keys: str) -> None:
        for key in keys:
            self.aws.s3.put_object(Bucket=STAGING, Key=key, Body=b"content")

    def staged(self) -> set[str]:
        listed = self.aws.s3.list_objects_v2(Bucket=STAGING)
        return {item["Key"] for item in listed.get("Contents", [])}

    def configure(self, *, timeout_seconds: int = TIMEOUT, **variables: str | None) -> None:
        """Set the function's time and variables of it, None takes one out."""
        current = self.aws.functions.get_function_configuration(FunctionName=FUNCTION)
        merged = {**current["Environment"]["Variables"], **variables}
        self.aws.functions.update_function_configuration(
            FunctionName=FUNCTION,
            Timeout=timeout_seconds,
            Environment={"Variables": {k: v for k, v in merged.items() if v is not None}},
        )

    def notify(self, *routes: Any, bucket: str = STAGING) -> None:
        self.aws.s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration={"LambdaFunctionConfigurations": routes},
        )

    def forbid(self, *actions: str) -> None:
        """Take actions from the processor's role."""
        policy: Any = self.aws.iam.get_role_policy(RoleName=self.role, PolicyName=ROLE_POLICY)
        document = policy["PolicyDocument"]
        for statement in document["Statement"]:
            if isinstance(statement["Action"], list):
                kept = [action for action in statement["Action"] if action not in actions]
                statement["Action"] = kept
        self.aws.iam.put_role_policy(
            RoleName=self.role, PolicyName=ROLE_POLICY, PolicyDocument=json.dumps(document)
        )

    def wait_for_failures(self, count: int = 1) -> None:
        """Wait until the processor has given up on so many events."""
        url = self.aws.sqs.get_queue_url(QueueName="local-failures")["QueueUrl"]

        def has_given_up() -> bool:
            name = "ApproximateNumberOfMessages"
            answer = self.aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            return int(answer["Attributes"][name]) >= count  # type: ignore[index]

        wait_until(has_given_up)


def wait_until(happened: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def doctor(*arguments: str) -> Run:
    """Run doctor on the pipeline; whatever is in staging counts as stuck."""
    old = ("--older-than", "0s", "--uploads-older-than", "0s")
    return run_command("doctor", "--json", *old, *arguments)


def run_command(*arguments: str) -> Run:
    result = CliRunner().invoke(cli, ["--stack", "local", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert result.exit_code in (0, 3, 5), result.output + result.stderr
    return Run(result.exit_code, lines, result.stderr)


def paste(remedy: str, aws: Aws) -> None:
    """Run a remedy as somebody who pastes it and says yes."""
    words = shlex.split(remedy)
    if "aws" in words[:4]:
        # Pasted, it must reach the embedded AWS with its credentials, and never AWS itself.
        assert remedy.startswith("twobuckets local exec aws ")
        aws_command.run(remedy, aws)
    else:
        assert words[0] == "twobuckets"
        run_command(*words[3:], "--yes", "--json")


@pytest.fixture(scope="module")
def deployed(
    embedded_server: local.Server, state_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Aws, Path]]:
    """The module's pipeline, deployed once."""
    project = tmp_path_factory.mktemp("project")
    (project / "processor.py").write_text(PROCESSOR)
    (project / "twobuckets.toml").write_text(f'[processor]\ntimeout = "{TIMEOUT}s"\n')
    aws = aws_of(embedded_server)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(state_home))
        patched.setenv("AWS_CONFIG_FILE", os.devnull)
        patched.chdir(project)
        result = CliRunner().invoke(cli, ["--stack", "local", "deploy", "--yes"])
        assert result.exit_code == 0, result.stderr
    yield aws, project
    empty(aws)


@pytest.fixture
def pipeline(
    deployed: tuple[Aws, Path], state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """The pipeline as the test finds it: healthy and empty. The next test finds it so as well."""
    aws, project = deployed
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))
    monkeypatch.chdir(project)
    function = aws.functions.get_function_configuration(FunctionName=FUNCTION)
    role = function["Role"].rpartition("/")[2]
    environment: Any = {"Variables": function["Environment"]["Variables"]}
    notification: Any = aws.s3.get_bucket_notification_configuration(Bucket=STAGING)
    policy = aws.iam.get_role_policy(RoleName=role, PolicyName=ROLE_POLICY)
    yield Pipeline(aws, role)
    aws.iam.put_role_policy(
        RoleName=role, PolicyName=ROLE_POLICY, PolicyDocument=json.dumps(policy["PolicyDocument"])
    )
    # What a pasted remedy allowed would let the next test do what it forbids.
    for name in aws.iam.list_role_policies(RoleName=role)["PolicyNames"]:
        if name != ROLE_POLICY:
            aws.iam.delete_role_policy(RoleName=role, PolicyName=name)
    for bucket in (STAGING, ARCHIVE):
        empty_bucket(aws, bucket)
    # A test that failed half-way leaves its breakage to no other.
    url = aws.sqs.create_queue(QueueName="local-failures")["QueueUrl"]
    aws.sqs.purge_queue(QueueUrl=url)
    aws.functions.update_function_configuration(
        FunctionName=FUNCTION, Timeout=TIMEOUT, Environment=environment
    )
    notification.pop("ResponseMetadata", None)
    aws.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration=notification
    )


def mend_and_confirm(pipeline: Pipeline, run: Run) -> None:
    """Paste every remedy that was found, and see that nothing is left to be found."""
    for finding in run.findings:
        if finding["severity"] in ("problem", "notice"):
            paste(finding["remedy"], pipeline.aws)
    wait_until(lambda: not pipeline.staged())
    again = doctor()
    assert again.checks == set(), again.findings
    assert again.exit_code == 0


def lifecycle(pipeline: Pipeline) -> list[Any]:
    return list(pipeline.aws.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"])


def put_lifecycle(pipeline: Pipeline, rules: list[Any]) -> None:
    pipeline.aws.s3.put_bucket_lifecycle_configuration(
        Bucket=STAGING, LifecycleConfiguration={"Rules": rules}
    )


def open_archive(pipeline: Pipeline) -> None:
    pipeline.aws.s3.put_public_access_block(
        Bucket=ARCHIVE,
        PublicAccessBlockConfiguration=dict.fromkeys(BLOCK, False),  # type: ignore[arg-type]
    )
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{ARCHIVE}/*",
    }
    pipeline.aws.s3.put_bucket_policy(
        Bucket=ARCHIVE, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def allow_another_bucket(pipeline: Pipeline) -> None:
    forbid_s3(pipeline)
    pipeline.aws.functions.add_permission(
        FunctionName=FUNCTION,
        StatementId="other",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn="arn:aws:s3:::another-bucket",
    )


def forbid_s3(pipeline: Pipeline) -> None:
    answer = pipeline.aws.functions.get_policy(FunctionName=FUNCTION)
    for statement in json.loads(answer["Policy"])["Statement"]:
        pipeline.aws.functions.remove_permission(
            FunctionName=FUNCTION, StatementId=statement["Sid"]
        )


def drop_destination(pipeline: Pipeline) -> None:
    pipeline.aws.functions.put_function_event_invoke_config(
        FunctionName=FUNCTION, Qualifier="$LATEST", MaximumRetryAttempts=2
    )


def delete_queue(pipeline: Pipeline) -> None:
    url = pipeline.aws.sqs.get_queue_url(QueueName="local-failures")["QueueUrl"]
    pipeline.aws.sqs.delete_queue(QueueUrl=url)


def keep_versions(pipeline: Pipeline) -> None:
    kept = [r for r in lifecycle(pipeline) if "NoncurrentVersionExpiration" not in r]
    put_lifecycle(pipeline, kept)


def keep_uploads(pipeline: Pipeline) -> None:
    kept = [r for r in lifecycle(pipeline) if "AbortIncompleteMultipartUpload" not in r]
    put_lifecycle(pipeline, kept)


def expire_files(pipeline: Pipeline) -> None:
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 7}}
    put_lifecycle(pipeline, [*lifecycle(pipeline), rule])


WITHOUT_FILES: dict[str, tuple[Callable[[Pipeline], Any], set[str]]] = {
    "the notification is gone": (lambda p: p.notify(), {"notification-missing"}),
    "the notification leaves multipart uploads out": (
        lambda p: p.notify({"LambdaFunctionArn": ARN, "Events": ["s3:ObjectCreated:Put"]}),
        {"notification-events"},
    ),
    "S3 may not call the function": (forbid_s3, {"permission-missing"}),
    "another bucket may call the function": (allow_another_bucket, {"permission-missing"}),
    "the function is throttled to 0": (
        lambda p: p.aws.functions.put_function_concurrency(
            FunctionName=FUNCTION, ReservedConcurrentExecutions=0
        ),
        {"concurrency-zero"},
    ),
    "the archive's variable is wrong": (
        lambda p: p.configure(ARCHIVE_BUCKET="another-archive"),
        {"environment-archive"},
    ),
    "the archive's variable is gone": (
        lambda p: p.configure(ARCHIVE_BUCKET=None),
        {"environment-archive"},
    ),
    "the role may not read": (
        lambda p: p.forbid("s3:GetObject", "s3:GetObjectVersion"),
        {"role-permission"},
    ),
    "the role may not write its log": (
        lambda p: p.forbid("logs:PutLogEvents"),
        {"role-permission"},
    ),
    "failures are not tried again": (
        lambda p: p.aws.functions.put_function_event_invoke_config(
            FunctionName=FUNCTION,
            Qualifier="$LATEST",
            MaximumRetryAttempts=0,
            DestinationConfig={"OnFailure": {"Destination": QUEUE}},
        ),
        {"retries-off"},
    ),
    "failures go nowhere": (drop_destination, {"failures-vanish"}),
    "the failure queue is gone": (delete_queue, {"failure-queue-missing"}),
    "the log is kept for ever": (
        lambda p: p.aws.logs.delete_retention_policy(logGroupName=GROUP),
        {"log-retention"},
    ),
    "the runtime is deprecated": (
        lambda p: p.aws.functions.update_function_configuration(
            FunctionName=FUNCTION, Runtime="python3.8"
        ),
        {"runtime-deprecated"},
    ),
    "public access is not blocked": (
        lambda p: p.aws.s3.delete_public_access_block(Bucket=STAGING),
        {"public-access-block"},
    ),
    "the archive is open to everybody": (open_archive, {"public-access-block", "public-bucket"}),
    "staging keeps no versions any more": (
        lambda p: p.aws.s3.put_bucket_versioning(
            Bucket=STAGING, VersioningConfiguration={"Status": "Suspended"}
        ),
        {"versioning"},
    ),
    "no rule clears uploads": (keep_uploads, {"lifecycle-uploads"}),
    "no rule expires old versions": (keep_versions, {"lifecycle-versions"}),
    "a rule deletes what waits": (expire_files, {"lifecycle-loses-files"}),
    "a CORS rule hides the ETag": (
        lambda p: p.aws.s3.put_bucket_cors(
            Bucket=STAGING,
            CORSConfiguration={
                "CORSRules": [{"AllowedMethods": ["PUT"], "AllowedOrigins": ["https://a.example"]}]
            },
        ),
        {"cors-etag"},
    ),
    "what is archived wakes the processor": (
        lambda p: p.notify(
            {"LambdaFunctionArn": ARN, "Events": ["s3:ObjectCreated:*"]}, bucket=ARCHIVE
        ),
        {"loop"},
    ),
}


def test_the_healthy_pipeline_is_silent_also_when_files_went_through(pipeline: Pipeline):
    pipeline.put("a", "b c")
    wait_until(lambda: not pipeline.staged())
    run = doctor()
    assert run.checks == set(), run.findings
    assert run.exit_code == 0


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_each_breakage_is_named_alone_and_fixed_by_its_remedy(pipeline: Pipeline, name: str):
    break_it, expected = WITHOUT_FILES[name]
    break_it(pipeline)
    run = doctor()
    assert run.checks == expected
    assert run.exit_code == 3
    mend_and_confirm(pipeline, run)


def test_a_notification_to_another_function_is_named(pipeline: Pipeline):
    other = ARN.replace(FUNCTION, "another")
    pipeline.notify({"LambdaFunctionArn": other, "Events": ["s3:ObjectCreated:*"]})
    run = doctor()
    assert run.checks == {"notification-target"}
    assert other in run.of("notification-target")["detail"]
    # A person decides what becomes of the other function.
    pipeline.notify()
    paste(doctor().of("notification-missing")["remedy"], pipeline.aws)
    assert doctor().checks == set()


MENDED_BY_SETTINGS = {
    "raise": ("stuck-failed", "ValueError: row 7 of "),
    "reject": ("stuck-rejected", "Reject: no table"),
    "sleep": ("stuck-timed-out", ""),
    "memory": ("stuck-out-of-memory", "MemoryError"),
    # Nothing names the file.
    "die": ("stuck-unnamed", "Runtime.ExitError"),
}


@pytest.mark.parametrize("how", MENDED_BY_SETTINGS)
def test_what_the_processor_did_to_a_file_is_told_and_waking_mends_it(pipeline: Pipeline, how: str):
    pipeline.configure(BROKEN=how, timeout_seconds=2 if how == "sleep" else TIMEOUT)
    pipeline.put("in/a b.csv")
    if how == "reject":
        wait_until(lambda: "stuck-rejected" in doctor("--check", "stuck").checks)
    else:
        pipeline.wait_for_failures()
    run = doctor()
    check, error = MENDED_BY_SETTINGS[how]
    assert run.checks == {check}
    found = run.of(check)
    assert found["objects"] == ["in/a b.csv"]
    assert (found["error"] or "").startswith(error)
    pipeline.configure(BROKEN=None)
    mend_and_confirm(pipeline, run)


def test_many_files_with_one_error_are_one_finding_and_one_remedy(pipeline: Pipeline):
    pipeline.configure(BROKEN="raise")
    keys = {f"in/{number}.csv" for number in range(25)}
    pipeline.put(*keys)
    pipeline.wait_for_failures(25)
    run = doctor()
    assert set(run.of("stuck-failed")["objects"]) == keys
    pipeline.configure(BROKEN=None)
    mend_and_confirm(pipeline, run)


def test_files_that_came_while_the_notification_was_gone(pipeline: Pipeline):
    pipeline.notify()
    pipeline.put("a", "b")
    run = doctor()
    assert run.checks == {"notification-missing", "stuck-never-invoked"}
    paste(run.of("stuck-never-invoked")["remedy"], pipeline.aws)
    wait_until(lambda: not pipeline.staged())
    assert doctor().checks == set()


def test_files_that_the_filter_leaves_out(pipeline: Pipeline):
    rules = [{"Name": "suffix", "Value": ".csv"}]
    route = {"LambdaFunctionArn": ARN, "Events": ["s3:ObjectCreated:*"]}
    pipeline.notify(route | {"Filter": {"Key": {"FilterRules": rules}}})
    pipeline.put("a.txt")
    run = doctor()
    assert run.checks == {"stuck-filtered"}
    mend_and_confirm(pipeline, run)
    pipeline.notify(route)


def test_files_that_came_while_the_function_was_off(pipeline: Pipeline):
    pipeline.aws.functions.put_function_concurrency(
        FunctionName=FUNCTION, ReservedConcurrentExecutions=0
    )
    pipeline.put("a")
    run = doctor()
    assert run.checks == {"concurrency-zero", "stuck-throttled"}
    mend_and_confirm(pipeline, run)


def test_a_file_that_was_archived_and_not_deleted(pipeline: Pipeline):
    pipeline.forbid("s3:DeleteObject", "s3:DeleteObjectVersion")
    pipeline.put("a")
    pipeline.wait_for_failures()
    run = doctor()
    assert run.checks == {"role-permission", "stuck-archived"}
    mend_and_confirm(pipeline, run)


def test_files_that_go_to_an_archive_that_is_not_the_pipelines(pipeline: Pipeline):
    pipeline.configure(ARCHIVE_BUCKET="another-archive")
    pipeline.put("a")
    pipeline.wait_for_failures()
    run = doctor()
    assert run.checks == {"environment-archive", "stuck-failed"}
    assert "AccessDenied" in run.of("stuck-failed")["error"]
    mend_and_confirm(pipeline, run)


def test_a_process_that_cannot_be_imported(pipeline: Pipeline):
    pipeline.configure(TWOBUCKETS_PROCESS="nowhere:process")
    pipeline.put("a")
    pipeline.wait_for_failures()
    run = doctor()
    assert run.checks == {"stuck-failed"}
    assert "nowhere" in run.of("stuck-failed")["error"]
    pipeline.configure(TWOBUCKETS_PROCESS="processor:process")
    mend_and_confirm(pipeline, run)


def test_an_upload_whose_key_no_shell_has_a_word_for_is_aborted_by_fix(pipeline: Pipeline):
    upload = pipeline.aws.s3.create_multipart_upload(Bucket=STAGING, Key="a\n")
    part = {"Bucket": STAGING, "Key": "a\n", "UploadId": upload["UploadId"]}
    pipeline.aws.s3.upload_part(**part, PartNumber=1, Body=b"x")  # type: ignore[arg-type]
    remedy = doctor().of("upload-orphaned")["remedy"]
    assert "doctor --fix --check upload-orphaned" in remedy
    assert "a\n" not in remedy
    paste(remedy, pipeline.aws)
    assert "Uploads" not in pipeline.aws.s3.list_multipart_uploads(Bucket=STAGING)


def test_an_upload_left_at_3_of_7_parts(pipeline: Pipeline):
    upload = pipeline.aws.s3.create_multipart_upload(Bucket=STAGING, Key="big.bin")
    for number in (1, 2, 3):
        pipeline.aws.s3.upload_part(
            Bucket=STAGING,
            Key="big.bin",
            UploadId=upload["UploadId"],
            PartNumber=number,
            Body=b"x" * 1000,
        )
    run = doctor()
    assert run.checks == {"upload-orphaned"}
    assert "3 parts, 2.9 KiB" in run.of("upload-orphaned")["detail"]
    assert "runs no lifecycle rules" in run.of("upload-orphaned")["detail"]
    mend_and_confirm(pipeline, run)


def test_a_run_without_fix_makes_no_writing_call(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    answers = Answers()
    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-call", answers)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    pipeline.notify()
    pipeline.put("a")
    del answers.calls[:]
    assert doctor().exit_code == 3
    reading = ("Get", "List", "Describe", "Head", "Filter", "Simulate")
    assert [call for call in answers.calls if not call.startswith(reading)] == []
    assert len(answers.calls) > 20
    paste(doctor("--check", "stuck").of("stuck-never-invoked")["remedy"], pipeline.aws)
    wait_until(lambda: not pipeline.staged())
