"""`status --all` and `doctor --all`: every pipeline of some regions, the worst first."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner

from twobuckets.cli import cli
from twobuckets.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE: dict[str, Any] = {
    "Parameters": {
        "StagingBucketName": {"Type": "String"},
        "ArchiveBucketName": {"Type": "String"},
    },
    "Resources": {
        f"{role}Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {"BucketName": {"Ref": f"{role}BucketName"}},
        }
        for role in ("Staging", "Archive")
    },
    "Outputs": {
        f"{role}Bucket": {"Value": {"Ref": f"{role}Bucket"}} for role in ("Staging", "Archive")
    },
}
REGIONS = ("eu-central-1", "us-west-2")


@pytest.fixture
def fleet(
    empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """Two pipelines in one region, one in another, and a stack that is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twobuckets.toml").write_text(f"[fleet]\nregions = {json.dumps(REGIONS)}\n")
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)
    for region, stack in (
        ("eu-central-1", "quiet"),
        ("eu-central-1", "busy"),
        ("us-west-2", "late"),
    ):
        cloudformation = boto3.client(
            "cloudformation", endpoint_url=empty_moto_url, region_name=region
        )
        cloudformation.create_stack(
            StackName=stack,
            TemplateBody=json.dumps(TEMPLATE),
            Parameters=[
                {"ParameterKey": f"{role}BucketName", "ParameterValue": f"{stack}-{role.lower()}"}
                for role in ("Staging", "Archive")
            ],
        )
    other = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    cloudformation.create_stack(StackName="other", TemplateBody=json.dumps(other))
    s3 = boto3.client("s3", endpoint_url=empty_moto_url, region_name="us-west-2")
    s3.put_object(Bucket="late-staging", Key="k", Body=b"content")
    return empty_moto_url


def ask(*words: str, exit_code: int) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["--json", *words])
    assert result.exit_code == exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_status_names_each_and_the_worst_first(fleet: str, monkeypatch: pytest.MonkeyPatch):
    *told, summary = ask("status", "--all", exit_code=0)
    assert [(one["stack"], one["condition"], one["staged"]) for one in told] == [
        ("late", "waiting", 1),
        ("busy", "quiet", 0),
        ("quiet", "quiet", 0),
    ]
    assert [one["region"] for one in told] == ["us-west-2", "eu-central-1", "eu-central-1"]
    assert summary == {"type": "summary", "pipelines": 3, "attention": 0}
    # An hour and a half is what every try can take at the most, with nothing known of a function.
    monkeypatch.setattr(App, "now", lambda _: datetime.now(UTC) + timedelta(hours=3))
    assert ask("status", "--all", exit_code=0)[0]["condition"] == "stuck"
    boto3.client("s3", endpoint_url=fleet, region_name="eu-central-1").delete_bucket(
        Bucket="busy-staging"
    )
    *told, summary = ask("status", "--all", exit_code=5)
    assert [one["condition"] for one in told] == ["gone", "stuck", "quiet"]
    assert summary["attention"] == 1
    shown = CliRunner().invoke(cli, ["status", "--all"]).stdout.splitlines()
    assert shown[0] == "gone     busy eu-central-1  the bucket busy-staging does not exist"


def test_doctor_counts_and_names_the_command_for_each(fleet: str):
    *told, summary = ask("doctor", "--all", "--check", "versioning", exit_code=3)
    assert {one["stack"] for one in told} == {"late", "busy", "quiet"}
    assert all(one["problems"] + one["notices"] for one in told)
    late = next(one for one in told if one["stack"] == "late")
    assert late["command"] == ("twobuckets --stack late --region us-west-2 doctor")
    assert summary == {"type": "summary", "pipelines": 3, "attention": 3}
    assert ask("doctor", "--all", "--fix", "--yes", exit_code=2) == []


def test_one_named_pipeline_is_no_fleet(fleet: str, monkeypatch: pytest.MonkeyPatch):
    assert ask("--stack", "local", "status", "--all", exit_code=2) == []
    monkeypatch.setenv("TWOBUCKETS_STAGING", "one-staging")
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "one-archive")
    assert ask("status", "--all", exit_code=2) == []
