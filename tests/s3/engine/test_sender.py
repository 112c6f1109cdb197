"""The sender against a server that answers, refuses, stalls and hangs up as scripted."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.s3.credentials import FixedCredentials
from tests.s3.scripted import Cut, answer, refuse, serving
from twobuckets.s3.engine import (
    CRC64NVME,
    Expects,
    FileChangedError,
    FileSlice,
    Keys,
    Request,
    Response,
    RetryPolicy,
    Sender,
    SendError,
    SigV4Signer,
    parse_endpoint,
)
from twobuckets.s3.engine.bulk import BULK_BYTES

BOTH_SIZES = pytest.mark.parametrize("size", [2_000, 3 * BULK_BYTES], ids=["small", "bulk"])
QUICK = RetryPolicy(attempts=4, first_pause=timedelta(milliseconds=1))


def sender_to(server, **options):
    endpoint = parse_endpoint(server.url, region="us-east-1")
    signer = SigV4Signer(endpoint, FixedCredentials(Keys("AKIA", "secret")))
    return Sender(signer, **{"retry": QUICK, **options})


def puts(count, **fields):
    return [Request("PUT", "b", f"k{n}", body=b"x" * n, **fields) for n in range(count)]


def path(received):
    return received.head.split()[1]


def test_every_request_gets_its_own_answer():
    with (
        serving(lambda r: answer(200, path(r).encode())) as server,
        sender_to(server, most=16) as sender,
    ):
        answers = {
            int(request.key[1:]): found.body for request, found in sender.send_all(puts(500))
        }
    assert answers == {n: f"/b/k{n}".encode() for n in range(500)}
    assert {path(r): len(r.body) for r in server.received} == {f"/b/k{n}": n for n in range(500)}
    assert server.connections <= 16


def test_connections_are_kept_from_one_flight_to_the_next():
    with serving(lambda r: answer()) as server, sender_to(server) as sender:
        for _ in range(20):
            assert sender.send(Request("GET", "b", "k")).status == 200
    assert server.connections == 1


def test_no_more_requests_are_taken_from_the_source_than_can_be_sent():
    taken = []

    def source():
        for request in puts(200):
            taken.append(request)
            yield request

    with serving(lambda r: answer()) as server, sender_to(server, most=8) as sender:
        for seen, _ in enumerate(sender.send_all(source()), 1):
            assert len(taken) - seen <= 16
    assert len(taken) == 200


def test_a_follow_up_is_sent_before_the_next_from_the_source():
    with serving(lambda r: answer()) as server, sender_to(server, most=1) as sender:
        flight = sender.send_all(puts(3))
        for request, _ in flight:
            if request.key.startswith("k"):
                flight.add(Request("HEAD", "b", f"after-{request.key[1:]}"))
    order = [path(r) for r in server.received]
    assert sorted(order) == sorted(
        [f"/b/k{n}" for n in range(3)] + [f"/b/after-{n}" for n in range(3)]
    )
    assert order.index("/b/after-0") < order.index("/b/k2")


def test_a_flight_can_be_started_while_another_is_read():
    with serving(lambda r: answer(200, path(r).encode())) as server, sender_to(server) as sender:
        for request, _ in sender.send_all(puts(30)):
            inner = sender.send(Request("GET", "b", f"inner-{request.key[1:]}"))
            assert inner.body == f"/b/inner-{request.key[1:]}".encode()
    assert len(server.received) == 60


@pytest.mark.parametrize(
    "refusal",
    [
        refuse(500, "InternalError"),
        refuse(503, "SlowDown"),
        refuse(400, "RequestTimeout"),
        refuse(200, "InternalError"),
        refuse(409, "ConditionalRequestConflict"),
        answer(502),
        None,
        Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"),
        Cut(b"SSH-2.0-OpenSSH\r\n\r\n"),
    ],
    ids=[
        "500", "SlowDown", "RequestTimeout", "error-in-200", "conflict", "502-without-body",
        "hang-up", "short-body", "short-chunk", "not-http",
    ],
)  # fmt: skip
def test_what_passes_is_sent_again_until_it_arrives(refusal):
    seen: Counter[str] = Counter()

    def script(received):
        seen[path(received)] += 1
        return answer() if seen[path(received)] > 2 else refusal

    with serving(script) as server, sender_to(server, most=8) as sender:
        outcomes = list(sender.send_all(puts(20)))
    assert all(isinstance(found, Response) and found.ok for _, found in outcomes)
    assert set(seen.values()) == {3}


@pytest.mark.parametrize(
    ("expects", "whole"),
    [
        (Expects.ETAG, answer(200, b"", 'ETag: "e"')),
        (Expects.BODY, answer(200, b"<Result/>")),
    ],
)
@pytest.mark.parametrize("hollow", [answer(200), answer(204), answer(200, b" \r\n ")])
def test_a_success_that_says_nothing_of_what_was_asked_is_no_answer(expects, whole, hollow):
    said = [whole, hollow, hollow]
    with serving(lambda r: said.pop()) as server, sender_to(server) as sender:
        found = sender.send(Request("PUT", "b", "k", body=b"x", expects=expects))
    assert (found.ok, found.attempts) == (True, 3)
    assert [received.body for received in server.received] == [b"x"] * 3
    with serving(lambda r: hollow) as server, sender_to(server) as sender:
        [(_, lost)] = sender.send_all([Request("PUT", "b", "k", expects=expects)])
    assert isinstance(lost, SendError)
    assert "nothing with it" in str(lost)


def test_a_refusal_for_good_is_an_answer_at_once():
    with serving(lambda r: refuse(403, "AccessDenied")) as server, sender_to(server) as sender:
        found = sender.send(Request("GET", "b", "k"))
    assert (found.status, found.code, found.message, found.attempts) == (
        403,
        "AccessDenied",
        "No & no",
        1,
    )
    assert len(server.received) == 1


def test_a_request_that_is_not_to_be_repeated_is_sent_once():
    with serving(lambda r: None) as server, sender_to(server) as sender:
        [(_, found)] = sender.send_all([Request("POST", "b", "k", retries=False)])
    assert isinstance(found, SendError)
    assert found.attempts == 1
    assert len(server.received) == 1


def test_tries_end_and_the_last_answer_is_given():
    with serving(lambda r: refuse(503, "SlowDown")) as server, sender_to(server) as sender:
        found = sender.send(Request("GET", "b", "k"))
    assert (found.code, found.attempts) == ("SlowDown", 4)
    assert len(server.received) == 4


def test_nobody_listening_is_an_error_that_names_the_host():
    with serving(lambda r: None) as server:
        pass
    with sender_to(server) as sender, pytest.raises(SendError, match="localhost") as raised:
        sender.send(Request("GET", "b", "k"))
    assert raised.value.attempts == 4


@contextlib.contextmanager
def refusing_late() -> Iterator[tuple[str, int]]:
    """Give an address of which the refusal comes while a connection is being opened.

    A listener whose queue is full leaves the first packet unanswered; when it is gone, the second
    one, a second later, is refused.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        stack.enter_context(socket.create_connection(address))
        closing = threading.Timer(0.5, listener.close)
        closing.start()
        stack.callback(closing.join)
        yield address


