"""What the emulator lacks and the embedded AWS adds, as AWS has it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from twobuckets.s3.engine import CRC64NVME

if TYPE_CHECKING:
    from twobuckets.aws.clients import Aws
    from twobuckets.local import Server

BUCKET = "gaps"
GROUP = "/gaps"


def make_versioned_bucket(aws: Aws) -> None:
    aws.s3.create_bucket(Bucket=BUCKET)
    aws.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


def test_a_range_of_any_version_is_that_part_of_that_version(embedded: Aws):
    make_versioned_bucket(embedded)
    first = embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"0123456789")["VersionId"]
    second = embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"abcdefghij")["VersionId"]
    for version, whole in ((first, b"0123456789"), (second, b"abcdefghij")):
        for wanted, part in (
            ("bytes=2-4", whole[2:5]),
            ("bytes=7-", whole[7:]),
            ("bytes=-3", whole[-3:]),
            ("bytes=8-99", whole[8:]),
        ):
            answer = embedded.s3.get_object(Bucket=BUCKET, Key="k", VersionId=version, Range=wanted)
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
            assert answer["Body"].read() == part
            assert answer["VersionId"] == version
            assert answer["ContentRange"].endswith("/10")
    assert embedded.s3.get_object(Bucket=BUCKET, Key="k", Range="bytes=0-0")["Body"].read() == b"a"
    answer = embedded.s3.get_object(Bucket=BUCKET, Key="k", VersionId=first)
    assert answer["Body"].read() == b"0123456789"


def test_a_range_beyond_the_end_is_refused(embedded: Aws):
    make_versioned_bucket(embedded)
    embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"0123")
    embedded.s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    for key in ("k", "empty"):
        with pytest.raises(ClientError, match="InvalidRange"):
            embedded.s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=4-9")


def test_a_pinned_range_of_a_replaced_object_is_refused(embedded: Aws):
    make_versioned_bucket(embedded)
    etag = embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"0123")["ETag"]
    embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"4567")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        embedded.s3.get_object(Bucket=BUCKET, Key="k", Range="bytes=0-1", IfMatch=etag)


def time_ranges(aws: Aws, key: str) -> float:
    """Return the seconds that ten small reads take, at best."""

    def once() -> float:
        started = time.monotonic()
        for number in range(10):
            wanted = f"bytes={number * 1000}-{number * 1000 + 99}"
            aws.s3.get_object(Bucket=BUCKET, Key=key, Range=wanted)["Body"].read()
        return time.monotonic() - started

    return min(once() for _ in range(5))


def test_a_small_read_takes_no_longer_from_a_large_object(embedded: Aws):
    embedded.s3.create_bucket(Bucket=BUCKET)
    embedded.s3.put_object(Bucket=BUCKET, Key="large", Body=bytes(96 * 1024 * 1024))
    embedded.s3.put_object(Bucket=BUCKET, Key="small", Body=bytes(10_000))
    assert time_ranges(embedded, "large") < 3 * time_ranges(embedded, "small")


def test_a_large_object_comes_back_whole(embedded: Aws):
    make_versioned_bucket(embedded)
    body = os.urandom(1024) * 5000 + b"end"
    version = embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=body)["VersionId"]
    for options in ({}, {"VersionId": version}, {"Range": "bytes=0-"}):
        answer = embedded.s3.get_object(Bucket=BUCKET, Key="k", **options)  # type: ignore[arg-type]
        assert answer["ContentLength"] == len(body)
        assert answer["Body"].read() == body


def test_contents_of_versions_do_not_stay_in_memory(embedded: Aws, embedded_server: Server):
    def resident_kb() -> int:
        status = Path(f"/proc/{embedded_server.pid}/status").read_text()
        (found,) = (int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
        return found

    make_versioned_bucket(embedded)
    body = os.urandom(1024 * 1024)
    before = resident_kb()
    for number in range(24):
        embedded.s3.put_object(Bucket=BUCKET, Key=f"k{number % 3}", Body=body * 8)
    assert resident_kb() - before < 100_000
    versions = embedded.s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert len(versions) == 24
    for version in versions:
        answer = embedded.s3.get_object(
            Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"], Range="bytes=-9"
        )
        assert answer["Body"].read() == body[-9:]


def test_parts_copied_from_ranges_of_a_version_make_the_object(embedded: Aws):
    make_versioned_bucket(embedded)
    body = bytes(range(256)) * 40_000
    version = embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=body)["VersionId"]
    upload = embedded.s3.create_multipart_upload(Bucket=BUCKET, Key="copy")["UploadId"]
    parts: list[Any] = []
    for number, (first, last) in enumerate(((0, 5_999_999), (6_000_000, len(body) - 1)), 1):
        answer = embedded.s3.upload_part_copy(
            Bucket=BUCKET,
            Key="copy",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": BUCKET, "Key": "k", "VersionId": version},
            CopySourceRange=f"bytes={first}-{last}",
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    embedded.s3.complete_multipart_upload(
        Bucket=BUCKET, Key="copy", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert embedded.s3.get_object(Bucket=BUCKET, Key="copy")["Body"].read() == body


def test_log_events_come_in_pages(embedded: Aws):
    embedded.logs.create_log_group(logGroupName=GROUP)
    now = int(time.time() * 1000)
    for stream in ("a", "b"):
        embedded.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        embedded.logs.put_log_events(
            logGroupName=GROUP,
            logStreamName=stream,
            logEvents=[{"timestamp": now + n, "message": f"{stream}{n}"} for n in range(25)],
        )
    pages = list(
        embedded.logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, PaginationConfig={"PageSize": 20}
        )
    )
    assert [len(page["events"]) for page in pages] == [20, 20, 10]
    messages = [event["message"] for page in pages for event in page["events"]]
    assert sorted(messages) == sorted(f"{stream}{n}" for stream in "ab" for n in range(25))
    times = [event["timestamp"] for page in pages for event in page["events"]]
    assert times == sorted(times)
    only = embedded.logs.filter_log_events(
        logGroupName=GROUP, logStreamNamePrefix="b", startTime=now + 3, endTime=now + 4
    )
    assert [event["message"] for event in only["events"]] == ["b3", "b4"]


def stack_template(**properties: Any) -> str:
    return json.dumps(
        {
            "Parameters": {"Wanted": {"Type": "String", "Default": "no"}},
            "Conditions": {"IsWanted": {"Fn::Equals": [{"Ref": "Wanted"}, "yes"]}},
            "Resources": {
                "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}},
                "Queue": {"Type": "AWS::SQS::Queue", "Condition": "IsWanted"},
            },
        }
    )


def changes(aws: Aws, kind: Any, wanted: str) -> set[str]:
    aws.cloudformation.create_change_set(
        StackName="gaps",
        ChangeSetName=f"to-{wanted}",
        ChangeSetType=kind,
        TemplateBody=stack_template(),
        Parameters=[{"ParameterKey": "Wanted", "ParameterValue": wanted}],
    )
    described = aws.cloudformation.describe_change_set(
        StackName="gaps", ChangeSetName=f"to-{wanted}"
    )
    return {
        f"{change['ResourceChange']['Action']} {change['ResourceChange']['LogicalResourceId']}"
        for change in described["Changes"]
    }


def wait_for_stack(aws: Aws, status: str) -> None:
    deadline = time.monotonic() + 10
    while (
        aws.cloudformation.describe_stacks(StackName="gaps")["Stacks"][0]["StackStatus"] != status
    ):
        assert time.monotonic() < deadline, aws.cloudformation.describe_stacks(StackName="gaps")
        time.sleep(0.05)


def test_a_change_set_leaves_out_what_no_condition_wants(embedded: Aws):
    assert changes(embedded, "CREATE", "no") == {"Add Bucket"}
    embedded.cloudformation.execute_change_set(StackName="gaps", ChangeSetName="to-no")
    wait_for_stack(embedded, "CREATE_COMPLETE")
    assert changes(embedded, "UPDATE", "yes") == {"Add Queue"}


def test_a_stack_does_not_take_a_bucket_with_data_along(embedded: Aws):
    embedded.cloudformation.create_stack(StackName="gaps", TemplateBody=stack_template())
    wait_for_stack(embedded, "CREATE_COMPLETE")
    embedded.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    embedded.cloudformation.delete_stack(StackName="gaps")
    wait_for_stack(embedded, "DELETE_FAILED")
    assert embedded.s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"1"


def test_a_copy_in_parts_has_the_checksum_of_the_whole(embedded: Aws):
    content = os.urandom(6 * 1024 * 1024 + 5)
    embedded.s3.create_bucket(Bucket="copied")
    embedded.s3.put_object(Bucket="copied", Key="k", Body=content)
    whole = CRC64NVME.encode(CRC64NVME.compute(content))
    cut = 5 * 1024 * 1024

    def copy(checksum: str) -> Any:
        upload = embedded.s3.create_multipart_upload(
            Bucket="copied", Key="copy", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
        )
        where: Any = {"Bucket": "copied", "Key": "copy", "UploadId": upload["UploadId"]}
        parts: list[Any] = []
        for number, ends in enumerate(((0, cut - 1), (cut, len(content) - 1)), 1):
            copied = embedded.s3.upload_part_copy(
                **where,
                PartNumber=number,
                CopySource={"Bucket": "copied", "Key": "k"},
                CopySourceRange=f"bytes={ends[0]}-{ends[1]}",
            )["CopyPartResult"]
            named = {name: copied[name] for name in ("ETag", "ChecksumCRC64NVME")}
            parts.append({"PartNumber": number, **named})
        return embedded.s3.complete_multipart_upload(
            **where,
            MultipartUpload={"Parts": parts},
            ChecksumCRC64NVME=checksum,
            ChecksumType="FULL_OBJECT",
        )

    with pytest.raises(ClientError, match="BadDigest"):
        copy("AAAAAAAAAAA=")
    assert copy(whole)["ChecksumCRC64NVME"] == whole
