"""How long doctor takes on 200,000 staged objects, 40,000 of them stuck, and 5,000 uploads.

    python -m tests.bench.doctor [--latency 0.02] [--rounds 5] [--before ../0.1/bin/twobuckets]

Starts a server on loopback that answers like S3, Lambda, CloudWatch Logs and the others, from
memory and after a latency, and runs the program as people do: `doctor`, and as yardsticks
`ls staging`, and `doctor --check stuck` where nothing is stuck, which lists all versions. Prints
the time of the first line, of the whole run, of CPU, and the peak memory.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit

STAGED = 200_000
STUCK = 40_000
UPLOADS = 5_000
ERRORS = (
    "ValueError: row {n} is bad",
    "KeyError: 'id'",
    "UnicodeDecodeError: invalid start byte",
    "ConnectionError: the ledger does not answer",
    "Reject: no table",
)
ARRIVED_WITHIN = timedelta(hours=1)
"""How long the stuck objects took to arrive; the last try of each failed 200 seconds later."""
_LOG_PAGE = 1_400
"""A page of CloudWatch Logs holds at most 1 MB."""
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:bench"


_OF_VERSIONS = re.compile("<VersionId>.*?</IsLatest>")


def key_of(number: int) -> str:
    return f"in/{number % 97:02}/{number:07}.csv"


class Answers:
    """What every service answers."""

    def __init__(self, *, stuck: bool) -> None:
        now = datetime.now(UTC)
        oldest, young = now - timedelta(hours=6), now - timedelta(seconds=30)
        self.keys = sorted(key_of(number) for number in range(STAGED))
        every = STAGED // STUCK
        rows = []
        self.events: list[tuple[int, str]] = []
        for index, key in enumerate(self.keys):
            is_stuck = stuck and index % every == 0
            # Neighbours by key are none by time.
            old = oldest + ARRIVED_WITHIN * (index * 7_919 % STAGED / STAGED)
            at = (old if is_stuck else young).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            etag = f"{index:032x}"
            rows.append(
                f"<Version><Key>{key}</Key><VersionId>v{index:031x}</VersionId>"
                f"<IsLatest>true</IsLatest><LastModified>{at}</LastModified>"
                f"<ETag>&quot;{etag}&quot;</ETag><Size>4096</Size>"
                "<StorageClass>STANDARD</StorageClass></Version>"
            )
            if is_stuck:
                self.events.append(self._event(index, key, etag, old))
        self.rows = rows
        self.upload_keys = [f"up/{n:05}" for n in range(UPLOADS)]
        self.uploads = [
            f"<Upload><Key>up/{n:05}</Key><UploadId>u{n:05}</UploadId><Initiator><ID>i</ID>"
            "<DisplayName>bench</DisplayName></Initiator><StorageClass>STANDARD</StorageClass>"
            f"<Initiated>{(now - timedelta(days=9)).strftime('%Y-%m-%dT%H:%M:%S.000Z')}</Initiated>"
            "</Upload>"
            for n in range(UPLOADS)
        ]

        self.events.sort(key=lambda event: event[0])

    def _event(self, index: int, key: str, etag: str, old: datetime) -> tuple[int, str]:
        error = ERRORS[len(self.events) % len(ERRORS)].format(n=index)
        kind, _, message = error.partition(": ")
        line = {
            "twobuckets": 1,
            "outcome": "rejected" if kind == "Reject" else "failed",
            "bucket": "bench-staging",
            "key": key,
            "version_id": f"v{index:031x}",
            "etag": etag,
            "size": 4096,
            "duration_ms": 12,
            "request_id": f"{index:08x}-2222-3333-4444-555555555555",
            "attempt": 3,
            "error": {"type": kind, "message": message, "trace": "x" * 400},
        }
        stamp = int(old.timestamp() * 1000) + 200_000
        event = {
            "timestamp": stamp,
            "ingestionTime": stamp,
            "message": json.dumps(line, separators=(",", ":")),
            "logStreamName": "s",
            "eventId": f"{index:056}",
        }
        return stamp, json.dumps(event)

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Return a status and a body."""
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        aimed = headers.get("x-amz-target", "")
        if "FilterLogEvents" in aimed:
            return 200, self._log_page(json.loads(body))
        if "DescribeLogGroups" in aimed:
            group = {"logGroupName": "/aws/lambda/bench", "retentionInDays": 30}
            return 200, json.dumps({"logGroups": [group]}).encode()
        if aimed or "cbor" in headers.get("content-type", "") or url.path.startswith("/service"):
            return 400, b'{"__type":"AccessDeniedException"}'
        if url.path.startswith("/20"):
            return self._function(url.path)
        if method == "POST":
            return 403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
        return self._s3(method, url.path, query)

    def _function(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/configuration"):
            answer: dict[str, object] = {
                "FunctionName": "bench",
                "FunctionArn": FUNCTION_ARN,
                "Handler": "twobuckets.processor.handler",
                "Role": "arn:aws:iam::123456789012:role/bench",
                "Runtime": "python3.13",
                "Timeout": 60,
                "State": "Active",
                "Environment": {"Variables": {"ARCHIVE_BUCKET": "bench-archive"}},
            }
        elif path.endswith("/policy"):
            statement = {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "lambda:InvokeFunction",
                "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bench-staging"}},
            }
            answer = {"Policy": json.dumps({"Statement": [statement]})}
        elif "event-source-mappings" in path:
            answer = {"EventSourceMappings": []}
        elif "event-invoke-config" in path:
            answer = {"FunctionEventInvokeConfigs": []}
        else:
            answer = {}
        return 200, json.dumps(answer).encode()

    def _s3(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if method == "HEAD":
            return (200, b"") if path.count("/") == 1 else (404, b"")
        if "versions" in query:
            return 200, self._versions(query)
        if "list-type" in query:
            return 200, self._objects(query)
        if "uploads" in query:
            return 200, self._uploads(query, path)
        if "uploadId" in query:
            part = (
                "<Part><PartNumber>1</PartNumber><Size>5242880</Size><ETag>e</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Part>"
            )
            return 200, f"<ListPartsResult>{part}</ListPartsResult>".encode()
        if "notification" in query and "staging" in path:
            route = (
                f"<CloudFunctionConfiguration><CloudFunction>{FUNCTION_ARN}</CloudFunction>"
                "<Event>s3:ObjectCreated:*</Event></CloudFunctionConfiguration>"
            )
            return 200, f"<NotificationConfiguration>{route}</NotificationConfiguration>".encode()
        if "policy" in query:
            return 404, b"<Error><Code>NoSuchBucketPolicy</Code></Error>"
        if "versioning" in query:
            return (
                200,
                b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
            )
        return 200, b"<Answer/>"

    def _versions(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("key-marker", [""])[0]
        most = int(query.get("max-keys", ["1000"])[0])
        start = bisect.bisect_right(self.keys, after)
        end = min(start + most, len(self.keys))
        more = end < len(self.keys)
        following = (
            f"<NextKeyMarker>{quote(self.keys[end - 1])}</NextKeyMarker>"
            f"<NextVersionIdMarker>v</NextVersionIdMarker>"
            if more
            else ""
        )
        head = (
            "<ListVersionsResult><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}"
        )
        return (head + "".join(self.rows[start:end]) + "</ListVersionsResult>").encode()

    def _objects(self, query: dict[str, list[str]]) -> bytes:
        start = bisect.bisect_right(self.keys, query.get("start-after", [""])[0])
        end = min(start + int(query.get("max-keys", ["1000"])[0]), len(self.keys))
        head = (
            "<ListBucketResult><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(end < len(self.keys)).lower()}</IsTruncated>"
        )
        rows = "".join(self.rows[start:end]).replace("Version>", "Contents>")
        return (head + _OF_VERSIONS.sub("", rows) + "</ListBucketResult>").encode()

    def _uploads(self, query: dict[str, list[str]], path: str) -> bytes:
        if "archive" in path:
            return b"<ListMultipartUploadsResult></ListMultipartUploadsResult>"
        after = query.get("key-marker", [""])[0]
        most = int(query.get("max-uploads", ["1000"])[0])
        start = bisect.bisect_right(self.upload_keys, after)
        end = min(start + most, UPLOADS)
        more = end < UPLOADS
        following = (
            f"<NextKeyMarker>up/{end - 1:05}</NextKeyMarker>"
            "<NextUploadIdMarker>u</NextUploadIdMarker>"
            if more
            else ""
        )
        head = (
            "<ListMultipartUploadsResult><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}"
        )
        rows = "".join(self.uploads[start:end])
        return f"{head}{rows}</ListMultipartUploadsResult>".encode()

    def _log_page(self, request: dict[str, object]) -> bytes:
        begin, end = int(str(request["startTime"])), int(str(request["endTime"]))
        first = bisect.bisect_left(self.events, (begin, ""))
        behind = bisect.bisect_left(self.events, (end + 1, ""))
        start = int(str(request.get("nextToken", first)))
        page = ",".join(text for _, text in self.events[start : min(start + _LOG_PAGE, behind)])
        more = f',"nextToken":"{start + _LOG_PAGE}"' if start + _LOG_PAGE < behind else ""
        return f'{{"events":[{page}]{more}}}'.encode()


async def serve(answers: Answers, latency: float) -> None:
    """Answer on a free port, which is printed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *rest = head.decode("latin-1").split("\r\n")
                headers = {
                    n.lower(): v.strip()
                    for n, _, v in (line.partition(":") for line in rest if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split(" ")
                await asyncio.sleep(latency)
                status, answer = answers.answer(method, target, headers, body)
                lines = f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(lines.encode() + (b"" if method == "HEAD" else answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


Run = tuple[float, float, float, int, int]
"""Seconds to the first finding, in all, and of CPU; peak KiB; findings."""


def measure(port: int, *arguments: str, program: Sequence[str]) -> Run:
    """Run a program and return what it took."""
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "TWOBUCKETS_STAGING": "bench-staging",
        "TWOBUCKETS_ARCHIVE": "bench-archive",
        "TWOBUCKETS_FUNCTION": "bench",
        "TWOBUCKETS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "PYTHONUNBUFFERED": "1",
        # As where it is installed: with its bytecode at hand.
        "PYTHONDONTWRITEBYTECODE": "",
    }
    begun = time.monotonic()
    command = [*program, *arguments, "--json"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first_after, found = 0.0, 0
    for line in process.stdout:
        found += line.startswith(b'{"type": "finding"')
        first_after = first_after or time.monotonic() - begun
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    used = usage.ru_utime + usage.ru_stime
    return first_after, time.monotonic() - begun, used, usage.ru_maxrss, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds added to each answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", help="also measure this other twobuckets program")
    parser.add_argument("--serve", choices=["stuck", "young"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(Answers(stuck=arguments.serve == "stuck"), arguments.latency))
        return
    servers = {}
    for name in ("stuck", "young"):
        words = ["--serve", name, "--latency", str(arguments.latency)]
        servers[name] = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.doctor", *words], stdout=subprocess.PIPE, text=True
        )
    try:
        ports = {name: int(s.stdout.readline()) for name, s in servers.items() if s.stdout}
        programs: dict[str, Sequence[str]] = {"": [sys.executable, "-m", "twobuckets"]}
        if arguments.before:
            programs[" before"] = [arguments.before]
        rows: dict[str, list[Run]] = {}
        for number in range(arguments.rounds + 1):
            for word, program in programs.items():
                for name, port, *words in (
                    ("ls", ports["young"], "ls", "staging"),
                    ("listing", ports["young"], "doctor", "--check", "stuck"),
                    ("doctor", ports["stuck"], "doctor"),
                ):
                    taken = measure(port, *words, program=program)
                    if number:  # the first one is for bytecode and the server to be warm
                        rows.setdefault(f"{name}{word}", []).append(taken)
        for name, measured in sorted(rows.items()):
            first, whole, used, peak, found = (
                statistics.median(column) for column in zip(*measured, strict=True)
            )
            sys.stdout.write(
                f"{name:14} first {first:6.2f} s  all {whole:6.2f} s  CPU {used:6.2f} s  "
                f"peak {peak / 1024:5.0f} MiB  "
                f"{found:.0f} findings\n"
            )
    finally:
        for server in servers.values():
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
