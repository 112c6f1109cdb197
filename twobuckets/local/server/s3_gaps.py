"""What S3 does and the emulator's S3 and IAM leave out, one function a gap."""

from __future__ import annotations

import functools
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from twobuckets.s3.xmltext import FORBIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What `encoding-type=url` encodes (S3 API reference, ListObjectVersions).
_ENCODED = ("Delimiter", "Key", "KeyMarker", "NextKeyMarker", "Prefix")
_is_encoding: ContextVar[bool] = ContextVar("is_encoding", default=False)


def install() -> None:
    """Fill each of the gaps."""
    _encode_version_listings()
    _encode_upload_listings()
    _honour_if_none_match_on_copies()
    _match_line_ends_by_wildcards()
    _find_roles_by_their_path()
    _write_characters_that_xml_cannot_hold()


def _find_roles_by_their_path() -> None:
    """Gap: SimulatePrincipalPolicy takes a role's path for a part of its name, and finds no policy.

    An ARN has the path before the name (IAM user guide, "IAM identifiers").
    """
    from ministack.core import iam_evaluator

    gather = iam_evaluator._gather_role_policies

    def gather_of_name(role: str, account_id: str) -> Any:
        return gather(role.rpartition("/")[2], account_id)

    iam_evaluator._gather_role_policies = gather_of_name


def _encode_version_listings() -> None:
    """Gap: ListObjectVersions ignores `encoding-type=url`, so odd keys break the document."""
    from ministack.services import s3

    s3._list_object_versions = _encodes(s3._list_object_versions)


def _encode_upload_listings() -> None:
    """Gap: ListMultipartUploads ignores `encoding-type=url` in the same way."""
    from ministack.services import s3

    s3._list_multipart_uploads = _encodes(s3._list_multipart_uploads)


def _encodes(answer_listing: Callable[..., Any]) -> Callable[..., Any]:
    from ministack.services import s3

    def list_encoded(bucket: str, query: Mapping[str, Any]) -> Any:
        token = _is_encoding.set(s3._qp(query, "encoding-type", "") == "url")
        try:
            return answer_listing(bucket, query)
        finally:
            _is_encoding.reset(token)

    return list_encoded


def _write_characters_that_xml_cannot_hold() -> None:
    """Gap: such characters go out raw; AWS writes them as references, and encodes where asked to.

    Most XML parsers refuse either, boto3's among them, which takes the answer for a nameless 500.
    """
    from ministack.services import s3

    def write(root: Element) -> bytes:
        if _is_encoding.get():
            for element in root.iter():
                if element.tag in _ENCODED:
                    element.text = quote(element.text or "", safe="/")
            SubElement(root, "EncodingType").text = "url"
        text = tostring(root, encoding="unicode")
        referred = FORBIDDEN.sub(lambda found: f"&#x{ord(found[0]):x};", text)
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + referred.encode("utf-8")

    s3._xml_body = write


def _honour_if_none_match_on_copies() -> None:
    """Gap: CopyObject ignores `If-None-Match: *`, the condition on its destination."""
    from ministack.services import s3

    copy_object = s3._copy_object

    def copy_where_nothing_is(bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        present = s3._ensure_bucket(bucket)
        if (
            (headers.get("if-none-match") or "").strip() == "*"
            and present is not None
            and key in present["objects"]
        ):
            return s3._error(
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
                412,
                f"/{bucket}/{key}",
            )
        return copy_object(bucket, key, headers)

    s3._copy_object = copy_where_nothing_is


def _match_line_ends_by_wildcards() -> None:
    """Gap: a policy's `*` and `?` match any character of a key but the end of a line."""
    from ministack.core import iam_evaluator

    compile_wildcards = iam_evaluator._fnmatch_compile

    @functools.lru_cache(maxsize=4096)
    def compile_for_any_character(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        compiled = compile_wildcards(pattern, ignore_case)
        return re.compile(compiled.pattern, compiled.flags | re.DOTALL)

    iam_evaluator._fnmatch_compile = compile_for_any_character
