"""Servers that answer before they have read the body: the answer is told (RFC 9112, 9.5)."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.s3.credentials import FixedCredentials
from tests.s3.engine.test_sender import QUICK
from tests.s3.engine.test_tls_and_proxies import certify
from tests.s3.scripted import refuse
from twobuckets.s3.engine import (
    FileSlice,
    Keys,
    Request,
    Response,
    Sender,
    SendError,
    SigV4Signer,
    parse_endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 16_000_000


class EarlyServer:
    """Reads the head and some of the body, answers, and then does as `ends` says.

    "closes" while bytes wait to be read, so that the client gets a reset; "half-closes" and reads
    no more; "keeps" the connection open and reads no more; "drains" what is still sent. `interim`
    is sent before anything is read of the body.
    """

    def __init__(
        self,
        said: bytes,
        *,
        ends: str = "closes",
        reads: int = 0,
        interim: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.said, self.ends, self.reads, self.interim, self._tls = said, ends, reads, interim, tls
        self.read_bytes: list[int] = []
        self.is_stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def close(self) -> None:
        self.is_stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        # Else the answer waits behind the session's tickets, and a close would take it along.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        with contextlib.suppress(OSError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(1024)
        if self.interim:
            sock.sendall(self.interim)
        read = len(received.partition(b"\r\n\r\n")[2])
        while read < self.reads and (block := sock.recv(65536)):
            read += len(block)
        self.read_bytes.append(read)
        sock.sendall(self.said)
        if self.ends == "drains":
            while read < SIZE and (block := sock.recv(65536)):
                read += len(block)
            self.read_bytes[-1] = read
        elif self.ends == "half-closes":
            sock.shutdown(socket.SHUT_WR)
            self.is_stopped.wait(5)
        elif self.ends == "keeps":
            self.is_stopped.wait(5)
        elif self.ends == "resets":
            time.sleep(0.05)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture
def body(tmp_path: Path) -> Iterator[FileSlice]:
    path = tmp_path / "body"
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDONLY)
    yield FileSlice(fd, 0, SIZE)
    os.close(fd)


def send(server: EarlyServer, content: bytes | FileSlice, verify: str | None = None):
    endpoint = parse_endpoint(server.url, region="us-east-1", path_style=True)
    signer = SigV4Signer(endpoint, FixedCredentials(Keys("AKIA", "secret")))
    with Sender(signer, retry=QUICK, timeout=timedelta(seconds=5), ca_bundle=verify) as sender:
        [(_, found)] = sender.send_all([Request("PUT", "b", "k", body=content)])
        return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.mark.parametrize("ends", ["closes", "half-closes", "keeps", "drains", "resets"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_refusal_before_the_body_was_read_is_told(
    body: FileSlice, certificate: Path, ends: str, tls: bool
):
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    for status, code, reads, content in (
        (403, "AccessDenied", 0, body),
        (400, "EntityTooLarge", 1_000_000, os.pread(body.fd, SIZE, 0)),
    ):
        server = EarlyServer(refuse(status, code), ends=ends, reads=reads, tls=context)
        try:
            found = send(server, content, str(certificate) if tls else None)
        finally:
            server.close()
        assert isinstance(found, Response), (found, status)
        assert (found.status, found.code) == (status, code)
        assert len(server.read_bytes) == 1


def test_a_connection_that_ends_without_an_answer_is_no_answer(body: FileSlice):
    server = EarlyServer(b"", ends="half-closes")
    try:
        found = send(server, body)
    finally:
        server.close()
    assert isinstance(found, SendError)
    assert "closed" in str(found.cause)


def test_an_interim_answer_is_none(body: FileSlice):
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n"
    said = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n'
    server = EarlyServer(said, ends="keeps", reads=SIZE, interim=interim)
    try:
        found = send(server, body)
    finally:
        server.close()
    assert isinstance(found, Response), found
    assert found.status == 200
    assert server.read_bytes == [SIZE]
