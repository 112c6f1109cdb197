"""Why S3 refuses one object where it gives others: what nobody's credentials are to blame for.

A refused HEAD has no body and says 400 or 403 only. A GET of one byte is refused in words.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

OWN_KEY: Final = (
    "it is encrypted with its uploader's own key (SSE-C), without which S3 gives nothing of it"
)

KMS: Final = "its encryption key can't be used"


class ClosedError(Exception):
    """S3 refuses one object, whoever asks for it as we do.

    `is_lasting` says that no permission and no time will change that.
    """

    def __init__(self, bucket: str, key: str, reason: str) -> None:
        super().__init__(f"S3 refuses {key!r} in {bucket}: {reason}")
        self.bucket = bucket
        self.is_lasting = reason == OWN_KEY


def reason_of_one(code: str, message: str) -> str | None:
    """Return why an answer refuses one object, None where the refusal may be about all of them.

    Amazon S3 API reference, "Error responses": SSE-C, KMS, Object Lock and MFA Delete have no codes
    of their own but for keys of KMS that can't be used.
    """
    said = message.casefold()
    if code == "InvalidRequest" and "server side encryption" in said:
        return OWN_KEY
    if code.startswith("KMS") or "kms:" in said:
        return f"{KMS}: {message or code}"
    if "object lock" in said or "legal hold" in said or "worm protected" in said:
        return f"Object Lock or a legal hold protects it: {message}"
    if "mfa" in said.replace("multi-factor authentication", "mfa"):
        return f"its bucket wants MFA for every delete of a version (MFA Delete): {message}"
    return None


def reason_of_error(error: BaseException) -> str | None:
    """Return why a failed call of boto3 refuses one object, None as `reason_of_one`."""
    response = getattr(error, "response", None)
    said = response.get("Error", {}) if isinstance(response, dict) else {}
    return reason_of_one(str(said.get("Code", "")), str(said.get("Message", "")))


def ask_why(s3: S3Client, where: dict[str, Any]) -> Exception | None:
    """Return the refusal, in words, of what a HEAD was refused; None if it is refused no more."""
    try:
        with closing(s3.get_object(**where, Range="bytes=0-0")["Body"]):
            return None
    except Exception as error:
        if not hasattr(error, "response"):
            raise
        return error
