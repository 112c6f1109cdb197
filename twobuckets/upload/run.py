"""What the files of one run share: options, what was found out, and what is left unfinished."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from twobuckets.aws.codes import HOPELESS, Meaning, meaning_of
from twobuckets.prices import US_EAST_1, Prices
from twobuckets.s3.engine import FileChangedError, Request, Response, SendError
from twobuckets.s3.operations import head_object, is_unknown_here, read_date, read_etag
from twobuckets.s3.refusals import explain
from twobuckets.upload import checksum
from twobuckets.upload.content_type import content_type_of
from twobuckets.upload.files import Failed, File
from twobuckets.upload.sent import SentBefore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from twobuckets.pipeline.conversation import Answer, Talk
    from twobuckets.upload.checksum import Body
    from twobuckets.upload.journal import UploadJournal
    from twobuckets.upload.sent import Sent, Stamp
    from twobuckets.upload.unfinished import Multipart

# What every other file would meet as well.
_FATAL: Final = HOPELESS | {Meaning.MISPLACED}
_NO_LIST: Final = frozenset({Meaning.DENIED, Meaning.UNKNOWN_HERE})


class Proof(enum.Enum):
    """What an answer says of what was stored."""

    PROVEN = "it is what was sent"
    DIFFERS = "it is something else"
    UNKNOWN = "nothing that could be compared"


class Resume(enum.Enum):
    """What becomes of an earlier, interrupted upload of the same file."""

    CONTINUE = "continue"
    RESTART = "restart"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """How files are to be uploaded; `part_bytes` None means a size that suits each file.

    `most_parts` is how many parts may be in flight at once. With `Resume.IGNORE` nothing is kept
    for a later resume either. `prices` are for what an interruption leaves in S3.
    """

    bucket: str
    content_type: str | None = None
    overwrite: bool = True
    part_bytes: int | None = None
    most_parts: int = 15
    resume: Resume = Resume.CONTINUE
    prices: Prices = US_EAST_1

    @property
    def most_bulk(self) -> int:
        """How many large bodies may be in flight at once.

        One more than there are parts, so that small files never wait for parts of large ones.
        """
        return self.most_parts + 1


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that S3 has, proven by the `checksum` of what was read.

    `uploaded_at` is S3's own time. `resumed_bytes` were there from an earlier run. `replaced` tells
    that the key was in the bucket already: an object that nothing had processed yet. `checksum` is
    CRC64NVME as S3 writes it; None where the endpoint tells nothing that proves what it stored, of
    which the size alone was compared.
    """

    path: str
    key: str
    size_bytes: int
    etag: str
    version_id: str | None
    checksum: str | None
    uploaded_at: datetime
    resumed_bytes: int = 0
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """Something about one file that a person should know and may ignore."""

    path: str
    key: str
    message: str


def means(answer: Response) -> Meaning:
    """Return what a refusal means, also of an endpoint that gives no code."""
    return meaning_of(answer.code or str(answer.status))


