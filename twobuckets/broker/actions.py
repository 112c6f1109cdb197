"""What a page may ask for under a grant, and the requests that are signed for it.

A stateless signer keeps its promises by what it binds: every part's exact length, which follows
from the size of the file alone, the size of the whole at completion, the checksums, and
`If-None-Match` on all that makes an object. Parts of two plans don't add up, and S3 says so.
"""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from twobuckets.broker.grants import Grant, Links, Refused
from twobuckets.broker.paths import clean_path
from twobuckets.broker.storage import Bucket

LEAST_PART_BYTES = 8 * 1024 * 1024
"""Small enough that an interruption costs little; smaller files go in one request."""
MOST_PART_BYTES = 5 * 1024**3
MOST_OBJECT_BYTES = 10_000 * MOST_PART_BYTES
"""S3's own limits (Amazon S3 user guide, "Amazon S3 multipart upload limits")."""
_PREFERRED_PARTS = 1_000
_MOST_KEY_BYTES = 1_024
_MOST_PATH_CHARACTERS = 4 * _MOST_KEY_BYTES
"""Composed, a path is shorter; to compose a long one takes the square of its length."""
_MOST_AT_ONCE = 100
_MOST_BEGUN_AT_ONCE = 6
"""How many files a page begins side by side, and so how far back a lost answer's claim is."""
_AFTERWARDS_SECONDS = 900
"""Who began in time may end: for so long after its link a signature is still good."""
_LEAST_SECONDS = 60
_ANY_TYPE = "application/octet-stream"
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_DELIVERY_LENGTH = 12

