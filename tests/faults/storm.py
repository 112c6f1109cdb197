"""A storm over the whole way of many files, and the count of what it did to them.

Files go up, are processed and archived, and go back and are archived again. Every request of
`upload` and `reprocess` passes a proxy that breaks a share of them, and both are killed with
SIGKILL every few seconds and started again by the same command until they end by themselves. The
processor is the real one, on the real events, in a process of its own; S3 is the embedded one.

What has to hold: every file is archived with its own bytes, nothing else is, staging shows nothing,
no archived version is lost on the way, and what the commands reported is what happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from tests.faults.proxy import FaultProxy
from twobuckets.parallel import map_unordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets import local
    from twobuckets.aws.clients import Aws

_MOVING = 10
"""Requests after which a run is under way."""
_MOST_FAILURES = 10
STAGING, ARCHIVE = "storm-staging", "storm-archive"


@dataclass(frozen=True, slots=True)
class Wishes:
    """How hard it blows: faults as a share of requests, seconds between two kills."""

    files: int
    rate: float
    kill_seconds: float
    seed: int = 1
    large_every: int = 500
    """Each so manieth file has 17 MiB and goes in parts."""


@dataclass(slots=True)
class Way:
    """How one way went, as the program reported it and as S3 shows it."""

    command: str
    runs: int = 0
    kills: int = 0
    failures: list[str] = field(default_factory=list)
    """Status and last words of runs that ended by themselves, and not well."""
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeated: int = 0
    """Files that more than one run reported: sent, or moved, twice."""
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(slots=True)
class Storm:
    """What the storm did: keys that are lost or wrong, none in a good one."""

    up: Way
    back: Way
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    """What the reports say and S3 does not."""

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.wrong or self.untrue)


def run_storm(server: local.Server, aws: Aws, folder: Path, wishes: Wishes) -> Storm:
    """Send files through the storm and back; `folder` is empty and gets all that is written."""
    digests = _write_files(folder / "files", wishes)
    for bucket in (STAGING, ARCHIVE):
        aws.s3.create_bucket(Bucket=bucket)
        aws.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    environ = environment_of(server, folder)
    with _processor(server, folder):
        up = _blow(
            ["upload", str(folder / "files"), "--recursive", "--json", "--quiet"],
            environ, wishes, "uploaded", folder / "up",
        )  # fmt: skip
        _wait_until_empty(aws, STAGING, wishes.files)
        storm = Storm(up, Way("reprocess"))
        _judge(storm, aws, digests, "after the way up")
        archived = _versions(aws, ARCHIVE)
        storm.back = _blow(
            ["reprocess", "--prefix", "", "--yes", "--json"],
            environ, wishes, "reprocessed", folder / "back",
        )  # fmt: skip
        _wait_until_empty(aws, STAGING, wishes.files)
    _judge(storm, aws, digests, "after the way back")
    sizes = {key: (folder / "files" / key).stat().st_size for key in digests}
    _judge_reports(storm, aws, digests, archived, sizes)
    return storm


def _write_files(folder: Path, wishes: Wishes) -> dict[str, str]:
    chance = random.Random(wishes.seed)
    digests = {}
    folder.mkdir(parents=True)
    for number in range(wishes.files):
        key = f"d{number % 40:02}/f{number:05} & ü.bin"
        is_large = number % wishes.large_every == 7
        content = chance.randbytes(17 * 1024 * 1024 if is_large else chance.randrange(1, 4000))
        path = folder / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        digests[key] = hashlib.sha256(content).hexdigest()
    return digests


def environment_of(
    server: local.Server, folder: Path, *, staging: str = STAGING, archive: str = ARCHIVE
) -> dict[str, str]:
    """Return the environment in which programs work on a pair, and keep their state in a folder."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TWOBUCKETS_"))}
    return inherited | {
        "TWOBUCKETS_STAGING": staging,
        "TWOBUCKETS_ARCHIVE": archive,
        "TWOBUCKETS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        # By processes that are killed nothing may be left in a buffer.
        "PYTHONUNBUFFERED": "1",
    }


