"""The second actor: the real reprocess code over the model's S3, and the move that loses files."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape, unescape

from botocore.exceptions import ClientError

from tests.racemodel.actors import Killed
from tests.racemodel.s3 import Client, Stored
from tests.racemodel.world import ARCHIVE, STAGING, Scenario, World, created_event
from twobuckets import processor as real_processor
from twobuckets.database import Database
from twobuckets.pipeline.versions import Version
from twobuckets.reprocess import moving as real_moving
from twobuckets.reprocess import plan as real_plan
from twobuckets.reprocess.items import State
from twobuckets.reprocess.journal import SCHEMA, Journal
from twobuckets.reprocess.plan import Rules
from twobuckets.reprocess.selection import Wanted
from twobuckets.s3.engine import Request, Response, SendError

_PLANS = 4
"""How often somebody looks for the key in the archive before giving up."""
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of reprocess over the key.

    `deaths` are numbers of S3 calls after which its process dies, for one start after the other;
    None lives. The answers to the calls in `lost` get lost, and the call is sent again. A run that
    `lists` finds the key in listings, of which that of staging may be the older one.
    """

    deaths: tuple[int | None, ...] = ()
    lost: frozenset[int] = frozenset()
    lists: bool = False


class ReprocessWorld(World):
    """A world in which somebody gets the key processed again, perhaps several at a time."""

    def __init__(
        self,
        scenario: Scenario,
        runs: Iterable[Run],
        processor: ModuleType = real_processor,
        moving: ModuleType = real_moving,
        plan: ModuleType = real_plan,
    ) -> None:
        super().__init__(scenario, processor)
        self.moving = moving
        self.plan = plan
        self.said_covered = False
        self.runs = tuple(runs)
        for number, run in enumerate(self.runs):
            self._add_run(f"reprocess {number}", run)

    def run(self, key: str = "key") -> None:
        """Do as the world does, and look at the end what became of the archive's order."""
        super().run(key)
        self._check_order_of_uploads(key)

    def _check_order_of_uploads(self, key: str) -> None:
        """What came back did not cover a later upload for good, unless the run says so."""
        if not (self.staging.versioned and self.archive.versioned and self._has_distinct_bodies):
            return
        stack = self.archive.stacks.get(key, [])
        current = self.archive.current(key)
        latest = max((item.upload for item in stack if not item.is_marker), default=0)
        if current is not None and current.upload != latest and not self.said_covered:
            raise self.laws.broken(
                f"covered: the archive's current {key!r} is upload {current.upload}, and {latest} "
                "was archived"
            )

    def _add_run(self, name: str, run: Run, key: str = "key") -> None:
        def reprocess() -> None:
            actor = self._actor()
            with ModelJournal(actor) as journal:
                for death in (*run.deaths, None):
                    actor.kill_after(death)
                    try:
                        self._reprocess_once(journal, key, run)
                    except Killed:
                        continue
                    if not actor.is_dead:
                        break

        self.scheduler.spawn(name, reprocess)

    def _reprocess_once(self, journal: ModelJournal, key: str, run: Run) -> None:
        """Do what one start of the command does: plan unless there is a plan, and go on."""
        sender = ModelSender(self, run.lost)
        for _ in range(_PLANS):
            if journal.is_approved:
                break
            rules = Rules()
            if run.lists:
                staged, archived = self._list(STAGING), self._list(ARCHIVE)
                shown = [found for found in staged[:1] if not found.is_delete_marker]
                actions = self.plan.plan_listed(archived, shown, rules)
            else:
                actions = self.plan.plan_keys(
                    sender, [Wanted(key)], rules, staging=STAGING, archive=ARCHIVE
                )
            wanted = [action for action in actions if action.kind == "copy"]
            if wanted:
                journal.add(wanted)
                journal.approve()
        unfinished = (State.BEGUN, State.PLANNED)
        mover = self.moving.Mover(
            sender, journal, staging=STAGING, archive=ARCHIVE, now=lambda: START
        )
        for moved in mover.run(journal.iter_items(*unfinished, kinds=("copy",))):
            self.said_covered |= "lies under what was archived of the copy" in str(moved.reason)

    def _list(self, bucket: str) -> list[Version]:
        """List the versions of the key, the newest first."""
        page = self.client.list_object_versions(Bucket=bucket)
        rows = [*page["Versions"], *page["DeleteMarkers"]]
        return [
            Version(
                row["Key"],
                row["VersionId"],
                row["ETag"].strip('"'),
                row["Size"],
                row["LastModified"],
                is_delete_marker=row in page["DeleteMarkers"],
            )
            for row in sorted(rows, key=lambda row: not row["IsLatest"])
        ]

    def check_brought_back(self, copied: Stored) -> None:
        """Nobody chose a version here: only what is current comes back, or it would regress."""
        if self.archive.current(copied.key) is not copied:
            raise self.laws.broken(f"brought back: {copied.version_id}, which is not current")

    def now(self) -> datetime:
        """The model's clock: that of the last write."""
        stacks = [*self.staging.stacks.values(), *self.archive.stacks.values()]
        return max((s.modified_at for stack in stacks for s in stack), default=START)

    def _on_change(self, bucket: Any, stored: Stored | None) -> None:
        if bucket is self.archive and stored is not None and stored.is_marker:
            raise self.laws.broken("hidden: a delete marker covers what is in the archive")
        if bucket is self.archive and stored is None:
            # Whoever brings a version back takes it out of the archive's order.
            for key, stack in self.archive.stacks.items():
                kept = [item for item in stack if not item.is_marker]
                if kept:
                    newest = max(kept, key=lambda item: item.staged)
                    self.laws.newest_archived[key] = newest
                else:
                    self.laws.newest_archived.pop(key, None)
        super()._on_change(bucket, stored)
        if (
            bucket is self.staging
            and stored is not None
            and not stored.is_marker
            and stored.upload != stored.staged
        ):
            self.deliver(created_event(bucket, stored), name=f"event of copy {stored.staged}")


