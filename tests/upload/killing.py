"""One upload that is killed again and again at random moments, and what has to hold each time."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.faults.proxy import Asked, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.upload.conftest import Staging

_PART = re.compile(r"partNumber=(\d+)&uploadId=([^&]+)")


@dataclass(frozen=True)
class Series:
    """How a series went: `resent_bytes` is what was under way when a run was killed."""

    runs: int
    resent_bytes: int
    size_bytes: int


def upload_and_kill(
    staging: Staging,
    path: Path,
    *,
    kills: int,
    bytes_per_second: int,
    concurrency: int,
    part_bytes: int,
    seed: int = 1,
) -> Series:
    """Kill the upload of a file that many times, let the last run finish, and check each law."""
    chance = random.Random(seed)
    begun: list[tuple[int, str]] = []

    def watch(asked: Asked) -> bool:
        match = _PART.search(asked.target)
        if asked.method == "PUT" and match:
            begun.append((int(match.group(1)), match.group(2)))
        return False

    size = path.stat().st_size
    whole_seconds = size / bytes_per_second
    resent = 0
    ids: set[str] = set()
    # What a client's machine holds back does not count as sent: the limit is in the network.
    with FaultProxy(rate=0, chooses=watch, bytes_per_second=bytes_per_second) as proxy:
        environment = {**os.environ, "http_proxy": proxy.url}
        command = [
            *(sys.executable, "-m", "twobuckets", "upload", str(path), "--key", "killed"),
            *("--concurrency", str(concurrency), "--part-size", str(part_bytes)),
        ]
        for number in range(kills + 1):
            stored = stored_parts(staging)
            begun.clear()
            running = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            if number < kills:
                # The start of the program takes a while before anything moves.
                wait_for(partial(_has_moved, begun, running), 30)
                time.sleep(chance.uniform(0, 1.6 * whole_seconds / kills))
                # With the last part under way the upload may be whole before the kill arrives.
                under_way = stored | {part for part, _ in begun}
                if running.poll() is None and len(under_way) < -(-size // part_bytes):
                    running.send_signal(signal.SIGKILL)
            output, _ = running.communicate(timeout=120)
            quiet_down(staging)
            ids |= {upload_id for _, upload_id in begun}
            # What S3 had before is never sent again.
            again = {part for part, _ in begun} & stored
            assert not again, f"parts {sorted(again)} were sent although S3 had them"
            unfinished = {part for part, _ in begun} - stored_parts(staging)
            if running.returncode != -signal.SIGKILL:
                assert running.returncode == 0, output.decode()
                break
            assert len(unfinished) <= concurrency
            resent += len(unfinished) * part_bytes
        assert running.returncode == 0, output.decode()
    digest = hashlib.sha256()
    for block in staging.s3.get_object(Bucket=staging.bucket, Key="killed")["Body"].iter_chunks(
        1 << 20
    ):
        digest.update(block)
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(ids) == 1, "one upload id serves the whole series"
    assert staging.uploads() == []
    return Series(number + 1, resent, size)


def stored_parts(staging: Staging) -> set[int]:
    """Return the numbers of the parts that S3 has of the upload."""
    found: set[int] = set()
    for key, upload_id in staging.uploads():
        pages = staging.s3.get_paginator("list_parts").paginate(
            Bucket=staging.bucket, Key=key, UploadId=upload_id
        )
        found |= {part["PartNumber"] for page in pages for part in page.get("Parts", [])}
    return found


def quiet_down(staging: Staging) -> None:
    """Wait until nothing more lands: what a killed process had given to the network still may."""
    before = None
    while (now := stored_parts(staging)) != before:
        before = now
        time.sleep(0.1)


def _has_moved(begun: list[tuple[int, str]], running: subprocess.Popen[bytes]) -> bool:
    return bool(begun) or running.poll() is not None


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Wait until something holds, or the time is up."""
    ends_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends_at:
        time.sleep(0.02)
