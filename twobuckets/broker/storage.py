"""S3, as far as the broker signs for it or calls it: with its own role's keys, by path or host."""

import os
import time
from typing import NamedTuple

from twobuckets import sigv4

_TIMEOUT_SECONDS = 5
_OWN_SECONDS = 60
"""For how long what is sent from here at once is signed."""


class UnavailableError(Exception):
    """S3 could not be asked, or gave an answer that says nothing."""


class Bucket(NamedTuple):
    """A bucket of the region that this function runs in, or of the endpoint that is set for it."""

    name: str

    @property
    def origin(self) -> str:
        """Where the bucket is: scheme and host."""
        return self._place()[0]

    def presign(
        self,
        method: str,
        key: str = "",
        *,
        query: sigv4.Pairs = (),
        headers: sigv4.Pairs = (),
        seconds: int,
    ) -> str:
        """Return a URL that is good for this request, and a secret."""
        origin, prefix = self._place()
        return sigv4.presign(
            method,
            origin,
            prefix + sigv4.encode_path(key),
            query=query,
            headers=headers,
            keys=(
                os.environ["AWS_ACCESS_KEY_ID"],
                os.environ["AWS_SECRET_ACCESS_KEY"],
                os.environ.get("AWS_SESSION_TOKEN") or None,
            ),
            region=os.environ["AWS_REGION"],
            stamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            expires_seconds=seconds,
        )

    def get(self, key: str) -> bytes | None:
        """Return an object's content, None when there is none. Raises UnavailableError."""
        status, body = self._send("GET", key)
        if status == 200:
            return body
        # Who may not list a bucket gets 403 for what is not there (API reference, GetObject).
        if status in (403, 404):
            return None
        raise UnavailableError

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Put an object where none is, and tell whether that was so. Raises UnavailableError."""
        status, _ = self._send("PUT", key, content, (("if-none-match", "*"),))
        if status == 200:
            return True
        # 409 is another write of the same key at the same time (API reference, PutObject).
        if status in (409, 412):
            return False
        raise UnavailableError

    def _send(
        self, method: str, key: str, content: bytes = b"", headers: sigv4.Pairs = ()
    ) -> tuple[int, bytes]:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        url = self.presign(method, key, headers=headers, seconds=_OWN_SECONDS)
        scheme, _, rest = url.partition("://")
        host, _, target = rest.partition("/")
        kind = HTTPSConnection if scheme == "https" else HTTPConnection
        connection = kind(host, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, f"/{target}", content or None, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            raise UnavailableError from error
        finally:
            connection.close()

    def _place(self) -> tuple[str, str]:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            return endpoint.rstrip("/"), f"/{self.name}"
        region = os.environ["AWS_REGION"]
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        # AWS's certificate covers one label, so a name with a dot is addressed by path.
        if "." in self.name:
            return f"https://s3.{region}.{domain}", f"/{self.name}"
        return f"https://{self.name}.s3.{region}.{domain}", ""
