"""A stack around buckets that were there before, from the first deployment to its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.embedded.test_stack import records
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets.aws.clients import Aws

OTHERS = "arn:aws:sqs:us-east-1:000000000000:others"
NOTIFICATION = {
    "QueueConfigurations": [
        {"Id": "theirs", "QueueArn": OTHERS, "Events": ["s3:ObjectRemoved:*"]},
    ],
    "EventBridgeConfiguration": {},
}
RULES = [
    {
        "ID": "theirs",
        "Status": "Enabled",
        "Filter": {"Prefix": "tmp/"},
        "Expiration": {"Days": 9},
    }
]
CORS = [
    {
        "ID": "theirs",
        "AllowedOrigins": ["https://they.example"],
        "AllowedMethods": ["GET"],
        "AllowedHeaders": [],
        "ExposeHeaders": ["x-theirs"],
    }
]


def run(*arguments: str) -> Result:
    """Run a command of the program."""
    return CliRunner().invoke(cli, list(arguments))


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


@pytest.fixture
def settings(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """A folder with a processor, which is the working directory; writes its settings."""
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    monkeypatch.chdir(tmp_path)

    def write(deploy: str) -> None:
        names = 'stack = "local"\nstaging = "old-in"\narchive = "old-out"\n'
        (tmp_path / "twobuckets.toml").write_text(f"{names}[deploy]\n{deploy}\n")

    return write


def make_bucket(aws: Aws, bucket: str, *, versioned: bool = True):
    """Make a bucket of somebody else's, with rules of theirs and a file."""
    aws.s3.create_bucket(Bucket=bucket)
    if versioned:
        aws.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": OTHERS,
            }
        ],
    }
    aws.sqs.create_queue(QueueName="others", Attributes={"Policy": json.dumps(policy)})
    written: Any = (NOTIFICATION, {"Rules": RULES}, {"CORSRules": CORS})
    aws.s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=written[0]
    )
    aws.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=written[1])
    aws.s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=written[2])
    aws.s3.put_object(Bucket=bucket, Key="theirs", Body=b"1")
    aws.s3.put_object(Bucket=bucket, Key="theirs", Body=b"2")


def entries(aws: Aws, bucket: str) -> dict[str, list[Any]]:
    """Return all that is configured of a bucket's notification, lifecycle and CORS."""
    notification: Any = aws.s3.get_bucket_notification_configuration(Bucket=bucket)
    notification.pop("ResponseMetadata")
    lifecycle = aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    return {
        "events": [notification],
        "rules": list(lifecycle["Rules"]),
        "cors": list(aws.s3.get_bucket_cors(Bucket=bucket)["CORSRules"]),
    }


def ids(aws: Aws, bucket: str) -> list[str]:
    found = entries(aws, bucket)
    events = found["events"][0].get("LambdaFunctionConfigurations", [])
    return [e.get("Id", e.get("ID")) for e in [*events, *found["rules"], *found["cors"]]]


def versions(aws: Aws, bucket: str) -> int:
    return len(aws.s3.list_object_versions(Bucket=bucket).get("Versions", []))


