"""A pair of buckets, clients that upload, S3's events, and the function with its retries."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.racemodel import user
from tests.racemodel.actors import Actor, Killed, Later, SameThread, Scheduler
from tests.racemodel.laws import LawBroken, Laws
from tests.racemodel.s3 import S3, Bucket, Client, Stored
from twobuckets import processor as real_processor
from twobuckets.processor import contract

STAGING, ARCHIVE = "staging", "archive"
LAMBDA_TRIES = 3


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload of a key: its content, how often its event comes, and what goes wrong.

    `failures` of the runs of `process` raise, and all of them if the processor `rejects` the file.
    `deaths` are numbers of calls after which the function's environment dies, for one try after the
    other; None lives.
    """

    body: bytes
    events: int = 1
    failures: int = 0
    deaths: tuple[int | None, ...] = ()
    rejects: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that is decided before a run; the schedule decides the rest."""

    uploads: tuple[Upload, ...]
    schedule: tuple[int, ...] = ()
    staging_versioned: bool = True
    archive_versioned: bool = True
    undelete: bool = False
    corrupt_copies: int = 0
    repeated_write: int = 0
    conflicting_write: int = 0
    unfound_head: int = 0
    page_size: int = 1000
    writes_per_second: int = 1
    asks_early: bool = False
    """Whether what the processor asks beside something else is answered first, or last."""


class World:
    """One run of one scenario; raises LawBroken at the instant at which a law is broken."""

    def __init__(self, scenario: Scenario, processor: ModuleType = real_processor) -> None:
        self.scenario = scenario
        self.staging = Bucket(STAGING, scenario.staging_versioned, is_staging=True)
        self.archive = Bucket(ARCHIVE, scenario.archive_versioned)
        self.s3 = S3(
            self.staging,
            self.archive,
            writes_per_second=scenario.writes_per_second,
            page_size=scenario.page_size,
        )
        self.s3.corrupt_copies = scenario.corrupt_copies
        self.s3.repeated_write = scenario.repeated_write
        self.s3.conflicting_write = scenario.conflicting_write
        self.s3.on_change = self._on_change
        self.scheduler = Scheduler(scenario.schedule)
        # Code under test may catch everything: a breach is kept, and raised when the run ends.
        self.laws = Laws(self.staging, self.archive, self.scheduler.errors)
        self.client = Client(self.s3, lambda operation, arguments: self.scheduler.step(operation))
        self.client.on_read = self._on_read
        self.client.unfound_head = scenario.unfound_head
        self.processor = processor
        self.handler: Callable[[dict[str, Any], Any], object] = processor.handler
        self.lines: list[dict[str, Any]] = []
        self._failures: dict[tuple[str, bytes], int] = {}
        self._bodies = {upload.body for upload in scenario.uploads}
        self._rejected = {upload.body for upload in scenario.uploads if upload.rejects}

    # --- running ---

    def run(self, key: str = "key") -> None:
        """Upload, deliver and retry under the schedule, wake what is left, and check the laws."""
        self.spawn("client", lambda client: self._upload_all(client, key))
        if self.scenario.undelete:
            self.spawn("operator", lambda client: self._undelete(client, key))
        with self._installed():
            self.scheduler.run()
            self._check_order()
            self._wake_what_is_left()
        self.laws.check_nothing_lost()
        self._check_order()
        self.laws.check_nothing_stuck(self._rejected)

    def _check_order(self) -> None:
        # Without versions in staging, the event of an upload can move a later one of the same
        # bytes: nothing is lost by it, but which of them came last is.
        if self.staging.versioned or self._has_distinct_bodies:
            self.laws.check_not_regressed()

    def spawn(self, name: str, run: Callable[[Client], None]) -> Actor:
        """Add an actor that is a function of an S3 client."""
        return self.scheduler.spawn(name, lambda: run(self.client))

    def deliver(
        self, event: dict[str, Any], deaths: Sequence[int | None] = (), name: str = "event"
    ) -> Actor:
        """Add an actor that invokes the function with this event as Lambda does, with retries."""
        context = SimpleNamespace(aws_request_id=name)

        def invoke() -> None:
            for number in range(LAMBDA_TRIES):
                death = deaths[number] if number < len(deaths) else None
                if self._ends_well(lambda: self.handler(event, context), death):
                    return
            self._actor().kill_after(None)

        return self.scheduler.spawn(name, invoke)

    def _ends_well(self, run: Callable[[], object], death: int | None, **local: Any) -> bool:
        """Run the function once as the current actor, whose process may die; tell how it went."""
        actor = self._actor()
        actor.kill_after(death)
        seen = {k: v[0] for k, v in self.archive.stacks.items() if v}
        actor.local = {"seen": seen, **local}
        try:
            run()
        except LawBroken:
            raise
        except (Killed, Exception):
            return False
        return not actor.is_dead

    @contextmanager
    def _installed(self) -> Iterator[None]:
        runtime = self.processor.runtime
        user.world = self
        runtime._clients["s3"] = self.client
        runtime._executors["beside"] = SameThread() if self.scenario.asks_early else Later()
        try:
            with redirect_stdout(_Lines(self._on_line)), _no_traces():
                yield
        finally:
            user.world = None
            runtime._clients.clear()
            runtime._executors.clear()

    def _wake_what_is_left(self) -> None:
        """Do as whoever is on call does: wake what staging shows, and upload again what stays."""
        for remedy in (self._wake, self._wake, self._upload_again, self._wake):
            for stored in self.staging.visible():
                if stored.body not in self._rejected:
                    remedy(stored)
            self.scheduler.run()

    def _wake(self, stored: Stored) -> None:
        self.deliver(wake_event(self.staging, stored), name="wake")

    def _upload_again(self, stored: Stored) -> None:
        """As the outcome of a version says whose place in the order cannot be known.

        What no client ever sent was damaged: the outcome says to compare both with what was sent,
        and the one that is not goes.
        """
        if self._is_damaged_copy(stored):
            self.spawn("on call", lambda client: self._delete(client, stored))
            return
        upload = Upload(stored.body)
        self.spawn("on call", lambda client: self._upload(client, stored.key, upload))

    def _is_damaged_copy(self, stored: Stored) -> bool:
        sent = {upload.body for upload in self.scenario.uploads}
        return stored.body not in sent and any(
            archived.key == stored.key and archived.body in sent
            for archived in self.archive.visible()
        )

    def _delete(self, client: Client, stored: Stored) -> None:
        version = {"VersionId": stored.version_id} if self.staging.versioned else {}
        client.delete_object(Bucket=STAGING, Key=stored.key, **version)

    def _upload_all(self, client: Client, key: str) -> None:
        for upload in self.scenario.uploads:
            self._upload(client, key, upload)

    def _upload(self, client: Client, key: str, upload: Upload) -> None:
        client.put_object(Bucket=STAGING, Key=key, Body=upload.body)
        stored = self.staging.stacks[key][0]
        self._failures[key, upload.body] = upload.failures
        for number in range(upload.events):
            deaths = upload.deaths if number == 0 else ()
            event = created_event(self.staging, stored)
            self.deliver(event, deaths, f"event {stored.staged}.{number}")

    def _undelete(self, client: Client, key: str) -> None:
        """Do as an operator does who sees a hidden version: remove the marker, wake it."""
        client.list_objects_v2(Bucket=STAGING, Prefix=key)
        stack = self.staging.stacks.get(key)
        if stack and stack[0].is_marker:
            client.delete_object(Bucket=STAGING, Key=key, VersionId=stack[0].version_id)
            current = self.staging.current(key)
            if current is not None:
                self.deliver(created_event(self.staging, current), name="undeleted")

    # --- watching ---

    def process(self, file: Any) -> None:
        """What the user's code does in this world: reads everything, and may fail."""
        body = file.read()
        read: Stored = self._actor().local["read"]
        if self.staging.versioned and file.version_id != read.version_id:
            raise self.laws.broken(f"read another version than {file.version_id}: {read.staged}")
        if file.etag != read.etag:
            raise self.laws.broken(f"read another version than {file.etag}: {read.staged}")
        self.watch_process(file.key, body)

    def watch_process(self, key: str, body: bytes) -> None:
        """Take down that the actor has processed what it read last; may fail."""
        actor = self._actor()
        read: Stored = actor.local["read"]
        seen = actor.local["seen"].get(key)
        can_tell = self.staging.versioned or self._has_distinct_bodies
        if can_tell and seen and seen.staged == read.staged and seen.body == read.body:
            raise self.laws.broken(
                f"processed again: staged version {read.staged} was archived already"
            )
        if body in self._rejected:
            raise self.processor.Reject("no file of ours")
        if self._failures.get((key, body), 0) > 0:
            self._failures[key, body] -= 1
            raise ValueError("this run fails")
        self.laws.processed.add(read.staged)
        self.laws.processed_bodies.add((key, body))
        newest = next((v for v in self.staging.stacks.get(key, ()) if not v.is_marker), None)
        if newest is not None and newest.body != body:
            actor.local.setdefault("replaced", set()).add(read.staged)

    def _on_read(self, stored: Stored) -> None:
        self._actor().local["read"] = stored

    def _on_change(self, bucket: Bucket, stored: Stored | None) -> None:
        if stored is not None and not stored.is_marker:
            if bucket is self.archive:
                self._check_archived(stored)
            elif stored.upload == stored.staged:
                self.laws.uploads.append(stored)
        self.laws.check_nothing_lost()
        if self._has_distinct_bodies:
            self.laws.check_not_regressed()
        if self._is_whole:
            self.laws.check_archived_is_kept(on_top=self._has_distinct_bodies)

    def _check_archived(self, stored: Stored) -> None:
        if stored.body not in self._bodies:
            return  # a corrupt copy, which is no copy of anything
        self.laws.check_archived(stored)
        if stored.staged in self._actor().local.get("replaced", ()):
            raise self.laws.broken(f"archived although replaced: staged version {stored.staged}")

    @property
    def _has_distinct_bodies(self) -> bool:
        """Whether an ETag names one upload: if not, order is restored and not always kept."""
        return len(self._bodies) == len(self.scenario.uploads)

    @property
    def _is_whole(self) -> bool:
        """Whether no corrupt copy is on top in the archive, where it may have replaced another."""
        stacks = self.archive.stacks.values()
        return all(stack[0].body in self._bodies for stack in stacks if stack)

    def _on_line(self, line: dict[str, Any]) -> None:
        if self._actor().is_dead:
            return
        self.lines.append(line)
        current = self.staging.current(line["key"])
        if not self.staging.versioned:
            is_staged = current is not None and current.etag == line["etag"]
            if line["outcome"] == "archived" and is_staged and self._has_distinct_bodies:
                raise self.laws.broken("said archived of what is still in staging")
            return
        version_id, latest = line["version_id"], self.laws.uploads[-1]
        is_staged = self.staging.find(line["key"], version_id) is not None
        if line["outcome"] == "archived" and is_staged:
            raise self.laws.broken("said archived of a version that is still in staging")
        is_watched = line["outcome"] == "archived" and not self.scenario.undelete
        if is_watched and current and current.staged < int(version_id.removeprefix("v")):
            raise self.laws.broken("brought an older version to light")
        if line["outcome"] == "missing" and is_staged and version_id == latest.version_id:
            raise self.laws.broken("said missing of the latest upload, which nobody deleted")

    def _actor(self) -> Actor:
        assert self.scheduler.current is not None
        return self.scheduler.current


