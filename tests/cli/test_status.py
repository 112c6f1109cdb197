"""`status` as a person or a script meets it."""

from __future__ import annotations

import json
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