class ModelJournal(Journal):
    """The real journal in memory; what a dead process writes is not written."""

    def __init__(self, actor: Any) -> None:
        db = Database(Path(":memory:"))
        db._connection = sqlite3.connect(":memory:", check_same_thread=False)
        super().__init__(db, os.open(os.devnull, os.O_RDONLY))
        self._actor = actor
        db.create(SCHEMA)
        db.write("INSERT INTO run (fingerprint, description, planned_at) VALUES ('', '{}', '')")

    def note(self, changes: Any) -> None:
        """Write, if still alive."""
        if not self._actor.is_dead:
            super().note(changes)


class CopyingClient(Client):
    """A client that knows which version its last copy was made of."""

    copied: Stored

    world: ReprocessWorld

    def _source(self, arguments: dict[str, Any], operation: str) -> Stored:
        self.copied = super()._source(arguments, operation)
        self.world.check_brought_back(self.copied)
        # The source is read when a copy begins, and the destination's condition when it ends.
        self._gate("the end of CopyObject", arguments)
        return self.copied


class ModelSender:
    """Sends requests to the model's S3, one after the other."""

    def __init__(self, world: ReprocessWorld, lost: frozenset[int]) -> None:
        self._world = world
        self._client = CopyingClient(world.s3, world.client._gate)
        self._client.world = world
        self._lost = lost
        self._count = 0

    def send_all(self, requests: Iterable[Request] = ()) -> ModelFlight:
        """Return the answers to requests, in order."""
        return ModelFlight(self, requests)

    def send(self, request: Request) -> Response | SendError:
        """Send one request, and again when its answer got lost."""
        self._count += 1
        answer = self._answer(request)
        if self._count in self._lost:
            answer = self._answer(request)
            answer.attempts = 2
        return answer

    def _answer(self, request: Request) -> Response:
        try:
            return self._call(self._client, request)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = error.response["Error"]["Code"]
            if request.method == "HEAD":
                return _response(status, self._marker_of(request))
            return _response(status, {}, f"<Error><Code>{code}</Code></Error>".encode())

    def _marker_of(self, request: Request) -> dict[str, str]:
        """The headers that say that a key is not found because a delete marker is on top of it."""
        bucket = self._world.s3.buckets[request.bucket]
        stack = bucket.stacks.get(request.key)
        is_marked = not request.query and stack is not None and bool(stack) and stack[0].is_marker
        return {"x-amz-delete-marker": "true"} if is_marked else {}

    def _call(self, client: CopyingClient, request: Request) -> Response:
        query, headers = dict(request.query), dict(request.headers)
        where: dict[str, Any] = {"Bucket": request.bucket, "Key": request.key}
        if "versionId" in query:
            where["VersionId"] = query["versionId"]
        match request.method:
            case "HEAD" if not request.key:
                return _response(200, {"date": format_datetime(self._world.now(), usegmt=True)})
            case "GET" if "versions" in query:
                return _listed(client, request.bucket, query)
            case "HEAD":
                return _described(client.head_object(**where))
            case "PUT":
                return self._copy(client, request, headers)
            case "DELETE":
                client.delete_object(**where)
                return _response(204, {})
            case "POST" if "delete" in query:
                return self._delete(client, request)
            case _:
                raise AssertionError(f"the model knows no {request.method} {request.query}")

    def _copy(self, client: CopyingClient, request: Request, headers: dict[str, str]) -> Response:
        place, _, version = headers["x-amz-copy-source"].partition("?versionId=")
        bucket, _, key = unquote(place.lstrip("/")).partition("/")
        source = {"Bucket": bucket, "Key": key}
        if version:
            source["VersionId"] = unquote(version)
        arguments: dict[str, Any] = {"CopySource": source}
        if "x-amz-copy-source-if-match" in headers:
            arguments["CopySourceIfMatch"] = headers["x-amz-copy-source-if-match"]
        if "if-none-match" in headers:
            arguments["IfNoneMatch"] = headers["if-none-match"]
        answer = client.copy_object(Bucket=request.bucket, Key=request.key, **arguments)
        described = {}
        if "VersionId" in answer:
            described["x-amz-version-id"] = answer["VersionId"]
        if self._world.archive.versioned:
            described["x-amz-copy-source-version-id"] = client.copied.version_id
        etag = escape(answer["CopyObjectResult"]["ETag"], {'"': "&quot;"})
        return _response(
            200, described, f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode()
        )

    def _delete(self, client: Client, request: Request) -> Response:
        assert isinstance(request.body, bytes)
        rows = []
        for key, version in re.findall(
            r"<Key>([^<]*)</Key>(?:<VersionId>([^<]*)</VersionId>)?", request.body.decode()
        ):
            where = {"VersionId": version} if version else {}
            client.delete_object(Bucket=request.bucket, Key=unescape(key), **where)
            rows.append(f"<Deleted><Key>{key}</Key><VersionId>{version}</VersionId></Deleted>")
        return _response(200, {}, f"<DeleteResult>{''.join(rows)}</DeleteResult>".encode())


