"""What a person at a terminal meets: questions, progress, Ctrl-C, and pairs made by hand."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.embedded.pair import ARCHIVE, STAGING, make_pair
from tests.terminal import PATIENCE_SECONDS, Terminal, at_terminal
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws

__all__ = ["at_terminal"]


@pytest.fixture
def project(embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a processor, which is the working directory."""
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    (tmp_path / "twobuckets.toml").write_text('stack = "local"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_nothing_is_left_of_the_plan(embedded: Aws):
    stacks = embedded.cloudformation.list_stacks()["StackSummaries"]
    assert [s for s in stacks if s["StackStatus"] != "DELETE_COMPLETE"] == []


def test_deploy_asks_and_no_is_no(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    terminal = at_terminal("deploy")
    terminal.read_until("Deploy local? [y/N]")
    terminal.type("what?")
    terminal.read_until("Answer y for yes or n for no.")
    terminal.type("n")
    assert terminal.end() == 130
    assert "Nothing was changed." in terminal.shown
    assert embedded.s3.list_buckets()["Buckets"] == []
    assert_nothing_is_left_of_the_plan(embedded)


def test_what_somebody_adds_while_the_question_stands_is_not_wiped(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    deployed = CliRunner().invoke(cli, ["deploy", "--yes"])
    assert deployed.exit_code == 0, deployed.output
    with (project / "twobuckets.toml").open("a") as settings:
        settings.write("[deploy]\nabort_incomplete_uploads_days = 9\n")
    terminal = at_terminal("deploy")
    terminal.read_until("Deploy local? [y/N]")
    bucket = "local-staging-000000000000-us-east-1"
    rules: Any = embedded.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "t/"}}
    rules.append(theirs | {"Expiration": {"Days": 9}})
    embedded.s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": rules}
    )
    terminal.type("y")
    assert terminal.end() == 1
    assert "the lifecycle rule theirs" in " ".join(terminal.shown.split())
    present = embedded.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert "theirs" in [rule["ID"] for rule in present]
    change_sets = embedded.cloudformation.list_change_sets(StackName="local")["Summaries"]
    assert "AVAILABLE" not in {one["ExecutionStatus"] for one in change_sets}


def test_deploy_asks_and_yes_is_followed_to_the_end_and_destroy_wants_the_name(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    terminal = at_terminal("deploy")
    terminal.read_until("Deploy local? [y/N]")
    terminal.type("y")
    assert terminal.end() == 0
    assert "Deployed local." in terminal.shown

    wrong = at_terminal("destroy")
    wrong.read_until("Type the stack's name, local, to destroy it:")
    wrong.type("y")
    assert wrong.end() == 130
    assert "Nothing was changed." in wrong.shown
    assert len(embedded.s3.list_buckets()["Buckets"]) == 3

    right = at_terminal("destroy")
    right.read_until("to destroy it:")
    right.type("local")
    assert right.end() == 0
    assert "Destroyed local" in right.shown
    assert len(embedded.s3.list_buckets()["Buckets"]) == 1


def test_what_is_redirected_gets_every_line_while_the_terminal_shows_progress(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    lines = project / "lines.txt"
    with lines.open("wb") as redirected:
        terminal = at_terminal("deploy", "--yes", stdout=redirected.fileno())
        assert terminal.end() == 0
    written = lines.read_text()
    assert "+ StagingBucket (S3::Bucket)" in written
    assert "CREATE_COMPLETE  StagingBucket" in written
    assert "Deployed local." in written
    assert "\x1b" not in written
    assert "CREATE_COMPLETE" not in terminal.shown
    assert "Deploying local" in terminal.shown


def test_interrupting_the_question_takes_the_plan_back(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    terminal = at_terminal("deploy")
    terminal.read_until("Deploy local? [y/N]")
    terminal.program.send_signal(signal.SIGINT)
    terminal.read_until("Nothing was changed.")
    assert terminal.end() == 130
    assert embedded.s3.list_buckets()["Buckets"] == []
    assert_nothing_is_left_of_the_plan(embedded)


def test_an_operation_under_way_is_recognised_and_ctrl_c_says_that_it_goes_on(
    project: Path, at_terminal: Callable[..., Terminal], embedded: Aws
):
    # A stack like ours that takes its time: nobody ever signals what it waits for.
    names = ("StagingBucketName", "ArchiveBucketName")
    template = {
        "Parameters": {name: {"Type": "String"} for name in names},
        "Resources": {
            "Signal": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
            "Wait": {
                "Type": "AWS::CloudFormation::WaitCondition",
                "Properties": {"Handle": {"Ref": "Signal"}, "Timeout": "15"},
            },
        },
    }
    embedded.cloudformation.create_stack(
        StackName="local",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": name, "ParameterValue": "x"} for name in names],
    )
    refused = CliRunner().invoke(cli, ["deploy", "--yes"])
    assert refused.exit_code == 1
    assert "an operation is under way since " in refused.stderr
    assert "(CREATE_IN_PROGRESS)" in refused.stderr
    assert "deploy --follow" in refused.stderr
    assert CliRunner().invoke(cli, ["destroy", "--yes"]).exit_code == 1

    following = at_terminal("deploy", "--follow")
    following.read_until("CREATE_IN_PROGRESS")
    following.program.send_signal(signal.SIGINT)
    assert following.end() == 130
    assert "goes on in AWS" in following.shown
    assert "twobuckets --stack local deploy --follow" in following.shown

    # It did go on; following it again sees it fail, and why.
    again = CliRunner().invoke(cli, ["deploy", "--follow"])
    assert again.exit_code == 1
    assert "Wait (AWS::CloudFormation::WaitCondition)" in again.stderr
    assert "ROLLBACK_COMPLETE" in again.stdout


def test_status_of_a_pair_made_by_hand(
    embedded: Aws,
    embedded_server: local.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    make_pair(embedded)
    (tmp_path / "twobuckets.toml").write_text(
        f'staging = "{STAGING}"\narchive = "{ARCHIVE}"\nfunction = "hand-processor"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", embedded_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", embedded_server.secret_key)
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", embedded_server.endpoint_url)
    monkeypatch.setenv("AWS_REGION", embedded_server.region)
    embedded.s3.put_object(Bucket=STAGING, Key="will fail", Body=b"x")
    deadline = time.monotonic() + PATIENCE_SECONDS
    shown = CliRunner().invoke(cli, ["status"])
    # Of somebody else's function invocations are counted: Lambda's three tries are one event.
    failed = "1 invocation failed (3 tries)"
    while failed not in shown.stdout and time.monotonic() < deadline:
        time.sleep(0.5)
        shown = CliRunner().invoke(cli, ["status"])
    for words in (
        STAGING,
        "NOT VERSIONED",
        "uploads NEVER ABORTED",
        "1 object, 1 B",
        "woken by s3:ObjectCreated:* · S3 may invoke it",
        failed,
        "none built here to compare",
        f"twobuckets.toml: staging={STAGING}",
        "log_group",
    ):
        assert words in shown.stdout, (words, shown.stdout, shown.stderr)
    assert shown.exit_code == 0
    # There is no stack to deploy or destroy, and that is said.
    for command in ("deploy", "destroy"):
        refused = CliRunner().invoke(cli, [command, "--yes"])
        assert refused.exit_code == 2
        assert "No stack is given" in refused.stderr
