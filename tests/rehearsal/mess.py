"""A mess in staging, with a book of what is wrong with each object."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twobuckets.aws.clients import Aws

TIMEOUT: Final = 8
"""Seconds that the function has."""

# What goes wrong with a file stands in its metadata, until somebody mends the processor.
PROCESSOR: Final = """
import os, time
from twobuckets.processor import Reject

class LedgerClosed(Exception):
    pass

def process(file):
    if os.environ.get("MENDED"):
        return
    match file.metadata.get("fate"):
        case "key": raise KeyError("amount")
        case "row": raise ValueError(f"row {file.size} of {file.key} is bad")
        case "ledger": raise LedgerClosed(f"the ledger of {file.key!r} is closed")
        case "reject": raise Reject("no table in it")
        case "sleep": time.sleep(600)
"""

# Keys that people and programs really make, and that every layer gets wrong in its own way. XML
# holds none of the control characters but tab and newline.
ODD: Final = (
    "odd/ leading and trailing ",
    "odd/a+b%2Bc&d=e?f#g",
    "odd/quote'and\"double",
    "odd/$(touch PWNED);`id`",
    "odd/-rf",
    "odd/new\nline",
    "odd/tab\tin it",
    "odd/umlaut-ü-nfc",
    "odd/umlaut-u\u0308-nfd",
    "odd/\u202ereversed",
    "odd/emoji-\U0001f4c4",
    "odd/[bold]not markup[/bold]",
    "odd/back\\slash\\n",
    "odd//double//slash",
    "odd/../dots",
)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of some of the objects, and what doctor is to say of these.

    `error` begins the error of its finding; `is_told` where the processor said it itself.
    """

    name: str
    check: str | None
    share: float
    error: str = ""
    is_told: bool = True


FATES: Final = (
    Fate("good", None, 0.15),
    Fate("held", None, 0.05),
    Fate("key", "stuck-failed", 0.2, "KeyError: 'amount'"),
    Fate("row", "stuck-failed", 0.15, "ValueError: row "),
    Fate("ledger", "stuck-failed", 0.1, "LedgerClosed: the ledger of "),
    Fate("reject", "stuck-rejected", 0.13, "Reject: no table in it"),
    Fate("sleep", "stuck-timed-out", 0.01),
    Fate("lost", "stuck-never-invoked", 0.21, is_told=False),
)
_BY_NAME: Final = {fate.name: fate for fate in FATES}


def body_of(key: str) -> bytes:
    """Return a body that no other key has."""
    return hashlib.sha256(key.encode()).hexdigest().encode() * (1 + len(key) % 3)


