"""CloudWatch Logs' side of FilterLogEvents, as AWS documents it, behind a real boto3 client.

It answers through botocore's `before-call` event, so that late events, empty pages, pages that
jump back and the service's clock can be staged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mypy_boto3_logs import CloudWatchLogsClient

    from twobuckets.logs.objects import AwaitedVersion
    from twobuckets.logs.waiting import Fate, Tracker

EPOCH = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@dataclass
class Clock:
    """The time of a test; sleeping moves it."""

    at: datetime = EPOCH
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Written:
    """An event with the moment from which the service shows it."""

    event_id: str
    logged_at: datetime
    readable_at: datetime
    message: str
    log_stream: str = "s"


@dataclass
class Service:
    """One log group."""

    clock: Clock
    page_size: int = 10_000
    empty_pages: bool = False
    tells_time: bool = True
    skew: timedelta = timedelta()
    exists: bool = True
    written: list[Written] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    shuffle: Any = None
    filtered: Callable[[str], bool] = field(default=lambda _: False)
    """What a message is that a request with a filter pattern does not get."""

    def write(
        self,
        message: str | dict[str, Any],
        *,
        after: float = 0,
        late: float = 0,
        stream: str = "s",
    ) -> None:
        """Write an event `after` seconds from the epoch, readable `late` seconds later."""
        logged_at = EPOCH + timedelta(seconds=after)
        text = message if isinstance(message, str) else json.dumps(message)
        self.written.append(
            Written(
                f"{len(self.written):056d}",
                logged_at,
                logged_at + timedelta(seconds=late),
                text,
                stream,
            )
        )

    @property
    def client(self) -> CloudWatchLogsClient:
        """A client whose every call is answered here."""
        client = boto3.client(
            "logs",
            region_name="eu-central-1",
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="secret-of-the-tests",
            config=Config(retries={"total_max_attempts": 1}),
        )
        client.meta.events.register("before-call.logs.FilterLogEvents", self._answer)
        return client

    def _answer(self, params: dict[str, Any], **_: Any) -> Any:
        request = json.loads(params["body"])
        self.requests.append(request)
        now = self.clock.now() + self.skew
        headers = {"date": format_datetime(now, usegmt=True)} if self.tells_time else {}
        if not self.exists:
            error = {"Code": "ResourceNotFoundException", "Message": "no such group"}
            return response(400, {"Error": error}, headers)
        start = request.get("startTime", 0)
        end = request.get("endTime", 2**53)
        readable = [
            w
            for w in self.written
            if w.readable_at <= now
            and start <= milliseconds(w.logged_at) <= end
            and not ("filterPattern" in request and self.filtered(w.message))
        ]
        readable.sort(key=lambda w: w.logged_at)
        if self.shuffle is not None:
            readable = self.shuffle(readable)
        first = int(request.get("nextToken", "0"))
        size = self.page_size
        if self.empty_pages and first % 2 == 0:
            return response(200, {"events": [], "nextToken": str(first + 1)}, headers)
        position = first // 2 if self.empty_pages else first
        page = readable[position : position + size]
        answer: dict[str, Any] = {
            "events": [
                {
                    "logStreamName": w.log_stream,
                    "timestamp": milliseconds(w.logged_at),
                    "message": w.message,
                    "ingestionTime": milliseconds(w.readable_at),
                    "eventId": w.event_id,
                }
                for w in page
            ]
        }
        if position + size < len(readable):
            after = position + size
            answer["nextToken"] = str(2 * after if self.empty_pages else after)
        return response(200, answer, headers)


def milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def response(status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    """Return what botocore's `before-call` event takes in place of AWS's answer."""
    http = AWSResponse("https://logs.eu-central-1.amazonaws.com/", status, headers or {}, None)  # type: ignore[arg-type]
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers, "RequestId": "r"}
    return http, {**answer, "ResponseMetadata": metadata}


def outcome_line(outcome: str, key: str, **fields: Any) -> dict[str, Any]:
    """Return an outcome line as the processor writes it."""
    return {
        "twobuckets": 1,
        "outcome": outcome,
        "bucket": "intake-staging",
        "key": key,
        "version_id": None,
        "etag": "e",
        "size": 3,
        "duration_ms": 100,
        "request_id": "11111111-aaaa-bbbb-cccc-000000000001",
        "attempt": 1,
        "error": None,
        **fields,
    }


def wait_for_fates(
    tracker: Tracker, staged: Iterable[AwaitedVersion], *, timeout: timedelta
) -> Iterator[Fate]:
    """Add what is staged as it comes, as a command does, and yield what becomes of it."""
    for item in staged:
        tracker.add(item)
        yield from tracker.poll()
    yield from tracker.wait(timeout)