_DELIVERY = re.compile(rf"\d{{8}}T\d{{6}}Z-[a-z0-9]{{{_DELIVERY_LENGTH}}}", re.ASCII)
_CRC64NVME = re.compile(r"[A-Za-z0-9+/]{11}=")
_UPLOAD_ID = re.compile(r"[A-Za-z0-9._~+/=-]{1,1024}")
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]{1,80}/[\w!#$&^.+-]{1,80}", re.ASCII)

Body = Mapping[str, Any]
Request = dict[str, Any]


class Settings(NamedTuple):
    """What the stack tells the function in its environment."""

    staging: Bucket
    links: Links
    signature_seconds: int
    title: str
    sentence: str
    accent: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Settings":
        """Return the settings that an environment holds."""
        return cls(
            Bucket(environ["STAGING_BUCKET"]),
            Links(Bucket(environ["LINKS_BUCKET"]), environ["LINKS_STACK"]),
            int(environ["SIGNATURE_SECONDS"]),
            environ.get("PAGE_TITLE", ""),
            environ.get("PAGE_SENTENCE", ""),
            environ.get("PAGE_ACCENT", ""),
        )


def about(settings: Settings, _link_id: str, grant: Grant, _body: Body) -> dict[str, Any]:
    """Return the link's terms, how the page looks, and the name of a new delivery."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_DELIVERY_LENGTH))
    return {
        "title": grant.title or settings.title,
        "sentence": settings.sentence,
        "accent": settings.accent,
        "expires_at": grant.expires_at,
        "max_bytes": grant.max_bytes,
        "max_files": grant.max_files,
        "types": list(grant.types),
        "part_bytes": LEAST_PART_BYTES,
        "delivery": time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + letters,
        "now": time.time(),
    }


def start(settings: Settings, link_id: str, grant: Grant, body: Body) -> dict[str, Any]:
    """Sign the one request of a small file, or the creation of an upload in parts."""
    size = _size(grant, body)
    path = _require(body, "path", str)
    if len(path) > _MOST_PATH_CHARACTERS:
        raise _name_too_long()
    name = clean_path(path)
    if not name:
        raise Refused(422, "bad-name", "The file has no name.")
    if grant.types and name.rpartition(".")[2].lower() not in grant.types:
        raise Refused(422, "bad-type", f"This link takes {', '.join(grant.types)} files.")
    delivery = _require(body, "delivery", str)
    if not _DELIVERY.fullmatch(delivery):
        raise Refused(422, "bad-delivery", "That is not a delivery of this page.")
    key = f"{grant.prefix}{delivery}/{name}"
    if len(key.encode()) > _MOST_KEY_BYTES:
        raise _name_too_long()
    checksum = _checksum(body)
    claim = _claim(settings, link_id, grant, key, body)
    kind = body.get("type")
    if not isinstance(kind, str) or not _CONTENT_TYPE.fullmatch(kind):
        kind = _ANY_TYPE
    part_bytes = part_bytes_of(size)
    answer: dict[str, Any] = {"key": key, "part_bytes": part_bytes, "claim": claim}
    sign = _Signer(settings, grant, key)
    if size <= part_bytes:
        answer["put"] = sign(
            "PUT",
            headers={
                "content-type": kind,
                "content-length": str(size),
                "if-none-match": "*",
                **checksum,
            },
        )
    else:
        answer["create"] = sign(
            "POST",
            query={"uploads": ""},
            headers={
                "content-type": kind,
                "x-amz-checksum-algorithm": "CRC64NVME",
                "x-amz-checksum-type": "FULL_OBJECT",
            },
        )
    return answer


def parts(settings: Settings, _link_id: str, grant: Grant, body: Body) -> dict[str, Any]:
    """Sign up to a hundred parts, each of exactly the length that the plan gives it."""
    key, upload_id, size = _require_key(grant, body), _require_upload(body), _size(grant, body)
    part_bytes = part_bytes_of(size)
    count = max(1, -(-size // part_bytes))
    asked = _require(body, "parts", list)
    if len(asked) > _MOST_AT_ONCE:
        raise Refused(422, "too-many", f"At most {_MOST_AT_ONCE} parts at a time.")
    sign, signed = _Signer(settings, grant, key), {}
    for part in asked:
        if not isinstance(part, dict):
            raise _not_understood()
        number = _require(part, "number", int)
        if not 1 <= number <= count:
            raise Refused(422, "no-such-part", f"There is no part {number}.")
        length = min(part_bytes, size - (number - 1) * part_bytes)
        signed[str(number)] = sign(
            "PUT",
            query={"partNumber": str(number), "uploadId": upload_id},
            headers={"content-length": str(length), **_checksum(part)},
        )
    return {"parts": signed}


def finish(settings: Settings, _link_id: str, grant: Grant, body: Body) -> dict[str, Any]:
    """Sign what ends an upload: the list of its parts, its completion, its abort."""
    key, upload_id, size = _require_key(grant, body), _require_upload(body), _size(grant, body)
    after = body.get("after", 0)
    if type(after) is not int or not 0 <= after <= 10_000:
        raise _not_understood()
    sign, upload = _Signer(settings, grant, key), {"uploadId": upload_id}
    checksum = _checksum(body)
    if checksum:
        checksum["x-amz-checksum-type"] = "FULL_OBJECT"
    marker = {"part-number-marker": str(after)} if after else {}
    return {
        "list": sign("GET", query={**upload, "max-parts": "1000", **marker}),
        "abort": sign("DELETE", query=upload),
        "complete": sign(
            "POST",
            query=upload,
            headers={
                "content-type": "application/xml",
                "if-none-match": "*",
                "x-amz-mp-object-size": str(size),
                **checksum,
            },
        ),
    }


def state(settings: Settings, _link_id: str, grant: Grant, body: Body) -> dict[str, Any]:
    """Sign a listing of exactly one key: while it is listed, it waits for the processor."""
    key = _require_key(grant, body)
    query = {"list-type": "2", "encoding-type": "url", "prefix": key, "max-keys": "1"}
    return {"list": _Signer(settings, grant, "")("GET", query=query)}


def part_bytes_of(size: int) -> int:
    """Return the size of a file's parts: 8 MiB, doubled until there are at most 1,000 of them."""
    part_bytes = LEAST_PART_BYTES
    while -(-size // part_bytes) > _PREFERRED_PARTS and part_bytes < MOST_PART_BYTES:
        part_bytes = min(2 * part_bytes, MOST_PART_BYTES)
    return part_bytes


class _Signer:
    """Signs requests about one key for as long as the settings, and the link's end, allow."""

    def __init__(self, settings: Settings, grant: Grant, key: str) -> None:
        left = int(grant.expires_at - time.time()) + _AFTERWARDS_SECONDS
        self._seconds = max(_LEAST_SECONDS, min(settings.signature_seconds, left))
        self._bucket = settings.staging
        self._key = key

    def __call__(
        self,
        method: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        bound = dict(headers or {})
        url = self._bucket.presign(
            method,
            self._key,
            query=tuple((query or {}).items()),
            headers=tuple(bound.items()),
            seconds=self._seconds,
        )
        # The browser says the length itself, and lets no page do so.
        bound.pop("content-length", None)
        return {"method": method, "url": url, "headers": bound}


def _claim(settings: Settings, link_id: str, grant: Grant, key: str, body: Body) -> int | None:
    """Take one of the link's files for a key, and return its number; None without a limit.

    Claims are objects that are made once only, so however many brokers ask at a time, no more than
    `max_files` are made. They are taken without a gap, so the first free one is found by halving.
    """
    if grant.max_files is None:
        return None
    bucket, folder = settings.links.bucket, settings.links.claims(link_id)
    known = body.get("claim")
    # The same file once more: its signature ran out.
    if type(known) is int and bucket.get(f"{folder}{known}") == key.encode():
        return known
    low, high = 0, grant.max_files
    while low < high:
        middle = (low + high) // 2
        if bucket.get(f"{folder}{middle}") is None:
            high = middle
        else:
            low = middle + 1
    # The same file once more, by who does not know its claim: the answer was lost.
    for number in reversed(range(max(0, low - _MOST_BEGUN_AT_ONCE), low)):
        if bucket.get(f"{folder}{number}") == key.encode():
            return number
    for number in range(low, grant.max_files):
        if bucket.put_if_absent(f"{folder}{number}", key.encode()):
            return number
    raise Refused(
        403, "too-many-files", f"This link was good for {grant.max_files} files, and has had them."
    )


def _require(body: Body, name: str, kind: type) -> Any:
    value = body.get(name)
    if type(value) is not kind:
        raise _not_understood()
    return value


def _name_too_long() -> Refused:
    return Refused(422, "name-too-long", "The file's name, with its folders, is too long.")


def _not_understood() -> Refused:
    return Refused(400, "bad-request", "That request is not understood.")


def _size(grant: Grant, body: Body) -> int:
    size: int = _require(body, "size", int)
    if not 0 <= size <= min(grant.max_bytes, MOST_OBJECT_BYTES):
        raise Refused(
            413, "too-large", f"This link takes files of up to {grant.max_bytes:,} bytes."
        )
    return size


def _require_key(grant: Grant, body: Body) -> str:
    key: str = _require(body, "key", str)
    delivery, _, name = key.removeprefix(grant.prefix).partition("/")
    is_ours = (
        key.startswith(grant.prefix)
        and len(key.encode("utf-8", "replace")) <= _MOST_KEY_BYTES
        and _DELIVERY.fullmatch(delivery) is not None
        and name != ""
        and clean_path(name) == name
    )
    if not is_ours:
        raise Refused(403, "not-yours", "That key is not under this link.")
    return key


def _require_upload(body: Body) -> str:
    upload_id: str = _require(body, "upload_id", str)
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise Refused(422, "bad-upload", "That is not an upload of S3.")
    return upload_id


def _checksum(body: Body) -> dict[str, str]:
    value = body.get("crc64nvme")
    if value is None:
        return {}
    if not isinstance(value, str) or not _CRC64NVME.fullmatch(value):
        raise Refused(422, "bad-checksum", "That is not a CRC64NVME.")
    return {"x-amz-checksum-crc64nvme": value}
