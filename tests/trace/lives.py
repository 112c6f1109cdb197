"""A pair on moto whose processor is ours and runs here: a script makes lives, and knows them.

What happens is done with S3's own calls and the real handler, whose lines are put into moto's log
as Lambda would; what was done is written down beside it, and `trace` has to tell the same.
"""

from __future__ import annotations

import io
import json
import sys
import time
import uuid
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, unquote_plus

import boto3

from twobuckets.processor import contract, handler, runtime
from twobuckets.processor.runtime import RecordsFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

STAGING, ARCHIVE, GROUP = "lives-staging", "lives-archive", "/aws/lambda/lives"
Happened = tuple[str, str | None, int | None]
"""An event, the staged version it is about (in the archive: the archived one), and the attempt."""


@dataclass
class Lives:
    """The pair, and the truth: what happened to each key, and what is true of it now."""

    url: str
    truth: dict[str, list[Happened]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        session = boto3.Session(region_name="eu-central-1")
        self.s3: Any = session.client("s3", endpoint_url=self.url)
        self.logs: Any = session.client("logs", endpoint_url=self.url)
        self._count = 0
        self._tries: Counter[str] = Counter()
        for bucket in (STAGING, ARCHIVE):
            self.s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
            )
            self.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        self.logs.create_log_group(logGroupName=GROUP)
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName="s")

    def note(self, key: str, event: str, version: str | None, attempt: int | None = None) -> None:
        """Write down what happened to a key."""
        self.truth.setdefault(key, []).append((event, version, attempt))

    def ends(self, key: str, state: str) -> None:
        """Write down what is true of a key."""
        self.states[key] = state

    def put(self, key: str, body: bytes = b"content") -> str:
        """Upload a file; return its version."""
        version: str = self.s3.put_object(Bucket=STAGING, Key=key, Body=body)["VersionId"]
        self.note(key, "put", version)
        return version

    def hide(self, key: str, bucket: str = STAGING) -> None:
        """Delete a file as somebody by hand does, without a version id."""
        marker = self.s3.delete_object(Bucket=bucket, Key=key)["VersionId"]
        self.note(key, "deleted", marker)

    def _markers(self, key: str) -> list[dict[str, Any]]:
        listed = self.s3.list_object_versions(Bucket=STAGING, Prefix=key)
        return [marker for marker in listed.get("DeleteMarkers", []) if marker["Key"] == key]

    def event(self, key: str, version: str, sequencer: int | None = None) -> dict[str, Any]:
        """Return S3's record of an upload, numbered in the order in which these are made."""
        self._count += 1
        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": STAGING},
                "object": {
                    "key": quote_plus(key, safe="/"),
                    "size": 7,
                    "versionId": version,
                    "sequencer": f"{sequencer or self._count:016X}",
                },
            },
        }

    def write(self, *messages: str | dict[str, Any]) -> None:
        """Put lines into the log as of now."""
        now = round(time.time() * 1000)
        events = [
            {"timestamp": now, "message": m if isinstance(m, str) else json.dumps(m)}
            for m in messages
        ]
        self.logs.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=events)

    def invoke(
        self,
        process: Callable[[Any], object],
        *records: dict[str, Any],
        says: str,
        request_id: str | None = None,
    ) -> str:
        """Run the handler once as Lambda does, with its lines and Lambda's; return the request.

        `says` is what has to become of the records, in words with blanks between.
        """
        request_id = request_id or str(uuid.uuid4())
        self._tries[request_id] += 1
        module = ModuleType("processor")
        module.process = process  # type: ignore[attr-defined]
        sys.modules["processor"] = module
        runtime._processes.clear()
        keys = [named_in(record)[0] for record in records]
        before = {marker["VersionId"] for key in keys for marker in self._markers(key)}
        said, status = io.StringIO(), "success"
        event = {"Records": list(records)} if "wake" not in records[0] else records[0]
        with redirect_stdout(said):
            try:
                handler(event, SimpleNamespace(aws_request_id=request_id))
            except RecordsFailedError:
                status = "error"
        self.write(
            platform("start", request_id),
            *(line for line in said.getvalue().splitlines()),
            platform("report", request_id, status),
        )
        lines = [json.loads(line) for line in said.getvalue().splitlines()]
        outcomes = [line for line in lines if line.get("twobuckets") == 1]
        assert [line["outcome"] for line in outcomes] == says.split(), said.getvalue()
        # The processor hides what it archived before it deletes it.
        for key in dict.fromkeys(keys):
            for marker in self._markers(key):
                if marker["VersionId"] not in before:
                    self.note(key, "deleted", marker["VersionId"])
        for record, outcome in zip(records, says.split(), strict=True):
            key, version = named_in(record)
            self.note(key, outcome, version, self._tries[request_id])
        return request_id

    def die(self, request_id: str, *keys: str) -> None:
        """Let Lambda end an invocation at its time-out, without a word of the processor's."""
        self.write(platform("start", request_id), platform("report", request_id, "timeout"))
        for key in keys:
            self.note(key, "timed-out", None)


def named_in(record: dict[str, Any]) -> tuple[str, str | None]:
    """Return the key and version that an event is about."""
    if "wake" in record:
        return record["wake"][0]["key"], record["wake"][0]["version_id"]
    staged = record["s3"]["object"]
    return unquote_plus(staged["key"]), staged["versionId"]


def platform(kind: str, request_id: str, status: str = "success") -> dict[str, Any]:
    """Return one of Lambda's own lines in JSON."""
    record = {"requestId": request_id, "status": status, "metrics": {"durationMs": 12.5}}
    return {"time": datetime.now(UTC).isoformat(), "type": f"platform.{kind}", "record": record}


def environment(url: str) -> dict[str, str]:
    """Return the variables that lead the command line and the handler to the pair."""
    return {
        "TWOBUCKETS_STAGING": STAGING,
        "TWOBUCKETS_ARCHIVE": ARCHIVE,
        "TWOBUCKETS_LOG_GROUP": GROUP,
        "TWOBUCKETS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL": url,
        contract.ARCHIVE_BUCKET: ARCHIVE,
    }
