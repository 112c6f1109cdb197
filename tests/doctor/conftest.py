"""A pair made by hand on moto, and doctor run on it through the command line."""

from __future__ import annotations

import contextlib
import io
import json
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import botocore.handlers
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from click.testing import CliRunner

from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGING = "hand-staging"
ARCHIVE = "hand-archive"
FUNCTION = "hand-processor"
REGION = "eu-central-1"
GROUP = f"/aws/lambda/{FUNCTION}"
FUNCTION_ARN = f"arn:aws:lambda:{REGION}:123456789012:function:{FUNCTION}"
BLOCK = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of doctor said."""

    exit_code: int
    lines: list[dict[str, Any]]
    stderr: str

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The findings."""
        return [line for line in self.lines if line["type"] == "finding"]

    @property
    def checks(self) -> set[str]:
        """The ids of what was found, without facts that ask for nothing."""
        return {f["check"] for f in self.findings if f["severity"] != "info"}

    def of(self, check: str) -> dict[str, Any]:
        """Return the only finding of a check."""
        (found,) = [f for f in self.findings if f["check"] == check]
        return found


def run_doctor(*arguments: str) -> Run:
    """Run doctor with --json in this process."""
    result = CliRunner().invoke(cli, ["doctor", "--json", *arguments])
    assert not isinstance(result.exception, Exception), result.output
    return Run(
        exit_code=result.exit_code,
        lines=[json.loads(line) for line in result.stdout.splitlines()],
        stderr=result.stderr,
    )


@dataclass(frozen=True, slots=True)
class HandMadePair:
    """The clients of a pair that plain API calls made, with every protection on."""

    s3: Any
    functions: Any
    iam: Any
    logs: Any
    role_arn: str
    function_arn: str


class Answers:
    """Answers of AWS that a test writes, in place of the emulator's, and a record of all calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._written: dict[str, Any] = {}

    def give(self, operation: str, answer: Any) -> None:
        """Answer an operation with a parsed response, or with what a function of it returns."""
        self._written[operation] = answer

    def refuse(self, operation: str, code: str = "AccessDenied", status: int = 403) -> None:
        """Answer an operation with an error."""
        self._written[operation] = {
            "Error": {"Code": code, "Message": f"you shall not {operation}"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    def __call__(self, model: Any, params: dict[str, Any], **_: Any) -> Any:
        """Hear of a call before it is made, and answer it if the test has an answer."""
        self.calls.append(model.name)
        answer = self._written.get(model.name)
        if callable(answer):
            answer = answer(params)
        if answer is None:
            return None
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 200)
        return AWSResponse(params["url"], status, HTTPHeaders(), None), answer


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Hears of every AWS call of clients made from here on, and can answer them."""
    answers = Answers()
    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-call", answers)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    return answers


def allow_all(params: dict[str, Any]) -> dict[str, Any]:
    """Answer IAM's simulation with yes."""
    names = [v for k, v in params["body"].items() if k.startswith("ActionNames.member")]
    return {"EvaluationResults": [{"EvalActionName": n, "EvalDecision": "allowed"} for n in names]}


@pytest.fixture(scope="session")
def moto_clients(moto_url: str) -> dict[str, Any]:
    """The clients that make the pair; making them costs more than most tests do."""
    session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "secret-of-the-tests", region_name=REGION)
    return make_clients(session, moto_url)


def make_clients(session: boto3.Session, url: str | None = None) -> dict[str, Any]:
    """Make what `make_pair` needs, for AWS's own endpoints without a URL."""
    return {
        "s3": session.client("s3", endpoint_url=url),
        "functions": session.client("lambda", endpoint_url=url),
        "iam": session.client("iam", endpoint_url=url),
        "logs": session.client("logs", endpoint_url=url),
    }


@pytest.fixture
def pair(
    moto_clients: dict[str, Any],
    empty_moto_url: str,
    fake_credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    answers: Answers,
) -> HandMadePair:
    """A healthy pair made by hand on moto; the settings name it by variables."""
    # moto's simulation says no to everything.
    answers.give("SimulatePrincipalPolicy", allow_all)
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_FUNCTION", FUNCTION)
    monkeypatch.chdir(tmp_path)
    return make_pair(**moto_clients)


