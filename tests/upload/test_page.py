"""The page that needs no server: what is signed in it, what it may do, and who may read it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from click.testing import CliRunner, Result
from moto import mock_aws

from twobuckets.cli import cli
from twobuckets.pipeline import cors

STAGING = "staging-bucket"
MIB = 1024 * 1024


@pytest.fixture
def s3(fake_credentials, monkeypatch):
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "archive-bucket")
    with mock_aws():
        client = boto3.client("s3", region_name="eu-central-1")
        where: Any = {"LocationConstraint": "eu-central-1"}
        client.create_bucket(Bucket=STAGING, CreateBucketConfiguration=where)
        yield client


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def page_of(*options: str, key: str = "in/a.csv") -> str:
    result = run("presign", key, "--page", "-", *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def offer_in(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="offer">(.*?)</script>', html)
    assert found is not None
    offer: dict[str, Any] = json.loads(found[1])
    return offer


def part_url(offer: dict[str, Any], number: int) -> str:
    signature = offer["part_signatures"][number - 1]
    return f"{offer['part_url']}&partNumber={number}&X-Amz-Signature={signature}"


def signed_headers(url: str) -> set[str]:
    return set(parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0].split(";"))


def uploads(s3) -> Any:
    return s3.list_multipart_uploads(Bucket=STAGING).get("Uploads", [])


def test_a_page_holds_what_its_upload_takes_and_nothing_more(s3):
    offer = offer_in(page_of(key="in/räder & 5+%.csv"))
    (upload,) = uploads(s3)
    assert (upload["Key"], upload["UploadId"]) == ("in/räder & 5+%.csv", offer["upload_id"])
    assert len(set(offer["part_signatures"])) == 1000
    requests = [offer["complete"], offer["state"], *offer["lists"]]
    assert [request["method"] for request in requests] == ["POST", "GET", "GET"]
    assert offer["complete"]["headers"]["if-none-match"] == "*"
    assert signed_headers(offer["complete"]["url"]) == {"host", "content-type", "if-none-match"}
    for url in [part_url(offer, 1), *(request["url"] for request in requests[::2])]:
        assert unquote(urlsplit(url).path) == "/in/räder & 5+%.csv"
        assert parse_qs(urlsplit(url).query)["uploadId"] == [offer["upload_id"]]
    asked = parse_qs(urlsplit(offer["state"]["url"]).query)
    assert (asked["prefix"], asked["max-keys"]) == (["in/räder & 5+%.csv"], ["1"])
    # Whatever a page sends, the stack's CORS rule lets it send.
    sent = {name for request in requests for name in request["headers"]}
    assert sent <= set(cors.SIGNED_HEADERS)


def test_every_part_is_signed_as_if_alone(s3):
    offer = offer_in(page_of("--multipart", "3"))
    for number in (1, 2, 3):
        url, _, signature = part_url(offer, number).rpartition("&X-Amz-Signature=")
        query = dict(parse_qsl(urlsplit(url).query))
        assert query["partNumber"] == str(number)
        signing = S3SigV4QueryAuth(
            Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]),
            "s3",
            "eu-central-1",
        )
        request = AWSRequest("PUT", url.partition("?")[0], params=query)
        request.context["timestamp"] = query["X-Amz-Date"]
        canonical = signing.canonical_request(request)
        assert signing.signature(signing.string_to_sign(request, canonical), request) == signature


def test_a_known_size_is_bound_to_every_part_and_to_the_whole(s3, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"x" * (20 * MIB))
    offer = offer_in(page_of("--file", str(file)))
    assert (offer["size_bytes"], offer["part_bytes"]) == (20 * MIB, 8 * MIB)
    assert len(offer["part_signatures"]) == 3
    assert signed_headers(part_url(offer, 1)) == {"content-length", "host"}
    assert offer["complete"]["headers"]["x-amz-mp-object-size"] == str(20 * MIB)


def test_ten_thousand_parts_are_listed_a_thousand_at_a_time(s3):
    html = page_of("--multipart", "10000")
    offer = offer_in(html)
    assert len(offer["part_signatures"]) == 10_000
    markers = [parse_qs(urlsplit(r["url"]).query).get("part-number-marker") for r in offer["lists"]]
    assert markers == [None, *([str(after)] for after in range(1000, 10_000, 1000))]
    assert len(html) < 1_000_000


def test_only_the_pages_own_script_and_style_run_in_it(s3):
    html = page_of(key="in/</script><script>alert(1)</script>\u2028<!--")
    assert html.count("<script") == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    script = re.search(r'<script type="module">(.*?)</script>', html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert script is not None
    assert style is not None
    for name, text in (("script-src", script[1]), ("style-src", style[1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == f"https://{STAGING}.s3.eu-central-1.amazonaws.com"
    # No word, picture or program comes from elsewhere.
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_a_page_is_written_for_its_owner_only_and_its_secrets_are_told_nobody(s3, tmp_path):
    path = tmp_path / "page.html"
    result = run("--json", "presign", "k", "--page", str(path), "-vv")
    assert result.exit_code == 0, result.stderr
    page, summary = map(json.loads, result.stdout.splitlines())
    assert (page["type"], page["file"], page["html"]) == ("upload-page", str(path), None)
    assert summary["requests"] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert offer_in(path.read_text())["key"] == "k"
    assert "X-Amz-Signature" not in result.stdout + result.stderr


def test_a_page_that_can_not_be_written_leaves_no_upload(s3, tmp_path):
    result = run("presign", "k", "--page", str(tmp_path / "missing" / "page.html"))
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr
    film = tmp_path / "film.mov"
    film.write_bytes(b"the only copy")
    result = run("presign", "film.mov", "--page", str(film))
    assert result.exit_code == 1
    assert "File exists" in result.stderr
    assert film.read_bytes() == b"the only copy"
    assert uploads(s3) == []


def test_a_page_for_a_disk_names_the_rule_that_staging_lacks(s3, tmp_path):
    words = ("presign", "k", "--page", "-")
    assert 'cors_origins = ["*"]' in run(*words).stderr
    s3.put_bucket_cors(Bucket=STAGING, CORSConfiguration={"CORSRules": [cors.rule_for(["*"])]})
    assert "cors_origins" not in run(*words).stderr


def test_a_linked_page_is_in_the_artifact_bucket_for_a_week_and_has_one_origin_with_staging(s3):
    # Made before there were pages, with a rule of somebody's own.
    where: Any = {"LocationConstraint": "eu-central-1"}
    artifacts = "twobuckets-artifacts-123456789012-eu-central-1"
    s3.create_bucket(Bucket=artifacts, CreateBucketConfiguration=where)
    mine = {"ID": "mine", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 900}}
    s3.put_bucket_lifecycle_configuration(
        Bucket=artifacts, LifecycleConfiguration={"Rules": [mine]}
    )
    result = run("presign", "k", "--page-link", "--expires", "2h")
    assert result.exit_code == 0, result.stderr
    url = urlsplit(result.stdout.strip())
    assert url.netloc == "s3.eu-central-1.amazonaws.com"
    bucket, _, key = url.path.lstrip("/").partition("/")
    assert parse_qs(url.query)["X-Amz-Expires"] == ["7200"]
    found = s3.get_object(Bucket=bucket, Key=key)
    assert found["ContentType"] == "text/html; charset=utf-8"
    html = found["Body"].read().decode()
    assert f"connect-src https://{url.netloc};" in html
    assert offer_in(html)["part_url"].startswith(f"https://{url.netloc}/{STAGING}/k?")
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert bucket == artifacts
    assert [rule["ID"] for rule in rules] == ["mine", "twobuckets-pages"]
    run("presign", "k", "--page-link")
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--page", "-", "--page-link"), "can't be combined"),
        (("--page", "-", "--post"), "can't be combined"),
        (("--page", "-", "--multipart", "0"), "from 1 to 10,000 parts"),
        (("--page", "-", "--multipart", "10001"), "from 1 to 10,000 parts"),
        (("--page", "-", "--sha256", "0" * 64), "CRC64NVME"),
        (("--page", "-", "--size", "100TB"), "48.8 TiB"),
        (("--page-link", "--expires", "8d"), "7 days"),
    ],
)
def test_terms_that_no_page_can_hold_are_refused_before_anything_is_begun(s3, options, why):
    result = run("presign", "k", *options)
    assert result.exit_code == 2
    assert why in result.stderr
    assert uploads(s3) == []
