"""Deletes exactly one staged version that the archive holds, as the processor does it.

An older version under it must not come to light again as if it were new, and a newer one must not
be met. Which steps see to that is the processor's knowledge (`processor.archive`), proven there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.aws import attempt
from twobuckets.errors import TwoBucketsError
from twobuckets.processor.annotations import AnnotatedError
from twobuckets.processor.archive import ContendedError, delete_staged
from twobuckets.processor.contract import MISSING
from twobuckets.processor.copying import LONG_COPY_BYTES
from twobuckets.processor.events import Arrival
from twobuckets.processor.looking import NotHere, NotReadableYetError, find_place, find_staged
from twobuckets.processor.refusals import ClosedError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from twobuckets.pipeline.versions import Version


def delete_archived(s3: S3Client, staging: str, version: Version) -> str | None:
    """Delete one version from staging; return why it stays, None once it is gone.

    That the archive holds it is for whoever calls this to know. Raises AccessError or
    TwoBucketsError, with nothing deleted but perhaps a delete marker over an older version.
    """
    what = f"delete s3://{staging}/{version.key}"
    arrival = Arrival(staging, version.key, version.version_id, version.etag, version.size_bytes)
    with attempt(what):
        try:
            staged, _ = find_staged(s3, arrival)
            # How the copy was made is not known here.
            in_parts = staged.size_bytes >= LONG_COPY_BYTES
            place = find_place(s3, staged)
            return delete_staged(s3, staged, place, lists=True, in_parts=in_parts)
        except NotHere as gone:
            is_gone = gone.outcome == MISSING
            return None if is_gone else "another object is there now, so it stays"
        except ClosedError as closed:
            return str(closed)
        except (AnnotatedError, ContendedError, NotReadableYetError, PermissionError) as error:
            raise TwoBucketsError(f"Could not {what}: {error}") from error
