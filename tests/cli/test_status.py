"""`status` as a person or a script meets it."""

from __future__ import annotations

import json
import time
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair(fake_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mock_aws():
        for name in ("staging", "archive"):
            boto3.client("s3", region_name="eu-central-1").create_bucket(
                Bucket=f"pair-{name}",
                CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
            )
            monkeypatch.setenv(f"TWOBUCKETS_{name.upper()}", f"pair-{name}")
        yield


def test_the_console_is_linked_when_asked_for_and_in_json(pair: None):
    link = "https://eu-central-1.console.aws.amazon.com/s3/buckets/pair-archive?region=eu-central-1"
    assert "console.aws" not in CliRunner().invoke(cli, ["status"]).stdout
    assert link in CliRunner().invoke(cli, ["status", "-v"]).stdout
    told = [
        json.loads(line)
        for line in CliRunner().invoke(cli, ["status", "--json"]).stdout.splitlines()
    ]
    assert [one["archive"] for one in told if one["type"] == "console-links"] == [link]


def test_what_is_not_in_aws_has_no_console(
    empty_moto_url: str, pair: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)
    assert "console" not in CliRunner().invoke(cli, ["status", "-v", "--json"]).stdout


def test_what_invocations_took_is_shown_when_asked_for(pair: None, monkeypatch: pytest.MonkeyPatch):
    region = "eu-central-1"
    role = boto3.client("iam", region_name=region).create_role(
        RoleName="r", AssumeRolePolicyDocument="{}"
    )
    code = BytesIO()
    with zipfile.ZipFile(code, "w") as artifact:
        artifact.writestr("processor.py", "")
    boto3.client("lambda", region_name=region).create_function(
        FunctionName="intake",
        Runtime="python3.13",
        Role=role["Role"]["Arn"],
        Handler="twobuckets.processor.handler",
        Code={"ZipFile": code.getvalue()},
        Architectures=["arm64"],
        MemorySize=512,
    )
    monkeypatch.setenv("TWOBUCKETS_FUNCTION", "intake")
    logs = boto3.client("logs", region_name=region)
    logs.create_log_group(logGroupName="/aws/lambda/intake")
    logs.create_log_stream(logGroupName="/aws/lambda/intake", logStreamName="s")
    now_ms = int(time.time() * 1000)
    logs.put_log_events(
        logGroupName="/aws/lambda/intake",
        logStreamName="s",
        logEvents=[
            {
                "timestamp": now_ms - 60_000 + number,
                "message": f"REPORT RequestId: 0000000{number}-0000-0000-0000-000000000000\t"
                f"Duration: {ms}.00 ms\tBilled Duration: {ms} ms\tMemory Size: 512 MB\t"
                "Max Memory Used: 140 MB\t\n",
            }
            for number, ms in enumerate((100, 200, 4000))
        ],
    )
    shown = CliRunner().invoke(cli, ["status", "-v"]).stdout
    assert "3 invocations" in shown
    assert "140 of 512 MB used at most" in shown
    assert "median 200 ms, p99 4.0 s" in shown
    assert "about $0.0098 for a thousand files" in shown
    assert "invocations" not in CliRunner().invoke(cli, ["status"]).stdout.split("Last hour")[0]
    [use] = [
        told
        for line in CliRunner().invoke(cli, ["status", "-v", "--json"]).stdout.splitlines()
        if (told := json.loads(line))["type"] == "function-use"
    ]
    assert (use["invocations"], use["p99"]) == (3, 4)
