"""The hand-over to S3 Batch Operations.

No emulator has that API: the requests are checked against botocore's model, and the answers are
those of AWS's documentation.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.reprocess.batch import (
    KINDS,
    BatchJob,
    JobPlace,
    collect,
    describe,
    permissions,
    require_versions,
    submit,
)
from twobuckets.reprocess.items import State
from twobuckets.reprocess.journal import NOT_KNOWN
from twobuckets.reprocess.journals import create
from twobuckets.reprocess.plan import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from twobuckets.reprocess.journal import Journal

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PLACE = JobPlace("123456789012", "aws", "in-bucket", "done-bucket", "jobs-bucket")
JOB = BatchJob("job-1", "Complete", 3, 2, 1, None)
pytestmark = pytest.mark.usefixtures("fake_credentials")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with create(tmp_path, fingerprint="f", description={}, now=NOW) as journal:
        journal.add(Action(key, Kind.COPY, f"v-{key}", "e", 5) for key in ("a b", "c,d", "ü"))
        journal.add([Action("old", Kind.COPY, None, "e", 5)])
        journal.add([Action("woken", Kind.WAKE, "s", "e", 5)])
        yield journal


def stubbed(service: str) -> tuple[Any, Stubber]:
    client = boto3.client(service, region_name="eu-central-1")  # type: ignore[call-overload]
    return client, Stubber(client)


def test_a_job_copies_exactly_the_planned_versions_and_reports_on_each(journal: Journal):
    s3, s3_stub = stubbed("s3")
    control, control_stub = stubbed("s3control")
    sent: dict[str, bytes] = {}

    def keep_body(params: dict[str, Any], **_: object) -> None:
        sent["manifest"] = params["Body"].read()
        params["Body"].seek(0)

    s3.meta.events.register("provide-client-params.s3.PutObject", keep_body)
    date = "Mon, 04 May 2026 12:07:00 GMT"
    s3_stub.add_response(
        "head_bucket",
        {"ResponseMetadata": {"HTTPHeaders": {"date": date}}},
        {"Bucket": "in-bucket"},
    )
    s3_stub.add_response(
        "put_object",
        {"ETag": '"m"'},
        {"Bucket": "jobs-bucket", "Key": ANY, "Body": ANY, "ContentType": "text/csv",
         "ExpectedBucketOwner": "123456789012", "IfNoneMatch": "*"},
    )  # fmt: skip
    name = f"{journal.path.stem}-1"
    control_stub.add_response(
        "create_job",
        {"JobId": "job-1"},
        {
            "AccountId": "123456789012",
            "ConfirmationRequired": False,
            "ClientRequestToken": name,
            "Description": ANY,
            "Priority": ANY,
            "RoleArn": "arn:aws:iam::123456789012:role/copies",
            "Operation": {
                "S3PutObjectCopy": {
                    "TargetResource": "arn:aws:s3:::in-bucket",
                    "MetadataDirective": "COPY",
                }
            },
            "Manifest": {
                "Spec": {
                    "Format": "S3BatchOperations_CSV_20180820",
                    "Fields": ["Bucket", "Key", "VersionId"],
                },
                "Location": {
                    "ObjectArn": f"arn:aws:s3:::jobs-bucket/reprocess/{name}/manifest.csv",
                    "ETag": '"m"',
                },
            },
            "Report": {
                "Bucket": "arn:aws:s3:::jobs-bucket",
                "Format": "Report_CSV_20180820",
                "Enabled": True,
                "Prefix": f"reprocess/{name}",
                "ReportScope": "AllTasks",
                "ExpectedBucketOwner": "123456789012",
            },
        },
    )
    with s3_stub, control_stub:
        role = "arn:aws:iam::123456789012:role/copies"
        submit(s3, control, journal, PLACE, role_arn=role, now=NOW)
    assert journal.job_id == "job-1"
    assert sent["manifest"].decode().splitlines() == [
        "done-bucket,a%20b,v-a b",
        'done-bucket,c%2Cd,"v-c,d"',
        "done-bucket,%C3%BC,v-ü",
        "done-bucket,old,null",
    ]
    began_at = {item.began_at for item in journal.iter_items(State.BEGUN)}
    assert began_at == {datetime(2026, 5, 4, 12, 7, tzinfo=UTC).timestamp()}, "S3's clock counts"
    assert [item.key for item in journal.iter_items(State.PLANNED)] == ["woken"]


def report(s3_stub: Stubber, rows: list[str], name: str) -> None:
    prefix = f"reprocess/{name}-1/job-job-1"
    s3_stub.add_response("list_objects_v2", {"Contents": [{"Key": prefix + "/manifest.json"}]})
    manifest = {"Results": [{"Key": prefix + "/results/1.csv", "Bucket": "jobs-bucket"}]}
    for text in (json.dumps(manifest), "\n".join(rows)):
        body = text.encode()
        s3_stub.add_response("get_object", {"Body": StreamingBody(io.BytesIO(body), len(body))})


def test_what_the_report_calls_failed_is_failed_and_the_rest_is_left_to_be_compared(
    journal: Journal,
):
    journal.begin_job(1.0, kinds=KINDS)
    journal.note_job("job-1")
    s3, s3_stub = stubbed("s3")
    report(
        s3_stub,
        [
            "done-bucket,a%20b,v-a b,succeeded,200,200,Successful",
            'done-bucket,c%2Cd,"v-c,d",failed,AccessDenied,403,"Access Denied, sorry"',
            "done-bucket,%C3%BC,v-ü,failed,InternalError,500,Try again",
            "done-bucket,old,null,succeeded,200,200,Successful",
        ],
        journal.path.stem,
    )
    with s3_stub:
        assert collect(s3, journal, PLACE, JOB) == 2
    assert journal.job_id is None
    states = {item.key: (item.state, item.reason) for item in journal.iter_items()}
    assert states["a b"] == states["old"] == (State.BEGUN, None)
    assert states["c,d"] == (State.FAILED, "AccessDenied: Access Denied, sorry")
    # What was refused was not copied; what S3 failed at may have been, and is looked at.
    assert journal.reopen_failed() == 2
    again = {item.key: (item.state, item.job) for item in journal.iter_items()}
    assert again["c,d"] == (State.PLANNED, 0)
    assert again["ü"] == (State.BEGUN, 1)


def test_after_a_job_that_ended_before_its_first_task_all_is_planned_as_before(journal: Journal):
    journal.begin_job(1.0, kinds=KINDS)
    journal.note_job("job-1")
    s3, s3_stub = stubbed("s3")
    s3_stub.add_response("list_objects_v2", {})
    failed = BatchJob("job-1", "Failed", 0, 0, 0, "the role may not read")
    with s3_stub, pytest.raises(TwoBucketsError, match="the role may not read"):
        collect(s3, journal, PLACE, failed)
    assert journal.job_id is None
    assert not journal.has_unchecked_copies()
    assert {item.state for item in journal.iter_items()} == {State.PLANNED}
    assert journal.begin_job(2.0, kinds=KINDS) == 2, "the next job is another one"


def submit_refused(journal: Journal, *, code: str, status: int) -> None:
    s3, s3_stub = stubbed("s3")
    control, control_stub = stubbed("s3control")
    s3_stub.add_response("head_bucket", {"ResponseMetadata": {}})
    s3_stub.add_response("put_object", {"ETag": '"m"'})
    control_stub.add_client_error("create_job", code, http_status_code=status)
    with s3_stub, control_stub, pytest.raises(TwoBucketsError):
        submit(s3, control, journal, PLACE, role_arn="arn:aws:iam::1:role/a", now=NOW)


def test_what_a_refused_job_would_have_copied_is_planned_as_before(journal: Journal):
    submit_refused(journal, code="BadRequestException", status=400)
    assert journal.job_id is None
    assert {item.state for item in journal.iter_items()} == {State.PLANNED}


@pytest.mark.parametrize(
    ("code", "status"), [("InternalServiceException", 500), ("IdempotencyException", 400)]
)
def test_a_job_that_may_have_been_created_is_asked_for_again_by_the_same_token(
    journal: Journal, code: str, status: int
):
    submit_refused(journal, code=code, status=status)
    assert journal.job_id == NOT_KNOWN
    assert journal.has_unchecked_copies()
    s3, s3_stub = stubbed("s3")
    control, control_stub = stubbed("s3control")
    tokens: list[str] = []
    control.meta.events.register(
        "provide-client-params.s3-control.CreateJob",
        lambda params, **_: tokens.append(params["ClientRequestToken"]),
    )
    s3_stub.add_response("head_bucket", {"ResponseMetadata": {}})
    s3_stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    s3_stub.add_response("head_object", {"ETag": '"m"'})
    control_stub.add_response("create_job", {"JobId": "job-1"})
    with s3_stub, control_stub:
        submit(s3, control, journal, PLACE, role_arn="arn:aws:iam::1:role/a", now=NOW)
    assert tokens == [f"{journal.path.stem}-1"]
    assert journal.job_id == "job-1"


def test_a_jobs_progress_is_told():
    control, stub = stubbed("s3control")
    stub.add_response(
        "describe_job",
        {
            "Job": {
                "JobId": "job-1",
                "Status": "Active",
                "ProgressSummary": {
                    "TotalNumberOfTasks": 9,
                    "NumberOfTasksSucceeded": 4,
                    "NumberOfTasksFailed": 1,
                },
            }
        },
        {"AccountId": "123456789012", "JobId": "job-1"},
    )
    with stub:
        job = describe(control, "123456789012", "job-1")
    assert (job.tasks, job.succeeded, job.failed, job.has_ended) == (9, 4, 1, False)


@pytest.mark.parametrize("status", [None, "Suspended"])
@pytest.mark.parametrize("bucket", ["in-bucket", "done-bucket"])
def test_a_bucket_without_versions_is_refused(status: str | None, bucket: str):
    s3, stub = stubbed("s3")
    for name in ("in-bucket", "done-bucket"):
        answer = {"Status": "Enabled"} if name != bucket else {"Status": status} if status else {}
        stub.add_response("get_bucket_versioning", answer)
        if name == bucket:
            break
    with stub, pytest.raises(UsageError, match=f"{bucket} keeps no versions"):
        require_versions(s3, PLACE)


def test_the_permissions_allow_reading_one_version_and_never_a_delete():
    text = json.dumps(asdict(permissions(PLACE)))
    assert "Delete" not in text
    assert "arn:aws:s3:::done-bucket/*" in text
    assert "batchoperations.s3.amazonaws.com" in text
