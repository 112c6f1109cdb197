"""A proxy on loopback between a client and an S3 endpoint that breaks a share of what passes.

Point a client at it as its HTTP proxy (`HTTP_PROXY`), so that hosts and signatures stay right, or
give it an `upstream` and use `url` as the endpoint. Faults are drawn from a seed, one per request:

    with FaultProxy(rate=0.1, seed=7) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        ...
    assert proxy.counts[Fault.CORRUPT] > 0
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, cast
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Fault(enum.Enum):
    """What may happen to a request."""

    DROP_IN_BODY = "the connection breaks while the body is being sent"
    DROP_ANSWER = "the server does what was asked, and the answer is lost"
    TRUNCATE_ANSWER = "the answer breaks off in the middle"
    DELAY = "nothing moves for a while"
    INTERNAL_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    REQUEST_TIMEOUT = "400 RequestTimeout"
    CORRUPT = "one byte of the body is changed"
    EMPTY_ANSWER = "200 and nothing else, whether or not the server heard of it"
    SLOW_ANSWER = "the answer comes in small pieces"


_ANSWERS = {
    Fault.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.REQUEST_TIMEOUT: (400, "RequestTimeout", "Your socket connection was not read in time."),
}
_BLOCK_BYTES = 64 * 1024
_PIECES = 10
_EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


Refusal = tuple[int, str, str] | bytes
"""Status, code and message of an error of S3's; or a whole answer."""


class Asked(NamedTuple):
    """The head of one request: enough to choose which ones break."""

    method: str
    target: str
    length: int
    fields: bytes


class FaultProxy:
    """Breaks a `rate` of the requests that `chooses` lets it; `counts` has what it did.

    `delay` is in seconds. `bytes_per_second` limits the bodies that pass, all together. `refuses`
    returns what answers a request in the server's place, and `refuses_delete` the code with which
    one `<Object>` of a DeleteObjects is refused; the server never hears of either.
    """

    def __init__(
        self,
        *,
        rate: float,
        seed: int = 0,
        faults: Sequence[Fault] = tuple(Fault),
        chooses: Callable[[Asked], bool] = lambda _: True,
        upstream: str | None = None,
        delay: float = 0.2,
        bytes_per_second: int | None = None,
        refuses: Callable[[Asked], Refusal | None] = lambda _: None,
        refuses_delete: Callable[[bytes], str | None] = lambda _: None,
    ) -> None:
        self.refuses = refuses
        self.refuses_delete = refuses_delete
        self.counts: Counter[Fault] = Counter()
        self.requests = 0
        self._rate = rate
        self._random = random.Random(seed)
        self._faults = list(faults)
        self._chooses = chooses
        self._upstream = urlsplit(upstream) if upstream else None
        self.delay = delay
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="fault-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        # A listener that is only closed keeps its thread in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_sockets = list(self._sockets)
        for sock in open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._sockets.add(client)
        passage = _Passage(self, client)
        with contextlib.suppress(OSError, ValueError):
            while passage.pass_one():
                pass
        with self._lock:
            self._sockets.discard(client)
        passage.close()

    def draw(self, asked: Asked) -> Fault | None:
        with self._lock:
            self.requests += 1
            if not self._chooses(asked) or self._random.random() >= self._rate:
                return None
            fault = self._random.choice(self._faults)
            if fault is Fault.CORRUPT and not asked.length:
                fault = Fault.DROP_ANSWER
            if fault is Fault.REQUEST_TIMEOUT and asked.method == "HEAD":
                # S3 says so of bodies that do not arrive.
                fault = Fault.SLOW_DOWN
            if fault is Fault.EMPTY_ANSWER and (
                asked.method == "DELETE" or _is_of_bucket(asked) or b"Boto3" in asked.fields
            ):
                # Nothing tells it from what S3 says; and boto3 takes it for an answer, or ends.
                fault = Fault.DROP_ANSWER
            self.counts[fault] += 1
            return fault

    def heads(self) -> bool:
        """Toss a coin."""
        with self._lock:
            return self._random.random() < 0.5

    def take(self, count: int) -> None:
        if self._bytes_per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._bytes_per_second
            pause = self._free_at - now
        time.sleep(pause)

    def connect(self, target: str) -> socket.socket:
        parts = self._upstream or urlsplit(target)
        server = socket.create_connection((parts.hostname, parts.port or 80))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server


