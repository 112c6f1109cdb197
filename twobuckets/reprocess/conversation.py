"""Conversations with S3 about one key, written as generators, and what they ask most.

A conversation yields requests, receives their answers, and returns what came of it. Whoever drives
it keeps many of them going at once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, TypeVar

from twobuckets.errors import AccessError
from twobuckets.reprocess.plan import (
    Found,
    require_found,
    require_versions,
)
from twobuckets.s3.engine import Request, Response, SendError
from twobuckets.s3.operations import VERSIONS, head_object

if TYPE_CHECKING:
    from twobuckets.s3.answers import Marker

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
    requests = [head_object(bucket, key, version_id) for version_id in version_ids]
    answers = (yield requests) if requests else []
    found = [
        # A 400 says that the credentials are over: these ids are ones that S3 gave.
        require_found(head_object(bucket, key), checked(answer))
        for answer in answers
    ]
    return [version for version in found if version is not None]


def list_stack(bucket: str, key: str) -> Talk[list[Found]]:
    """Return the versions and delete markers of a key, the newest first.

    Raises AccessError or TwoBucketsError when they can't be listed.
    """
    stack: list[Found] = []
    after: Marker | None = None
    while True:
        # Its prefix is the key, and S3 lists in the order of keys: the key's own come first.
        request = VERSIONS.page(bucket, prefix=key, after=after)
        (answer,) = yield [request]
        stack += require_versions(key, request, checked(answer))
        assert isinstance(answer, Response)
        after = VERSIONS.following(answer.body)
        if after is None or after.key != key:
            return stack
