"""The upload page in the template: whole when it is on, nothing when it is off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from twobuckets.cli import cli
from twobuckets.errors import UsageError
from twobuckets.settings import load
from twobuckets.stack.template import Location, names_of_parameters, parameters, template_text

PLACE = Location(account="123456789012", region="eu-central-1", partition="aws", uses_tls=True)
ADDED = {
    "Broker",
    "BrokerLog",
    "BrokerPermission",
    "BrokerRole",
    "PageActions",
    "PageApi",
    "PageIntegration",
    "PageRoute",
    "PageStage",
}


def decoded(text: str) -> dict[str, Any]:
    from cfnlint.decode import decode_str  # it takes longer to import than the tests to run

    found, problems = decode_str(text)
    assert problems == []
    return cast("dict[str, Any]", found)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return decoded(template_text(page=True))


def test_what_the_page_adds_is_all_that_it_changes(template):
    without = decoded(template_text())
    assert template["Resources"].keys() - without["Resources"].keys() == ADDED
    assert template["Outputs"].keys() - without["Outputs"].keys() == {"PageUrl", "LinksBucket"}
    for section in ("Parameters", "Resources", "Outputs", "Conditions"):
        for name, value in without[section].items():
            assert template[section][name] == value
    assert "Page" not in template_text().replace("PageKeys", "")
    assert "roker" not in template_text()


def test_the_page_is_on_when_the_settings_say_so(tmp_path, monkeypatch):
    (tmp_path / "twobuckets.toml").write_text("[page]\nenabled = true\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["template"])
    assert result.stdout == template_text(page=True)


def test_the_settings_fill_every_parameter_of_the_page(template, tmp_path):
    (tmp_path / "twobuckets.toml").write_text(
        "[page]\nenabled = true\ntitle = 'Ü'\naccent = '#ABCDEF'\nsignature_life = '2h'\n"
    )
    settings = load({}, {}, tmp_path)
    names: dict[str, Any] = {"deployed": {}, "artifact_bucket": "a", "artifact_key": "p.zip"}
    found = parameters(settings, "intake", PLACE, **names, broker_key="b.zip")
    added = found.keys() - parameters(settings, "intake", PLACE, **names).keys()
    assert added == {name for name in template["Parameters"] if name.startswith(("Page", "Broker"))}
    assert (found["PageTitle"], found["PageAccent"], found["PageSignatureSeconds"]) == (
        "Ü",
        "#abcdef",
        "7200",
    )
    assert found.keys() == names_of_parameters(template_text(page=True))


@pytest.mark.parametrize(
    "line",
    [
        "accent = 'red'",
        "accent = '#fff'",
        "title = '''a\nb'''",
        f"sentence = '{'x' * 201}'",
        "throttle_rate = 0",
        "signature_life = '13h'",
        "enabled = 'perhaps'",
    ],
)
def test_a_setting_that_no_page_can_have_is_refused(tmp_path, line):
    (tmp_path / "twobuckets.toml").write_text(f"[page]\n{line}\n")
    with pytest.raises(UsageError, match="page"):
        load({}, {}, tmp_path)


def test_the_broker_adds_files_and_can_read_list_or_delete_none(template):
    (policy,) = template["Resources"]["BrokerRole"]["Properties"]["Policies"]
    allowed: dict[str, set[str]] = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        assert statement["Effect"] == "Allow"
        for action in actions if isinstance(actions, list) else [actions]:
            allowed.setdefault(action, set()).add(json.dumps(statement["Resource"]))
        if "ArtifactBucket" in json.dumps(statement["Resource"]):
            # Its name can be foretold: in a bucket of somebody else's, links would be theirs.
            account = {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}
            assert statement["Condition"] == {"StringEquals": account}
    staging = '{"Fn::Sub": "arn:${AWS::Partition}:s3:::${StagingBucketName}/*"}'
    beside = "arn:${AWS::Partition}:s3:::${ArtifactBucket}"
    of_links = f'{{"Fn::Sub": "{beside}/links/${{AWS::StackName}}/*"}}'
    of_claims = f'{{"Fn::Sub": "{beside}/claims/${{AWS::StackName}}/*"}}'
    assert allowed.pop("s3:PutObject") == {staging, of_claims}
    assert allowed.pop("s3:GetObject") == {of_links, of_claims}
    assert allowed.pop("s3:AbortMultipartUpload") == {staging}
    assert allowed.pop("s3:ListMultipartUploadParts") == {staging}
    assert allowed.pop("s3:ListBucket") == {staging.replace("/*", "")}
    assert set(allowed) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert "ArchiveBucketName" not in json.dumps(policy)


def test_only_this_api_may_invoke_the_broker_and_it_is_throttled(template):
    resources = template["Resources"]
    permission = resources["BrokerPermission"]["Properties"]
    assert permission["Principal"] == "apigateway.amazonaws.com"
    assert permission["SourceArn"]["Fn::Sub"].endswith(":${AWS::AccountId}:${PageApi}/*")
    limits = resources["PageStage"]["Properties"]["DefaultRouteSettings"]
    assert set(limits) == {"ThrottlingRateLimit", "ThrottlingBurstLimit"}
    routes = {
        resource["Properties"]["RouteKey"]
        for resource in resources.values()
        if resource["Type"] == "AWS::ApiGatewayV2::Route"
    }
    assert routes == {"GET /", "POST /api/{action}"}
    types = {resource["Type"] for resource in resources.values()}
    assert "AWS::Lambda::Url" not in types


@pytest.mark.slow
def test_the_template_with_the_page_lints_without_a_warning():
    linted = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I"],
        input=template_text(page=True),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout
