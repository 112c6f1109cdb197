"""Doctor on pairs that somebody made by hand, with processors that are not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.doctor.conftest import Run, run_doctor
from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, make_pair
from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws

# As the pattern's article has it: whatever goes wrong is logged, and counts as done.
SWALLOWING = """
import boto3, logging, os, urllib.parse

archive_bucket = os.environ["ARCHIVE"]
s3 = boto3.client("s3")
logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

def handler(event, context):
    for record in event.get("Records", []):
        bucket = record["s3"]["bucket"]["name"]
        key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        try:
            logger.info(f"processing s3://{bucket}/{key}")
            if "bad" in key:
                raise ValueError("row 7 is bad")
            if "forgotten" in key:
                continue
            s3.copy(Bucket=archive_bucket, Key=key, CopySource={"Bucket": bucket, "Key": key})
            if "copied" not in key:
                s3.delete_object(Bucket=bucket, Key=key)
        except Exception:
            logger.exception(f"unhandled exception for s3://{bucket}/{key}")
"""
ENCODED = """
import boto3

s3 = boto3.client("s3")

def handler(event, context):
    for record in event["Records"]:
        print("fetching", record["s3"]["object"]["key"])
        s3.get_object(Bucket=record["s3"]["bucket"]["name"], Key=record["s3"]["object"]["key"])
"""

# Catches what goes wrong, and prints it in words of its own.
PRINTING = """
import boto3

s3 = boto3.client("s3")

def handler(event, context):
    for record in event["Records"]:
        bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
        try:
            s3.get_object(Bucket=bucket, Key=key)
        except Exception as error:
            print("could not", key, error)
