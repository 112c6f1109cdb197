"""Whether a version has annotations, which S3 leaves behind when it copies in parts.

CopyObject takes annotations along, and above its 5 GB "annotations are not copied" (Amazon S3 API
reference, CopyObject, AnnotationDirective). They go for good with the version that they belong to
(DeleteObjectAnnotation).
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from twobuckets.processor.looking import Staged, code_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# More than the first entry of a list takes; a server that knows no annotations sends the object.
_LIST_BYTES = 64 * 1024
_asking = threading.local()


class AnnotatedError(Exception):
    """The staged version has annotations that no copy in parts takes along; it is kept."""


def require_no_annotations(s3: S3Client, staged: Staged) -> None:
    """Raise AnnotatedError if the version has annotations."""
    if has_annotations(s3, staged):
        raise AnnotatedError(
            "the file has annotations, which S3 does not copy in parts, and which would be deleted "
            "with it: it is kept in staging. Save its annotations, delete them from this version, "
            "and wake the processor with `twobuckets reprocess`"
        )


def has_annotations(s3: S3Client, staged: Staged) -> bool:
    """Whether the version has annotations. Raises what S3 raises where that may not be read."""
    where: dict[str, Any] = {"Bucket": staged.bucket, "Key": staged.key}
    if staged.version_id is not None:
        where["VersionId"] = staged.version_id
    # ListObjectAnnotations is GetObject with a query parameter more. The boto3 of Lambda's runtimes
    # may be older than that call, and the call reads an answer of any length into memory.
    s3.meta.events.register("before-call.s3.GetObject", _ask_for_annotations, unique_id=__name__)
    _asking.is_on = True
    try:
        with closing(s3.get_object(**where)["Body"]) as body:
            return b"<AnnotationName>" in body.read(_LIST_BYTES)
    except Exception as error:
        if code_of(error) in ("NotImplemented", "501"):
            return False
        raise
    finally:
        _asking.is_on = False


def _ask_for_annotations(params: dict[str, Any], **_: Any) -> None:
    if getattr(_asking, "is_on", False):
        params["url"] += ("&" if "?" in params["url"] else "?") + "annotation"