class _Passage:
    """One client's connection, and the one to the server that goes with it."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._proxy = proxy
        self._client = client
        self._incoming = cast("BinaryIO", client.makefile("rb", _BLOCK_BYTES))
        self._server: socket.socket | None = None
        self._answers: BinaryIO | None = None

    def pass_one(self) -> bool:
        """Pass one request on and its answer back; False once the connection is over."""
        head = _read_head(self._incoming)
        if not head:
            return False
        line, _, fields = head.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ", 2)
        length = int(_field(fields, b"content-length") or 0)
        fault = self._proxy.draw(Asked(method, target, length, fields))
        body = _Body(self._incoming, length, self._proxy.take)
        if fault is Fault.DROP_IN_BODY:
            body.read(length // 2)
            _reset(self._client)
            return False
        if fault in _ANSWERS:
            body.drain()
            self._client.sendall(_refusal(*_ANSWERS[fault], method))
            return True
        if refusal := self._proxy.refuses(Asked(method, target, length, fields)):
            body.drain()
            if not isinstance(refusal, bytes):
                refusal = _refusal(*refusal, method)
            self._client.sendall(refusal)
            return True
        if fault is Fault.DELAY:
            time.sleep(self._proxy.delay)
        if fault is Fault.EMPTY_ANSWER and self._proxy.heads():
            body.drain()
            self._client.sendall(_EMPTY)
            return True
        said = self._ask(method, target, version, fields, body, fault)
        if fault is Fault.EMPTY_ANSWER:
            self._client.sendall(_EMPTY)
            return b"connection: close" not in said.partition(b"\r\n\r\n")[0].lower()
        if fault is Fault.SLOW_ANSWER:
            self._trickle(said)
            return b"connection: close" not in said.partition(b"\r\n\r\n")[0].lower()
        if fault is Fault.TRUNCATE_ANSWER:
            self._client.sendall(said[: len(said) // 2])
        if fault in (Fault.DROP_ANSWER, Fault.TRUNCATE_ANSWER):
            _reset(self._client)
            return False
        self._client.sendall(said)
        return b"connection: close" not in said.partition(b"\r\n\r\n")[0].lower()

    def _trickle(self, said: bytes) -> None:
        size = -(-len(said) // _PIECES)
        for at in range(0, len(said), size):
            self._client.sendall(said[at : at + size])
            time.sleep(self._proxy.delay / _PIECES)

    def _ask(
        self,
        method: str,
        target: str,
        version: str,
        fields: bytes,
        body: _Body,
        fault: Fault | None,
    ) -> bytes:
        if self._server is None:
            self._server = self._proxy.connect(target)
            self._answers = cast("BinaryIO", self._server.makefile("rb", _BLOCK_BYTES))
        assert self._answers is not None
        if method == "POST" and "?delete" in target:
            return self._ask_deletes(target, version, fields, body)
        path = target
        if target.startswith("http://"):
            path = "/" + target.removeprefix("http://").partition("/")[2]
        self._server.sendall(f"{method} {path} {version}\r\n".encode("latin-1") + fields)
        for block in body.blocks(body.left // 2 if fault is Fault.CORRUPT else -1):
            self._server.sendall(block)
        return _read_answer(self._answers, method)

    def _ask_deletes(self, target: str, version: str, fields: bytes, body: _Body) -> bytes:
        """Take the refused objects out of a DeleteObjects and put their errors into its answer."""
        assert self._server is not None
        assert self._answers is not None
        errors = []

        def judge(found: re.Match[bytes]) -> bytes:
            code = self._proxy.refuses_delete(found[0])
            if code is None:
                return found[0]
            inner = found[0].removeprefix(b"<Object>").removesuffix(b"</Object>")
            errors.append(b"<Error>%b<Code>%b</Code></Error>" % (inner, code.encode()))
            return b""

        asked = re.sub(b"<Object>.*?</Object>", judge, b"".join(body.blocks(-1)), flags=re.DOTALL)
        path = "/" + target.removeprefix("http://").partition("/")[2]
        self._server.sendall(f"POST {path} {version}\r\n".encode("latin-1"))
        self._server.sendall(_with_length(fields, len(asked)) + asked)
        head, _, said = _read_answer(self._answers, "POST").partition(b"\r\n\r\n")
        said = said.replace(b"</DeleteResult>", b"".join(errors) + b"</DeleteResult>")
        return _with_length(head + b"\r\n\r\n", len(said)) + said

    def close(self) -> None:
        """Close both connections."""
        for open_ in (self._incoming, self._answers, self._client, self._server):
            if open_ is not None:
                open_.close()


class _Body:
    """The body of a request, as far as it has not been read."""

    def __init__(self, incoming: BinaryIO, length: int, take: Callable[[int], None]) -> None:
        self._incoming = incoming
        self.left = length
        self._take = take

    def read(self, count: int) -> bytes:
        block: bytes = self._incoming.read(min(count, self.left))
        self.left -= len(block)
        self._take(len(block))
        if not block and self.left:
            raise ConnectionError("the client hung up")
        return block

    def drain(self) -> None:
        while self.left:
            self.read(_BLOCK_BYTES)

    def blocks(self, changed_at: int) -> Iterator[bytes]:
        position = 0
        while self.left:
            block = self.read(_BLOCK_BYTES)
            if position <= changed_at < position + len(block):
                at = changed_at - position
                block = block[:at] + bytes([block[at] ^ 0x55]) + block[at + 1 :]
            position += len(block)
            yield block


def _read_head(stream: BinaryIO) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line: bytes = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _read_answer(stream: BinaryIO, method: str) -> bytes:
    head = _read_head(stream)
    while head.startswith(b"HTTP/1.1 1"):
        head = _read_head(stream)
    if not head:
        raise ConnectionError("the server hung up")
    status = int(head.split(b" ", 2)[1])
    if method == "HEAD" or status in (204, 304):
        return head
    if b"chunked" in _field(head, b"transfer-encoding"):
        return head + b"".join(_read_chunks(stream))
    length = _field(head, b"content-length")
    return head + stream.read(int(length) if length else -1)


def _read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        line: bytes = stream.readline()
        yield line
        yield stream.read(int(line.split(b";")[0], 16) + 2)
        if int(line.split(b";")[0], 16) == 0:
            return


def _with_length(head: bytes, length: int) -> bytes:
    pattern = rb"(?im)^content-length:[^\r]*"
    changed, count = re.subn(pattern, b"content-length: %d" % length, head)
    assert count == 1, head
    return changed


def _field(fields: bytes, name: bytes) -> bytes:
    for line in fields.split(b"\r\n"):
        left, _, right = line.partition(b":")
        if left.strip().lower() == name:
            return right.strip().lower()
    return b""


def _is_of_bucket(asked: Asked) -> bool:
    """Tell whether a request is a HEAD of a bucket, whose answer is empty in any case."""
    path = urlsplit(asked.target).path.strip("/")
    return asked.method == "HEAD" and "/" not in path


def _refusal(status: int, code: str, message: str, method: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return (
        f"HTTP/1.1 {status} Refused\r\ncontent-type: application/xml\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + (b"" if method == "HEAD" else body)


def _reset(sock: socket.socket) -> None:
    """Break a connection the hard way, as a network does."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A file made of the socket would keep it open.
        os.close(sock.detach())


@pytest.fixture
def fault_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultProxy]]:
    """Make proxies that this process's HTTP clients go through from then on."""
    with contextlib.ExitStack() as stack:

        def make(**wishes: object) -> FaultProxy:
            proxy = stack.enter_context(FaultProxy(**wishes))  # type: ignore[arg-type]
            for name in ("HTTP_PROXY", "http_proxy"):
                monkeypatch.setenv(name, proxy.url)
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            return proxy

        yield make
