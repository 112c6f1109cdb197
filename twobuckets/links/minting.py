"""Makes links, and ends them: a grant in a private bucket, under the hash of the link's token."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.aws import attempt
from twobuckets.broker.grants import SHOWN_ID, Grant, id_of
from twobuckets.broker.paths import clean_path
from twobuckets.errors import NotFoundError, UsageError
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client

    from twobuckets.links.page import PageOfStack

MOST_FILES: Final = 100_000
_LONGEST_PREFIX_BYTES: Final = 512
"""Half of what a key can have: the rest is the delivery's and the file's name."""
_TYPE: Final = re.compile(r"[a-z0-9]{1,16}")
_ID: Final = re.compile(r"[0-9a-f]{12,64}")
_LEAST_LIFE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class MintedLink:
    """A link that opens the upload page. Its `url` is a secret, and is told this once."""

    type_name: ClassVar[str] = "link"

    id: str
    url: str = field(repr=False)
    prefix: str
    max_bytes: int
    max_files: int | None
    types: tuple[str, ...]
    title: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RevokedLink:
    """A link that no longer opens anything, from `CACHE_SECONDS` after on."""

    id: str
    prefix: str


def mint(
    s3: S3Client,
    page: PageOfStack,
    *,
    prefix: str | None,
    expires_in: timedelta,
    longest: timedelta,
    max_bytes: int,
    max_files: int | None,
    types: Sequence[str],
    title: str,
    made_by: str,
    now: datetime,
) -> MintedLink:
    """Make a link and return it; without a prefix it gets one of its own.

    Raises UsageError for terms that no link can have.
    """
    token = secrets.token_urlsafe(32)
    link_id = id_of(token)
    prefix = f"links/{link_id[:SHOWN_ID]}/" if prefix is None else _require_prefix(prefix)
    if not _LEAST_LIFE <= expires_in <= longest:
        raise UsageError(
            f"Could not make a link for {format_duration(expires_in)}: it lives from"
            f" {format_duration(_LEAST_LIFE)} to {format_duration(longest)}",
            hint="Give another --expires, or set page.longest_link.",
        )
    if max_files is not None and not 1 <= max_files <= MOST_FILES:
        raise UsageError(f"A link is good for 1 to {MOST_FILES:,} files, not {max_files:,}")
    if max_bytes < 1:
        raise UsageError("A link for files of no size would take none", hint="Give --max-size.")
    grant = Grant(
        prefix,
        max_bytes,
        (now + expires_in).timestamp(),
        title,
        tuple(_require_type(kind) for kind in types),
        max_files,
        made_by,
        now.timestamp(),
    )
    bucket = page.links.bucket.name
    with attempt(f"keep the link in s3://{bucket}"):
        s3.put_object(
            Bucket=bucket,
            Key=page.links.key(link_id),
            Body=grant.dump().encode(),
            ContentType="application/json",
            IfNoneMatch="*",
        )
    return MintedLink(
        link_id[:SHOWN_ID],
        f"{page.url}#{token}",
        prefix,
        max_bytes,
        max_files,
        grant.types,
        title,
        now + expires_in,
    )


def revoke(s3: S3Client, page: PageOfStack, ids: Sequence[str]) -> list[RevokedLink]:
    """End links, named by the beginning of their ids, and return them.

    All are looked up before the first is ended. Raises NotFoundError for an id that is no link's,
    and UsageError for one that is several links'.
    """
    found = [_find(s3, page, beginning) for beginning in ids]
    ended = []
    for link_id, grant in found:
        with attempt(f"end the link {link_id[:SHOWN_ID]}"):
            # The bucket is versioned; what is under a delete marker no broker reads.
            s3.delete_object(Bucket=page.links.bucket.name, Key=page.links.key(link_id))
        ended.append(RevokedLink(link_id[:SHOWN_ID], grant.prefix))
    return ended


def _find(s3: S3Client, page: PageOfStack, beginning: str) -> tuple[str, Grant]:
    links, bucket = page.links, page.links.bucket.name
    if not _ID.fullmatch(beginning):
        raise UsageError(
            f"{beginning!r} is not the id of a link: it has {SHOWN_ID} digits and letters to f",
            hint="`twobuckets ls links` shows them.",
        )
    with attempt("look the link up"):
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{links.folder}{beginning}", MaxKeys=2)
        keys = [item["Key"] for item in listed.get("Contents", [])]
        if not keys:
            raise NotFoundError(
                f"There is no link {beginning}", hint="`twobuckets ls links` shows those there are."
            )
        if len(keys) > 1:
            raise UsageError(f"Several links begin with {beginning}", hint="Give more of the id.")
        content = s3.get_object(Bucket=bucket, Key=keys[0])["Body"].read()
    link_id = keys[0].removeprefix(links.folder).removesuffix(".json")
    try:
        return link_id, Grant.parse(content)
    except ValueError:
        # It opens nothing, and can be ended all the same.
        return link_id, Grant("", 0, 0)


def _require_prefix(prefix: str) -> str:
    """Return a prefix that ends in a slash and stays as it is under any client."""
    if not prefix.endswith("/") or clean_path(prefix) != prefix[:-1] or prefix == "/":
        raise UsageError(
            f"{prefix!r} can't be the prefix of a link: it is folders with a / after each, without"
            " . and .., blanks at their ends and unseen characters",
            hint="For example --prefix acme/2026/",
        )
    if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
        raise UsageError(f"The prefix of a link has at most {_LONGEST_PREFIX_BYTES} bytes")
    return prefix


def _require_type(kind: str) -> str:
    found = kind.strip().lower().removeprefix(".")
    if not _TYPE.fullmatch(found):
        raise UsageError(
            f"{kind!r} is not a type of files", hint="Give extensions: --types csv,pdf"
        )
    return found
