"""Moves archived versions back to staging, so that a crash at any point loses nothing.

For each object: only what still is the archive's current version, or was asked for by its id, is
copied; the copy goes to staging only where no file of that key waits there; what arrived
is compared with what was archived; the archive is looked at once more, because a copy is not one
instant, and where something newer was archived before it had arrived, the copy is taken back; and
only then is the archived version deleted, by its version id, so that a file that the processor
archived again in the meantime is never touched.

Each object is one conversation with S3. The driver keeps many of them going at once, writes the
journal, and gathers the deletes into batches.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, cast

from twobuckets.pipeline.conversation import Answer, Talk, checked, find, in_words
from twobuckets.pipeline.versions import NO_VERSION, ClosedObjectError, require_found
from twobuckets.processor.comparing import Content, Likeness, compare, content_in_result
from twobuckets.processor.refusals import reason_of_one
from twobuckets.reprocess.database import JournalError
from twobuckets.reprocess.journal import Change, Item, Reprocessed, State, result_of
from twobuckets.reprocess.overtaken import (
    CLOCK_SLACK,
    NEWER_WAITS,
    NO_LONGER_CURRENT,
    Arrived,
    NotCopied,
    Overtaken,
    SourceGone,
    Waiting,
    find_overtaken,
    settle_job,
)
from twobuckets.reprocess.plan import Kind
from twobuckets.s3 import operations
from twobuckets.s3.deletes import (
    DELETE_ATTEMPTS,
    MOST_DELETES,
    iter_delete_batches,
    passes,
    read_deletes,
)
from twobuckets.s3.engine import Request, Response, SendError
from twobuckets.s3.operations import LONGEST_COPY_BYTES, CompletedPart, ObjectVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.reprocess.journal import Journal
    from twobuckets.s3.engine import Sender

# A part of a copied upload: at most 5 GiB, and 10,000 of them (S3 user guide, "Multipart upload
# limits"). Parts of 1 GiB go faster side by side.
_COPY_PART_BYTES: Final = 1024**3
_MAX_PARTS: Final = 10_000
_PAGE: Final = 256
"""Items that are noted as begun in one transaction."""
_DELETE_PAUSE: Final = timedelta(seconds=0.2)
"""Before a delete is tried for the second time."""
_FLUSH_SECONDS: Final = 0.25
# What describes an object to those who fetch it, and not the file to those who compare it.
_KEPT: Final = ("expires", "x-amz-website-redirect-location")

VERSION_GONE: Final = "the archived version is gone: moved or deleted by somebody else"


@dataclass(slots=True)
class _Talk:
    """A conversation that is under way, and the answers it still waits for."""

    items: dict[int, Item]
    steps: Talk[list[Change]]
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    pause: timedelta = timedelta()
    """How long its next requests wait; twice as long each time."""


class Mover:
    """Applies the moves and copies of a journal.

    `now` is the present instant; `pace` is called before each object and may wait, which is how a
    rate is kept. What turns out to lie in an archive tier is planned to be restored, if it
    `restores`.
    The journal is written to at every step and is whole whenever this stops.
    """

    def __init__(
        self,
        sender: Sender,
        journal: Journal,
        *,
        staging: str,
        archive: str,
        now: Callable[[], datetime],
        pace: Callable[[], None] = lambda: None,
        restores: bool = False,
    ) -> None:
        self._sender = sender
        self._journal = journal
        self._staging = staging
        self._archive = archive
        self._now = now
        self._pace = pace
        self._restores = restores
        self._offset = timedelta()
        self._changes: list[Change] = []
        self._copied: list[Item] = []
        self._flushed_at = time.monotonic()

    def run(self, items: Iterable[Item]) -> Iterator[Reprocessed]:
        """Move items back and yield what came of each, in order of arrival.

        Raises AccessError when the credentials are no longer accepted; what was begun goes on with
        the next run of the same journal.
        """
        self._learn_clock()
        try:
            yield from self._drive(self._first_requests(items))
            while self._copied:
                yield from self._drive(self._delete_requests())
        finally:
            self._journal.note(self._changes)
            self._changes.clear()

    def _learn_clock(self) -> None:
        """Compare clocks: when an object was begun is later compared with S3's LastModified."""
        for _, answer in self._sender.send_all([operations.head_bucket(self._staging)]):
            if isinstance(answer, Response) and "date" in answer.headers:
                self._offset = parsedate_to_datetime(answer.headers["date"]) - self._now()

    def _first_requests(self, items: Iterable[Item]) -> Iterator[Request]:
        for page in _batched(items, _PAGE):
            began_at = (self._now() + self._offset).timestamp()
            # An item that an earlier run began keeps its time: its copy may be as old as that.
            self._journal.begin([item for item in page if item.state is State.PLANNED], began_at)
            for item in page:
                if item.state is State.COPIED:
                    self._copied.append(item)
                    continue
                self._pace()
                yield from _ask(_Talk({item.id: item}, in_words(self._move(item, began_at))))

    def _delete_requests(self) -> Iterator[Request]:
        """Begin to delete the archived versions of what is safely in staging."""
        while self._copied:
            batch, self._copied = self._copied[:MOST_DELETES], self._copied[MOST_DELETES:]
            by_id = {item.id: item for item in batch}
            yield from _ask(_Talk(by_id, self._delete(batch), pause=_DELETE_PAUSE))

    def _drive(self, requests: Iterator[Request]) -> Iterator[Reprocessed]:
        """Keep conversations going until each has come to its end."""
        flight = self._sender.send_all(requests)
        for request, answer in flight:
            talk, place = cast("tuple[_Talk, int]", request.tag)
            talk.answers[place] = answer
            talk.missing -= 1
            if not talk.missing:
                try:
                    for following in _ask(talk, cast("list[Answer]", talk.answers)):
                        flight.add(following, after=talk.pause)
                    talk.pause *= 2
                except StopIteration as ended:
                    yield from self._note(talk, ended.value)
            if len(self._copied) >= MOST_DELETES:
                for following in self._delete_requests():
                    flight.add(following)
            self._flush()

    def _note(self, talk: _Talk, changes: list[Change]) -> Iterator[Reprocessed]:
        self._changes += changes
        for change in changes:
            item = talk.items[change.id]
            if change.state is State.COPIED:
                self._copied.append(
                    dataclasses.replace(item, staged_version_id=change.staged_version_id)
                )
            else:
                yield result_of(item, change)

    def _flush(self) -> None:
        if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self._journal.note(self._changes)
            self._changes.clear()
            self._flushed_at = time.monotonic()

    def _move(self, item: Item, began_at: float) -> Talk[list[Change]]:
        """Bring one archived version to staging, once; one that S3 refuses is left for itself."""
        try:
            return (yield from self._bring(item, began_at))
        except ClosedObjectError as closed:
            return [Change(item.id, State.LEFT, closed.message)]

    def _bring(self, item: Item, began_at: float) -> Talk[list[Change]]:
        if item.upload_id is not None:
            yield [operations.abort_multipart_upload(self._staging, item.key, item.upload_id)]
        echo = item.state is State.BEGUN
        since = _instant(item.began_at or began_at)
        if echo and item.job:
            if (changes := (yield from self._settle_job(item, since))) is not None:
                return changes
        elif echo and (settled := (yield from self._settle(item, since))) is not None:
            return [settled]
        if item.size > LONGEST_COPY_BYTES:
            answer = yield from self._copy_large(item)
        else:
            (answer,) = yield [
                operations.copy_object(
                    self._archive, _source(item), self._staging, item.key, if_absent=True
                )
            ]
        if isinstance(answer, Response) and answer.ok:
            return [(yield from self._compare(item, answer))]
        # The refusal, or the silence, may be about a first attempt that did arrive; and a failed
        # condition does not say which one it was.
        unclear = isinstance(answer, SendError) or answer.attempts > 1 or answer.status == 412
        if unclear and (settled := (yield from self._settle(item, since))) is not None:
            return [settled]
        if isinstance(answer, Response) and answer.code == "InvalidObjectState" and self._restores:
            # A listing does not tell the tiers of Intelligent-Tiering.
            self._journal.restore_instead(item)
            return []
        return [self._refused(item, answer)]

    def _compare(self, item: Item, answer: Response) -> Talk[Change]:
        """Prove that what arrived is what was archived, before anything is deleted."""
        staged_version_id = answer.headers.get("x-amz-version-id")
        copied_version_id = answer.headers.get("x-amz-copy-source-version-id", item.version_id)
        if copied_version_id != item.version_id:
            # The same bytes were archived again meanwhile, and those were copied: both stay.
            left = yield from self._take_back(item, staged_version_id)
            return left or Change(item.id, State.DONE, None, staged_version_id)
        result = content_in_result(
            answer.headers,
            {"ETag": operations.read_etag(answer), **operations.read_checksums(answer)},
        )
        if compare(Content(None, item.etag or "", {}), result) is Likeness.EQUAL:
            return (yield from self._arrived(item, staged_version_id))
        # A copy of a multipart object, or under another key of encryption, gets another ETag.
        source = yield from find(self._archive, item.key, item.version_id)
        likeness = Likeness.UNKNOWN
        if source is not None and source.content is not None:
            likeness = compare(source.content, result)
        if source is not None and likeness is Likeness.UNKNOWN:
            staged = yield from find(self._staging, item.key, staged_version_id)
            likeness = Likeness.UNKNOWN if staged is None else staged.is_like(source)
        match likeness:
            case Likeness.EQUAL:
                return (yield from self._arrived(item, staged_version_id))
            case Likeness.DIFFERENT:
                return Change(
                    item.id, State.FAILED, "the copy in staging differs from the archived version, "
                    "which stays", staged_version_id,
                )  # fmt: skip
            case Likeness.UNKNOWN:
                return Change(
                    item.id, State.LEFT, "copied to staging; the archived version stays, because "
                    "S3 tells no checksum by which to compare the copy with it", staged_version_id,
                )  # fmt: skip

    def _arrived(
        self, item: Item, staged_version_id: str | None, *, again: bool = False
    ) -> Talk[Change]:
        """Return what is next for an item that is in staging, or archived `again`."""
        left = yield from self._take_back(item, staged_version_id)
        return left or self._to_delete(item, staged_version_id, again=again)

    def _take_back(self, item: Item, staged_version_id: str | None) -> Talk[Change | None]:
        """Take a copy back where something newer was archived before it had arrived."""
        if item.is_chosen:
            return None
        overtaken = yield from find_overtaken(
            item, staged_version_id, staging=self._staging, archive=self._archive
        )
        return None if overtaken is None else _left(item, overtaken)

    def _to_delete(self, item: Item, staged_version_id: str | None, *, again: bool) -> Change:
        """Return that an archived version may be deleted now, if it is to be.

        Without a version id of its own, the copy in staging may fall to somebody who is about to
        delete the same bytes that were there before it.
        """
        deletes = item.kind == Kind.MOVE and (again or staged_version_id not in NO_VERSION)
        return Change(item.id, State.COPIED if deletes else State.DONE, None, staged_version_id)

    def _settle_job(self, item: Item, since: datetime) -> Talk[list[Change] | None]:
        """Find out what a batch job's copy did; None when there is none, and none is in the way."""
        verdict = yield from settle_job(
            item,
            since,
            self._journal.planned_at + self._offset,
            staging=self._staging,
            archive=self._archive,
        )
        match verdict:
            case Arrived(staged_version_id, again, covers):
                if covers:
                    return [Change(item.id, State.DONE, None, staged_version_id)]
                return [self._to_delete(item, staged_version_id, again=again)]
            case Waiting(staged):
                self._journal.wake_instead(item, staged, NEWER_WAITS)
                return []
            case Overtaken():
                return [_left(item, verdict)]
            case SourceGone():
                return [_gone(item)]
            case NotCopied():
                return None

    def _settle(self, item: Item, since: datetime) -> Talk[Change | None]:
        """Find out whether an earlier attempt's copy arrived; None when it did not."""
        looks = [
            operations.head_object(self._archive, item.key, item.version_id),
            operations.head_object(self._staging, item.key),
            operations.head_object(self._archive, item.key),
        ]
        answers = yield looks
        source, staged, current = (
            require_found(look, checked(answer))
            for look, answer in zip(looks, answers, strict=True)
        )
        if source is None:
            return _gone(item)
        if staged is not None:
            # It may be the very file that the archived version was made of, which the processor is
            # about to delete: then the archived one is all there is.
            if (
                staged.has_same(source)
                and staged.came_from(source)
                and staged.modified_at >= since - CLOCK_SLACK
            ):
                return (yield from self._arrived(item, staged.version_id))
            return Change(item.id, State.LEFT, NEWER_WAITS)
        if not item.is_chosen and (current is None or current.etag != item.etag):
            return Change(item.id, State.LEFT, NO_LONGER_CURRENT)
        again = (
            current is not None
            and current.has_same(source)
            and current.modified_at >= since - CLOCK_SLACK
            and (current.version_id != item.version_id or item.version_id in NO_VERSION)
        )
        return (yield from self._arrived(item, None, again=True)) if again else None

    def _refused(self, item: Item, answer: Answer) -> Change:
        if isinstance(answer, SendError):
            return Change(item.id, State.FAILED, f"no answer from S3: {answer.cause}")
        checked(answer)
        if reason := reason_of_one(answer.code, answer.message):
            return Change(item.id, State.LEFT, reason)
        match answer.status, answer.code:
            case 412, _:
                return Change(item.id, State.LEFT, NEWER_WAITS)
            case _, "NoSuchKey" | "NoSuchVersion":
                return Change(item.id, State.LEFT, VERSION_GONE)
            case _, "InvalidObjectState":
                why = "in a Glacier class or an archive tier; --restore asks for it back"
                return Change(item.id, State.LEFT, why)
            case status, code:
                return Change(item.id, State.FAILED, f"{code or status}: {answer.message}")

    def _delete(self, items: list[Item]) -> Talk[list[Change]]:
        """Delete archived versions, believing only what S3 says of each."""
        changes = []
        for attempt in range(1, DELETE_ATTEMPTS + 1):
            versions = [_version(item) for item in items]
            batches = list(iter_delete_batches(self._archive, versions))
            answers = yield [batch.request for batch in batches]
            results = {
                (result.key, result.version_id): (result, passes(result, answer))
                for batch, answer in zip(batches, answers, strict=True)
                for result in read_deletes(batch, checked(answer))
            }
            again = []
            for item in items:
                result, is_passing = results[item.key, item.version_id or ""]
                if is_passing and attempt < DELETE_ATTEMPTS:
                    again.append(item)
                    continue
                why = f"{result.code}: {result.message}" if result.code else None
                changes.append(_not_deleted(item, why) if why else Change(item.id, State.DONE))
            if not again:
                break
            items = again
        return changes

    def _copy_large(self, item: Item) -> Talk[Answer]:
        """Copy more than CopyObject takes: part by part, every part with the pin."""
        look = operations.head_object(self._archive, item.key, item.version_id)
        tagging = operations.get_object_tagging(self._archive, item.key, item.version_id)
        answers = yield [look, tagging]
        source = require_found(look, checked(answers[0]))
        tags = checked(answers[1])
        if source is None or isinstance(tags, SendError) or not tags.ok:
            return answers[0] if source is None else tags
        assert isinstance(answers[0], Response)
        headers = [*source.described]
        headers += [
            (name, answers[0].headers[name]) for name in _KEPT if name in answers[0].headers
        ]
        if tag_set := operations.read_tags(tags):
            headers.append(("x-amz-tagging", tag_set))
        (created,) = yield [
            operations.create_multipart_upload(self._staging, item.key, headers=headers)
        ]
        upload_id = "" if isinstance(created, SendError) else operations.read_upload_id(created)
        if not upload_id:
            return created
        try:
            self._journal.note_upload(item, upload_id)
        except JournalError:
            # Nobody would know of it any more.
            yield [operations.abort_multipart_upload(self._staging, item.key, upload_id)]
            raise
        size = max(_COPY_PART_BYTES, -(-item.size // _MAX_PARTS))
        parts = yield [
            operations.upload_part_copy(
                self._archive,
                _source(item),
                self._staging,
                item.key,
                upload_id,
                number,
                offset=at,
                length=min(size, item.size - at),
            )
            for number, at in enumerate(range(0, item.size, size), 1)
        ]
        failed = [p for p in parts if isinstance(p, SendError) or not p.ok]
        if failed:
            yield [operations.abort_multipart_upload(self._staging, item.key, upload_id)]
            return failed[0]
        listed = [_copied(number, cast("Response", part)) for number, part in enumerate(parts, 1)]
        (completed,) = yield [
            operations.complete_multipart_upload(
                self._staging, item.key, upload_id, listed, if_absent=True
            )
        ]
        if isinstance(completed, SendError) or not completed.ok:
            yield [operations.abort_multipart_upload(self._staging, item.key, upload_id)]
        return completed


def _ask(talk: _Talk, answers: list[Answer] | None = None) -> Iterator[Request]:
    """Give a conversation its answers and return its next requests; StopIteration is its end."""
    requests = next(talk.steps) if answers is None else talk.steps.send(answers)
    talk.answers = [None] * len(requests)
    talk.missing = len(requests)
    return iter([dataclasses.replace(r, tag=(talk, place)) for place, r in enumerate(requests)])


def _gone(item: Item) -> Change:
    """Return what a version that is gone means: an earlier attempt deletes what it has moved."""
    if item.kind == Kind.MOVE:
        return Change(item.id, State.DONE, None, item.staged_version_id)
    return Change(item.id, State.LEFT, VERSION_GONE)


def _left(item: Item, overtaken: Overtaken) -> Change:
    return Change(item.id, State.FAILED if overtaken.failed else State.LEFT, overtaken.reason)


def _copied(number: int, part: Response) -> CompletedPart:
    """Return a part that was copied, as S3 says it stored it."""
    crc64nvme = operations.read_checksums(part).get("ChecksumCRC64NVME", "")
    return CompletedPart(number, operations.read_etag(part), crc64nvme)


def _source(item: Item) -> ObjectVersion:
    """Return what to copy: unless a version was chosen, only what is the key's current object.

    S3 holds the ETag against that object. The answer says which version it was.
    """
    return ObjectVersion(
        item.key, (item.version_id or "") if item.is_chosen else "", item.etag or ""
    )


def _version(item: Item) -> ObjectVersion:
    """Return what to delete: exactly the archived version that was copied."""
    return ObjectVersion(item.key, item.version_id or "")


def _not_deleted(item: Item, reason: str) -> Change:
    return Change(
        item.id, State.FAILED, f"copied to staging, but the archived version stays: {reason}"
    )


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    page: list[Item] = []
    for item in items:
        page.append(item)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page