def _blow(
    words: list[str], environ: dict[str, str], wishes: Wishes, reports: str, folder: Path
) -> Way:
    """Run a command in the storm, killed and started again until it ends by itself."""
    way = Way(words[0])
    folder.mkdir()
    chance = random.Random(wishes.seed)
    began = time.monotonic()
    with FaultProxy(rate=wishes.rate, seed=wishes.seed, delay=0.2) as proxy:
        through = environ | {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url}
        for name in ("NO_PROXY", "no_proxy"):
            through.pop(name, None)
        while True:
            said, told = folder / f"{way.runs}.out", folder / f"{way.runs}.err"
            with said.open("wb") as out, told.open("wb") as err:
                running = subprocess.Popen(
                    [sys.executable, "-m", "twobuckets", *words],
                    env=through, stdout=out, stderr=err,
                )  # fmt: skip
                # The start of a program takes longer on a busy machine than what is to be hit.
                before = proxy.requests
                while running.poll() is None and proxy.requests < before + _MOVING:
                    time.sleep(0.01)
                # The first run is killed at once: on a quick machine it would be over by then.
                pause = wishes.kill_seconds * chance.uniform(0.3, 1.7) if way.runs else 0.0
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(pause)
                if running.poll() is None:
                    running.send_signal(signal.SIGKILL)
                    running.wait()
            way.runs += 1
            has_ended = _read_report(way, said, reports)
            said_last = told.read_text("utf-8", "replace")
            assert "Traceback" not in said_last, said_last[-4000:]
            if running.returncode == -signal.SIGKILL:
                way.kills += 1
            # The kill may come when all is done and said.
            if running.returncode == 0 or (has_ended and running.returncode == -signal.SIGKILL):
                break
            if running.returncode == -signal.SIGKILL:
                continue
            # What eight tries could not do is done by the same command, run again.
            way.failures.append(f"{running.returncode}: {said_last[-300:]}")
            assert len(way.failures) < _MOST_FAILURES, way.failures
        way.requests, way.seconds = proxy.requests, time.monotonic() - began
        way.faults = Counter({fault.name: count for fault, count in proxy.counts.items()})
    return way


def _read_report(way: Way, said: Path, reports: str) -> bool:
    """Take in what one run reported, and return whether it came to its summary."""
    has_ended = False
    for line in said.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the kill came in the middle of it
        if record["type"] == reports:
            way.repeated += record["key"] in way.reported
            way.reported[record["key"]] = record
        elif record["type"] == "summary":
            way.summary = record
            has_ended = True
    return has_ended


def _judge(storm: Storm, aws: Aws, digests: dict[str, str], when: str) -> None:
    held = _digests(aws, ARCHIVE)
    storm.lost += [f"{key} {when}" for key in sorted(digests.keys() - held.keys())]
    storm.wrong += [
        f"{key} {when}" for key, digest in sorted(held.items()) if digests.get(key) != digest
    ]
    storm.wrong += [f"{key} in staging {when}" for key in sorted(_digests(aws, STAGING))]


def _judge_reports(
    storm: Storm,
    aws: Aws,
    digests: dict[str, str],
    archived: dict[str, list[str]],
    sizes: dict[str, int],
) -> None:
    up, back = storm.up, storm.back
    sent = up.summary.get("uploaded", 0) + up.summary.get("sent_before", 0)
    if sent != len(digests) or up.summary.get("failed"):
        storm.untrue.append(f"upload's summary says {up.summary}")
    if back.summary.get("done") != len(digests) or back.summary.get("failed"):
        storm.untrue.append(f"reprocess's summary says {back.summary}")
    for way in (up, back):
        storm.untrue += [f"{way.command} tells of {key}" for key in way.reported.keys() - digests]
    for key, record in up.reported.items():
        if record["size_bytes"] != sizes.get(key):
            storm.untrue.append(f"upload says of {key}, which has {sizes.get(key)} bytes: {record}")
    for key, record in back.reported.items():
        if record["version_id"] not in archived.get(key, ()):
            storm.untrue.append(f"reprocess tells of a version that was never archived: {record}")
    now = _versions(aws, ARCHIVE)
    for key, ids in archived.items():
        # What was archived lies under what its copy became: nothing is ever deleted there.
        if not set(ids) < set(now.get(key, ())):
            storm.lost.append(f"{key}, archived as {ids}, has the versions {now.get(key)} now")