@BOTH_SIZES
def test_an_address_that_refuses_late_is_passed_over_for_the_next(monkeypatch, tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size))
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer()) as server,
        refusing_late() as first,
        sender_to(server, retry=RetryPolicy(attempts=1)) as sender,
    ):
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", where)
            for where in (first, ("127.0.0.1", server.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        started_at = time.monotonic()
        assert sender.send(Request("PUT", "b", "k", body=FileSlice(file.fileno(), 0, size))).ok
    assert 0.5 < time.monotonic() - started_at < 5


def test_a_server_that_falls_silent_is_given_up():
    def stall(received):
        time.sleep(5)

    with (
        serving(stall) as server,
        sender_to(server, timeout=timedelta(seconds=0.5), retry=RetryPolicy(attempts=1)) as sender,
        pytest.raises(SendError, match="does not answer"),
    ):
        sender.send(Request("GET", "b", "k"))


@pytest.mark.parametrize("chunked", [False, True])
def test_long_answers_arrive_whole(chunked):
    body = os.urandom(3_000_000)
    with (
        serving(lambda r: answer(200, body, chunked=chunked)) as server,
        sender_to(server) as sender,
    ):
        assert sender.send(Request("GET", "b", "k")).body == body
        assert sender.send(Request("GET", "b", "k")).body == body
    assert server.connections == 1


def test_an_answer_that_ends_the_connection_does_not_end_the_flight():
    with (
        serving(lambda r: answer(200, b"", "Connection: close")) as server,
        sender_to(server, most=4) as sender,
    ):
        assert sum(found.ok for _, found in sender.send_all(puts(20))) == 20
    assert server.connections == 20


def test_an_idle_connection_that_was_closed_is_replaced_without_a_try():
    with serving(lambda r: answer()) as server, sender_to(server) as sender:
        sender.send(Request("GET", "b", "k"))
        server._open[0].shutdown(2)
        time.sleep(0.05)
        assert sender.send(Request("GET", "b", "k")).attempts == 1


def test_an_answer_that_gets_lost_on_a_kept_connection_is_told_as_a_second_attempt():
    """Whoever asks has to know that the first one may have been obeyed."""
    lost = {1}

    def script(received):
        return None if received.number in lost else answer()

    with serving(script) as server, sender_to(server) as sender:
        assert sender.send(Request("POST", "b", "k")).attempts == 1
        assert sender.send(Request("POST", "b", "k")).attempts == 2
    assert len(server.received) == 3


@pytest.mark.parametrize("size", [0, 5, 100_000, BULK_BYTES + 12_345])
def test_a_slice_of_a_file_is_sent_as_it_is(tmp_path, size):
    content = os.urandom(size + 20)
    (tmp_path / "file").write_bytes(content)
    noted: list[int] = []
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer()) as server,
        sender_to(server) as sender,
    ):
        body = FileSlice(file.fileno(), 10, size)
        assert sender.send(Request("PUT", "b", "k", body=body, on_sent=noted.append)).ok
    assert server.received[0].body == content[10 : 10 + size]
    assert sum(noted) == size


