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

Where one has more to say than fits into a list, it yields `Meanwhile` with conversations of its
own, and goes on once they have ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar, Union, cast

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
LongTalk = Generator[Union[list[Request], "Meanwhile"], list[Answer], T]
"""A conversation that may wait for conversations of its own."""

_MOST_UNSEEN: Final = 1000
"""So many that ended without a question may wait to be seen before more are begun."""
_NOTHING: Final[list[Request]] = []
_UNHEARD: Final = SendError(RuntimeError("not answered yet"), 0)
_WORK_BYTES: Final = 128 * 1024 * 1024
"""Read between two looks at the network: a tenth of a second, which nobody notices."""


@dataclass(slots=True, eq=False)
class Meanwhile:
    """What is to come to its end before the conversation that yields it goes on.

    Conversations of its own are taken from `talks` as there is room for their requests; None says
    that there is none now. When nothing can be sent, `work` on this machine is gone on with step by
    step; each step yields how many bytes it has read.
    """

    talks: Iterator[LongTalk[None] | None]
    work: Iterator[int] = field(default_factory=lambda: iter(()))


@dataclass(slots=True, eq=False)
class _Source:
    """Where conversations come from: the caller, or one that waits for them."""

    talks: Iterator[LongTalk[object] | None]
    work: Iterator[int]
    parent: _Open | None
    open: int = 0
    is_empty: bool = False
    is_idle: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_empty and self.is_idle and not self.open


class _Open:
    """A conversation that is under way, and the answers it still waits for."""

    __slots__ = ("answers", "missing", "source", "steps")

    def __init__(self, steps: LongTalk[object], source: _Source) -> None:
        self.steps = steps
        self.source = source
        self.answers: list[Answer] = []
        self.missing = 0


def hold(
    sender: Sender, talks: Iterable[LongTalk[T] | None], ended: deque[T] | None = None
) -> Iterator[T]:
    """Keep conversations going, many at a time, and yield what came of each as it ends.

    One is begun only when there is room for its requests; None in place of one says that there is
    none before something has ended. What a conversation raises ends all of them. What else is put
    into `ended` is yielded as well.
    """
    driver: _Driver[T] = _Driver(iter(talks), deque() if ended is None else ended)
    flight = sender.send_all(driver.requests())
    results = driver.ended
    try:
        while not driver.is_over:
            moves = driver.moves
            for request, answer in flight:
                for following in driver.hear(request, answer):
                    flight.add(following)
                while results:
                    yield results.popleft()
            if not results and driver.moves == moves:
                return  # nothing is under way, and nobody has anything to ask
            while results:
                yield results.popleft()
        while results:
            yield results.popleft()
    finally:
        driver.close()


class _Driver(Generic[T]):
    """Lets each conversation go on when its answers are there, and begins others meanwhile."""

    def __init__(self, talks: Iterator[LongTalk[T] | None], ended: deque[T]) -> None:
        self.ended = ended
        self.moves = 0
        self._root = _Source(talks, iter(()), None, is_idle=True)
        self._sources: list[_Source] = []
        self._asked: dict[Request, tuple[_Open, int]] = {}

    @property
    def is_over(self) -> bool:
        """Whether all conversations have come to their end."""
        return self._root.is_over

    def requests(self) -> Iterator[Request | None]:
        """Yield what to send next, as long as anything may still be asked."""
        while True:
            found = self._find_next()
            if found is None and self._work():
                found = self._find_next()
            if found is not None:
                yield from found
            elif self.is_over:
                return
            else:
                yield None

    def hear(self, request: Request, answer: Answer) -> list[Request]:
        """Take an answer, and return what is asked next because of it."""
        talk, place = self._asked.pop(request)
        talk.answers[place] = answer
        talk.missing -= 1
        if talk.missing:
            return _NOTHING
        return self._go_on(talk, talk.answers)

    def close(self) -> None:
        """End what is under way where it stands, those first that others wait for."""
        for talk, _ in self._asked.values():
            talk.steps.close()
        self._asked.clear()
        for source in reversed(self._sources):
            if isinstance(source.talks, Generator):
                source.talks.close()
            if source.parent is not None:
                source.parent.steps.close()
        self._sources.clear()

    def _find_next(self) -> list[Request] | None:
        """Return the next requests there are; None when there are none now."""
        while True:
            for source in (*self._sources, self._root) if self._sources else (self._root,):
                found = self._take(source)
                if found:
                    return found
                if found is not None:
                    break  # something moved: those that came first may have something to ask
            else:
                return None

    def _take(self, source: _Source) -> list[Request] | None:
        """Begin the next conversation of a source; None when it has none now."""
        if not source.is_empty:
            if source.parent is None and len(self.ended) >= _MOST_UNSEEN:
                return None
            try:
                steps = next(source.talks)
            except StopIteration:
                source.is_empty = True
            else:
                if steps is None:
                    return None
                source.open += 1
                return self._go_on(_Open(steps, source), None)
        if source.parent is None or not source.is_over:
            return None
        return self._end(source)

    def _end(self, source: _Source) -> list[Request]:
        """Let the conversation that waited for a source go on."""
        self._sources.remove(source)
        assert source.parent is not None
        return self._go_on(source.parent, [])

    def _work(self) -> bool:
        """Do some of the work that waits; False when there was none."""
        left = _WORK_BYTES
        for source in self._sources:
            while left > 0 and not source.is_idle:
                self.moves += 1
                try:
                    left -= next(source.work)
                except StopIteration:
                    source.is_idle = True
        return left < _WORK_BYTES or any(source.is_over for source in self._sources)

    def _go_on(self, talk: _Open, answers: list[Answer] | None) -> list[Request]:
        """Give a conversation its answers, None to begin it, and return what it asks then."""
        self.moves += 1
        steps = talk.steps
        try:
            asks = next(steps) if answers is None else steps.send(answers)
            while not asks:
                asks = steps.send([])
        except StopIteration as end:
            source = talk.source
            source.open -= 1
            if source.parent is None:
                self.ended.append(end.value)
                return _NOTHING
            return self._end(source) if source.is_over else _NOTHING
        if isinstance(asks, Meanwhile):
            self._sources.append(_Source(asks.talks, asks.work, talk))
            return _NOTHING
        talk.missing = len(asks)
        talk.answers = [_UNHEARD] * talk.missing
        asked = self._asked
        for place, request in enumerate(asks):
            if request in asked:  # the same once more is another request
                request = asks[place] = replace(request)
            asked[request] = (talk, place)
        return asks


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
