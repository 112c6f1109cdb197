"""Conversations with S3 about one key, written as generators, and whoever keeps them going.

A conversation yields the requests that it has at that point, receives their answers in the same
order, and returns what came of it. It reads from top to bottom, however many are under way.

    def delete_if_there(bucket: str, key: str) -> Talk[bool]:
        (answer,) = yield [head_object(bucket, key)]
        if isinstance(answer, Response) and answer.ok:
            yield [delete_object(bucket, ObjectVersion(key))]
            return True
        return False

    for was_there in hold(sender, (delete_if_there(bucket, key) for key in keys)):
        ...
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from twobuckets.pipeline.versions import Version, require_found, require_versions
from twobuckets.s3.engine import Request, Response, SendError
from twobuckets.s3.operations import VERSIONS, get_first_byte, head_object
from twobuckets.s3.refusals import are_credentials_over, explain

if TYPE_CHECKING:
    from twobuckets.s3.answers import Marker
    from twobuckets.s3.engine import Sender

Answer = Response | SendError
T = TypeVar("T")
Talk = Generator[list[Request], list[Answer], T]
"""A conversation with S3: what it asks, what it hears, and what it returns at its end."""


@dataclass(slots=True, eq=False)
class _Open(Generic[T]):
    """A conversation that is under way, and the answers it still waits for."""

    steps: Talk[T]
    answers: dict[int, Answer] = field(default_factory=dict)
    missing: int = 0


def hold(sender: Sender, talks: Iterable[Talk[T] | None]) -> Iterator[T]:
    """Keep conversations going, many at a time, and yield what came of each as it ends.

    One is begun only when there is room for its requests; None in place of one says that there is
    none before something has ended. What a conversation raises ends all of them.
    """
    ended: list[T] = []
    # By identity: equal requests of two conversations are two requests.
    asked: dict[int, tuple[Request, _Open[T], int]] = {}

    def go_on(talk: _Open[T], answers: list[Answer] | None) -> list[Request]:
        try:
            requests = next(talk.steps) if answers is None else talk.steps.send(answers)
            while not requests:
                requests = talk.steps.send([])
        except StopIteration as end:
            ended.append(end.value)
            return []
        talk.answers, talk.missing = {}, len(requests)
        own = [replace(request) for request in requests]
        asked.update((id(request), (request, talk, place)) for place, request in enumerate(own))
        return own

    def begin() -> Iterator[Request | None]:
        for steps in talks:
            if steps is None:
                yield None
            else:
                yield from go_on(_Open(steps), None)

    flight = sender.send_all(begin())
    while True:
        for request, answer in flight:
            _, talk, place = asked.pop(id(request))
            talk.answers[place] = answer
            talk.missing -= 1
            if not talk.missing:
                for following in go_on(talk, [talk.answers[n] for n in range(len(talk.answers))]):
                    flight.add(following)
            yield from ended
            ended.clear()
        if not ended:
            return
        # One that had nothing to ask may have ended last, and whoever waits for it may go on.
        yield from ended
        ended.clear()


def checked(answer: Answer) -> Answer:
    """Return an answer. Raises AccessError when the credentials themselves are refused."""
    if are_credentials_over(answer):
        hint = "Sign in again and run the same command: it goes on where it was."
        raise explain(answer, "", "go on moving objects", hint=hint)
    return answer


def in_words(talk: Talk[T]) -> Talk[T]:
    """Hold a conversation, and have S3 say in words why it refuses a HEAD, which has none.

    Such as that the credentials are over, which is about all objects, or that this one is encrypted
    with somebody's own key.
    """
    try:
        requests = next(talk)
    except StopIteration as end:
        return cast("T", end.value)
    while True:
        answers = yield requests
        refused = [
            place
            for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
            if request.method == "HEAD"
            and isinstance(answer, Response)
            and answer.status in (400, 403)
        ]
        if refused:
            said = yield [get_first_byte(*_version_of(requests[place])) for place in refused]
            for place, words in zip(refused, said, strict=True):
                if isinstance(words, Response) and not words.ok:
                    answers[place] = words
        try:
            requests = talk.send(answers)
        except StopIteration as end:
            return cast("T", end.value)


def look(bucket: str, key: str, version_ids: list[str]) -> Talk[list[Version]]:
    """Return those of a key's versions that are there, with all that HEAD says of them."""
    requests = [head_object(bucket, key, version_id) for version_id in version_ids]
    answers = (yield requests) if requests else []
    found = [
        require_found(request, checked(answer))
        for request, answer in zip(requests, answers, strict=True)
    ]
    return [version for version in found if version is not None]


def find(bucket: str, key: str, version_id: str | None = None) -> Talk[Version | None]:
    """Return what HEAD says of an object or one version, None when it is not there.

    Raises as require_found does.
    """
    request = head_object(bucket, key, version_id)
    (answer,) = yield [request]
    return require_found(request, checked(answer))


def _version_of(request: Request) -> tuple[str, str, str | None]:
    return request.bucket, request.key, dict(request.query).get("versionId")


def list_stack(bucket: str, key: str) -> Talk[list[Version]]:
    """Return the versions and delete markers of a key, the newest first.

    Raises AccessError or TwoBucketsError when they can't be listed.
    """
    stack: list[Version] = []
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
