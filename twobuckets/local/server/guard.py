"""Decides which requests reach the emulator at all.

The emulator trusts whoever can connect, and every web page that is open on this machine can: it
takes no more than a form that posts to a port on loopback. Whoever gets through can run code, as a
Lambda function. So a request must be meant for this server (`Host`), must not come from a page
(`Origin`, `Sec-Fetch-Site`), must not ask for the emulator's own paths, and must name a key that is
known here. Whether its signature is that key's is then checked by the emulator.

The one thing that a page may do is what S3 lets it do: send what somebody signed into the URL, or
into a form, for the objects of a bucket whose CORS rules name the page's origin.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Headers = Sequence[tuple[bytes, bytes]]
Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FOREIGN_SITES = ("cross-site", "same-site")
PAGE_METHODS = ("GET", "HEAD", "POST")
OF_OTHER_SERVICES = frozenset(
    {b"authorization", b"x-amz-target", b"x-amz-date", b"x-amz-security-token"}
)


def find_refusal(
    headers: Headers,
    path: str,
    *,
    port: int,
    is_known: Callable[[Headers], bool],
    is_admitted: Callable[[str], bool],
    is_preflight: bool,
) -> str | None:
    """Return why a request is refused, or None when the emulator may see it.

    `path` is percent-decoded. `is_known` tells whether the headers (or the query that it knows of)
    name an access key of this server, and `is_admitted` whether pages of an origin may send this
    request; a preflight of theirs has no key.
    """
    hosts = _values(headers, b"host")
    if hosts not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
        return "The Host header is not this server's address."
    origins = _values(headers, b"origin")
    is_of_admitted_page = len(origins) == 1 and is_admitted(origins[0])
    if not is_of_admitted_page:
        if any(origin not in (f"http://{host}" for host in hosts) for origin in origins):
            return "Requests of web pages are refused."
        if any(site in FOREIGN_SITES for site in _values(headers, b"sec-fetch-site")):
            return "Requests of web pages are refused."
    if path.startswith("/_"):
        # No bucket name starts like this; the emulator's administration does.
        return "The emulator's own paths are closed."
    if len(_values(headers, b"authorization")) > 1:
        return "More than one Authorization header."
    if is_of_admitted_page and is_preflight:
        return None
    if not is_known(headers):
        return "The request names no access key of this server."
    return None


def find_page_refusal(headers: Headers, method: str, path: str, *, port: int) -> str | None:
    """Return why the port of upload pages refuses a request, or None when the API may see it.

    A page is its own origin, so that nothing in it is on the emulator's. Another page may do one
    thing: lead a person here.
    """
    hosts = _values(headers, b"host")
    if hosts not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
        return "The Host header is not this page's address."
    if any(
        origin not in (f"http://{host}" for host in hosts) for origin in _values(headers, b"origin")
    ):
        return "Requests of other web pages are refused."
    if any(site in FOREIGN_SITES for site in _values(headers, b"sec-fetch-site")):
        navigates = method == "GET" and _values(headers, b"sec-fetch-mode") == ["navigate"]
        if not navigates or _values(headers, b"sec-fetch-dest") != ["document"]:
            return "Requests of other web pages are refused."
    if method not in PAGE_METHODS:
        return "A page has no such method."
    if "/_" in path or ".." in path or "//" in path:
        return "A page has no such path."
    return None


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in headers if key.lower() == name]


async def refuse(send: Send, reason: str) -> None:
    """Answer 403 in S3's form, without any CORS header."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>AccessDenied</Code><Message>{escape(reason)}</Message></Error>"
    ).encode()
    headers = [
        (b"content-type", b"application/xml"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