@contextmanager
def _no_traces() -> Iterator[None]:
    """Let tracebacks end before their first frame: nobody here reads those in outcome lines."""
    limit = getattr(sys, "tracebacklimit", None)
    sys.tracebacklimit = 0
    try:
        yield
    finally:
        if limit is None:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = limit


class _Lines:
    """A stdout that takes the outcome lines."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take

    def write(self, text: str) -> int:
        self._take(json.loads(text))
        return len(text)

    def flush(self) -> None:
        pass


def created_event(bucket: Bucket, stored: Stored) -> dict[str, Any]:
    """Return S3's notification about a version, as 2.5 looks."""
    item: dict[str, Any] = {
        "key": stored.key,
        "size": len(stored.body),
        "eTag": stored.etag,
        "sequencer": f"{stored.staged:08X}" + "00" * (stored.staged % 2),
    }
    if bucket.versioned:
        item["versionId"] = stored.version_id
    record = {
        "eventVersion": "2.5",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket.name}, "object": item},
    }
    return {"Records": [record]}


def wake_event(bucket: Bucket, stored: Stored) -> dict[str, Any]:
    """Return the event with which a stuck version is woken."""
    return contract.wake_event(
        bucket.name,
        stored.key,
        version_id=stored.version_id if bucket.versioned else None,
        etag=stored.etag,
        size_bytes=len(stored.body),
    )
