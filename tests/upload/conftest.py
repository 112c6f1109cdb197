"""An S3 over HTTP for fast tests: moto's server, one for the session, a bucket for each test.

Another S3 takes its place when the environment names one, such as Ceph's gateway:

    UPLOAD_TEST_ENDPOINT=http://127.0.0.1:7480 UPLOAD_TEST_ACCESS_KEY=… UPLOAD_TEST_SECRET_KEY=…
"""

from __future__ import annotations

import ctypes
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from click.testing import CliRunner

from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Staging:
    """A bucket on a server, and the command line that uploads there."""

    s3: S3Client
    bucket: str
    endpoint_url: str

    def upload(self, *arguments: str, stdin: bytes | None = None) -> Result:
        """Run `twobuckets upload`."""
        return CliRunner().invoke(cli, ["upload", *arguments], input=stdin)

    def keys(self) -> list[str]:
        """Return the keys in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def body(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def uploads(self) -> list[tuple[str, str]]:
        """Return key and upload id of the incomplete uploads."""
        listed = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [(upload["Key"], upload["UploadId"]) for upload in listed]


OTHER_ENDPOINT = os.environ.get("UPLOAD_TEST_ENDPOINT")
OTHER_KEYS = (
    os.environ.get("UPLOAD_TEST_ACCESS_KEY", ""),
    os.environ.get("UPLOAD_TEST_SECRET_KEY", ""),
)


@pytest.fixture
def s3_url(request: pytest.FixtureRequest) -> str:
    """The URL of the server that the tests upload to."""
    return OTHER_ENDPOINT or str(request.getfixturevalue("moto_url"))


@pytest.fixture
def staging(s3_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Staging:
    """An empty bucket that the command line uploads to."""
    if OTHER_ENDPOINT is not None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", OTHER_KEYS[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OTHER_KEYS[1])
        monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = f"staging-{uuid.uuid4().hex[:12]}"
    s3 = boto3.client("s3", endpoint_url=s3_url, config=Config(signature_version="s3v4"))
    if OTHER_ENDPOINT is not None:
        s3.create_bucket(Bucket=bucket)
    else:
        s3.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
    for name, value in (
        ("TWOBUCKETS_STAGING", bucket),
        ("TWOBUCKETS_ARCHIVE", f"{bucket}-archive"),
        ("TWOBUCKETS_ENDPOINT_URL", s3_url),
    ):
        monkeypatch.setenv(name, value)
    return Staging(s3, bucket, s3_url)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@pytest.fixture
def bound_by_permissions() -> Iterator[None]:
    """Take from root, on Linux, what opens every file to it: of this thread and those it starts.

    Another user would not do: root's home, and with it Python, may be closed to everybody else.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(0x20080522, 0)  # version 3, this thread: see capget(2)
    held = (_Capabilities * 2)()
    assert libc.capget(ctypes.byref(header), held) == 0, os.strerror(ctypes.get_errno())
    fewer = (_Capabilities * 2).from_buffer_copy(held)
    fewer[0].effective &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), fewer) == 0, os.strerror(ctypes.get_errno())
    yield
    assert libc.capset(ctypes.byref(header), held) == 0, os.strerror(ctypes.get_errno())
