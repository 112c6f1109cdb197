"""Deletes exact versions of objects by the thousand, and says what became of each."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from twobuckets.aws.codes import LATER, meaning_of
from twobuckets.s3.answers import AnswerError, DeleteResult, parse_delete_results
from twobuckets.s3.engine import Request, Response, Sender, SendError
from twobuckets.s3.operations import ObjectVersion, delete_object, delete_objects
from twobuckets.s3.xmltext import escape

MOST_DELETES = 1000
"""Keys that one DeleteObjects takes (S3 API reference, DeleteObjects)."""

# What XML 1.0 cannot carry, not even as a character reference.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
DELETE_ATTEMPTS = 6
"""How often the delete of one version is tried while S3 says "not now" for it."""


class DeleteBatch(NamedTuple):
    """A request that deletes versions, and the versions that it names."""

    request: Request
    versions: tuple[ObjectVersion, ...]


def iter_delete_batches(bucket: str, versions: Iterable[ObjectVersion]) -> Iterator[DeleteBatch]:
    """Yield DeleteObjects requests of up to MOST_DELETES versions each.

    A key that XML cannot carry gets a DeleteObject of its own. `read_deletes` reads the answers.
    """
    source = iter(versions)
    while batch := tuple(islice(source, MOST_DELETES)):
        yield from _batch(bucket, batch)


def read_deletes(batch: DeleteBatch, answer: Response | SendError) -> list[DeleteResult]:
    """Return what became of each version of a batch.

    A version that S3 does not mention has the code "NoAnswer", as have all when there was none.
    """
    request, versions = batch
    if isinstance(answer, SendError):
        return [_refused(version, "NoAnswer", str(answer)) for version in versions]
    # Deleting what is gone already is a success, as DeleteObjects itself counts it.
    if request.method == "DELETE" and (answer.ok or answer.status == 404):
        return [DeleteResult(version.key, version.version_id, "", "") for version in versions]
    if not answer.ok:
        code = answer.code or f"Status{answer.status}"
        return [_refused(version, code, answer.message) for version in versions]
    try:
        said = {(found.key, found.version_id): found for found in _expect_deletes(answer.body)}
    except AnswerError as error:
        return [_refused(version, "NoAnswer", str(error)) for version in versions]
    unmentioned = "S3's answer does not mention it"
    return [
        said.get((version.key, version.version_id)) or _refused(version, "NoAnswer", unmentioned)
        for version in versions
    ]


def passes(result: DeleteResult, answer: Response | SendError) -> bool:
    """Tell whether S3 said "not now" for one version of a batch, so that it is to be tried again.

    A refusal of the whole request was tried again by the sender already.
    """
    return meaning_of(result.code) in LATER and isinstance(answer, Response) and answer.ok


def iter_deletes(
    sender: Sender, bucket: str, versions: Iterable[ObjectVersion]
) -> Iterator[DeleteResult]:
    """Delete versions in batches and yield what became of each, as the answers arrive.

    A version for which S3 says "not now" is tried again, later and later.
    """
    sent: dict[Request, DeleteBatch] = {}

    def note(batch: DeleteBatch) -> Request:
        sent[batch.request] = batch
        return batch.request

    flight = sender.send_all(map(note, iter_delete_batches(bucket, versions)))
    attempts: dict[ObjectVersion, int] = {}
    for request, answer in flight:
        again = []
        batch = sent.pop(request)
        for version, result in zip(batch.versions, read_deletes(batch, answer), strict=True):
            tried = attempts.pop(version, 0) + 1
            if passes(result, answer) and tried < DELETE_ATTEMPTS:
                attempts[version] = tried
                again.append(version)
            else:
                yield result
        pause = timedelta(seconds=0.2 * 2 ** max((attempts[v] for v in again), default=0))
        for repeat in iter_delete_batches(bucket, again):
            flight.add(note(repeat), after=pause)


def _batch(bucket: str, versions: tuple[ObjectVersion, ...]) -> Iterator[DeleteBatch]:
    together = tuple(version for version in versions if not _NOT_XML.search(version.key))
    if together:
        body = f"<Delete>{''.join(map(_write_object, together))}</Delete>".encode()
        # S3 asks for a checksum of this body; every implementation knows this oldest one.
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        md5 = base64.b64encode(digest).decode()
        yield DeleteBatch(delete_objects(bucket, body, md5), together)
    for version in versions:
        if _NOT_XML.search(version.key):
            yield DeleteBatch(delete_object(bucket, version), (version,))


def _write_object(version: ObjectVersion) -> str:
    key = escape(version.key)
    id_ = f"<VersionId>{escape(version.version_id)}</VersionId>" if version.version_id else ""
    etag = f"<ETag>{escape(version.etag)}</ETag>" if version.etag else ""
    return f"<Object><Key>{key}</Key>{id_}{etag}</Object>"


def _expect_deletes(body: bytes) -> list[DeleteResult]:
    if b"DeleteResult" not in body:
        raise AnswerError("the answer is not that of DeleteObjects")
    return parse_delete_results(body)


def _refused(version: ObjectVersion, code: str, message: str) -> DeleteResult:
    return DeleteResult(version.key, version.version_id, code, message)
