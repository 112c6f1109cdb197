"""Scoped credentials: a session policy that matches one key and no other."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.stub import Stubber
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from moto import mock_aws

from twobuckets.cli import cli
from twobuckets.errors import AccessError, TwoBucketsError, UsageError
from twobuckets.upload.credentials import (
    request_credentials,
    require_role,
    resource_of,
    session_name_of,
    session_policy,
)

ROLE = "arn:aws:iam::123456789012:role/uploader"
ANYTHING = object()

# Mostly the characters that IAM reads as something else.
_odd = st.sampled_from(list("*?${}:a/ü\n")) | st.characters(codec="utf-8")
keys = st.text(_odd, min_size=1, max_size=40)


def matches(pattern: str, text: str) -> bool:
    """Tell whether an IAM resource matches, by the rules of the IAM user guide.

    `*` is any text and `?` any character; `${*}`, `${?}` and `${$}` are those characters; any
    other variable may stand for anything at all.
    """
    expression = ""
    for token in re.findall(r"\$\{[^}]*\}|.", pattern, re.DOTALL):
        if token in ("${*}", "${?}", "${$}"):
            expression += re.escape(token[2])
        elif token == "*" or (token.startswith("${") and len(token) > 2):
            expression += ".*"
        else:
            expression += "." if token == "?" else re.escape(token)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def test_the_matcher_knows_wildcards_and_variables():
    assert matches("a*c", "abbc")
    assert matches("a?c", "abc")
    assert not matches("a?c", "abbc")
    assert matches("a${*}c", "a*c")
    assert not matches("a${*}c", "abc")
    assert matches("home/${aws:username}", "home/anybody")


@given(keys, keys)
@example("*", "anything")
@example("a?c", "abc")
@example("${aws:username}", "alice")
@example("${*}", "*")
@example("$*", "$anything")
@example("$${*}", "$*")
@example("${$}", "$")
def test_the_policys_resource_matches_the_key_and_no_other(key, other):
    resource = resource_of("staging", key)
    assert matches(resource, f"arn:aws:s3:::staging/{key}")
    assert (key == other) == matches(resource, f"arn:aws:s3:::staging/{other}")


@given(keys)
def test_the_policy_is_what_sts_takes_and_names_the_key_exactly(key):
    policy = session_policy("staging", key)
    assert policy.isascii()
    assert policy.isprintable()
    assert len(policy) <= 2048
    (statement,) = json.loads(policy)["Statement"]
    assert statement["Effect"] == "Allow"
    assert statement["Resource"] == resource_of("staging", key)
    assert sorted(statement["Action"]) == [
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    ]


def test_the_longest_plain_key_fits_and_one_that_does_not_is_refused():
    assert len(session_policy("b" * 63, "k" * 1024)) <= 2048
    for key in ("*" * 1024, "ü" * 512):
        with pytest.raises(UsageError, match="STS allows 2,048 characters"):
            session_policy("staging", key)


@given(keys, keys)
def test_a_session_name_is_one_that_sts_takes_and_tells_keys_apart(key, other):
    name = session_name_of(key)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", name)
    assert (key == other) == (name == session_name_of(other))


@pytest.fixture
def run(monkeypatch, fake_credentials):
    """Run the program for a pair that is named, on moto."""
    monkeypatch.setenv("TWOBUCKETS_STAGING", "staging-bucket")
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "archive-bucket")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    with mock_aws():
        yield invoke


def test_the_three_forms_carry_the_same_kind_of_credentials(run):
    shell = run("credentials", "k", "--role-arn", ROLE)
    assert shell.exit_code == 0, shell.stderr
    comment, *exports = shell.stdout.splitlines()
    assert comment.startswith("# uploads s3://staging-bucket/k only, until ")
    assert {line.partition("=")[0] for line in exports} == {
        "export AWS_ACCESS_KEY_ID",
        "export AWS_SECRET_ACCESS_KEY",
        "export AWS_SESSION_TOKEN",
        "export AWS_CREDENTIAL_EXPIRATION",
        "export AWS_REGION",
    }
    as_json = json.loads(run("credentials", "k", "--role-arn", ROLE, "--format", "json").stdout)
    assert as_json["type"] == "scoped-credentials"
    assert (as_json["bucket"], as_json["key"]) == ("staging-bucket", "k")
    command = ["credentials", "k", "--role-arn", ROLE, "--format", "credential_process"]
    found = json.loads(run(*command).stdout)
    assert found["Version"] == 1
    assert set(found) == {
        "Version",
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    }
    ends_at = datetime.fromisoformat(found["Expiration"])
    assert timedelta(minutes=55) < ends_at - datetime.now(UTC) <= timedelta(hours=1, seconds=1)


def test_botocore_reads_the_credential_process_form(run, tmp_path, monkeypatch):
    found = run("credentials", "k", "--role-arn", ROLE, "--format", "credential_process").stdout
    (tmp_path / "answer.json").write_text(found)
    config = tmp_path / "config"
    config.write_text(f"[profile scoped]\ncredential_process = cat {tmp_path}/answer.json\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    credentials = boto3.Session(profile_name="scoped").get_credentials()
    assert credentials is not None
    assert credentials.get_frozen_credentials().token == json.loads(found)["SessionToken"]


def test_with_json_there_is_one_object_and_a_summary(run):
    lines = run("--json", "credentials", "k", "--role-arn", ROLE).stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["scoped-credentials", "summary"]


def test_the_role_may_be_named_in_the_settings(run, tmp_path, monkeypatch):
    (tmp_path / "twobuckets.toml").write_text(
        f'staging = "staging-bucket"\narchive = "archive-bucket"\nupload_role_arn = "{ROLE}"\n'
    )
    monkeypatch.chdir(tmp_path)
    assert run("credentials", "k").exit_code == 0


def test_no_secret_is_on_stderr(run):
    result = run("credentials", "k", "--role-arn", ROLE, "--format", "json", "-vv")
    found = json.loads(result.stdout)
    assert found["secret_access_key"] not in result.stderr
    assert found["session_token"] not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["k"], 4, "No role to assume"),
        (["k", "--role-arn", "uploader"], 2, "not the ARN of a role"),
        (["k", "--role-arn", ROLE, "--expires", "10m"], 2, "15 minutes to 12 hours"),
        (["k", "--role-arn", ROLE, "--expires", "13h"], 2, "15 minutes to 12 hours"),
        (["k", "--role-arn", ROLE, "--session-name", "a b"], 2, "2 to 64 letters"),
        (["k" * 1025, "--role-arn", ROLE], 2, "it has 1,025 bytes"),
        (["*" * 1000, "--role-arn", ROLE], 2, "Could not write a session policy"),
    ],
)
def test_what_sts_would_not_take_is_refused_with_the_reason(run, arguments, status, said):
    result = run("credentials", *arguments)
    assert result.exit_code == status
    assert said in result.stderr
    assert result.stdout == ""


def test_a_role_that_assumes_a_role_is_told_of_its_one_hour(run, monkeypatch):
    credentials = boto3.client("sts", region_name="eu-central-1").assume_role(
        RoleArn=ROLE, RoleSessionName="somebody"
    )["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", credentials["SessionToken"])
    assert run("credentials", "k", "--role-arn", ROLE).exit_code == 0
    result = run("credentials", "k", "--role-arn", ROLE, "--expires", "2h")
    assert result.exit_code == 5
    assert "is itself an assumed role" in result.stderr


@pytest.mark.parametrize(
    ("code", "message", "kind", "said"),
    [
        ("PackedPolicyTooLarge", "too big", UsageError, "STS can't pack it"),
        (
            "AccessDenied",
            "User: x is not authorized to perform: sts:AssumeRole on resource: y",
            AccessError,
            "access denied",
        ),
        (
            "ValidationError",
            "DurationSeconds exceeds the MaxSessionDuration",
            TwoBucketsError,
            "Max",
        ),
    ],
)
def test_what_sts_refuses_is_said_in_words(fake_credentials, code, message, kind, said):
    sts = boto3.client("sts", region_name="eu-central-1")
    with Stubber(sts) as stubbed:
        stubbed.add_client_error("assume_role", code, message)
        with pytest.raises(kind, match=said) as caught:
            request_credentials(
                sts,
                role_arn=ROLE,
                bucket="staging",
                key="k",
                lives_for=timedelta(hours=1),
                region="eu-central-1",
            )
    if code == "AccessDenied":
        assert "sts:AssumeRole" in (caught.value.hint or "")


def test_a_role_of_another_partition_gets_a_policy_of_that_partition(fake_credentials):
    sts = boto3.client("sts", region_name="cn-north-1")
    role = "arn:aws-cn:iam::123456789012:role/uploader"
    policy = session_policy("staging", "k", partition="aws-cn")
    assert "arn:aws-cn:s3:::staging/k" in policy
    expected = {
        "RoleArn": role,
        "RoleSessionName": session_name_of("k"),
        "Policy": policy,
        "DurationSeconds": 3600,
    }
    answer = {
        "Credentials": {
            "AccessKeyId": "ASIAEXAMPLEEXAMPLE",
            "SecretAccessKey": "s",
            "SessionToken": "t",
            "Expiration": datetime.now(UTC),
        }
    }
    with Stubber(sts) as stubbed:
        stubbed.add_response("assume_role", answer, expected)
        found = request_credentials(
            sts,
            role_arn=role,
            bucket="staging",
            key="k",
            lives_for=timedelta(hours=1),
            region="cn-north-1",
        )
    assert found.access_key_id == "ASIAEXAMPLEEXAMPLE"
    assert "'s'" not in repr(found)


@pytest.mark.parametrize(
    ("role", "is_aws", "partition"),
    [
        ("arn:aws:iam::123456789012:role/uploader", True, "aws"),
        ("arn:aws:iam::123456789012:role/a/path/uploader", True, "aws"),
        ("arn:aws-us-gov:iam::123456789012:role/uploader", True, "aws-us-gov"),
        ("arn:aws-iso-b:iam::123456789012:role/uploader", True, "aws-iso-b"),
        ("arn:aws-eusc:iam::123456789012:role/uploader", True, "aws-eusc"),
        ("arn:aws:iam:::role/uploader", True, None),
        ("arn:aws:iam::tenant:role/uploader", True, None),
        ("arn:minio:iam:::role/uploader", True, None),
        ("arn:aws:iam::123456789012:user/uploader", True, None),
        # Ceph's RADOS gateway, with and without a tenant, and with accounts of its own.
        ("arn:aws:iam:::role/uploader", False, "aws"),
        ("arn:aws:iam::tenant:role/uploader", False, "aws"),
        ("arn:aws:iam::RGW11111111111111111:role/uploader", False, "aws"),
        ("arn:minio:iam:::role/idmp-upload", False, "aws"),
        ("arn:aws-cn:iam::123456789012:role/uploader", False, "aws-cn"),
        ("uploader", False, None),
        ("arn:aws:iam::a:b:role/uploader", False, None),
    ],
)
def test_roles_are_known_in_every_partition_and_of_every_maker(role, is_aws, partition):
    if partition is None:
        with pytest.raises(UsageError, match="not the ARN of a role"):
            require_role(role, is_aws=is_aws)
    else:
        assert require_role(role, is_aws=is_aws) == partition


def test_a_role_of_another_maker_is_assumed_at_its_endpoint(fake_credentials):
    role = "arn:minio:iam:::role/idmp-upload"
    sts = boto3.client("sts", region_name="us-east-1", endpoint_url="https://minio.example")
    expected = {
        "RoleArn": role,
        "RoleSessionName": session_name_of("k"),
        "Policy": session_policy("staging", "k"),
        "DurationSeconds": 3600,
    }
    given_ = {"AccessKeyId": "M" * 16, "SecretAccessKey": "s", "SessionToken": "t"}
    with Stubber(sts) as stubbed:
        answer = {"Credentials": given_ | {"Expiration": datetime.now(UTC)}}
        stubbed.add_response("assume_role", answer, expected)
        found = request_credentials(
            sts,
            role_arn=role,
            bucket="staging",
            key="k",
            lives_for=timedelta(hours=1),
            region="us-east-1",
            endpoint_url="https://minio.example",
        )
    assert found.role_arn == role
