"""Records of the S3 hot path: where requests go, who signs them, what is asked, what came back."""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from twobuckets.s3.engine.bodies import FileSlice
from twobuckets.s3.engine.checksums import Algorithm
from twobuckets.s3.xmltext import find_text

_AWS_HOST = re.compile(
    r"(?P<service>s3(-fips)?(\.dualstack)?)(\.[a-z0-9-]+)?\.(?P<domain>amazonaws\.com(\.cn)?)"
)
_FOLD = re.compile("[ \\t]*\r\n[ \\t]+")
_ERROR_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error[\s>]")


class Keys(NamedTuple):
    """One set of AWS credentials, frozen at one moment."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Name the access key only: a secret never reaches a log or a traceback."""
        return f"Keys(access_key={self.access_key!r})"


class Credentials(Protocol):
    """Gives the current keys; renewing them before they expire is its own business."""

    def keys(self) -> Keys:
        """Return the keys to sign with now; called for every request, so it must be cheap."""

    def refresh(self) -> bool:
        """Fetch new keys because S3 called these expired; True if they changed."""


class ServerAddress(NamedTuple):
    """The server that a connection leads to."""

    tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An S3 endpoint and how buckets are addressed there.

    `ca_bundle` is a file of trusted certificates (the system's when None); `proxy` is the URL of
    an HTTP proxy, `http://[user:password@]host:port`. Path style puts the bucket into the path;
    otherwise it becomes part of the host, as AWS prefers. With `hashes_payload`, the SHA-256 of
    every body is signed.
    """

    origin: ServerAddress
    region: str
    path_style: bool = False
    ca_bundle: str | None = None
    proxy: str | None = field(default=None, repr=False)
    hashes_payload: bool = False

    @property
    def loopback(self) -> bool:
        """Say whether the endpoint is on this machine."""
        return self.origin.host in {"localhost", "::1"} or self.origin.host.startswith("127.")

    @property
    def signs_payload(self) -> bool:
        """Say whether bodies need their SHA-256 signed: nothing else protects them on the way."""
        return self.hashes_payload or not (self.origin.tls or self.loopback)

    def find_origin(self, bucket: str) -> tuple[ServerAddress, str, str]:
        """Return the origin, the Host header and the path prefix that address a bucket.

        A bucket name with a dot is always addressed by path over TLS: AWS's wildcard certificate
        covers one label only.
        """
        origin = self.origin
        prefix = ""
        if bucket and (self.path_style or (origin.tls and "." in bucket)):
            prefix = f"/{bucket}"
        elif bucket:
            origin = origin._replace(host=f"{bucket}.{origin.host}")
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        if origin.port != (443 if origin.tls else 80):
            host = f"{host}:{origin.port}"
        return origin, host, prefix

    def find_redirected(self, location: str, bucket: str) -> tuple[ServerAddress, str, str] | None:
        """Return, as find_origin does, where a redirect leads; None unless S3 itself is there.

        A bucket that is young is found at its region's own address for some hours (S3 user guide,
        "Request redirection"). Credentials follow within AWS's domain, or to the same server, and
        never from HTTPS to HTTP.
        """
        parts = urlsplit(location)
        host = parts.hostname or ""
        origin = ServerAddress(
            parts.scheme == "https", host, parts.port or (443 if parts.scheme == "https" else 80)
        )
        is_aws = all(
            _AWS_HOST.search(name) and name.endswith((".amazonaws.com", ".amazonaws.com.cn"))
            for name in (host, self.origin.host)
        )
        if parts.scheme not in {"http", "https"} or (self.origin.tls and not origin.tls):
            return None
        if not is_aws and origin != self.origin:
            return None
        prefix = "" if host.startswith(f"{bucket}.") else f"/{bucket}"
        return origin, parts.netloc.rpartition("@")[2], prefix

    def in_region(self, region: str) -> "Endpoint":
        """Return the endpoint of another region; one that is not AWS's own keeps its host."""
        host = _AWS_HOST.fullmatch(self.origin.host)
        if host is None:
            return replace(self, region=region)
        origin = self.origin._replace(host=f"{host['service']}.{region}.{host['domain']}")
        return replace(self, origin=origin, region=region)


def parse_endpoint(
    url: str,
    *,
    region: str,
    path_style: bool | None = None,
    ca_bundle: str | None = None,
    proxy: str | None = None,
    hashes_payload: bool = False,
) -> Endpoint:
    """Return the endpoint at a URL such as `https://s3.eu-west-1.amazonaws.com`.

    Without `path_style`, AWS's own hosts get the bucket in the host name and all others get it in
    the path, as botocore does with a custom endpoint. Raises ValueError for anything that is not
    the URL of a host.
    """
    parts = urlsplit(url)
    labels = (parts.hostname or "").removesuffix(".").split(".")
    is_host = all(0 < len(label) < 64 for label in labels)
    if parts.scheme not in {"http", "https"} or not is_host or parts.path.strip("/"):
        raise ValueError(f"not the URL of an S3 endpoint: {url!r}")
    assert parts.hostname is not None
    tls = parts.scheme == "https"
    if path_style is None:
        path_style = not parts.hostname.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    origin = ServerAddress(tls, parts.hostname, parts.port or (443 if tls else 80))
    return Endpoint(origin, region, path_style, ca_bundle, proxy, hashes_payload)


