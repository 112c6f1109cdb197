"""An S3 in memory with the quirks of endpoints that are not AWS; one quirk a server."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.s3.scripted import Received, answer, refuse


@dataclass
class Quirky:
    """A script for `serving`. What it does wrong is what is set.

    `refuses_crc` is status and code of the refusal of CRC64NVME headers; `etag` what is told as the
    ETag of a completed upload, `part_etag` as that of an object or part; `ignores_conditions`
    stores whatever `If-None-Match` says; `refuses_conditions` answers 501 to it.
    """

    refuses_crc: tuple[int, str] | None = None
    etag: str | None = None
    part_etag: str | None = None
    ignores_conditions: bool = False
    refuses_conditions: bool = False
    refuses_parts: tuple[int, str] | None = None
    refuses_part: int = 0
    lies_there: str = ""
    tells_nothing: bool = False
    encrypts: bool = False
    loses: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)

    def __call__(self, received: Received) -> bytes:
        method, target, _ = received.head.split("\r\n")[0].split(" ")
        path, _, query = target.partition("?")
        key = unquote(path)
        knows_crc = "crc64nvme" not in received.head.lower()
        if self.refuses_crc is not None and not knows_crc:
            return refuse(*self.refuses_crc)
        if self.refuses_conditions and received.header("if-none-match"):
            return refuse(501, "NotImplemented")
        if "Action=GetCallerIdentity" in received.body.decode("latin-1"):
            return refuse(403, "AccessDenied")
        body = received.body[: len(received.body) - self.loses]
        encrypted = ["x-amz-server-side-encryption: aws:kms"] if self.encrypts else []
        match method:
            case "POST" if query.startswith("uploads"):
                return answer(200, b"<R><UploadId>U</UploadId></R>")
            case "GET" if "uploadId" in query:
                return self._list_parts()
            case "GET" if "uploads" in query:
                return answer(200, self._list_uploads().encode())
            case "DELETE" if "uploadId" in query:
                self.parts.clear()
                return b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
            case "PUT" if "partNumber" in query:
                number = int(re.search(r"partNumber=(\d+)", query)[1])  # type: ignore[index]
                if number == self.refuses_part:
                    return refuse(400, "InvalidRequest")
                self.parts[number] = body
                return answer(200, b"", self._etag_of(body, self.part_etag), *encrypted)
            case "POST":
                return self._complete(key)
            case "PUT":
                taken = key in self.objects and bool(received.header("if-none-match"))
                if taken and not self.ignores_conditions:
                    return refuse(412, "PreconditionFailed")
                self.objects[key] = body
                line = self._etag_of(body, self.part_etag)
                self.tags[key] = line
                return answer(200, b"", line, *encrypted)
            case "HEAD" if self.tells_nothing:
                return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
            case "HEAD" if key in self.objects:
                size = len(self.objects[key])
                return (
                    f"HTTP/1.1 200 OK\r\n{self.tags[key]}\r\nContent-Length: {size}\r\n"
                    "Last-Modified: Sun, 29 Nov 2026 08:00:00 GMT\r\n\r\n"
                ).encode()
            case "HEAD":
                return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return refuse(501, "NotImplemented")

    def _list_parts(self) -> bytes:
        if self.refuses_parts is not None:
            return refuse(*self.refuses_parts)
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{len(body)}</Size>"
            f"<LastModified>2026-11-29T08:00:00.000Z</LastModified>"
            f"<ETag>&quot;{hashlib.md5(body).hexdigest()}&quot;</ETag></Part>"
            for number, body in sorted(self.parts.items())
        )
        truncated = "<IsTruncated>false</IsTruncated>"
        return answer(200, f"<ListPartsResult>{truncated}{listed}</ListPartsResult>".encode())

    def _list_uploads(self) -> str:
        upload = (
            f"<Upload><Key>k</Key><UploadId>{self.lies_there}</UploadId><Initiator><ID>x</ID>"
            "<DisplayName>x</DisplayName></Initiator><StorageClass>STANDARD</StorageClass>"
            "<Initiated>2026-11-29T08:00:00.000Z</Initiated></Upload>"
            if self.lies_there
            else ""
        )
        return (
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"
            f"{upload}</ListMultipartUploadsResult>"
        )

    def _complete(self, key: str) -> bytes:
        parts = [part for _, part in sorted(self.parts.items())]
        whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
        etag = self.etag or f"{whole}-{len(parts)}"
        self.objects[key], self.tags[key] = b"".join(parts), f'ETag: "{etag}"'
        if self.tells_nothing:
            etag = ""
        return answer(200, f"<R><ETag>&quot;{etag}&quot;</ETag></R>".encode())

    def _etag_of(self, body: bytes, told: str | None) -> str:
        return f'ETag: "{told or hashlib.md5(body).hexdigest()}"'
