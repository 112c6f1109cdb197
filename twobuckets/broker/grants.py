"""What a link allows, and how it is known: the page that minting a link and the broker share.

A link's token is 256 random bits in its URL's fragment. A private bucket keeps the grant under the
token's SHA-256, so whoever reads the bucket has no token, and who deletes the grant ends the link.
"""

import hashlib
import json
import re
import time
from typing import Any, NamedTuple

from twobuckets.broker.storage import Bucket

SHOWN_ID = 12
"""How much of a link's id is enough to tell it from others, in logs and lists."""
CACHE_SECONDS = 30
"""For how long a grant is believed, and so how long one that was revoked still works."""
_MOST_CACHED = 1000
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class Refused(Exception):
    """An answer that is no success: its status, a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Grant(NamedTuple):
    """What the holder of one link may do until `expires_at`, in seconds since the epoch.

    `prefix` begins every key, `max_bytes` is the largest file, `types` are extensions without dot
    (none means any), `max_files` how many files may be begun (None means any number).
    """

    prefix: str
    max_bytes: int
    expires_at: float
    title: str = ""
    types: tuple[str, ...] = ()
    max_files: int | None = None
    made_by: str = ""
    made_at: float = 0.0

    def dump(self) -> str:
        """Return the grant as its object's text."""
        return json.dumps(self._asdict())

    @classmethod
    def parse(cls, text: bytes | str) -> "Grant":
        """Return the grant that a text holds. Raises ValueError for another."""
        found: Any = json.loads(text)
        try:
            grant = cls(**{name: found[name] for name in cls._fields if name in found})
            return grant._replace(types=tuple(grant.types), expires_at=float(grant.expires_at))
        except (TypeError, AttributeError) as error:
            raise ValueError("not the grant of a link") from error


class Links(NamedTuple):
    """Where the links of one stack are kept."""

    bucket: Bucket
    stack: str

    @property
    def folder(self) -> str:
        """What the keys of all grants begin with."""
        return f"links/{self.stack}/"

    def key(self, link_id: str) -> str:
        """Return the key of a link's grant."""
        return f"{self.folder}{link_id}.json"

    def claims(self, link_id: str) -> str:
        """Return what the keys of a link's claims begin with, each of which is one file begun."""
        return f"claims/{self.stack}/{link_id}/"


def id_of(token: str) -> str:
    """Return the id of the link with this token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


_cache: dict[str, tuple[float, Grant | None]] = {}


def find(token: str, links: Links) -> tuple[str, Grant]:
    """Return the id and the grant of the link with a token. Raises Refused and UnavailableError."""
    if not _TOKEN.fullmatch(token):
        raise Refused(401, "no-link", "This page works with a complete upload link only.")
    link_id = id_of(token)
    known = _cache.get(link_id)
    # By the wall clock: Lambda freezes the function between requests, and the monotonic clock with
    # it, so that by that one a link would outlive its end by hours.
    now = time.time()
    if known is None or not now <= known[0] <= now + CACHE_SECONDS:
        text = links.bucket.get(links.key(link_id))
        try:
            grant = None if text is None else Grant.parse(text)
        except ValueError:
            grant = None
        if len(_cache) >= _MOST_CACHED:
            _cache.clear()
        known = _cache[link_id] = (now + CACHE_SECONDS, grant)
    grant = known[1]
    if grant is None:
        raise Refused(401, "no-link", "This upload link does not exist, or was withdrawn.")
    if now >= grant.expires_at:
        raise Refused(410, "link-expired", "This upload link has expired. Ask for a new one.")
    return link_id, grant
