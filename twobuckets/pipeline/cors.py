"""What a bucket's CORS rules let web pages send, and what of S3's answers they may read.

One list for all: the template's rule, what doctor asks of a bucket, and what its remedy writes.
Rules: S3 user guide, "Using cross-origin resource sharing".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twobuckets.pipeline.lifecycle import OUR_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE")
"""How a page sends what is signed for it: PUT and POST upload, GET lists the parts of an upload,
DELETE aborts it, HEAD is the SDKs' look at what is there."""
SIGNED_HEADERS: Final = (
    "content-type",
    "if-none-match",
    "x-amz-checksum-sha256",
    "x-amz-mp-object-size",
)
"""What `presign` binds into a signature; the browser itself sends the length and the host."""
RESPONSE_HEADERS: Final = (
    # A multipart upload is completed with the ETags of its parts.
    "ETag",
    "x-amz-version-id",
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha256",
    "x-amz-checksum-type",
    "x-amz-request-id",
    "x-amz-id-2",
)
MAX_AGE_SECONDS: Final = 3600
RULE_ID: Final = f"{OUR_RULES}uploads"


def rule_for(origins: Iterable[str], rule_id: str = RULE_ID) -> dict[str, Any]:
    """Return the rule that lets pages from these origins upload, as S3's API has it."""
    return {
        "ID": rule_id,
        "AllowedOrigins": list(origins),
        "AllowedMethods": list(METHODS),
        # SDKs send headers of their own, which change from release to release. None gives a page
        # a right that its signature has not.
        "AllowedHeaders": ["*"],
        "ExposeHeaders": list(RESPONSE_HEADERS),
        "MaxAgeSeconds": MAX_AGE_SECONDS,
    }


def missing_methods(rules: Iterable[Mapping[str, Any]], origin: str) -> list[str]:
    """Return which of METHODS no rule lets pages from an origin use with what is signed."""
    allowed = {
        method
        for rule in rules
        if _matches(rule.get("AllowedOrigins", []), origin) and _takes_signed(rule)
        for method in rule.get("AllowedMethods", [])
    }
    return [method for method in METHODS if method not in allowed]


def hides_etag(rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule lets pages upload and keeps them from reading the ETag."""
    exposed = (header.lower() for header in rule.get("ExposeHeaders", []))
    return "PUT" in rule.get("AllowedMethods", []) and "etag" not in exposed


def _takes_signed(rule: Mapping[str, Any]) -> bool:
    allowed = [header.lower() for header in rule.get("AllowedHeaders", [])]
    return all(_matches(allowed, header) for header in SIGNED_HEADERS)


def _matches(patterns: Iterable[str], text: str) -> bool:
    """Tell whether a text is one of these, each of which may have one `*`."""
    for pattern in patterns:
        before, star, after = pattern.partition("*")
        if pattern == text or (
            star
            and len(text) >= len(before) + len(after)
            and text.startswith(before)
            and text.endswith(after)
        ):
            return True
    return False
