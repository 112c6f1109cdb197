"""What is kept of a link, who learns its token, what it may be, and how it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner, Result

from twobuckets.broker.grants import Grant, id_of
from twobuckets.cli import cli
from twobuckets.links.page import admit_page
from twobuckets.pipeline import cors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKETS = {"StagingBucket": "link-staging", "ArchiveBucket": "link-archive"}
ARTIFACTS = "link-artifacts"
URL = "https://abc123.execute-api.eu-central-1.amazonaws.com/"


def deploy(**outputs: str) -> None:
    """Make a stack that only has outputs, which is all that is asked of it here."""
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    boto3.client("cloudformation").create_stack(
        StackName="intake", TemplateBody=json.dumps(template)
    )


@pytest.fixture
def s3(empty_moto_url: str, fake_credentials, monkeypatch) -> S3Client:
    monkeypatch.setenv("AWS_ENDPOINT_URL", empty_moto_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("TWOBUCKETS_STACK", "intake")
    client = boto3.client("s3")
    where: Any = {"LocationConstraint": "eu-central-1"}
    for bucket in (*BUCKETS.values(), ARTIFACTS):
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    return client


@pytest.fixture
def page(s3: S3Client) -> None:
    deploy(**BUCKETS, PageUrl=URL, LinksBucket=ARTIFACTS)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def records(*words: str) -> list[dict[str, Any]]:
    result = run("--json", *words)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def keys(s3: S3Client) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=ARTIFACTS).get("Contents", [])]


def test_a_link_is_a_url_whose_token_is_kept_nowhere(s3, page):
    result = run("link", "--prefix", "acme/", "--title", "For Acme", "--types", ".CSV, pdf")
    assert result.exit_code == 0, result.stderr
    (url,) = result.stdout.splitlines()
    address, _, token = url.partition("#")
    assert (address, len(token)) == (URL, 43)
    assert token not in result.stderr
    assert "any number of files" in result.stderr
    (key,) = keys(s3)
    assert key == f"links/intake/{id_of(token)}.json"
    kept = s3.get_object(Bucket=ARTIFACTS, Key=key)["Body"].read()
    assert token.encode() not in kept
    grant = Grant.parse(kept)
    assert (grant.prefix, grant.title, grant.types) == ("acme/", "For Acme", ("csv", "pdf"))
    assert (grant.max_bytes, grant.max_files) == (5 * 2**30, None)
    assert grant.made_by.startswith("arn:aws:")
    week = datetime.now(UTC) + timedelta(days=7)
    assert abs(grant.expires_at - week.timestamp()) < 60


def test_a_link_of_its_own_has_a_prefix_of_its_own(s3, page):
    first, _ = records("link")
    second, _ = records("link")
    assert first["type"] == "link"
    assert first["prefix"] == f"links/{first['id']}/"
    assert first["prefix"] != second["prefix"]
    assert first["url"] != second["url"]


def test_links_are_listed_with_what_came_through_and_without_their_tokens(s3, page):
    late, _ = records("link", "--prefix", "late/", "--expires", "20d")
    soon, _ = records("link", "--prefix", "soon/", "--expires", "1h", "--max-files", "3")
    s3.put_object(Bucket=BUCKETS["StagingBucket"], Key="late/d/a b", Body=b"")
    s3.put_object(Bucket=BUCKETS["ArchiveBucket"], Key="late/d/\x01", Body=b"")
    s3.put_object(Bucket=BUCKETS["ArchiveBucket"], Key="later", Body=b"")
    s3.put_object(Bucket=ARTIFACTS, Key=f"claims/intake/{id_of(token_of(soon))}/0", Body=b"")
    s3.put_object(Bucket=ARTIFACTS, Key="links/intake/broken.json", Body=b"{")
    first, second, summary = records("ls", "links")
    assert [first["id"], second["id"]] == [soon["id"], late["id"]]
    assert (first["claimed"], first["files"]) == (1, 0)
    assert (second["claimed"], second["files"], second["is_expired"]) == (None, 2, False)
    assert summary["links"] == 2
    shown = run("ls", "links").stdout
    assert "1 of 3 begun" in shown
    for link in (late, soon):
        assert token_of(link) not in shown


def token_of(link: dict[str, Any]) -> str:
    return str(link["url"]).partition("#")[2]


def test_a_revoked_link_has_no_grant_and_the_others_keep_theirs(s3, page):
    gone, _ = records("link", "--prefix", "gone/")
    kept, _ = records("link", "--prefix", "kept/")
    # All or none: an unknown id ends nothing.
    assert run("link", "--revoke", gone["id"], "0" * 12).exit_code == 4
    assert len(keys(s3)) == 2
    ended, summary = records("link", "--revoke", gone["id"])
    assert (ended["id"], ended["prefix"], summary["revoked"]) == (gone["id"], "gone/", 1)
    assert keys(s3) == [f"links/intake/{id_of(token_of(kept))}.json"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--prefix", "acme"), "a / after each"),
        (("--prefix", ""), "a / after each"),
        (("--prefix", "/"), "a / after each"),
        (("--prefix", "a/../b/"), "a / after each"),
        (("--prefix", "a//b/"), "a / after each"),
        (("--prefix", "a\u202e/"), "unseen characters"),
        (("--prefix", "a" * 512 + "/"), "512 bytes"),
        (("--expires", "31d"), "1m to 30d"),
        (("--expires", "59s"), "1m to 30d"),
        (("--max-files", "0"), "1 to 100,000 files"),
        (("--max-size", "0"), "no size"),
        (("--types", "a/b"), "extensions"),
        (("3f9a1c22d0b7",), "--revoke"),
        (("--revoke",), "ids"),
        (("--revoke", "3f9"), "12 digits"),
        (("--revoke", "../../../../../../.."), "12 digits"),
    ],
)
def test_a_link_that_can_not_be_is_refused_and_nothing_is_kept(s3, page, words, why):
    result = run("link", *words)
    assert result.exit_code == 2
    assert why in result.stderr
    assert keys(s3) == []


def test_without_a_page_the_remedy_is_told(s3):
    deploy(**BUCKETS)
    for words in (("link",), ("ls", "links"), ("link", "--revoke", "0" * 12)):
        result = run(*words)
        assert result.exit_code == 4
        assert "enabled = true" in result.stderr
    assert run("ls", "links", "--prefix", "a").exit_code == 2


def test_the_page_gets_a_cors_rule_of_its_own_beside_those_there_are(s3):
    bucket = BUCKETS["StagingBucket"]

    def admit(*origins: str) -> None:
        admit_page(s3, bucket, "intake", origins, sleep=lambda _: None)

    admit()
    admit("https://a.example")
    (rule,) = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
    assert (rule["ID"], rule["AllowedOrigins"]) == ("twobuckets-intake-page", ["https://a.example"])
    theirs: Any = {"ID": "x", "AllowedMethods": ["GET"], "AllowedOrigins": ["https://b.example"]}
    s3.put_bucket_cors(
        Bucket=bucket,
        CORSConfiguration={
            "CORSRules": [theirs, cors.rule_for(["https://old.example"], "twobuckets-intake-page")]
        },
    )
    admit("https://new.example")
    rules = s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
    assert [rule["AllowedOrigins"] for rule in rules] == [
        ["https://b.example"],
        ["https://new.example"],
    ]
    admit()
    assert [rule["ID"] for rule in s3.get_bucket_cors(Bucket=bucket)["CORSRules"]] == ["x"]
