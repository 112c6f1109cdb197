"""The manual's page of permissions: an identity that has them, and no others, gets through."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from twobuckets import manual
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets import local
    from twobuckets.aws.clients import Aws

PAGE = Path(manual.__file__).with_name("permissions.md")
SERVICES = "cloudformation|cloudwatch|iam|lambda|logs|s3|sqs|sts"


def actions_of(command: str) -> list[str]:
    """Return the actions in the command's line; a service holds on until the next one is named."""
    rows = PAGE.read_text("utf-8").splitlines()
    begin = f"- **{command}**: "
    cell = next(row for row in rows if row.startswith(begin)).removeprefix(begin)
    actions = []
    service = ""
    for named, action in re.findall(rf"`(?:({SERVICES}):)?([A-Z][A-Za-z]+)`", cell):
        service = named or service
        actions.append(f"{service}:{action}")
    return actions


@pytest.fixture
def run_as(
    embedded: Aws,
    embedded_server: local.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Result]]:
    """Run a command as a user who has these actions and no others."""
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    user = embedded.iam.create_user(UserName="someone")["User"]["UserName"]
    key = embedded.iam.create_access_key(UserName=user)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    where = ["--endpoint-url", embedded_server.endpoint_url, "--region", embedded_server.region]

    def run(actions: list[str], *arguments: str) -> Result:
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        embedded.iam.put_user_policy(UserName=user, PolicyName="these", PolicyDocument=policy)
        return CliRunner().invoke(cli, ["--stack", "intake", *where, *arguments])

    yield run
    embedded.iam.delete_user_policy(UserName=user, PolicyName="these")
    embedded.iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
    embedded.iam.delete_user(UserName=user)


ALWAYS = ["cloudformation:DescribeStacks"]


def test_the_actions_in_the_manual_are_enough(run_as: Callable[..., Result], embedded: Aws):
    deploy, status = actions_of("`deploy`"), actions_of("`status`")
    destroy = actions_of("`destroy`")
    for actions, arguments in (
        (deploy, ["deploy", "--dry-run"]),
        (deploy, ["deploy", "--yes"]),
        (deploy, ["deploy", "--yes"]),
        # The embedded AWS wants the action that writes it for reading the concurrency.
        ([*status, "lambda:PutFunctionConcurrency"], ["status"]),
        (destroy, ["destroy", "--yes", "--delete-data"]),
    ):
        result = run_as(ALWAYS + actions, *arguments)
        assert result.exit_code == 0, (arguments, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("without", "arguments"),
    [
        ("cloudformation:CreateChangeSet", ["deploy", "--yes"]),
        ("cloudformation:ExecuteChangeSet", ["deploy", "--yes"]),
        ("s3:CreateBucket", ["deploy", "--yes"]),
        ("s3:PutObject", ["deploy", "--yes"]),
        ("cloudformation:DescribeStacks", ["destroy", "--yes"]),
    ],
)
def test_an_action_that_is_missing_is_named_and_the_plan_is_taken_back(
    run_as: Callable[..., Result], embedded: Aws, without: str, arguments: list[str]
):
    actions = [a for a in ALWAYS + actions_of("`deploy`") if a != without]
    result = run_as(actions, *arguments)
    assert result.exit_code == 5, result.stderr
    assert without in result.stderr
    stacks = embedded.cloudformation.describe_stacks()["Stacks"]
    assert [s for s in stacks if s["StackStatus"] != "DELETE_COMPLETE"] == []


def test_status_shows_what_it_may_and_names_the_rest(run_as: Callable[..., Result]):
    assert run_as(ALWAYS + actions_of("`deploy`"), "deploy", "--yes").exit_code == 0
    missing = {"s3:GetBucketVersioning", "lambda:GetPolicy", "logs:FilterLogEvents"}
    allowed = [a for a in ALWAYS + actions_of("`status`") if a not in missing]
    result = run_as(allowed, "status")
    assert result.exit_code == 5
    for action in missing:
        assert action in result.stdout
    assert "no objects wait" in result.stdout
    assert "nothing in intake-failures" in result.stdout
    assert "woken by s3:ObjectCreated:*" in result.stdout