@BOTH_SIZES
def test_what_a_failed_attempt_sent_is_taken_back(tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size))
    noted: list[int] = []
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: refuse(500, "InternalError") if r.number < 2 else answer()) as server,
        sender_to(server) as sender,
    ):
        request = Request("PUT", "b", "k", body=FileSlice(file.fileno(), 0, size))
        object.__setattr__(request, "on_sent", noted.append)
        assert sender.send(request).ok
    assert sum(noted) == size
    assert sum(n for n in noted if n > 0) == 3 * size


@BOTH_SIZES
def test_a_file_that_becomes_shorter_fails_and_is_not_tried_again(tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size - 100))
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer()) as server,
        sender_to(server) as sender,
    ):
        [(_, found)] = sender.send_all(
            [Request("PUT", "b", "k", body=FileSlice(file.fileno(), 0, size))]
        )
    assert isinstance(found, SendError)
    assert isinstance(found.cause, FileChangedError)
    assert found.attempts == 1
    assert server.received == []


@BOTH_SIZES
def test_a_checksum_is_computed_once_and_sent_with_every_attempt(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("r+b") as file:

        def script(received):
            if received.number == 0:
                os.pwrite(file.fileno(), b"changed", 100)
                return refuse(500, "InternalError")
            return refuse(400, "BadDigest")

        with serving(script) as server, sender_to(server) as sender:
            body = FileSlice(file.fileno(), 0, size)
            found = sender.send(Request("PUT", "b", "k", body=body, checksum=CRC64NVME))
    expected = CRC64NVME.compute(content)
    assert found.checksum == expected
    assert found.code == "BadDigest"
    assert {r.header("x-amz-checksum-crc64nvme") for r in server.received} == {
        CRC64NVME.encode(expected)
    }


def dechunked(received):
    """Return the body of the one chunk that was sent, and the header behind it."""
    opening, _, rest = received.body.partition(b"\r\n")
    length = int(opening, 16)
    chunk, end = rest[:length], rest[length:].decode()
    assert received.header("x-amz-decoded-content-length") == str(length)
    assert received.header("x-amz-content-sha256") == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert received.header("content-encoding") == "aws-chunked"
    ended, trailer, blank, nothing = end.removeprefix("\r\n").split("\r\n")
    assert (ended, blank, nothing) == ("0", "", "")
    assert trailer.startswith(received.header("x-amz-trailer") + ":")
    return chunk, trailer


@BOTH_SIZES
def test_a_checksum_that_trails_is_that_of_what_each_attempt_sent(tmp_path, size):
    (tmp_path / "file").write_bytes(os.urandom(size))
    with (tmp_path / "file").open("r+b") as file:

        def script(received):
            if received.number == 0:
                os.pwrite(file.fileno(), b"changed", 100)
                return refuse(500, "InternalError")
            return answer()

        noted: list[int] = []
        with serving(script) as server, sender_to(server) as sender:
            body = FileSlice(file.fileno(), 0, size)
            request = Request("PUT", "b", "k", body=body, checksum=CRC64NVME, trails=True)
            found = sender.send(replace(request, on_sent=noted.append))
    first, second = map(dechunked, server.received)
    assert len(first[0]) == len(second[0]) == size
    assert first[0] != second[0]
    for chunk, trailer in (first, second):
        said = CRC64NVME.encode(CRC64NVME.compute(chunk))
        assert trailer == f"x-amz-checksum-crc64nvme:{said}"
    assert found.checksum == CRC64NVME.compute(second[0])
    assert sum(noted) == size


@BOTH_SIZES
def test_a_checksum_goes_ahead_where_bodies_have_to_be_signed(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file, serving(lambda r: answer()) as server:
        endpoint = parse_endpoint("http://s3.example.org", region="us-east-1", path_style=True)
        signer = SigV4Signer(endpoint, FixedCredentials(Keys("AKIA", "secret")))
        with Sender(signer, retry=QUICK, proxy=server.url) as sender:
            body = FileSlice(file.fileno(), 0, size)
            sender.send(Request("PUT", "b", "k", body=body, checksum=CRC64NVME, trails=True))
    [received] = server.received
    assert received.body == content
    assert received.header("x-amz-checksum-crc64nvme") == CRC64NVME.encode(
        CRC64NVME.compute(content)
    )
    assert received.header("x-amz-content-sha256") == hashlib.sha256(content).hexdigest()


def test_large_and_small_bodies_share_a_flight(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(8 * BULK_BYTES))
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer(200, str(len(r.body)).encode())) as server,
        sender_to(server, most_bulk=3) as sender,
    ):
        parts = [
            Request("PUT", "b", f"p{n}", body=FileSlice(file.fileno(), n * BULK_BYTES, BULK_BYTES))
            for n in range(8)
        ]
        mixed = [request for pair in zip(parts, puts(8), strict=True) for request in pair]
        for request, found in sender.send_all(mixed):
            assert found.body == str(request.length).encode()
    assert len(server.received) == 16


