"""A key that is revoked in the middle: so many requests pass, and each service refuses the rest."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.proxy import Asked

_SCOPE = re.compile(rb"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request", re.IGNORECASE)
_NOT_ACCEPTED = "The security token included in the request is invalid."


class Revocation:
    """Lets `after` requests pass; `asked` counts all of them. It is a proxy's `refuses`."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.asked = 0
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> bytes | None:
        with self._lock:
            self.asked += 1
            if self.asked <= self.after:
                return None
        found = _SCOPE.search(asked.fields)
        return _refuse(found[1].decode() if found else "s3", asked)


def _refuse(service: str, asked: Asked) -> bytes:
    """Write the refusal in the words and form of a service."""
    if service == "s3":
        said = "The AWS Access Key Id you provided does not exist in our records."
        body = f"<Error><Code>InvalidAccessKeyId</Code><Message>{said}</Message></Error>"
        return _answer("403 Forbidden", "application/xml", "" if asked.method == "HEAD" else body)
    if b"x-amz-target" in asked.fields.lower() or service == "lambda":
        code = "UnrecognizedClientException"
        body = json.dumps({"__type": code, "message": _NOT_ACCEPTED})
        more = f"x-amzn-errortype: {code}\r\n"
        return _answer("403 Forbidden", "application/x-amz-json-1.1", body, more)
    body = (
        "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>"
        f"<Message>{_NOT_ACCEPTED}</Message></Error></ErrorResponse>"
    )
    return _answer("403 Forbidden", "text/xml", body)


def _answer(status: str, content_type: str, body: str, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