class UploadRun:
    """What the files of one run share.

    `initiator` returns the names under which S3 lists what the identity in use begins, none when
    they can't be known; it is asked only about uploads of a key that the journal does not know.

    `sent` is what the command has sent, None where it is not to be remembered.

    `sends_crc` is whether CRC64NVME is sent, which some endpoints refuse, and `tells_crc` whether
    the endpoint says which one it stored, None until it has shown; `has_conditions` is whether it
    knows `If-None-Match` on writes, and `keeps_conditions` whether it is known not to ignore it as
    some do; `has_trailers`, whether it takes checksums behind the bodies; `lists_parts`, whether it
    tells the parts of an upload, without which none can be gone on with, None until it was asked;
    `has_contact`, whether it ever did what was asked.
    """

    def __init__(
        self,
        options: UploadOptions,
        journal: UploadJournal,
        *,
        initiator: Callable[[], frozenset[str]],
        now: Callable[[], datetime],
        on_sent: Callable[[File, int], None] | None = None,
        tells_crc: bool | None = None,
        sent: Sent | None = None,
        sends_crc: bool = True,
        keeps_conditions: bool = True,
    ) -> None:
        self.options = options
        self.journal = journal
        self.initiator = initiator
        self.on_sent = on_sent
        self.sent = sent
        self._now = now
        self.tells_crc = tells_crc
        self.sends_crc = sends_crc
        self.has_conditions = True
        self.keeps_conditions = keeps_conditions
        self.has_trailers = True
        self.lists_parts: bool | None = None
        self.records: deque[Uploaded | Failed | Warned | SentBefore] = deque()
        self.unfinished: list[Multipart] = []
        self.parts_in_flight = 0
        self.sent_bytes = 0
        self.has_contact = False
        self._warned: set[str] = set()
        self._stored_any = False

    @property
    def only_if_new(self) -> bool:
        """Whether writes carry the condition that nothing has the key.

        Without `--no-overwrite` the condition tells at no cost that the key is taken; the write is
        then repeated without it.
        """
        return self.has_conditions or not self.options.overwrite

    @property
    def has_room_for_part(self) -> bool:
        """Whether one more part may be in flight."""
        return self.parts_in_flight < self.options.most_parts

    def ask(self, request: Request) -> Talk[Answer]:
        """Send a request and return its answer."""
        (answer,) = yield [request]
        self.has_contact |= isinstance(answer, Response) and answer.ok
        return answer

    def head(self, file: File, *, version_id: str | None = None) -> Talk[Answer]:
        """Ask what is stored under a file's key, as its current or a certain version."""
        return self.ask(head_object(self.options.bucket, file.key, version_id))

    @contextlib.contextmanager
    def watching(self, upload: Multipart) -> Iterator[None]:
        """Remember an upload until its conversation ends: an interruption finds it unfinished."""
        self.unfinished.append(upload)
        yield
        # Not in `finally`: what stops in the middle stays to be told of, or to be aborted.
        self.unfinished.remove(upload)

    def uploaded(
        self,
        file: File,
        answer: Response,
        *,
        size_bytes: int,
        etag: str,
        crc: int | None,
        stamp: Stamp | None = None,
        resumed_bytes: int = 0,
        replaced: bool = False,
    ) -> Uploaded:
        """Return the record of a file that S3 has, as an answer says.

        `stamp` is the file as it was when it was read, for the command to remember it by; `crc` is
        None where nothing proves that S3 has what was read.
        """
        self._stored_any = True
        uploaded = Uploaded(
            file.path,
            file.key,
            size_bytes,
            etag,
            answer.headers.get("x-amz-version-id"),
            None if crc is None else checksum.encode(crc),
            self.answered_at(answer),
            resumed_bytes,
            replaced,
        )
        if self.sent is not None and stamp is not None:
            self.sent.note(
                stamp,
                SentBefore(
                    file.path,
                    file.key,
                    size_bytes,
                    uploaded.version_id,
                    etag,
                    uploaded.uploaded_at,
                ),
            )
        return uploaded

    def warn_once(self, file: File, message: str) -> None:
        """Record something that concerns every file, the first time."""
        if message not in self._warned:
            self._warned.add(message)
            self.records.append(Warned(file.path, file.key, message))

    def answered_at(self, answer: Response) -> datetime:
        """Return when S3 gave an answer, by its clock where it tells."""
        return read_date(answer) or self._now()

    def content_type(self, file: File) -> str:
        """Return the content type that a file is stored with."""
        return content_type_of(file.path, file.key, self.options.content_type)

    def checksum_headers(self, body: Body, *, is_part: bool = False) -> list[tuple[str, str]]:
        """Return the headers with which S3 refuses a body that was changed on its way.

        A CRC that is not known yet is computed by the sender, and its header added there. MD5 goes
        along while the endpoint may be one that ignores CRC64NVME. Raises OSError and
        FileChangedError.
        """
        headers = []
        if body.crc is not None and self.sends_crc:
            headers.append((checksum.HEADER, checksum.encode(body.crc)))
        # A part is no object yet: it is soon enough to compare what S3 says of the first ones.
        needs_md5 = self.tells_crc is False if is_part else self.tells_crc is not True
        if needs_md5 or not self.sends_crc:
            headers.append(("content-md5", checksum.encode_md5(body.md5)))
        return headers

    def prove(self, answer: Response, body: Body) -> Proof:
        """Tell whether the answer to a PUT says that exactly this body was stored."""
        if body.crc is None:
            body.crc = answer.checksum
        said = answer.headers.get(checksum.HEADER)
        if said is not None:
            self.tells_crc = True
            return Proof.PROVEN if said == checksum.encode(body.known_crc) else Proof.DIFFERS
        if self.tells_crc is None:
            self.tells_crc = False
        # What is encrypted with a key of AWS KMS has another ETag, which looks the same.
        etag = checksum.find_md5(read_etag(answer))
        if etag is None or "kms" in answer.headers.get("x-amz-server-side-encryption", ""):
            return Proof.UNKNOWN
        try:
            return Proof.PROVEN if etag == body.md5.hex() else Proof.DIFFERS
        except (OSError, FileChangedError):
            return Proof.DIFFERS

    def doubts_crc(self, answer: Answer, *, was_sent: bool) -> bool:
        """Tell whether a request may have been refused for its CRC64NVME, which is left out then.

        An endpoint that has ever told one knows it.
        """
        if not was_sent or self.tells_crc is True or not is_unknown_here(answer):
            return False
        self.sends_crc = False
        return True

    def is_refused_parts(self, file: File, answer: object) -> bool:
        """Tell whether ListParts was refused for good, which is said once.

        `answer` is a refusal, or anything that shows that it was not.
        """
        if isinstance(answer, SendError):
            return False
        is_refused = isinstance(answer, Response) and means(answer) in _NO_LIST
        if is_refused:
            self.lists_parts = False
            self.warn_once(
                file,
                f"S3 does not list the parts of uploads here ({answer.code or answer.status}): one "  # type: ignore[attr-defined]
                "that is interrupted can't be gone on with, and is dropped",
            )
        elif not isinstance(answer, Response) or answer.ok:
            self.lists_parts = True
        return is_refused

    def warn_of_gap(self, file: File) -> None:
        """Say once that nothing guards the time between a look at a key and its upload."""
        self.warn_once(
            file,
            "This endpoint may ignore If-None-Match, so --no-overwrite looks before it uploads: "
            "what somebody else uploads in between would be replaced",
        )

    def warn_unproven(self, file: File) -> None:
        """Say once that the endpoint tells nothing that proves what it stored."""
        self.warn_once(
            file,
            "What was stored can't be verified by this endpoint: it tells neither CRC64NVME nor an "
            "MD5 as ETag",
        )

    def hears(self, file: File) -> Callable[[int], None] | None:
        """Return who is told of the bytes of a file as they are sent."""
        return partial(self.on_sent, file) if self.on_sent is not None else None

    def explain(self, file: File, answer: Answer, operation: str) -> Failed:
        """Return in words why a file was refused.

        Raises the explanation instead when every other file would be refused as well.
        """
        what = f"upload {file.path} to s3://{self.options.bucket}/{file.key}"
        if isinstance(answer, SendError):
            hint = (
                "Check the network, --region and --endpoint-url, then run the command again: it "
                "goes on where it stopped."
            )
            error = explain(answer, operation, what, hint=hint)
            is_fatal = not self.has_contact
        else:
            error = explain(answer, operation, what)
            denied = means(answer) is Meaning.DENIED and not self._stored_any
            is_fatal = denied or means(answer) in _FATAL or answer.code == "NoSuchBucket"
        if is_fatal:
            raise error
        return Failed(
            file.path, file.key, error.message.removeprefix(f"Could not {what}: "), error.hint
        )


def is_change(answer: Answer) -> bool:
    """Tell whether a file became shorter while it was being sent."""
    return isinstance(answer, SendError) and isinstance(answer.cause, FileChangedError)


def is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether nothing was written to a file between two looks at it."""
    return (one.st_size, one.st_mtime_ns, one.st_ino, one.st_dev) == (
        other.st_size,
        other.st_mtime_ns,
        other.st_ino,
        other.st_dev,
    )