class ModelFlight(Iterator[tuple[Request, Response | SendError]]):
    """The answers to requests, in order; a follow-up comes first."""

    def __init__(self, sender: ModelSender, requests: Iterable[Request]) -> None:
        self._sender = sender
        self._source = iter(requests)
        self._added: deque[Request] = deque()

    def add(self, request: Request, *, after: timedelta = timedelta()) -> None:
        """Send a follow-up before anything more is taken from the source; nobody waits here."""
        self._added.append(request)

    def __next__(self) -> tuple[Request, Response | SendError]:
        request = self._added.popleft() if self._added else next(self._source)
        return request, self._sender.send(request)


def _response(status: int, headers: dict[str, str], body: bytes = b"") -> Response:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return Response(status, "\r\n".join(lines).encode(), body)


def _listed(client: Client, bucket: str, query: dict[str, str]) -> Response:
    where: dict[str, Any] = {
        "Bucket": bucket,
        "Prefix": query["prefix"],
        "MaxKeys": int(query["max-keys"]),
    }
    if "key-marker" in query:
        where |= {"KeyMarker": query["key-marker"], "VersionIdMarker": query["version-id-marker"]}
    page = client.list_object_versions(**where)
    rows = [
        f"<{tag}><Key>{quote(row['Key'])}</Key><VersionId>{row['VersionId']}</VersionId>"
        f"<IsLatest>{str(row['IsLatest']).lower()}</IsLatest>"
        f"<LastModified>{row['LastModified'].isoformat()}</LastModified>"
        f"<ETag>{escape(row['ETag'])}</ETag><Size>{row['Size']}</Size></{tag}>"
        for tag, name in (("Version", "Versions"), ("DeleteMarker", "DeleteMarkers"))
        for row in page[name]
    ]
    following = "".join(
        f"<{name}>{quote(page[name])}</{name}>"
        for name in ("NextKeyMarker", "NextVersionIdMarker")
        if name in page
    )
    is_truncated = str(page["IsTruncated"]).lower()
    body = (
        "<ListVersionsResult><EncodingType>url</EncodingType>"
        f"<IsTruncated>{is_truncated}</IsTruncated>{following}{''.join(rows)}</ListVersionsResult>"
    )
    return _response(200, {}, body.encode())


def _described(answer: dict[str, Any]) -> Response:
    headers = {
        "etag": answer["ETag"],
        "content-length": str(answer["ContentLength"]),
        "last-modified": format_datetime(answer["LastModified"], usegmt=True),
        "x-amz-checksum-crc32": answer["ChecksumCRC32"],
        "x-amz-checksum-type": answer["ChecksumType"],
        "content-type": answer["ContentType"],
    }
    headers |= {f"x-amz-meta-{n}": v for n, v in answer["Metadata"].items()}
    if "VersionId" in answer:
        headers["x-amz-version-id"] = answer["VersionId"]
    return _response(200, headers)


def naive_reprocess(world: World, key: str = "key") -> None:
    """The known-bad example: copy back what is there, then delete what is there."""

    def move(client: Client) -> None:
        try:
            client.copy_object(Bucket=STAGING, Key=key, CopySource={"Bucket": ARCHIVE, "Key": key})
        except ClientError:
            return
        client.delete_object(Bucket=ARCHIVE, Key=key)

    world.spawn("naive", move)


def hasty_reprocess(world: World, key: str = "key") -> None:
    """Another known-bad example: every condition is there, and the archived version goes at once.

    It goes by its id, so that nothing else can be met; and it was the last one.
    """

    def move(client: Client) -> None:
        try:
            head = client.head_object(Bucket=ARCHIVE, Key=key)
            source = {"Bucket": ARCHIVE, "Key": key, "VersionId": head["VersionId"]}
            client.copy_object(Bucket=STAGING, Key=key, CopySource=source, IfNoneMatch="*")
        except ClientError:
            return
        client.delete_object(Bucket=ARCHIVE, Key=key, VersionId=head["VersionId"])

    world.spawn("hasty", move)
