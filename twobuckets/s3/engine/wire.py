"""HTTP/1.1 on kept connections, written once as generators and driven two ways.

A task is a generator that yields what it waits for: READ, WRITE or both for its socket, or a
number of seconds. The sender's loop drives hundreds of tasks in one thread, which is the cheapest
way to send small requests from Python; a thread of its own drives a task that carries a large
body, because TLS and file reads release the interpreter's lock and so use the other cores.
"""

import base64
import errno
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from twobuckets.s3.engine.bodies import FileSlice
from twobuckets.s3.engine.checksums import Trailer
from twobuckets.s3.engine.records import Response, ServerAddress, SignedRequest

READ = select.POLLIN
WRITE = select.POLLOUT
# Header fields as RFC 9112 (5, 5.2) lets others write them: blanks at will after the colon and at
# the end, and lines that go on in the next one; before the colon some write blanks as well.
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:([^\r\n]*)\r\n")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding[ \t]*:(?:[^\r\n]*,)?[ \t]*chunked[ \t]*\r\n")
_CLOSES = re.compile(rb"\r\nconnection[ \t]*:(?:[^\r\n]*,)?[ \t]*close[ \t]*(?:,[^\r\n]*)?\r\n")
LONGEST_HEAD_BYTES = 64 * 1024
LONGEST_BODY_BYTES = 64 * 1024 * 1024
_SMALL_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024

T = TypeVar("T")
Task = Generator[float, None, T]
"""Yields what it waits for: READ, WRITE or both, or a pause as a negative number of seconds."""
_STOP_LATENCY = 0.25
_OPENING_TIMEOUT = 10.0


class WireError(OSError):
    """The other side broke HTTP, or the connection, before its answer was complete."""


Address = tuple[int, tuple[object, ...]]
"""A socket family and what `connect` takes for it, as `getaddrinfo` gives them."""