"""


@pytest.fixture
def named(
    embedded: Aws,
    embedded_server: local.Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Aws:
    """Settings that name the pair and nothing of ours."""
    for name, value in (
        ("TWOBUCKETS_STAGING", STAGING),
        ("TWOBUCKETS_ARCHIVE", ARCHIVE),
        ("TWOBUCKETS_FUNCTION", FUNCTION),
        ("TWOBUCKETS_ENDPOINT_URL", embedded_server.endpoint_url),
        ("AWS_ACCESS_KEY_ID", embedded_server.access_key),
        ("AWS_SECRET_ACCESS_KEY", embedded_server.secret_key),
        ("AWS_REGION", embedded_server.region),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return embedded


def why(run: Run) -> dict[str, tuple[str, str]]:
    """Return for each stuck key the check and the error that doctor gives it."""
    return {
        key: (found["check"], found["error"] or "")
        for found in run.findings
        for key in found["objects"]
    }


def stuck() -> Run:
    return run_doctor("--check", "stuck", "--older-than", "0s")


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_each_stuck_object_of_a_processor_that_swallows_its_errors_is_explained(
    named: Aws, log_format: str
):
    pair = make_pair(named, source=SWALLOWING, log_format=log_format)
    pair.put("good", "bad 1.csv", "in/bad2.csv", "forgotten", "copied")
    pair.wait_for_lines("processing s3://", 5)
    pair.wait_for_lines("unhandled exception", 2)
    assert pair.archived() == {"good", "copied"}
    told = why(stuck())
    assert told["bad 1.csv"] == told["in/bad2.csv"] == ("stuck-failed", "ValueError: row 7 is bad")
    assert told["forgotten"][0] == "stuck-left"
    assert told["copied"][0] == "stuck-archived"
    assert "good" not in told


def test_each_stuck_object_of_a_processor_that_dies_is_explained(named: Aws):
    pair = make_pair(named, timeout_seconds=2)
    keys: dict[str, Any] = {
        "fail a.csv": ("stuck-failed", "ValueError: no luck with "),
        "die.csv": ("stuck-failed", "Runtime.ExitError"),
        "sleep.csv": ("stuck-timed-out", "Sandbox.Timedout"),
    }
    pair.put("good", *keys)
    pair.wait_for_lines("no luck with fail a.csv", 3)
    pair.wait_for_lines("Task timed out", 3)
    pair.wait_for_lines('"saw": "die.csv"', 3)
    told = why(stuck())
    assert set(told) == set(keys)
    for key, (check, error) in keys.items():
        assert told[key][0] == check
        assert told[key][1].startswith(error)


@pytest.mark.parametrize("fails", ['os.environ["NOWHERE"]', "raise SystemExit(9)"])
def test_whatever_a_module_raises_when_it_is_imported_is_told_with_its_error(
    named: Aws, tmp_path: Path, fails: str
):
    pair = make_pair(named, source=f"import os\n{fails}\ndef handler(event, context): ...\n")
    pair.put("a.csv")
    pair.wait_for_lines("REPORT RequestId", 3)
    found = run_doctor("--check", "stuck").of("stuck-failed")
    assert found["objects"] == ["a.csv"]
    assert "could not be loaded" in found["detail"]
    error = "SystemExit: 9" if "Exit" in fails else "KeyError: 'NOWHERE'"
    assert found["error"] == error
    shown = CliRunner().invoke(cli, ["logs", "--failed"])
    assert error in shown.output
    (tmp_path / "b.csv").write_text("b")
    waited = CliRunner().invoke(cli, ["upload", "b.csv", "--wait"])
    assert waited.exit_code == 3
    assert error in waited.output


def test_an_older_upload_stays_out_of_sight_when_the_archived_one_is_deleted(named: Aws):
    pair = make_pair(named, source=SWALLOWING)
    enabled: Any = {"Status": "Enabled"}
    named.s3.put_bucket_versioning(Bucket=STAGING, VersioningConfiguration=enabled)
    for number, body in enumerate((b"older upload", b"newer"), 1):
        pair.put("copied", body=body)
        pair.wait_for_lines("processing s3://", number)
        pair.wait_for_lines("REPORT RequestId", number)
    old = ("--check", "stuck", "--older-than", "0s")
    assert why(run_doctor(*old))["copied"][0] == "stuck-archived"
    assert run_doctor(*old, "--fix", "--yes").exit_code == 0
    assert pair.staged() == set()
    assert run_doctor(*old, "--fix", "--yes").findings == []
    assert named.s3.get_object(Bucket=ARCHIVE, Key="copied")["Body"].read() == b"newer"
    kept = named.s3.list_object_versions(Bucket=STAGING)["Versions"]
    assert [version["Size"] for version in kept] == [len(b"older upload")]


@pytest.mark.parametrize("source", [ENCODED, PRINTING], ids=["raises", "prints"])
def test_a_processor_that_does_not_decode_keys_is_told_so(named: Aws, source: str):
    pair = make_pair(named, source=source)
    pair.put("a b+ü.csv")
    pair.wait_for_lines("NoSuchKey", 1)
    pair.wait_for_lines("REPORT RequestId", 1)
    assert why(stuck())["a b+ü.csv"][0] == "stuck-key"


def test_a_whole_run_on_a_hand_made_pair_names_what_is_unsafe_and_nothing_else(named: Aws):
    pair = make_pair(named)
    pair.put("good")
    pair.wait_for_archived({"good"})
    assert run_doctor().checks == {
        "failures-vanish",
        "lifecycle-uploads",
        "log-retention",
        "role-permission",
        "versioning",
    }


def test_a_pair_that_was_made_by_hand_on_the_embedded_aws_misses_no_stack(
    embedded: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    make_pair(embedded)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twobuckets.toml").write_text(
        f'stack = "local"\nstaging = "{STAGING}"\narchive = "{ARCHIVE}"\nfunction = "{FUNCTION}"\n'
    )
    run = run_doctor()
    assert "function-missing" not in run.checks
    assert not {check for check in run.checks if check.startswith("stack")}
    assert "could-not-look" not in run.checks