def test_a_stack_around_both_buckets_leaves_them_as_they_were(
    embedded: Aws, settings: Callable[[str], None]
):
    make_bucket(embedded, "old-in", versioned=False)
    make_bucket(embedded, "old-out")
    before = {bucket: entries(embedded, bucket) for bucket in ("old-in", "old-out")}

    # Without the setting they are nobody's to take, and the way on is named.
    settings("")
    refused = run("deploy", "--yes")
    assert refused.exit_code == 1
    assert "deploy.existing_buckets" in refused.stderr

    settings('existing_buckets = ["staging", "archive"]\ncors_origins = ["https://we.example"]')
    planned = done("deploy", "--dry-run")
    assert "old-in, there already, is the staging bucket and stays yours" in planned.stdout
    assert "adds the notification twobuckets-local-arrivals" in planned.stdout
    assert "versioning is off: a file that arrives again under its key" in planned.stdout
    assert "There are files in the staging bucket" in planned.stdout
    assert "The lifecycle rule theirs deletes files after 9 days" in planned.stdout
    assert {bucket: entries(embedded, bucket) for bucket in before} == before

    [plan] = records(done("deploy", "--yes", "--json"), "plan")
    assert not {c["resource_type"] for c in plan["changes"]} & {
        "AWS::S3::Bucket",
        "AWS::S3::BucketPolicy",
    }
    assert sorted(ids(embedded, "old-in")) == [
        "theirs",
        "theirs",
        "twobuckets-local-abort-incomplete-uploads",
        "twobuckets-local-arrivals",
        "twobuckets-local-uploads",
    ]
    assert sorted(ids(embedded, "old-out")) == [
        "theirs",
        "theirs",
        "twobuckets-local-abort-incomplete-uploads",
    ]
    for bucket, was in before.items():
        for kind in ("rules", "cors"):
            assert all(entry in entries(embedded, bucket)[kind] for entry in was[kind])
        assert was["events"][0].items() <= entries(embedded, bucket)["events"][0].items()
    assert records(done("deploy", "--yes", "--json"), "summary")[0]["outcome"] == "unchanged"

    # A file goes its way; the pipeline is whole, and says what it is built around.
    done("upload", "processor.py", "--key", "ours", "--wait")
    assert "there before the stack" in done("status").stdout
    found = records(run("doctor", "--json"), "finding")
    assert {f["check"] for f in found if f["severity"] == "problem"} == {"lifecycle-loses-files"}
    assert "versioning" in {f["check"] for f in found}

    # Versions of others may be among the noncurrent ones, so they expire when that is asked for.
    settings(
        'existing_buckets = ["staging", "archive"]\nnoncurrent_version_days = 20\n'
        "abort_incomplete_uploads_days = 5"
    )
    changed = done("deploy", "--yes")
    assert "DELETES everybody's versions that were noncurrent for 20 days" in changed.stdout
    assert "changes the lifecycle rule twobuckets-local-abort-incomplete-uploads" in changed.stdout
    assert "removes the CORS rule twobuckets-local-uploads" in changed.stdout
    assert entries(embedded, "old-in")["cors"] == before["old-in"]["cors"]

    shown = done("destroy", "--yes")
    assert "old-in stays, with all that is in it" in shown.stdout
    assert {bucket: entries(embedded, bucket) for bucket in before} == before
    assert versions(embedded, "old-out") == 3
    assert embedded.s3.get_object(Bucket="old-in", Key="theirs")["Body"].read() == b"2"
    assert embedded.functions.list_functions()["Functions"] == []


def test_one_bucket_is_there_and_the_other_is_made(embedded: Aws, settings: Callable[[str], None]):
    make_bucket(embedded, "old-out")
    before = entries(embedded, "old-out")
    settings('existing_buckets = ["archive"]')
    done("deploy", "--yes")
    done("upload", "processor.py", "--key", "ours", "--wait")

    # What was built around one bucket is built around none of the stack's own accord.
    settings("")
    assert run("deploy", "--yes").exit_code == 1

    # The stack gives up the bucket that it made: it stays, and what the template wrote there is
    # the stack's still.
    settings('existing_buckets = ["staging", "archive"]')
    shown = done("deploy", "--yes").stdout
    assert "old-in stays with all that is in it" in shown
    notification = embedded.s3.get_bucket_notification_configuration(Bucket="old-in")
    [arrivals] = notification["LambdaFunctionConfigurations"]
    assert arrivals["Id"] == "twobuckets-local-arrivals"
    lifecycle = embedded.s3.get_bucket_lifecycle_configuration(Bucket="old-in")
    assert [r["ID"] for r in lifecycle["Rules"]] == ["twobuckets-local-abort-incomplete-uploads"]
    done("upload", "processor.py", "--key", "ours too", "--wait")

    # A queue between, and none again: what S3 tells follows.
    for trigger, kind in (
        ("queue", "QueueConfigurations"),
        ("notification", "LambdaFunctionConfigurations"),
    ):
        settings(f'existing_buckets = ["staging", "archive"]\ntrigger = "{trigger}"')
        done("deploy", "--yes")
        found: Any = embedded.s3.get_bucket_notification_configuration(Bucket="old-in")
        assert [c["Id"] for c in found.pop(kind)] == ["twobuckets-local-arrivals"]
        assert not [name for name in found if name.endswith("Configurations")]
        done("upload", "processor.py", "--key", trigger, "--wait")

    destroyed = done("destroy", "--yes", "--delete-data", "--json")
    assert {b["bucket"] for b in records(destroyed, "existing-bucket")} == {"old-in", "old-out"}
    left: Any = embedded.s3.get_bucket_notification_configuration(Bucket="old-in")
    assert not left.get("LambdaFunctionConfigurations")
    assert entries(embedded, "old-out") == before
    assert versions(embedded, "old-out") == 6