class Connection:
    """One kept connection to an origin; `sock` is None until it is opened and after it broke."""

    __slots__ = ("early", "opening", "origin", "sock", "used")

    def __init__(self, origin: ServerAddress) -> None:
        self.origin = origin
        self.sock: socket.socket | None = None
        self.opening = False
        self.used = False
        self.early = b""
        """What of an answer came while its request was being sent."""

    def patience(self, timeout: float) -> float:
        """Return the seconds without progress after which to give up: fewer while it is opened."""
        return min(timeout, _OPENING_TIMEOUT) if self.opening else timeout

    def close(self) -> None:
        """Drop the connection at once; closing twice is fine."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            self.used = False
        self.early = b""

    def open(
        self, address: Address, context: ssl.SSLContext | None, proxy: str | None
    ) -> Task[None]:
        """Connect, through a proxy if there is one, shake hands, verify the host's name."""
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock = sock
        self.opening = True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = sock.connect_ex(where)
        if state == errno.EINPROGRESS:
            yield WRITE
            state = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if state:
            listener = (
                self.origin.host if proxy is None else f"the proxy {urlsplit(proxy).hostname}"
            )
            raise OSError(state, f"cannot connect to {listener}: {errno.errorcode[state]}")
        if not self.origin.tls:
            self.opening = False
            return
        assert context is not None
        if proxy is not None:
            yield from self._tunnel(proxy)
        secure = context.wrap_socket(
            sock, server_hostname=self.origin.host, do_handshake_on_connect=False
        )
        self.sock = secure
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                self.opening = False
                return

    def _tunnel(self, proxy: str) -> Task[None]:
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        place = f"{host}:{self.origin.port}"
        head = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{proxy_authorization(proxy)}\r\n"
        is_early = yield from self._send(memoryview(head.encode()))
        answer = yield from self._receive("CONNECT", is_early=is_early)
        if answer.status != 200:
            raise WireError(f"the proxy refused a tunnel to {place}: status {answer.status}")

    def exchange(
        self,
        signed: SignedRequest,
        body: bytes | FileSlice,
        buffer: memoryview | None = None,
        sent: Callable[[int], None] | None = None,
        proxy: str | None = None,
        trailer: Trailer | None = None,
        pace: Callable[[int], float] | None = None,
    ) -> Task[Response]:
        """Send a request and receive its answer.

        `sent` hears how many bytes of the body were just sent. `pace` says how many seconds to wait
        after so many; before them, where the body is small and goes in one piece. A file's bytes
        pass through `buffer`, never more of them at once, and `trailer` follows them.
        """
        length = body.length if isinstance(body, FileSlice) else len(body)
        head = _write_head(signed, trailer.encoded_length if trailer else length, proxy)
        if isinstance(body, FileSlice):
            is_early = yield from self._send_file(head, body, buffer, sent, trailer, pace)
        elif len(body) <= _SMALL_BYTES:
            if pace is not None and body:
                yield from _pause(pace(len(body)))
            is_early = yield from self._send(memoryview(head + body))
            if sent is not None and body:
                sent(len(body))
        else:
            is_early = yield from self._send(memoryview(head))
            is_early = is_early or (yield from self._send_blocks(memoryview(body), sent, pace))
        response = yield from self._receive(signed.method, is_early=is_early)
        self.used = True
        return response

    def _send_file(
        self,
        head: bytes,
        body: FileSlice,
        buffer: memoryview | None,
        sent: Callable[[int], None] | None,
        trailer: Trailer | None,
        pace: Callable[[int], float] | None,
    ) -> Task[bool]:
        if buffer is None:
            buffer = memoryview(bytearray(min(body.length, _SMALL_BYTES)))
        left = body.length
        gathers = False
        if trailer is not None:
            head += trailer.opening
        for block in body.iter_blocks(buffer):
            left -= len(block)
            if gathers != (left > 0):
                # Up to its last block, TLS records of a large body share segments: a small segment
                # for each costs both sides an eighth of their time.
                gathers = not gathers
                self._push(not gathers)
            if trailer is not None:
                trailer.note(block)
            # The head travels with the first block: one packet less for a small file.
            if head:
                if (yield from self._send(memoryview(head + bytes(block[:_SMALL_BYTES])))):
                    return True
                head = b""
                yield from _told(len(block[:_SMALL_BYTES]), sent, pace)
                block = block[_SMALL_BYTES:]
            if (yield from self._send_blocks(block, sent, pace)):
                return True
        if head:
            return (yield from self._send(memoryview(head)))
        if trailer is not None:
            return (yield from self._send(memoryview(trailer.closing)))
        return False

    def _push(self, at_once: bool) -> None:
        """Let what is sent leave at once, or wait until it fills a segment or is acknowledged."""
        assert self.sock is not None
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, at_once)

    def _send_blocks(
        self,
        body: memoryview,
        sent: Callable[[int], None] | None,
        pace: Callable[[int], float] | None,
    ) -> Task[bool]:
        for start in range(0, len(body), 4 * _SMALL_BYTES):
            block = body[start : start + 4 * _SMALL_BYTES]
            if (yield from self._send(block)):
                return True
            yield from _told(len(block), sent, pace)
        return False

    def _send(self, rest: memoryview) -> Task[bool]:
        """Send bytes; tell whether an answer, which is in `early`, came before all were sent.

        Then the rest is of no use to anybody (RFC 9112, 9.5).
        """
        sock = self.sock
        assert sock is not None
        while rest:
            try:
                rest = rest[sock.send(rest) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
            except ssl.SSLWantReadError:
                yield READ
                continue
            except OSError:
                # S3 refuses and hangs up while we still send: its reason may wait to be read.
                if not self._has_answer():
                    raise
                return True
            if self._has_answer():
                return True
            yield READ | WRITE
        return False

    def _has_answer(self) -> bool:
        """Tell whether an answer has begun; an interim one is none (RFC 9110, 15.2)."""
        assert self.sock is not None
        try:
            received = self.sock.recv(_RECEIVE_BYTES)
        except OSError:
            received = None
        if received == b"" and not self.early:
            raise WireError("the connection was closed while the request was being sent")
        self.early += received or b""
        while self.early[9:10] == b"1" and (end := self.early.find(b"\r\n\r\n")) >= 0:
            self.early = self.early[end + 4 :]
        return len(self.early) > 9 and self.early[9:10] != b"1"

    def _read(self) -> Task[bytes]:
        sock = self.sock
        assert sock is not None
        while True:
            try:
                received = sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                if not received:
                    raise WireError("the connection was closed before the answer was complete")
                return received

    def _receive(self, method: str, *, is_early: bool) -> Task[Response]:
        received, self.early = self.early, b""
        if not is_early:
            yield READ
        while True:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                if len(received) > LONGEST_HEAD_BYTES:
                    raise WireError("the head of the answer does not end")
                received += yield from self._read()
                continue
            head, rest = received[:end], received[end + 4 :]
            if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
                raise WireError("the answer is not HTTP")
            status = int(head[9:12])
            if status >= 200:
                break
            received = rest
        lines = head.lower() + b"\r\n"
        if b"\r\n " in lines or b"\r\n\t" in lines:
            lines = _FOLD.sub(b" ", lines)
        if method == "CONNECT":
            return Response(status, head, b"")
        keep = head.startswith(b"HTTP/1.1") and not _CLOSES.search(lines)
        if method == "HEAD" or status in {204, 304}:
            body = b""
        elif _CHUNKED.search(lines):
            body = yield from self._read_chunks(rest)
        else:
            length = _find_length(lines)
            if length < 0:
                keep = False
            body = rest if len(rest) == length else (yield from self._read_body(rest, length))
        if is_early or not keep:
            self.close()
        return Response(status, head, body)

    def _read_body(self, rest: bytes, length: int) -> Task[bytes]:
        parts = [rest]
        size = len(rest)
        while length < 0 or size < length:
            try:
                parts.append((yield from self._read()))
            except WireError:
                if length >= 0:
                    raise
                break
            size += len(parts[-1])
            if size > LONGEST_BODY_BYTES:
                raise WireError("the answer is too long")
        return b"".join(parts)

    def _read_chunks(self, rest: bytes) -> Task[bytes]:
        pending = bytearray(rest)
        body = bytearray()
        while True:
            while (end := pending.find(b"\r\n")) < 0:
                pending += yield from self._read()
            try:
                size = int(bytes(pending[:end]).partition(b";")[0], 16)
            except ValueError:
                raise WireError("the answer is not chunked as it says") from None
            if len(body) + size > LONGEST_BODY_BYTES or size < 0:
                raise WireError("the answer is too long")
            if not size:
                # What follows the last chunk is trailers and a blank line.
                while b"\r\n\r\n" not in pending[end:]:
                    pending += yield from self._read()
                return bytes(body)
            while len(pending) < end + 4 + size:
                pending += yield from self._read()
            body += pending[end + 2 : end + 2 + size]
            del pending[: end + 4 + size]


def drive(task: Task[T], connection: Connection, *, timeout: float, stop: threading.Event) -> T:
    """Run a task in the calling thread and return its result.

    Raises TimeoutError when nothing moves for `timeout` seconds, and InterruptedError soon after
    `stop` is set.
    """
    poll = select.poll()
    try:
        wanted = next(task)
        while True:
            if wanted < 0:
                stop.wait(-wanted)
            else:
                _wait_for(poll, connection, int(wanted), timeout, stop)
            if stop.is_set():
                raise InterruptedError(errno.EINTR, "stopped")
            wanted = next(task)
    except StopIteration as done:
        result: T = done.value
        return result


def _wait_for(
    poll: "select.poll", connection: Connection, wanted: int, timeout: float, stop: threading.Event
) -> None:
    assert connection.sock is not None
    poll.register(connection.sock, wanted)
    waited = 0.0
    while not poll.poll(_STOP_LATENCY * 1000) and not stop.is_set():
        waited += _STOP_LATENCY
        if waited >= connection.patience(timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"{connection.origin.host} does not answer")
    poll.unregister(connection.sock)


def proxy_authorization(proxy: str) -> str:
    """Return the header line that authenticates with a proxy, or "" if its URL names no user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"


def _write_head(signed: SignedRequest, length: int, proxy: str | None) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in signed.headers]
    target = signed.target
    if proxy is not None and not signed.origin.tls:
        host = next(value for name, value in signed.headers if name == "host")
        target = f"http://{host}{target}"
        lines.append(proxy_authorization(proxy))
    if length or signed.method in {"PUT", "POST"}:
        lines.append(f"content-length: {length}\r\n")
    return f"{signed.method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def _find_length(lines: bytes) -> int:
    found = _LENGTH.search(lines)
    if found is None:
        return -1
    text = found[1].strip()
    if not text.isdigit() or int(text) > LONGEST_BODY_BYTES:
        raise WireError(f"the answer's length is {text[:20]!r}")
    return int(text)


def _told(
    count: int, sent: Callable[[int], None] | None, pace: Callable[[int], float] | None
) -> Generator[float, None, None]:
    if sent is not None:
        sent(count)
    if pace is not None:
        yield from _pause(pace(count))


def _pause(seconds: float) -> Generator[float, None, None]:
    if seconds > 0:
        yield -seconds