def make_pair(s3: Any, functions: Any, iam: Any, logs: Any) -> HandMadePair:
    """Make the pair with these clients."""
    for bucket in (STAGING, ARCHIVE):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(BLOCK, True)
        )
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(tls_only(bucket)))
        s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": lifecycle_rules()}
        )
    role_arn = make_role(iam)
    function_arn = make_function(functions, role_arn)
    functions.add_permission(
        FunctionName=FUNCTION,
        StatementId="s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn=f"arn:aws:s3:::{STAGING}",
        SourceAccount="123456789012",
    )
    functions.put_function_event_invoke_config(
        FunctionName=FUNCTION,
        MaximumRetryAttempts=2,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sns:eu-central-1:123456789012:f"}},
    )
    notify(s3, function_arn)
    logs.create_log_group(logGroupName=f"/aws/lambda/{FUNCTION}")
    logs.put_retention_policy(logGroupName=f"/aws/lambda/{FUNCTION}", retentionInDays=30)
    return HandMadePair(s3, functions, iam, logs, role_arn, function_arn)


def tls_only(bucket: str) -> dict[str, Any]:
    """Return a policy that refuses requests without TLS."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def lifecycle_rules() -> list[dict[str, Any]]:
    """Return rules that clear uploads, old versions and the delete markers above them."""
    return [
        {
            "ID": "mine",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
    ]


def make_role(iam: Any) -> str:
    """Make a role that may what any processor needs."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(RoleName="hand-role", AssumeRolePolicyDocument=json.dumps(trust))
    allow_everything = {"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"}
    iam.put_role_policy(
        RoleName="hand-role",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow_everything]}),
    )
    return str(role["Role"]["Arn"])


def make_function(functions: Any, role_arn: str) -> str:
    """Make a function that moto never runs."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("hand.py", "def handler(event, context): ...\n")
    made = functions.create_function(
        FunctionName=FUNCTION,
        Runtime="python3.13",
        Role=role_arn,
        Handler="hand.handler",
        Code={"ZipFile": code.getvalue()},
        Environment={"Variables": {"ARCHIVE_BUCKET_NAME": ARCHIVE}},
        Timeout=60,
    )
    return str(made["FunctionArn"])


def notify(s3: Any, target_arn: str, **more: Any) -> None:
    """Make staging notify a function of every new object."""
    configuration = {"LambdaFunctionArn": target_arn, "Events": ["s3:ObjectCreated:*"], **more}
    s3.put_bucket_notification_configuration(
        Bucket=STAGING,
        NotificationConfiguration={"LambdaFunctionConfigurations": [configuration]},
    )


@pytest.fixture
def ours(pair: HandMadePair) -> HandMadePair:
    """The pair with a processor that is made with ours."""
    pair.functions.update_function_configuration(
        FunctionName=FUNCTION,
        Handler="twobuckets.processor.handler",
        Environment={"Variables": {"ARCHIVE_BUCKET": ARCHIVE}},
    )
    return pair


def put(pair: HandMadePair, *keys: str, body: bytes = b"content") -> list[Mapping[str, Any]]:
    """Put objects into staging, unnoticed, and return S3's answers."""
    let_in(pair)
    notification = wiring_of(pair)
    # moto would run the function, in Docker.
    pair.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    answers = [pair.s3.put_object(Bucket=STAGING, Key=key, Body=body) for key in keys]
    pair.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration=notification
    )
    return answers


def let_in(pair: HandMadePair) -> None:
    """Take the policies away: moto knows no conditions, and refuses every request."""
    for bucket in (STAGING, ARCHIVE):
        pair.s3.delete_bucket_policy(Bucket=bucket)


def log(pair: HandMadePair, *messages: str, stream: str = "stream", seconds_ago: float = 0) -> None:
    """Write lines to the processor's log."""
    with contextlib.suppress(pair.logs.exceptions.ResourceAlreadyExistsException):
        pair.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    now = int((time.time() - seconds_ago) * 1000)
    events = [{"timestamp": now, "message": message} for message in messages]
    pair.logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


def outcome(key: str, answer: Mapping[str, Any], kind: str = "failed", **more: Any) -> str:
    """Return our processor's line about a staged version."""
    line = {
        "twobuckets": 1,
        "outcome": kind,
        "bucket": STAGING,
        "key": key,
        "version_id": answer["VersionId"],
        "etag": answer["ETag"].strip('"'),
        "size": 7,
        "duration_ms": 5,
        "request_id": "11111111-2222-3333-4444-555555555555",
        "attempt": 3,
        "error": {"type": "ValueError", "message": f"row 7 of {key} is bad", "trace": "T" * 2000},
    }
    return json.dumps(line | more)


def wiring_of(pair: HandMadePair) -> Any:
    answer = pair.s3.get_bucket_notification_configuration(Bucket=STAGING)
    answer.pop("ResponseMetadata")
    return answer