def test_small_bodies_wait_for_the_bandwidth_before_they_are_sent():
    told: list[int] = []
    requests = [
        Request("PUT", "b", f"k{n}", body=b"x" * 1000, on_sent=told.append) for n in range(20)
    ]
    with (
        serving(lambda r: answer()) as server,
        sender_to(server, bytes_per_second=40_000, most=64) as sender,
    ):
        started_at = time.monotonic()
        found = sender.send_all(requests)
        next(found)
        # What still waits is not told to be sent.
        assert sum(told) < 10_000
        assert {answered.status for _, answered in found} == {200}
        assert sum(told) == 20_000
        # The last one waits for all that go before it, and itself.
        assert time.monotonic() - started_at >= 0.45


def test_the_bandwidth_is_limited_for_all_together(tmp_path):
    (tmp_path / "file").write_bytes(bytes(2 * BULK_BYTES))
    started_at = time.monotonic()
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer()) as server,
        sender_to(server, bytes_per_second=4 * BULK_BYTES) as sender,
    ):
        body = FileSlice(file.fileno(), 0, 2 * BULK_BYTES)
        found = [f for _, f in sender.send_all([Request("PUT", "b", "k", body=body), *puts(50)])]
    assert len(found) == 51
    assert 0.35 < time.monotonic() - started_at < 2


def test_leaving_in_the_middle_closes_everything_quickly(tmp_path):
    (tmp_path / "file").write_bytes(bytes(4 * BULK_BYTES))

    def script(received):
        time.sleep(0.2 if received.number else 0)
        return answer()

    with (tmp_path / "file").open("rb") as file, serving(script) as server:
        body = FileSlice(file.fileno(), 0, 4 * BULK_BYTES)
        started_at = time.monotonic()
        with sender_to(server, most=4) as sender:
            next(
                sender.send_all(
                    Request("PUT", "b", f"k{n}", body=body if n % 2 else b"") for n in range(100)
                )
            )
        assert time.monotonic() - started_at < 1.5


def test_the_clock_of_the_server_is_adopted_and_the_request_signed_again():
    def script(received):
        if received.number == 0:
            return answer(
                403,
                b"<Error><Code>RequestTimeTooSkewed</Code></Error>",
                "Date: Fri, 24 May 2013 00:00:00 GMT",
            )
        return answer()

    with serving(script) as server, sender_to(server) as sender:
        assert sender.send(Request("GET", "b", "k")).ok
    assert server.received[1].header("x-amz-date").startswith("20130524T0000")


def test_keys_that_expire_in_the_middle_are_renewed_and_every_request_is_signed_again():
    class Expiring:
        """Credentials whose first keys S3 refuses after a while."""

        def __init__(self):
            self.number = 0

        def keys(self):
            return Keys(f"AKIA{self.number}", "secret", f"token{self.number}")

        def refresh(self):
            is_news = self.number == 0
            self.number = 1
            return is_news

    def script(received):
        if received.number > 20 and received.header("x-amz-security-token") == "token0":
            return refuse(400, "ExpiredToken")
        return answer()

    with serving(script) as server:
        signer = SigV4Signer(parse_endpoint(server.url, region="us-east-1"), Expiring())
        with Sender(signer, retry=QUICK, most=8) as sender:
            statuses = Counter(
                getattr(found, "status", 0) for _, found in sender.send_all(puts(100))
            )
    assert statuses == {200: 100}


def test_a_request_that_s3_sends_elsewhere_is_signed_for_there():
    def script(received):
        if "/eu-west-3/" in received.header("authorization"):
            return answer()
        return answer(
            301, b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: eu-west-3"
        )

    with serving(script) as server, sender_to(server) as sender:
        assert [found.status for _, found in sender.send_all(puts(20))] == [200] * 20
        assert sender.send(Request("HEAD", "b", "k")).attempts == 1
