"""A server on loopback that answers each request as a script says, over plain sockets."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass
class Received:
    """A request as it arrived: its number among all, its head and its body."""

    number: int
    connection: int
    head: str
    body: bytes

    def header(self, name: str) -> str:
        """Return one header's value, "" if it was not sent."""
        for line in self.head.split("\r\n")[1:]:
            left, _, right = line.partition(":")
            if left.lower() == name:
                return right.strip()
        return ""


class Cut(bytes):
    """Bytes after which the server hangs up."""


Script = Callable[[Received], bytes | None]
"""Returns the bytes to answer with; None hangs up."""


def answer(status: int = 200, body: bytes = b"", *headers: str, chunked: bool = False) -> bytes:
    """Write an HTTP answer."""
    lines = [f"HTTP/1.1 {status} Word", *headers]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        pieces = [piece for piece in (body[:half], body[half:]) if piece]
        body = b"".join(b"%x;x=y\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\nT: 1\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def refuse(status: int, code: str) -> bytes:
    """Write one of S3's errors."""
    return answer(
        status, f"<Error><Code>{code}</Code><Message>No &amp; no</Message></Error>".encode()
    )


class ScriptedServer:
    """Accepts connections until closed; `received` is what arrived, in order."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self._script = script
        self._tls = tls
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The endpoint URL of the server."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def close(self) -> None:
        """Stop accepting and drop all connections."""
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        if self._tls is not None:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                return
        with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                received = Received(0, connection, head.decode(), b"")
                length = int(received.header("content-length") or 0)
                received.body = stream.read(length)
                if len(received.body) < length:
                    return
                with self._lock:
                    received.number = len(self.received)
                    self.received.append(received)
                said = self._script(received)
                if said is None:
                    return
                sock.sendall(said)
                if isinstance(said, Cut) or b"Connection: close" in said:
                    return


@contextlib.contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a scripted server for the length of a block."""
    server = ScriptedServer(script, tls)
    try:
        yield server
    finally:
        server.close()