class Expects(enum.Enum):
    """What a success always says, so that one without it is no answer of S3's."""

    NOTHING = enum.auto()
    ETAG = enum.auto()
    BODY = enum.auto()


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One S3 request before it is signed.

    `query` and `headers` are (name, value) pairs, unencoded, header names in lower case; a query
    value of "" gives `?uploads=`. With a `checksum`, the body's is computed once by whoever carries
    the request and sent as a header, so that S3 refuses any other body; with `trails`, that of a
    file's slice is computed while it is sent and follows it, where the endpoint allows unsigned
    bodies. A request with `retries` False is sent once only. `on_sent` is called with the number of
    body bytes each time some were sent, possibly in another thread; what a failed attempt sent is
    taken back with a negative number. A success that does not say what the request `expects` counts
    as no answer. Requests are told apart by identity: the one that was sent comes back with its
    answer.
    """

    method: str
    bucket: str
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileSlice = b""
    checksum: Algorithm | None = None
    trails: bool = False
    retries: bool = True
    on_sent: Callable[[int], None] | None = None
    expects: Expects = Expects.NOTHING

    @property
    def length(self) -> int:
        """The length of the body in bytes."""
        return self.body.length if isinstance(self.body, FileSlice) else len(self.body)

    def with_headers(self, *headers: tuple[str, str]) -> "Request":
        """Return the same request with more headers."""
        return replace(self, headers=(*self.headers, *headers))


class SignedRequest(NamedTuple):
    """A request that S3 accepts as it is, whoever sends it, until the signature expires.

    `target` is the path and query exactly as signed; `headers` includes Host. `made_with` is the
    signer's own: what it went by, to tell a refusal of old news from a new one.
    """

    method: str
    origin: ServerAddress
    target: str
    headers: tuple[tuple[str, str], ...]
    made_with: object = None

    def __repr__(self) -> str:
        """Leave out the target and the headers: both may hold a signature."""
        return f"SignedRequest(method={self.method!r}, origin={self.origin!r})"


class Signer(Protocol):
    """Turns requests into signed ones; with keys at hand, or by asking somebody who has them."""

    @property
    def signs_payload(self) -> bool:
        """Say whether a body is hashed before it is signed, and so read before it is sent."""

    def sign(self, request: Request) -> SignedRequest:
        """Sign a request for sending now."""

    def learn(self, request: Request, signed: SignedRequest, answer: "Response") -> bool:
        """Take note of a refused signature; True if signing again gives a better one."""


class Response:
    """An answer of S3; any status, so that the caller decides what a refusal means.

    `attempts` says how many times the request was sent: after more than one, a refusal such as
    412 may be the echo of an earlier attempt whose answer got lost. `checksum` is the one that was
    computed of the request's body, if any.
    """

    __slots__ = ("_headers", "attempts", "body", "checksum", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body
        self.attempts = 1
        self.checksum: int | None = None
        self._headers: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Response(status={self.status}, attempts={self.attempts})"

    @property
    def headers(self) -> dict[str, str]:
        """The headers with names in lower case, parsed when first asked for."""
        if self._headers is None:
            text = self.head.decode("utf-8", "replace")
            if "\r\n " in text or "\r\n\t" in text:  # a line that goes on in the next one
                text = _FOLD.sub(" ", text)
            self._headers = headers = {}
            for line in text.split("\r\n")[1:]:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
        return self._headers

    @property
    def ok(self) -> bool:
        """Say whether S3 did what was asked: 2xx, and no error in the body of a 200.

        CopyObject, UploadPartCopy and CompleteMultipartUpload send their 200 before they are done
        and may still fail (S3 API reference, CompleteMultipartUpload).
        """
        return 200 <= self.status < 300 and not is_error_body(self.body)

    def says(self, expected: Expects) -> bool:
        """Tell whether it says what is expected of a success."""
        match expected:
            case Expects.ETAG:
                return bool(self.headers.get("etag"))
            case Expects.BODY:
                return bool(self.body) and not self.body.isspace()
            case Expects.NOTHING:
                return True

    @property
    def code(self) -> str:
        """S3's error code, such as `NoSuchKey`; "" if it gave none."""
        return find_text(self.body, b"Code") if is_error_body(self.body) else ""

    @property
    def message(self) -> str:
        """S3's words for the error; "" if it gave none."""
        return find_text(self.body, b"Message") if is_error_body(self.body) else ""


def is_error_body(body: bytes) -> bool:
    """Say whether a body is S3's error document, perhaps behind blanks that kept a 200 alive."""
    return _ERROR_DOCUMENT.match(body) is not None


class HollowAnswerError(OSError):
    """Something between here and S3 said 200 and nothing else; S3 may have heard of it or not."""


class SendError(Exception):
    """A request got no answer at all; S3 may nevertheless have done what it asked.

    `cause` is the last reason, `attempts` says how often it was sent.
    """

    def __init__(self, cause: Exception, attempts: int) -> None:
        super().__init__(cause, attempts)
        self.cause = cause
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.cause} (attempt {self.attempts})"
