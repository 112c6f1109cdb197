"""Brings archived versions back to staging, so that a crash at any point loses nothing.

For each object: only what still is the archive's current version, or was asked for by its id, is
copied; the copy goes to staging only where no file of that key waits there; what arrived is
compared with what was archived. Nothing is deleted from the archive: there the version stays until
the processor has archived the copy over it (see the room's docstring).

A copy is not one instant, and something newer may be archived before it has arrived. So the archive
is looked at once more, and such a copy is taken back. Our processor would see by the origin note
that comes with it that it is older, and leave it in staging; any other one may archive it.

Each object is one conversation with S3, and the journal hears of each how it ended.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, cast

from twobuckets.database import JournalError
from twobuckets.pipeline.conversation import Answer, Talk, checked, find, hold, in_words
from twobuckets.pipeline.versions import (
    NO_VERSION,
    ORIGIN_HEADER,
    ClosedObjectError,
    Version,
    require_found,
)
from twobuckets.processor.comparing import ContentFacts, Likeness, compare, content_in_result
from twobuckets.processor.refusals import reason_of_one
from twobuckets.reprocess.items import Change, Item, Reprocessed, State, result_of
from twobuckets.reprocess.overtaken import (
    CLOCK_SLACK,
    NEWER_WAITS,
    NO_LONGER_CURRENT,
    Arrived,
    NewerWaiting,
    NotCopied,
    Overtaken,
    SourceGone,
    find_overtaken,
    find_undisturbed,
    settle_job,
)
from twobuckets.s3 import operations
from twobuckets.s3.engine import Response, SendError
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
_LOOKED_AT: Final = 1000
"""Copies that have arrived before the archive is looked at for them."""
_LOOK_SECONDS: Final = 1.0
"""How long one waits for that at most: until then a crash forgets that it has arrived."""
_FLUSH_SECONDS: Final = 0.25
# What describes an object to those who fetch it, and not the file to those who compare it.
_KEPT: Final = ("expires", "x-amz-website-redirect-location")
_REPLACE: Final = ("x-amz-metadata-directive", "REPLACE")

_End = tuple[Item, Change]
"""An item, and what came of it."""
VERSION_GONE: Final = "the archived version is gone: deleted by somebody else"


class Mover:
    """Applies the copies of a journal.

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
        self._arrived: list[tuple[Item, str | None]] = []
        self._doubtful: list[tuple[Item, str | None]] = []
        self._flushed_at = self._waits_since = time.monotonic()
        self._asks_versions = True
        """Staging may keep versions that answers to copies don't tell."""

    def run(self, items: Iterable[Item]) -> Iterator[Reprocessed]:
        """Bring items back and yield what came of each, in order of arrival.

        Raises AccessError when the credentials are no longer accepted; what was begun goes on with
        the next run of the same journal.
        """
        self._learn_clock()
        try:
            yield from self._drive(self._talks(items))
            while self._arrived or self._doubtful:
                yield from self._drive(self._looks_again())
        finally:
            self._journal.note(self._changes)
            self._changes.clear()

    def _learn_clock(self) -> None:
        """Compare clocks: when an object was begun is later compared with S3's LastModified."""
        for _, answer in self._sender.send_all([operations.head_bucket(self._staging)]):
            if isinstance(answer, Response) and "date" in answer.headers:
                self._offset = parsedate_to_datetime(answer.headers["date"]) - self._now()

    def _drive(self, talks: Iterator[Talk[list[_End]]]) -> Iterator[Reprocessed]:
        for ends in hold(self._sender, talks):
            for item, change in ends:
                self._changes.append(change)
                yield result_of(item, change)
            self._flush()

    def _talks(self, items: Iterable[Item]) -> Iterator[Talk[list[_End]]]:
        for page in _batched(items, _PAGE):
            began_at = (self._now() + self._offset).timestamp()
            # An item that an earlier run began keeps its time: its copy may be as old as that.
            self._journal.begin([item for item in page if item.state is State.PLANNED], began_at)
            for item in page:
                self._pace()
                yield in_words(self._bring_back(item, began_at))
                if self._is_time_to_look():
                    yield from self._looks_again()

    def _is_time_to_look(self) -> bool:
        if self._doubtful or len(self._arrived) >= _LOOKED_AT:
            return True
        return bool(self._arrived) and time.monotonic() - self._waits_since > _LOOK_SECONDS

    def _flush(self) -> None:
        if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self._journal.note(self._changes)
            self._changes.clear()
            self._flushed_at = time.monotonic()

    def _bring_back(self, item: Item, began_at: float) -> Talk[list[_End]]:
        """Bring one archived version to staging, once; one that S3 refuses is left for itself."""
        try:
            change = yield from self._bring(item, began_at)
        except ClosedObjectError as closed:
            change = Change(item.id, State.LEFT, closed.message)
        return [] if change is None else [(item, change)]

    def _bring(self, item: Item, began_at: float) -> Talk[Change | None]:
        """Return what came of an item; None if it waits to be looked at, or for something else."""
        if item.upload_id is not None:
            yield [operations.abort_multipart_upload(self._staging, item.key, item.upload_id)]
        echo = item.state is State.BEGUN
        since = _instant(item.began_at or began_at)
        if echo and item.job:
            is_settled, change = yield from self._settle_job(item, since)
        elif echo:
            is_settled, change = yield from self._settle(item, since)
        else:
            is_settled, change = False, None
        if is_settled:
            return change
        answer = yield from self._copy(item)
        if isinstance(answer, Response) and answer.ok:
            return (yield from self._compare(item, answer))
        # The refusal, or the silence, may be about a first attempt that did arrive; and a failed
        # condition does not say which one it was.
        unclear = isinstance(answer, SendError) or answer.attempts > 1 or answer.status == 412
        if unclear:
            is_settled, change = yield from self._settle(item, since)
            if is_settled:
                return change
        if isinstance(answer, Response) and answer.code == "InvalidObjectState" and self._restores:
            # A listing does not tell the tiers of Intelligent-Tiering.
            self._journal.restore_instead(item)
            return None
        return self._refused(item, answer)

    def _copy(self, item: Item) -> Talk[Answer]:
        """Copy a version with its origin note, by which the processor knows how old it is.

        A version that somebody chose goes without: it is meant to be processed as the newest file
        of its key, whatever is archived.
        """
        if item.size > LONGEST_COPY_BYTES:
            return (yield from self._copy_large(item))
        headers: tuple[tuple[str, str], ...] = ()
        if item.is_chosen:
            look = operations.head_object(self._archive, item.key, item.version_id)
            (looked,) = yield [look]
            source = require_found(look, checked(looked))
            if source is None or not isinstance(looked, Response):
                return looked
            # What S3 only counts of its metadata can't be said anew.
            if source.origin is not None and "x-amz-missing-meta" not in looked.headers:
                headers = (_REPLACE, *_restated(source, looked))
        (answer,) = yield [
            operations.copy_object(
                self._archive,
                _source(item),
                self._staging,
                item.key,
                if_absent=True,
                headers=headers,
            )
        ]
        return answer

    def _compare(self, item: Item, answer: Response) -> Talk[Change | None]:
        """Say so if what arrived is not what was archived."""
        staged_version_id = yield from self._staged_version_id(item, answer)
        copied_version_id = answer.headers.get("x-amz-copy-source-version-id", item.version_id)
        # The same bytes may have been archived again meanwhile: then those were copied.
        if copied_version_id == item.version_id:
            likeness = yield from self._likeness(item, answer, staged_version_id)
            if likeness is Likeness.DIFFERENT:
                return Change(
                    item.id, State.FAILED, "the copy in staging differs from the archived version, "
                    "which stays", staged_version_id,
                )  # fmt: skip
        return self._note_arrival(item, staged_version_id)

    def _staged_version_id(self, item: Item, answer: Response) -> Talk[str | None]:
        """Return the id of the version that a copy became, None where it has none or hides it.

        S3 tells it in the answer; of an endpoint that does not, the key's current object is asked,
        which is the copy only if it has the archived version's note. An upload of the same bytes
        has none.
        """
        said = answer.headers.get("x-amz-version-id")
        if said is not None or not self._asks_versions or item.is_chosen:
            return said
        staged = yield from find(self._staging, item.key)
        if staged is None:
            return None
        if staged.version_id is None:
            self._asks_versions = False
            return None
        source = yield from find(self._archive, item.key, item.version_id)
        is_copy = (
            source is not None
            and source.origin is not None
            and staged.origin == source.origin
            and staged.is_like(source) is not Likeness.DIFFERENT
        )
        return staged.version_id if is_copy else None

    def _likeness(
        self, item: Item, answer: Response, staged_version_id: str | None
    ) -> Talk[Likeness]:
        result = content_in_result(
            answer.headers,
            {"ETag": operations.read_etag(answer), **operations.read_checksums(answer)},
        )
        if compare(ContentFacts(None, item.etag or "", {}), result) is Likeness.EQUAL:
            return Likeness.EQUAL
        # A copy of a multipart object, or under another key of encryption, gets another ETag.
        source = yield from find(self._archive, item.key, item.version_id)
        if source is None or source.content is None:
            return Likeness.UNKNOWN
        likeness = compare(source.content, result)
        if likeness is not Likeness.UNKNOWN:
            return likeness
        staged = yield from find(self._staging, item.key, staged_version_id)
        return Likeness.UNKNOWN if staged is None else staged.is_like(source)

    def _note_arrival(self, item: Item, staged_version_id: str | None) -> Change | None:
        """Return what came of an item that is in staging, or archived again; None if that is open.

        Without version ids there is nothing to judge by, and what was chosen comes back anyway.
        """
        if item.is_chosen or item.version_id in NO_VERSION:
            return Change(item.id, State.DONE, None, staged_version_id)
        if not self._arrived:
            self._waits_since = time.monotonic()
        self._arrived.append((item, staged_version_id))
        return None

    def _looks_again(self) -> Iterator[Talk[list[_End]]]:
        """Yield conversations that look at the archive for all that has arrived by now.

        Together where that is cheap; of what is then in doubt, one by one.
        """
        while self._doubtful:
            yield in_words(self._look_at(*self._doubtful.pop()))
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            yield self._look_at_all(arrived)

    def _look_at_all(self, arrived: list[tuple[Item, str | None]]) -> Talk[list[_End]]:
        undisturbed = yield from find_undisturbed([item for item, _ in arrived], self._archive)
        self._doubtful += [entry for entry in arrived if entry[0].id not in undisturbed]
        return [
            (item, Change(item.id, State.DONE, None, staged_version_id))
            for item, staged_version_id in arrived
            if item.id in undisturbed
        ]

    def _look_at(self, item: Item, staged_version_id: str | None) -> Talk[list[_End]]:
        """Take a copy back where something newer was archived before it had arrived."""
        change = Change(item.id, State.DONE, None, staged_version_id)
        try:
            overtaken = yield from find_overtaken(
                item, staged_version_id, staging=self._staging, archive=self._archive
            )
        except ClosedObjectError as closed:
            return [(item, Change(item.id, State.LEFT, closed.message, staged_version_id))]
        return [(item, change if overtaken is None else _left(item, overtaken))]

    def _settle_job(self, item: Item, since: datetime) -> Talk[tuple[bool, Change | None]]:
        """Find out what a batch job's copy did, and whether that settles it.

        It does not when there is no copy, and none is in the way.
        """
        verdict = yield from settle_job(
            item,
            since,
            self._journal.planned_at + self._offset,
            staging=self._staging,
            archive=self._archive,
        )
        match verdict:
            case Arrived(staged_version_id):
                return True, Change(item.id, State.DONE, None, staged_version_id)
            case NewerWaiting(staged):
                self._journal.wake_instead(item, staged, NEWER_WAITS)
                return True, None
            case Overtaken():
                return True, _left(item, verdict)
            case SourceGone():
                return True, Change(item.id, State.LEFT, VERSION_GONE)
            case NotCopied():
                return False, None

    def _settle(self, item: Item, since: datetime) -> Talk[tuple[bool, Change | None]]:
        """Find out whether an earlier attempt's copy arrived, or something is in its way."""
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
            return True, Change(item.id, State.LEFT, VERSION_GONE)
        if staged is not None:
            # It may be the very file that the archived version was made of, which the processor is
            # about to delete.
            if (
                staged.has_same(source)
                and staged.came_from(source)
                and staged.modified_at >= since - CLOCK_SLACK
            ):
                return True, self._note_arrival(item, staged.version_id)
            return True, Change(item.id, State.LEFT, NEWER_WAITS)
        if not item.is_chosen and (current is None or current.etag != item.etag):
            return True, Change(item.id, State.LEFT, NO_LONGER_CURRENT)
        again = (
            current is not None
            and current.has_same(source)
            and current.modified_at >= since - CLOCK_SLACK
            and (current.version_id != item.version_id or item.version_id in NO_VERSION)
        )
        return again, self._note_arrival(item, None) if again else None

    def _refused(self, item: Item, answer: Answer) -> Change:
        if isinstance(answer, SendError):
            return Change(item.id, State.FAILED, f"no answer from S3: {answer.cause}")
        checked(answer)
        if reason := reason_of_one(answer.code, answer.message):
            return Change(item.id, State.LEFT, reason)
        match answer.status, answer.code:
            case 412, _:
                return Change(item.id, State.LEFT, NEWER_WAITS)
            case 404, "" | "NoSuchKey" | "NoSuchVersion":
                return Change(item.id, State.LEFT, VERSION_GONE)
            case _, "InvalidObjectState":
                why = "in a Glacier class or an archive tier; --restore asks for it back"
                return Change(item.id, State.LEFT, why)
            case status, code:
                return Change(item.id, State.FAILED, f"{code or status}: {answer.message}")

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
        headers = list(_restated(source, answers[0]))
        if not item.is_chosen and ORIGIN_HEADER in answers[0].headers:
            headers.append((ORIGIN_HEADER, answers[0].headers[ORIGIN_HEADER]))
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


def _restated(source: Version, looked: Response) -> Iterator[tuple[str, str]]:
    """Yield what describes a version, as the headers of a copy that is told all of it anew."""
    yield from source.described
    for name in _KEPT:
        if name in looked.headers:
            yield name, looked.headers[name]


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
