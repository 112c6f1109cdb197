"""Which links there are, what each allows, and what came through it so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from twobuckets.aws import attempt
from twobuckets.broker.grants import SHOWN_ID, Grant
from twobuckets.s3.listing import iter_objects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from twobuckets.links.page import PageOfStack
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline


@dataclass(frozen=True, slots=True)
class ListedLink:
    """A link that was minted; nobody has its token any more, so there is no URL.

    `files` are the objects under its prefix in both buckets, which other ways than the link may
    have led there, and `claimed` the files begun of those that it limits.
    """

    type_name: ClassVar[str] = "listed-link"

    id: str
    prefix: str
    title: str
    expires_at: datetime
    is_expired: bool
    max_bytes: int
    max_files: int | None
    types: tuple[str, ...]
    claimed: int | None
    files: int
    made_by: str
    made_at: datetime


def iter_links(
    s3: S3Client, sender: Sender, page: PageOfStack, pipeline: Pipeline, *, now: datetime
) -> Iterator[ListedLink]:
    """Yield the links of a page, those that expire first at the top.

    A grant that can't be read opens nothing and is left out. Raises ListingError as well.
    """
    links, bucket = page.links, page.links.bucket.name
    grants: list[tuple[str, Grant]] = []
    for found in iter_objects(sender, bucket, prefix=links.folder):
        with attempt(f"read the link at s3://{bucket}/{found.key}"):
            content = s3.get_object(Bucket=bucket, Key=found.key)["Body"].read()
        link_id = found.key.removeprefix(links.folder).removesuffix(".json")
        with contextlib.suppress(ValueError):
            grants.append((link_id, Grant.parse(content)))
    for link_id, grant in sorted(grants, key=lambda item: item[1].expires_at):
        places = (pipeline.staging, pipeline.archive)
        files = sum(_count(sender, place, grant.prefix) for place in places)
        claimed = None
        if grant.max_files is not None:
            claimed = _count(sender, bucket, links.claims(link_id))
        yield ListedLink(
            link_id[:SHOWN_ID],
            grant.prefix,
            grant.title,
            datetime.fromtimestamp(grant.expires_at, UTC),
            grant.expires_at <= now.timestamp(),
            grant.max_bytes,
            grant.max_files,
            grant.types,
            claimed,
            files,
            grant.made_by,
            datetime.fromtimestamp(grant.made_at, UTC),
        )


def _count(sender: Sender, bucket: str, prefix: str) -> int:
    return sum(1 for _ in iter_objects(sender, bucket, prefix=prefix))