@dataclass(slots=True)
class Mess:
    """What was made: the fate of each key, and the incomplete uploads with their bytes."""

    aws: Aws
    staging: str
    archive: str
    function: str
    queue_url: str
    fates: dict[str, Fate] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    last_lost_at: float = 0.0

    def make(self, objects: int, *, uploads: int = 12) -> None:
        """Put about so many objects into staging and let happen what happens."""
        plan = [
            (fate, f"{fate.name}/{number:05}.csv")
            for fate in FATES
            for number in range(max(2, round(objects * fate.share)))
        ]
        self._while_throttled([key for fate, key in plan if fate.name == "held"])
        throttled_until = time.time()
        for fate in FATES:
            if fate.name not in ("lost", "held"):
                self._put(fate, [key for of, key in plan if of is fate])
        self._put(_BY_NAME["row"], ODD)
        for number in range(uploads):
            self._begin_upload(f"uploads/{number:02}.bin", parts=number % 4)
        self._wait()
        # Lambda counts by the minute: these come when the throttle is over, and no guess may take
        # it for their cause.
        time.sleep(max(0.0, throttled_until + 70 - time.time()))
        self._while_silent([key for fate, key in plan if fate.name == "lost"])

    def expected(self, *checks: str) -> Counter[str]:
        """Return how many objects are stuck, by check; of all checks where none is named."""
        counts = Counter(fate.check for fate in self.fates.values() if fate.check is not None)
        return Counter({c: n for c, n in counts.items() if not checks or c in checks})

    def keys(self, *fates: str) -> set[str]:
        """Return the keys of some fates."""
        return {key for key, fate in self.fates.items() if fate.name in fates}

    def staged(self) -> set[str]:
        """Return what is in staging, by boto3 and by nothing of ours."""
        return _keys_in(self.aws, self.staging)

    def mend(self) -> None:
        """Mend the processor, as the person on call would."""
        current = self.aws.functions.get_function_configuration(FunctionName=self.function)
        variables = {**current["Environment"]["Variables"], "MENDED": "1"}
        self.aws.functions.update_function_configuration(
            FunctionName=self.function, Environment={"Variables": variables}
        )

    def lost_or_changed(self) -> list[str]:
        """Return the keys of which no bucket holds the bytes that were sent."""

        def is_held(key: str) -> bool:
            for bucket in (self.archive, self.staging):
                try:
                    found = self.aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                except self.aws.s3.exceptions.NoSuchKey:
                    continue
                if found == body_of(key):
                    return True
            return False

        with ThreadPoolExecutor(4) as threads:
            held = threads.map(is_held, self.fates)
            return [key for key, is_there in zip(self.fates, held, strict=True) if not is_there]

    def _put(self, fate: Fate, keys: Iterable[str]) -> None:
        def put(key: str) -> None:
            self.aws.s3.put_object(
                Bucket=self.staging, Key=key, Body=body_of(key), Metadata={"fate": fate.name}
            )

        with ThreadPoolExecutor(4) as threads:
            for key, _ in zip(keys, threads.map(put, keys), strict=True):
                self.fates[key] = fate

    def _while_silent(self, keys: list[str]) -> None:
        """Put objects of which S3 tells nobody."""
        configuration: Any = self.aws.s3.get_bucket_notification_configuration(Bucket=self.staging)
        del configuration["ResponseMetadata"]
        put = self.aws.s3.put_bucket_notification_configuration
        put(Bucket=self.staging, NotificationConfiguration={})
        self._put(_BY_NAME["lost"], keys)
        self.last_lost_at = time.time()
        put(Bucket=self.staging, NotificationConfiguration=configuration)

    def _while_throttled(self, keys: list[str]) -> None:
        """Put objects while the function may not run, and let it run again."""
        functions = self.aws.functions
        functions.put_function_concurrency(
            FunctionName=self.function, ReservedConcurrentExecutions=0
        )
        self._put(_BY_NAME["held"], keys)
        time.sleep(1)
        functions.delete_function_concurrency(FunctionName=self.function)

    def _begin_upload(self, key: str, *, parts: int) -> None:
        upload = self.aws.s3.create_multipart_upload(Bucket=self.staging, Key=key)
        for number in range(1, parts + 1):
            self.aws.s3.upload_part(
                Bucket=self.staging,
                Key=key,
                UploadId=upload["UploadId"],
                PartNumber=number,
                Body=b"x" * 1000,
            )
        self.uploads[key] = parts * 1000

    def _wait(self) -> None:
        """Wait until every event has come to its end."""
        failing = self.keys("key", "row", "ledger", "sleep")
        done = self.keys("good", "held")
        wait_until(lambda: not done & self.staged(), 60 + len(self.fates))
        wait_until(lambda: self._given_up() >= len(failing), 60 + len(self.fates) * 2)

    def _given_up(self) -> int:
        attributes = self.aws.sqs.get_queue_attributes(
            QueueUrl=self.queue_url, AttributeNames=["All"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"])


def wait_until(happened: Callable[[], bool], seconds: float) -> None:
    """Wait until something has happened; it is an AssertionError if it does not in time."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def _keys_in(aws: Aws, bucket: str) -> set[str]:
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


def describe(mess: Mess) -> str:
    """Return the truth as one line of JSON."""
    counts = Counter(fate.name for fate in mess.fates.values())
    return json.dumps({"type": "mess", **counts, "uploads": len(mess.uploads)})
