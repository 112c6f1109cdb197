"""The embedded AWS for end-to-end tests: one server per test session, emptied after each test.

`embedded` is what a test asks for: the clients of a server that holds nothing. `XDG_STATE_HOME`
leads there as well, so that `--stack local` on the command line means the same server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from botocore.exceptions import ClientError

from twobuckets import local
from twobuckets.aws.clients import Aws, FixedIdentity
from twobuckets.settings import local_state, state_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Mark everything in this folder, so that the fast suite leaves it out."""
    for item in items:
        if "/tests/embedded/" in str(item.path):
            item.add_marker(pytest.mark.embedded)


def aws_of(server: local.Server) -> Aws:
    """Return the clients of a server."""
    return Aws(
        identity=FixedIdentity(
            endpoint_url=server.endpoint_url,
            region=server.region,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
        )
    )


STOP_AT_THE_END = """
import pathlib, sys
from twobuckets import local
sys.stdin.read()
local.stop(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's XDG_STATE_HOME."""
    return tmp_path_factory.mktemp("embedded-state")


@pytest.fixture(scope="session")
def embedded_server(state_home: Path) -> Iterator[local.Server]:
    """The session's server, on a free port and a state directory of its own."""
    state_dir = local_state({"XDG_STATE_HOME": str(state_home)})
    # Stops the server when its stdin ends, which it also does when the tests are killed.
    stopper = [sys.executable, "-c", STOP_AT_THE_END, str(state_dir)]
    with subprocess.Popen(stopper, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield local.start(state_dir, environ=os.environ)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
    assert local.find_running(state_dir) is None


@pytest.fixture(scope="session")
def embedded_clients(embedded_server: local.Server) -> Aws:
    """The clients of the session's server; making them costs more than most tests do."""
    return aws_of(embedded_server)


@pytest.fixture
def embedded(
    embedded_clients: Aws, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Aws]:
    """The clients of the session's server, which holds nothing before and after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))
    yield embedded_clients
    empty(embedded_clients)
    for room in ("reprocess", "uploads"):
        # An unfinished run of one test would be gone on with by the same command of the next one.
        shutil.rmtree(state_directory({"XDG_STATE_HOME": str(state_home)}, room), True)


def empty(aws: Aws) -> None:
    """Remove everything a test can have made: objects, stacks, and what was made beside stacks."""
    names = [bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]]
    for name in names:
        # Without its notification a bucket wakes no processor while it is being emptied.
        aws.s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={})
        aws.s3.delete_bucket_policy(Bucket=name)
        empty_bucket(aws, name)
    for stack in aws.cloudformation.list_stacks()["StackSummaries"]:
        if stack["StackStatus"] != "DELETE_COMPLETE":
            delete_stack(aws, stack["StackName"])
    for bucket in aws.s3.list_buckets()["Buckets"]:
        empty_bucket(aws, bucket["Name"])
        aws.s3.delete_bucket(Bucket=bucket["Name"])
    # They stay when their queue and function go.
    for mapping in aws.functions.list_event_source_mappings()["EventSourceMappings"]:
        aws.functions.delete_event_source_mapping(UUID=mapping["UUID"])
    for function in aws.functions.list_functions()["Functions"]:
        aws.functions.delete_function(FunctionName=function["FunctionName"])
    for queue_url in aws.sqs.list_queues().get("QueueUrls", []):
        aws.sqs.delete_queue(QueueUrl=queue_url)
    for group in aws.logs.describe_log_groups()["logGroups"]:
        aws.logs.delete_log_group(logGroupName=group["logGroupName"])
    for role in aws.iam.list_roles()["Roles"]:
        for policy in aws.iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
            aws.iam.delete_role_policy(RoleName=role["RoleName"], PolicyName=policy)
        aws.iam.delete_role(RoleName=role["RoleName"])


def empty_bucket(aws: Aws, bucket: str) -> None:
    """Remove every version, delete marker and incomplete upload of a bucket."""
    for page in aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        objects: list[ObjectIdentifierTypeDef] = []
        for item in found:
            if item["Key"].isprintable():
                objects.append({"Key": item["Key"], "VersionId": item["VersionId"]})
            else:
                # XML can't hold every character, and a batch of deletes is XML.
                aws.s3.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
        if objects:
            aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    pages = aws.s3.get_paginator("list_multipart_uploads")
    for uploads in pages.paginate(Bucket=bucket, EncodingType="url"):
        for upload in uploads.get("Uploads", []):
            aws.s3.abort_multipart_upload(
                Bucket=bucket, Key=unquote(upload["Key"]), UploadId=upload["UploadId"]
            )


def delete_stack(aws: Aws, name: str) -> None:
    """Delete a stack and wait until it is gone."""
    aws.cloudformation.delete_stack(StackName=name)
    waited_until = time.monotonic() + 20
    while time.monotonic() < waited_until:
        try:
            stacks = aws.cloudformation.describe_stacks(StackName=name)["Stacks"]
        except ClientError:
            return
        assert stacks[0]["StackStatus"] != "DELETE_FAILED", stacks[0]
        time.sleep(0.02)
    raise AssertionError(f"the stack {name} is still there")
