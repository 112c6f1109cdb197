"""Connections that must be trusted: certificates, names, bundles and proxies."""

import base64
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.s3.credentials import FixedCredentials
from tests.s3.engine.test_sender import QUICK
from tests.s3.scripted import answer, serving
from twobuckets.s3.engine import (
    FileSlice,
    Keys,
    Request,
    Sender,
    SendError,
    SigV4Signer,
    parse_endpoint,
)


def certify(folder: Path, name: str) -> Path:
    """Write a self-signed certificate for a host, with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def sender_to(url, **options):
    endpoint = parse_endpoint(url, region="us-east-1")
    signer = SigV4Signer(endpoint, FixedCredentials(Keys("AKIA", "secret")))
    return Sender(signer, retry=QUICK, **options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_a_bundle_of_ones_own_is_trusted(certificate, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with (
        (tmp_path / "file").open("rb") as file,
        serving(lambda r: answer(200, b"x" * 300_000), server_side(certificate)) as server,
        sender_to(server.url, ca_bundle=str(certificate)) as sender,
    ):
        body = FileSlice(file.fileno(), 0, size)
        answers = [
            found.body
            for _, found in sender.send_all(
                Request("PUT", "b", f"{n}", body=body) for n in range(9)
            )
        ]
    assert answers == [b"x" * 300_000] * 9
    assert all(received.body == content for received in server.received)


def test_a_stranger_is_refused_at_once(certificate):
    with (
        serving(lambda r: answer(), server_side(certificate)) as server,
        sender_to(server.url) as sender,
        pytest.raises(SendError, match="certificate verify failed") as raised,
    ):
        sender.send(Request("GET", "b", "k"))
    assert raised.value.attempts == 1
    assert server.received == []


def test_a_trusted_certificate_of_another_host_is_refused(tmp_path):
    other = certify(tmp_path, "other.example")
    with (
        serving(lambda r: answer(), server_side(other)) as server,
        sender_to(server.url, ca_bundle=str(other)) as sender,
        pytest.raises(SendError, match="Hostname mismatch"),
    ):
        sender.send(Request("GET", "b", "k"))
    assert server.received == []


@contextlib.contextmanager
def tunnelling(user: str = "") -> Iterator[tuple[int, list[str]]]:
    """Run a proxy that opens tunnels, for one user if named; gives its port and what it read."""
    heads: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pipe(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                target.sendall(received)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        heads.append(head.decode())
        expected = f"Basic {base64.b64encode(user.encode()).decode()}"
        if user and f"Proxy-Authorization: {expected}\r\n" not in heads[-1]:
            client.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        host, _, port = heads[-1].split()[1].rpartition(":")
        upstream = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=pipe, args=(upstream, client), daemon=True)
        back.start()
        with client, upstream:
            pipe(client, upstream)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], heads
    listener.close()


def test_tls_goes_through_a_tunnel_of_the_proxy(certificate):
    with (
        tunnelling("me:p@ss") as (port, heads),
        serving(lambda r: answer(200, b"hello"), server_side(certificate)) as server,
        sender_to(
            server.url, ca_bundle=str(certificate), proxy=f"http://me:p%40ss@127.0.0.1:{port}"
        ) as sender,
    ):
        assert sender.send(Request("GET", "b", "k")).body == b"hello"
        assert sender.send(Request("GET", "b", "k")).body == b"hello"
    assert len(heads) == 1
    assert "secret" not in heads[0]


def test_a_proxy_that_refuses_is_named(certificate):
    with (
        tunnelling("me:right") as (port, _),
        serving(lambda r: answer(), server_side(certificate)) as server,
        sender_to(
            server.url, ca_bundle=str(certificate), proxy=f"http://me:wrong@127.0.0.1:{port}"
        ) as sender,
        pytest.raises(SendError, match=r"proxy refused .* 407") as raised,
    ):
        sender.send(Request("GET", "b", "k"))
    assert "wrong" not in str(raised.value)


def test_plain_http_asks_the_proxy_for_the_whole_url():
    with (
        serving(lambda r: answer(200, r.head.split()[1].encode())) as proxy,
        sender_to("http://s3.example.org", proxy=proxy.url) as sender,
    ):
        found = sender.send(Request("PUT", "b", "k", body=b"x"))
    assert found.body == b"http://s3.example.org/b/k"
