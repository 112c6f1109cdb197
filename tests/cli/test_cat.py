"""`cat` reads exactly one version of an object, and nothing of it acts on a terminal."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import boto3
import pytest
from click.testing import CliRunner, Result

from tests.s3.scripted import Cut, Received, answer, refuse, serving
from tests.terminal import Terminal, at_terminal
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

__all__ = ["at_terminal"]

STAGING, ARCHIVE = "pair-staging", "pair-archive"
BYTES = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def pair(fake_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)


@pytest.fixture
def s3(empty_moto_url: str, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)
    client = boto3.client("s3", endpoint_url=empty_moto_url, region_name="eu-central-1")
    for bucket in (STAGING, ARCHIVE):
        client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return client


def cat(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["cat", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


def test_a_pipe_gets_the_bytes_as_they_are(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="in/\x85 odd.bin", Body=BYTES)
    assert cat("in/\x85 odd.bin").stdout_bytes == BYTES
    s3.put_object(Bucket=STAGING, Key="empty", Body=b"")
    assert cat("empty").stdout_bytes == b""


def test_what_waits_is_read_before_what_is_archived_unless_told(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"old")
    assert cat("k").stdout_bytes == b"old"
    s3.put_object(Bucket=STAGING, Key="k", Body=b"new")
    assert cat("k").stdout_bytes == b"new"
    assert cat("k", "--in", "archive").stdout_bytes == b"old"
    assert "no object of pair-staging" in cat("x", "--in", "staging", exit_code=4).stderr


def test_a_version_is_read_wherever_it_is(s3: S3Client):
    first = s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"first")["VersionId"]
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"second")
    assert cat("k", "--version-id", first).stdout_bytes == b"first"
    assert "in the version none" in cat("k", "--version-id", "none", exit_code=4).stderr


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("0-9", BYTES[:10]),
        ("1KiB-", BYTES[1024:]),
        ("-500", BYTES[-500:]),
        ("-9GiB", BYTES),
        ("5-9GiB", BYTES[5:]),
        ("1279999-", BYTES[-1:]),
    ],
)
def test_a_range_is_read(s3: S3Client, asked: str, read: bytes):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=BYTES)
    assert cat("k", "--range", asked).stdout_bytes == read


@pytest.mark.parametrize("asked", ["", "-", "5", "9-5", "a-b", "1280000-"])
def test_a_range_that_can_mean_nothing_is_usage(s3: S3Client, asked: str):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=BYTES)
    assert cat("k", "--range", asked, exit_code=2).stdout_bytes == b""


def test_json_has_all_bytes_and_what_was_read(s3: S3Client):
    version = s3.put_object(Bucket=STAGING, Key="k", Body=BYTES, ContentType="x/y")["VersionId"]
    *blocks, summary = map(json.loads, cat("k", "--json").stdout.splitlines())
    assert b"".join(base64.b64decode(block["base64"]) for block in blocks) == BYTES
    assert [block["offset"] for block in blocks] == [0, 1024 * 1024]
    assert (summary["place"], summary["version_id"]) == ("staging", version)
    assert (summary["read_bytes"], summary["content_type"]) == (len(BYTES), "x/y")


def test_nothing_in_a_file_acts_on_a_terminal(s3: S3Client, at_terminal: Callable[..., Terminal]):
    body = "\x1b]0;owned\x07 ü\n\x9b2J".encode() + b"\xff"
    s3.put_object(Bucket=STAGING, Key="k", Body=body)
    terminal = at_terminal("cat", "k")
    assert terminal.end() == 0
    assert "\x1b]0" not in terminal.shown
    assert "\x9b" not in terminal.shown
    assert "owned� ü" in terminal.shown


# -- answers that moto cannot give

HEAD_LINES = (
    'ETag: "e"',
    "x-amz-version-id: v1",
    "Last-Modified: Mon, 04 May 2026 13:30:00 GMT",
)


def s3_that_breaks(after: int) -> Callable[[Received], bytes]:
    """Answer like S3, and hang up after so many bytes of each body."""

    def script(received: Received) -> bytes:
        method, path, _ = received.head.split("\r\n")[0].split(" ")
        if STAGING in path:
            return refuse(404, "NoSuchKey") if method == "GET" else answer(404)
        if method == "HEAD":
            return answer(200, b"", *HEAD_LINES).replace(
                b"Content-Length: 0", b"Content-Length: %d" % len(BYTES)
            )
        if received.header("if-match") != '"e"' or "versionId=v1" not in path:
            return refuse(412, "PreconditionFailed")
        asked = received.header("range").removeprefix("bytes=").partition("-")
        first = int(asked[0] or 0)
        whole = answer(206 if first else 200, BYTES[first:], *HEAD_LINES)
        return Cut(whole[: len(whole) - len(BYTES[first:]) + after])

    return script


def test_after_a_broken_connection_the_rest_is_read_of_the_same_version(
    monkeypatch: pytest.MonkeyPatch,
):
    with serving(s3_that_breaks(after=500_000)) as server:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", server.url)
        assert cat("k").stdout_bytes == BYTES
        ranges = [r.header("range") for r in server.received if r.head.startswith("GET")]
    assert ranges == ["", "bytes=500000-1279999", "bytes=1000000-1279999"]


def test_a_server_that_never_sends_a_byte_is_given_up(monkeypatch: pytest.MonkeyPatch):
    with serving(s3_that_breaks(after=0)) as server:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", server.url)
        assert "stopped 5 times" in cat("k", exit_code=1).stderr


def test_what_is_replaced_meanwhile_is_an_error(monkeypatch: pytest.MonkeyPatch):
    breaks = s3_that_breaks(after=500_000)

    def script(received: Received) -> bytes:
        replaced = received.header("range") != ""
        return refuse(412, "PreconditionFailed") if replaced else breaks(received)

    with serving(script) as server:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", server.url)
        assert "replaced or deleted in pair-archive" in cat("k", exit_code=1).stderr
