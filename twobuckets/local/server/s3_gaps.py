"""What S3 does and the emulator's S3 leaves out, added here.

A listing of versions encodes its keys when it is asked to, so that a key with control characters
can be listed at all. A copy honours `If-None-Match: *` on its destination. A wildcard of a policy
matches any character of a key, a line's end too.
"""

from __future__ import annotations

import functools
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement

if TYPE_CHECKING:
    from collections.abc import Mapping

# What `encoding-type=url` encodes (S3 API reference, ListObjectVersions).
_ENCODED = ("Delimiter", "Key", "KeyMarker", "NextKeyMarker", "Prefix")


def install() -> None:
    """Put them into the emulator."""
    from ministack.core import iam_evaluator
    from ministack.services import s3

    encodes: ContextVar[bool] = ContextVar("encodes", default=False)
    list_object_versions, xml_body = s3._list_object_versions, s3._xml_body
    copy_object, compile_wildcards = s3._copy_object, iam_evaluator._fnmatch_compile

    def list_encoded(bucket: str, query: Mapping[str, Any]) -> Any:
        token = encodes.set(s3._qp(query, "encoding-type", "") == "url")
        try:
            return list_object_versions(bucket, query)
        finally:
            encodes.reset(token)

    def encoded_body(root: Element) -> Any:
        if encodes.get():
            for element in root.iter():
                if element.tag in _ENCODED:
                    element.text = quote(element.text or "", safe="/")
            SubElement(root, "EncodingType").text = "url"
        return xml_body(root)

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

    @functools.lru_cache(maxsize=4096)
    def compile_for_any_character(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        compiled = compile_wildcards(pattern, ignore_case)
        return re.compile(compiled.pattern, compiled.flags | re.DOTALL)

    iam_evaluator._fnmatch_compile = compile_for_any_character
    s3._list_object_versions = list_encoded
    s3._xml_body = encoded_body
    s3._copy_object = copy_where_nothing_is
