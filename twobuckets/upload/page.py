"""A page that uploads one file without a server: all that it asks of S3 is signed in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from twobuckets.aws import attempt
from twobuckets.errors import UsageError
from twobuckets.page import offer_page
from twobuckets.s3 import operations
from twobuckets.upload.parts import MOST_PARTS, plan_parts
from twobuckets.upload.presign import plan_exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from twobuckets.s3.engine import Request, SigV4Signer
    from twobuckets.upload.parts import PartPlan
    from twobuckets.upload.presign import Life, Terms

ORIGIN_OF_FILES: Final = "null"
"""What browsers send as the origin of a page that is a file (WHATWG HTML, "Origin")."""

_PARTS: Final = 1000
"""Enough for 5 TiB, in a page of 0.1 MB."""
_LISTED: Final = operations.PAGE_KEYS
_SIGNATURE: Final = "&X-Amz-Signature="


@dataclass(frozen=True, slots=True)
class UploadPage:
    """A page that uploads one file until `expires_at`; like its `url`, its `html` is a secret.

    `size_bytes` and `part_bytes` are None where the sender may choose them. `file` is where the
    page was written, `url` what opens it, and `html` the page itself where it went nowhere else.
    """

    bucket: str
    key: str
    upload_id: str
    parts: int
    size_bytes: int | None
    part_bytes: int | None
    expires_at: datetime
    file: str | None = None
    url: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)


def make_page(
    s3: S3Client,
    signer: SigV4Signer,
    bucket: str,
    terms: Terms,
    life: Life,
    *,
    parts: int | None = None,
    publish: Callable[[UploadPage], UploadPage],
) -> UploadPage:
    """Create a multipart upload, and return the page that sends it as `publish` leaves it.

    The page never overwrites what waits in staging. With a known size every part's length is bound,
    and the object's to completing; without a number of parts there are enough for any file up to
    5 TB. An upload whose page could not be made or published is aborted. Raises UsageError for
    terms that S3 can't hold in these parts.
    """
    if terms.sha256 is not None:
        raise UsageError(
            "Could not bind a SHA-256 to a page: S3 has it for each part only",
            hint="Leave out --sha256; the page compares the CRC64NVME of the whole.",
        )
    plan = None if terms.size_bytes is None else _plan(terms.size_bytes, parts)
    count = plan.count if plan is not None else _PARTS if parts is None else parts
    if not 1 <= count <= MOST_PARTS:
        raise UsageError(f"S3 allows from 1 to {MOST_PARTS:,} parts, not {count:,}")
    with attempt(f"create an upload of {terms.key}"):
        upload_id = s3.create_multipart_upload(
            Bucket=bucket,
            Key=terms.key,
            ContentType=terms.content_type,
            ChecksumAlgorithm="CRC64NVME",
            ChecksumType="FULL_OBJECT",
        )["UploadId"]
    try:
        return publish(_made(signer, bucket, terms, life, upload_id, count, plan))
    except BaseException:
        with attempt(f"abort the upload {upload_id} of {terms.key}"):
            s3.abort_multipart_upload(Bucket=bucket, Key=terms.key, UploadId=upload_id)
        raise


def _plan(size_bytes: int, parts: int | None) -> PartPlan:
    return plan_parts(size_bytes) if parts is None else plan_exactly(size_bytes, parts)


def _made(
    signer: SigV4Signer,
    bucket: str,
    terms: Terms,
    life: Life,
    upload_id: str,
    count: int,
    plan: PartPlan | None,
) -> UploadPage:
    def sign(request: Request) -> dict[str, object]:
        url = signer.presign(request, expires_in=life.expires_in)
        return {"method": request.method, "url": url, "headers": dict(request.headers)}

    def part_url(number: int) -> str:
        length = None if plan is None else str(plan.part(number).length)
        # The browser says the length itself, and lets no page do so.
        headers = () if length is None else (("content-length", length),)
        request = operations.upload_part(bucket, terms.key, upload_id, number, headers=headers)
        return signer.presign(request, expires_in=life.expires_in)

    first_url, _, signature = part_url(1).rpartition(_SIGNATURE)
    others = [part_url(number).rpartition(_SIGNATURE)[2] for number in range(2, count + 1)]
    size = () if plan is None else (("x-amz-mp-object-size", str(plan.size_bytes)),)
    completing = operations.complete_multipart_upload(
        bucket, terms.key, upload_id, if_absent=True, headers=size
    )
    offer = {
        "bucket": bucket,
        "key": terms.key,
        "upload_id": upload_id,
        "expires_at": life.expires_at.timestamp(),
        "size_bytes": terms.size_bytes,
        "part_bytes": None if plan is None else plan.part_bytes,
        # A key's own & is encoded, so the query's is found.
        "part_url": first_url.replace("&partNumber=1&", "&"),
        "part_signatures": [signature, *others],
        "lists": [
            sign(operations.list_parts(bucket, terms.key, upload_id, str(after) if after else ""))
            for after in range(0, count, _LISTED)
        ],
        "complete": sign(completing),
        "state": sign(operations.OBJECTS.page(bucket, prefix=terms.key, most=1)),
    }
    origin = "/".join(first_url.split("/", 3)[:3])
    return UploadPage(
        bucket,
        terms.key,
        upload_id,
        count,
        terms.size_bytes,
        None if plan is None else plan.part_bytes,
        life.expires_at,
        html=offer_page(offer, origin=origin),
    )
