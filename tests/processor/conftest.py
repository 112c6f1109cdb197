"""A pair of buckets on moto, the function's environment, and events as S3 sends them."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import pytest
from moto import mock_aws

from twobuckets.processor import handler, runtime

STAGING, ARCHIVE = "staging-bucket", "archive-bucket"


@pytest.fixture
def lambda_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment variables of a function, and caches as in a new environment."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("ARCHIVE_BUCKET", ARCHIVE)
    # The client stays, as in a warm environment: making one takes longer than most tests.
    for cache in (runtime._processes, runtime._attempts):
        cache.clear()
    yield monkeypatch
    for cache in (runtime._processes, runtime._attempts):
        cache.clear()


@pytest.fixture(params=["versioned", "unversioned"])
def pair(request: pytest.FixtureRequest, lambda_environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 client with both buckets, once with versions and once without."""
    with mock_aws():
        s3 = runtime._client(runtime.find_settings(os.environ))
        for bucket in (STAGING, ARCHIVE):
            s3.create_bucket(Bucket=bucket)
            if request.param == "versioned":
                s3.put_bucket_versioning(
                    Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
                )
        yield s3


class Pipeline:
    """What a test does to a pair: upload, wake the function, look at what became of it."""

    def __init__(self, s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.s3 = s3
        self._capsys = capsys
        self._count = 0
        self.context: Any = SimpleNamespace(aws_request_id="request-1")

    def process_with(self, process: Callable[..., object]) -> None:
        """Let the function's user code be this."""
        module = ModuleType("processor")
        module.process = process  # type: ignore[attr-defined]
        sys.modules["processor"] = module
        runtime._processes.clear()

    def upload(self, key: str, body: bytes = b"content", **arguments: Any) -> dict[str, Any]:
        """Upload and return the record that S3 would send."""
        put = self.s3.put_object(Bucket=STAGING, Key=key, Body=body, **arguments)
        return self.record(key, put, len(body))

    def record(self, key: str, put: dict[str, Any], size: int = 0) -> dict[str, Any]:
        self._count += 1
        item: dict[str, Any] = {
            "key": quote_plus(key, safe="/"),
            "size": size,
            "eTag": put["ETag"].strip('"'),
            "sequencer": f"{self._count:016X}",
        }
        if put.get("VersionId"):
            item["versionId"] = put["VersionId"]
        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": STAGING}, "object": item},
        }

    def invoke(self, *records: dict[str, Any]) -> list[dict[str, Any]]:
        """Invoke and return the outcome lines; raises what the handler raises."""
        self._capsys.readouterr()
        try:
            handler({"Records": list(records)}, self.context)
        finally:
            self.lines = self.outcomes()
        return self.lines

    def outcomes(self) -> list[dict[str, Any]]:
        """The outcome lines written since."""
        return [line for line in self.written() if line.get("twobuckets") == 1]

    def written(self) -> list[dict[str, Any]]:
        """All lines written since."""
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    def staged(self) -> dict[str, bytes]:
        return self._contents(STAGING)

    def archived(self) -> dict[str, bytes]:
        return self._contents(ARCHIVE)

    def _contents(self, bucket: str) -> dict[str, bytes]:
        listed = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            item["Key"]: self.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for item in listed
        }


@pytest.fixture
def pipeline(pair: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[Pipeline]:
    pipeline = Pipeline(pair, capsys)
    pipeline.process_with(lambda file: None)
    yield pipeline
    sys.modules.pop("processor", None)
