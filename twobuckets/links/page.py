"""Where a stack's upload page is, where its links are kept, and the CORS rule that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twobuckets.broker.grants import Links
from twobuckets.broker.storage import Bucket
from twobuckets.errors import NotFoundError
from twobuckets.pipeline import cors
from twobuckets.pipeline.entries import CORS, Entry, Ids, change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class PageOfStack:
    """A stack's upload page: its address, and where its links are."""

    url: str
    links: Links


def require_page(stack: str, outputs: Mapping[str, str]) -> PageOfStack:
    """Return the page that a stack's outputs name. Raises NotFoundError when it has none."""
    url, bucket = outputs.get("PageUrl"), outputs.get("LinksBucket")
    if url is None or bucket is None:
        raise NotFoundError(
            f"The stack {stack} has no upload page",
            hint="Put `enabled = true` under [page] in twobuckets.toml, then `twobuckets deploy`.",
        )
    return PageOfStack(url, Links(Bucket(bucket), stack))


def admit_page(
    s3: S3Client,
    bucket: str,
    stack: str,
    origins: Sequence[str],
    *,
    sleep: Callable[[float], None],
) -> None:
    """Have a bucket's CORS rules admit the page of a stack from these origins, or from none.

    Rules of others, and the template's, stay. It is no part of the template, which can't know the
    page's address in a bucket that is made before the page, or that was there before the stack.
    """
    rule_id = Ids(stack).page
    ours = [cors.rule_for(origins, rule_id)] if origins else []

    def merged(present: list[Entry]) -> list[Entry]:
        # At the end, where CloudFormation's drift is this one rule that was added.
        return [*(entry for entry in present if CORS.id_of(entry) != rule_id), *ours]

    change(s3, bucket, CORS, merged, sleep=sleep)