def _versions(aws: Aws, bucket: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for page in aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for version in page.get("Versions", []):
            found.setdefault(version["Key"], []).append(version["VersionId"])
    return found


def _digests(aws: Aws, bucket: str) -> dict[str, str]:
    def digest(key: str) -> tuple[str, str]:
        body = aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return key, hashlib.sha256(body).hexdigest()

    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = (item["Key"] for page in pages for item in page.get("Contents", []))
    return dict(map_unordered(digest, keys, workers=8))


def _wait_until_empty(aws: Aws, bucket: str, files: int) -> None:
    """Wait until the processor has taken everything; it says itself what it could not take."""
    ends_at = time.monotonic() + 60 + files / 5
    while aws.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["KeyCount"]:
        assert time.monotonic() < ends_at, "the processor does not come to an end"
        time.sleep(0.5)


@contextlib.contextmanager
def _processor(server: local.Server, folder: Path) -> Iterator[None]:
    """Run the processor beside the storm, on whatever is in staging."""
    environ = environment_of(server, folder) | {
        "ARCHIVE_BUCKET": ARCHIVE,
        "TWOBUCKETS_PROCESS": "tests.faults.storm:process",
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_DEFAULT_REGION": server.region,
    }
    with (folder / "processor.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-c", "from tests.faults.storm import play; play()"],
            env=environ, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield
        finally:
            assert running.stdin is not None
            running.stdin.close()
            running.wait(60)


def process(file: Any) -> None:
    """Read the file, as a user's function does."""
    file.read()


def play() -> None:
    """Do what S3's notifications and Lambda do, until stdin ends."""
    from concurrent.futures import ThreadPoolExecutor
    from types import SimpleNamespace

    import boto3

    from twobuckets.processor import handler

    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    s3 = boto3.client("s3")
    under_way: set[tuple[str, str]] = set()
    # Of one key a later upload is seen later: only what is its latest version is ever looked at.
    arrived: dict[tuple[str, str], int] = {}

    def take(version: Any) -> None:
        number = arrived[version["Key"], version["VersionId"]]
        try:
            # As Lambda does, a retry keeps the request id.
            context = SimpleNamespace(aws_request_id=f"storm-{number}")
            handler(_created_event(version, number), context)
        except Exception as error:
            # As of an asynchronous invocation: it is tried again, here at the next look.
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            under_way.discard((version["Key"], version["VersionId"]))

    with ThreadPoolExecutor(8) as pool:
        while not ended.is_set():
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=STAGING):
                for version in page.get("Versions", []):
                    mark = version["Key"], version["VersionId"]
                    if version["IsLatest"] and mark not in under_way:
                        under_way.add(mark)
                        arrived.setdefault(mark, len(arrived) + 1)
                        pool.submit(take, version)
            ended.wait(0.5)


def _created_event(version: Any, number: int) -> dict[str, Any]:
    """Return S3's notification about a version, the so manieth that arrived.

    Its sequencer is what tells a file that is sent again in the same second from its first sending.
    """
    item = {
        "key": quote_plus(version["Key"]),
        "size": version["Size"],
        "eTag": version["ETag"].strip('"'),
        "versionId": version["VersionId"],
        "sequencer": f"{number:016X}",
    }
    record = {
        "eventVersion": "2.5",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": STAGING}, "object": item},
    }
    return {"Records": [record]}


def describe(storm: Storm, note: Callable[[str], None] = print) -> None:
    """Say what the storm did."""
    for way in (storm.up, storm.back):
        faults = ", ".join(f"{name} {count}" for name, count in sorted(way.faults.items()))
        note(
            f"{way.command}: {way.runs} runs, {way.kills} killed, {len(way.failures)} ended badly, "
            f"{way.seconds:.0f} s; {way.requests:,} requests, {way.faults.total():,} broken "
            f"({faults})"
        )
        for failure in way.failures:
            note(f"  ended with {failure!r}")
        note(f"  reported {len(way.reported):,}, {way.repeated:,} of them twice; {way.summary}")
    for name in ("lost", "wrong", "untrue"):
        said = getattr(storm, name)
        note(f"{name}: {len(said)}" + "".join(f"\n  {line}" for line in said[:20]))
