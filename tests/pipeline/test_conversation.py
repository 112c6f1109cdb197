"""Conversations with S3: each gets its own answers in its own order, however many are under way."""

from __future__ import annotations

import time

import pytest

from tests.s3.engine.test_sender import sender_to
from tests.s3.scripted import Received, answer, serving
from twobuckets.errors import AccessError
from twobuckets.pipeline.conversation import Talk, checked, hold
from twobuckets.s3.engine import Request, Response


def say_key(received: Received) -> bytes:
    """Answer with the key that was asked for; the first of a pair comes last."""
    key = received.head.split()[1].rpartition("/")[2]
    if key.endswith("-slow"):
        time.sleep(0.05)
    return answer(200, key.encode())


def ask(*keys: str) -> list[Request]:
    return [Request("GET", "b", key) for key in keys]


def bodies(answers: list[object]) -> list[str]:
    return [given.body.decode() for given in answers if isinstance(given, Response)]


def talk(name: str) -> Talk[list[str]]:
    """Ask twice; the second question needs the answers to the first."""
    first = bodies((yield ask(f"{name}-slow", name)))  # type: ignore[arg-type]
    second = bodies((yield ask(*(f"{body}.again" for body in first), *ask_nothing())))  # type: ignore[arg-type]
    return first + second


def ask_nothing() -> tuple[str, ...]:
    return ()


def test_each_conversation_hears_its_own_answers_in_its_own_order() -> None:
    names = [f"k{number}" for number in range(50)]
    with serving(say_key) as server, sender_to(server) as sender:
        ended = list(hold(sender, map(talk, names)))
    assert sorted(ended) == sorted([f"{n}-slow", n, f"{n}-slow.again", f"{n}.again"] for n in names)


def test_equal_requests_of_two_conversations_are_two_requests() -> None:
    with serving(say_key) as server, sender_to(server) as sender:
        ended = list(hold(sender, (talk("same") for _ in range(8))))
        assert len(ended) == 8
        assert len(server.received) == 8 * 4


def silent(value: int) -> Talk[int]:
    """Ask nothing."""
    yield from ()
    return value


def pauses() -> Talk[int]:
    """Ask for nothing in between."""
    assert (yield []) == []
    yield ask("one")
    assert (yield []) == []
    return 0


def test_a_conversation_that_asks_nothing_ends_all_the_same() -> None:
    with serving(say_key) as server, sender_to(server) as sender:
        assert list(hold(sender, [silent(1), silent(2)])) == [1, 2]
        assert sorted(hold(sender, [silent(1), pauses(), silent(2)])) == [0, 1, 2]


def test_the_next_one_is_begun_once_another_has_ended() -> None:
    begun: list[str] = []

    def one_at_a_time():
        for name in ("a", "b", "c"):
            while len(begun) > len(heard):
                yield None
            begun.append(name)
            yield talk(name)

    heard: list[list[str]] = []
    with serving(say_key) as server, sender_to(server) as sender:
        for ended in hold(sender, one_at_a_time()):
            heard.append(ended)
    assert [words[1] for words in heard] == ["a", "b", "c"]


def test_expired_credentials_end_all_conversations() -> None:
    body = b"<Error><Code>ExpiredToken</Code></Error>"

    def strict() -> Talk[None]:
        checked((yield ask("k"))[0])

    with (
        serving(lambda _: answer(400, body)) as server,
        sender_to(server) as sender,
        pytest.raises(AccessError, match="expired"),
    ):
        list(hold(sender, (strict() for _ in range(3))))
