"""Conversations with S3 about one key, written as generators, and what they ask most.

A conversation yields requests, receives their answers, and returns what came of it. Whoever drives
it keeps many of them going at once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, TypeVar

from twobuckets.aws import explain_refusal
from twobuckets.errors import AccessError, TwoBucketsError, UnreachableError
from twobuckets.reprocess.plan import Found, found_in_listing, head, require_found
from twobuckets.s3 import Request, Response, SendError
from twobuckets.s3.answers import AnswerError, decode_key, parse_versions
from twobuckets.s3.xmltext import find_text

if TYPE_CHECKING:
    from twobuckets.s3.answers import ListedVersion

Answer = Response | SendError
T = TypeVar("T")
Talk = Generator[list[Request], list[Answer], T]
"""A conversation with S3: what it asks, what it hears, and what it returns at its end."""

_EXPIRED: Final = frozenset({"ExpiredToken", "TokenRefreshRequired", "InvalidToken"})


def checked(answer: Answer) -> Answer:
    """Return an answer. Raises AccessError when the credentials themselves are refused."""
    if isinstance(answer, Response) and answer.code in _EXPIRED:
        raise AccessError(
            "Could not go on moving objects: the AWS credentials have expired",
            hint="Sign in again and run the same command: it goes on where it was.",
        )
    return answer


def look(bucket: str, key: str, version_ids: list[str]) -> Talk[list[Found]]:
    """Return those of a key's versions that are there, with all that HEAD says of them."""
    requests = [head(bucket, key, version_id) for version_id in version_ids]
    answers = (yield requests) if requests else []
    found = [
        # A 400 says that the credentials are over: these ids are ones that S3 gave.
        require_found(head(bucket, key), checked(answer))
        for answer in answers
    ]
    return [version for version in found if version is not None]


def list_stack(bucket: str, key: str) -> Talk[list[Found]]:
    """Return the versions and delete markers of a key, the newest first.

    Raises AccessError or TwoBucketsError when they can't be listed.
    """
    stack: list[Found] = []
    after: tuple[tuple[str, str], ...] = ()
    while True:
        # The prefix is the key, and S3 lists in the order of keys: what is asked for comes first.
        query = (("versions", ""), ("encoding-type", "url"), ("prefix", key), *after)
        (answer,) = yield [Request("GET", bucket, query=query)]
        rows, following = _read_page(bucket, key, checked(answer))
        stack += [found_in_listing(row) for row in rows if row.key == key]
        if following is None or following[0] != key:
            return stack
        after = (("key-marker", following[0]), ("version-id-marker", following[1]))


def _read_page(
    bucket: str, key: str, answer: Answer
) -> tuple[list[ListedVersion], tuple[str, str] | None]:
    """Return the rows of a page, and after which key and version id the next one begins."""
    what = f"list the versions of {key} in {bucket}"
    if isinstance(answer, SendError):
        raise UnreachableError(f"Could not {what}: {answer.cause}")
    if not answer.ok:
        code = answer.code or str(answer.status)
        raise explain_refusal(code, answer.message, "ListObjectVersions", what)
    try:
        rows = parse_versions(answer.body)
    except (AnswerError, KeyError, ValueError) as error:
        raise TwoBucketsError(f"Could not {what}: {error}") from error
    # Some implementations list all delete markers after all versions.
    rows.sort(key=lambda row: (row.key, not row.is_latest))
    if find_text(answer.body, b"IsTruncated") != "true":
        return rows, None
    encoded = b"<EncodingType>url</EncodingType>" in answer.body
    next_key = decode_key(find_text(answer.body, b"NextKeyMarker"), encoded=encoded)
    return rows, (next_key, find_text(answer.body, b"NextVersionIdMarker"))
