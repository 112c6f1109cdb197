"""AWS, with its errors in our words: only this room imports boto3 and botocore.

What AWS refuses is explained here, for every room that calls it.

clients    one session and its clients, each set up as the commands need it
codes      what an error code means, for every room and every service
s3_access  keys and address for requests to S3 that are signed by hand
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, Protocol

import botocore.exceptions
from botocore.exceptions import ClientError

from twobuckets.aws.codes import HOPELESS, Meaning, meaning_of
from twobuckets.errors import (
    CredentialsError,
    DeniedError,
    NotFoundError,
    TwoBucketsError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ClientError",
    "Meaning",
    "RefusedAnswer",
    "action_of",
    "attempt",
    "error_code",
    "explain",
    "explain_refusal",
    "is_broken_read",
    "is_hopeless",
    "meaning",
    "meaning_of",
    "named_action",
]

# Operations whose IAM action has another name (Service Authorization Reference, Amazon S3).
_ACTIONS: Final = {
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "CopyObject": "s3:PutObject and s3:GetObject on the source",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject and s3:GetObject on the source",
    "CreateMultipartUpload": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "PutBucketNotificationConfiguration": "s3:PutBucketNotification",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketCors": "s3:GetBucketCORS",
    "PutBucketCors": "s3:PutBucketCORS",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "Invoke": "lambda:InvokeFunction",
}
_OF_S3 = re.compile("Bucket|Object|Part|Upload")
_NAMED_ACTION = re.compile(r"perform:? ([a-z0-9-]+:[A-Za-z*]+)")
_OPERATION_CALL = re.compile(
    r"An error occurred \([^)]*\) when calling the \w+ operation(?: \([^)]*\))?: "
)


def error_code(error: BaseException) -> str:
    """Return AWS's error code of a botocore ClientError, or an empty string for any other error."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def meaning(error: BaseException) -> Meaning:
    """Return what AWS's error code means; OTHER for what is no answer of AWS."""
    return meaning_of(error_code(error), str(error))


def is_hopeless(error: ClientError) -> bool:
    """Tell whether no other request of this run would get an answer either."""
    return meaning(error) in HOPELESS


def is_broken_read(error: BaseException) -> bool:
    """Tell whether a connection broke while a body was read, so that the rest can be asked for."""
    return isinstance(
        error,
        botocore.exceptions.IncompleteReadError
        | botocore.exceptions.ReadTimeoutError
        | botocore.exceptions.ResponseStreamingError,
    )


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Raise botocore's errors from the body as ours: "Could not {what}: reason"."""
    try:
        yield
    except (botocore.exceptions.BotoCoreError, ClientError) as error:
        raise explain(error, what) from error


def explain(error: Exception, what: str) -> TwoBucketsError:
    """Return a botocore error in words: what was attempted, why it failed, what to do next."""
    failed = f"Could not {what}: "
    match error:
        case ClientError():
            return _explain_answer(error, failed)
        case botocore.exceptions.NoCredentialsError():
            return CredentialsError(
                failed + "no AWS credentials were found",
                hint="Sign in (aws sso login), set AWS_PROFILE or --profile, or try it without an "
                "account: --stack local.",
            )
        case botocore.exceptions.NoRegionError():
            return UsageError(
                failed + "no AWS region is set",
                hint="Give --region, set AWS_REGION, or write region in twobuckets.toml; or try it "
                "without an account: --stack local.",
            )
        case botocore.exceptions.ProfileNotFound():
            return UsageError(
                f"{failed}{error}",
                hint="`aws configure list-profiles` shows the profiles there are.",
            )
        case (
            botocore.exceptions.PartialCredentialsError()
            | botocore.exceptions.CredentialRetrievalError()
            | botocore.exceptions.TokenRetrievalError()
            | botocore.exceptions.SSOError()
            | botocore.exceptions.UnauthorizedSSOTokenError()
        ):
            return CredentialsError(
                f"{failed}{error}", hint="Sign in again, for example: aws sso login"
            )
        case botocore.exceptions.HTTPClientError() | botocore.exceptions.ConnectionError():
            return UnreachableError(f"{failed}{error}")
        case botocore.exceptions.ParamValidationError():
            return UsageError(f"{failed}{error}")
        case _:
            return TwoBucketsError(f"{failed}{error}")


class RefusedAnswer(Protocol):
    """An answer of S3 to a request that was signed by hand."""

    @property
    def status(self) -> int:
        """HTTP's status."""

    @property
    def code(self) -> str:
        """S3's error code, "" if it gave none."""

    @property
    def message(self) -> str:
        """S3's words for it, "" if it gave none."""


def explain_refusal(answer: RefusedAnswer, operation: str, what: str) -> TwoBucketsError:
    """Return in words, as `explain` does, why S3 refused a request that was signed by hand.

    `operation` is AWS's name for it, such as `ListObjectsV2`.
    """
    code = answer.code or str(answer.status)
    message = answer.message or f"status {answer.status}"
    return explain(ClientError({"Error": {"Code": code, "Message": message}}, operation), what)


def _explain_answer(error: ClientError, failed: str) -> TwoBucketsError:
    code = error_code(error)
    reason = _OPERATION_CALL.sub("", str(error)).strip() or code
    match meaning(error):
        case Meaning.WRONG_CLOCK:
            return TwoBucketsError(
                f"{failed}this machine's clock is too far off: {reason}",
                hint="Set the clock, then run the command again.",
            )
        case Meaning.EXPIRED:
            return CredentialsError(
                f"{failed}the AWS credentials have expired",
                hint="Sign in again (for example: aws sso login), then run the command again.",
            )
        case Meaning.NOT_ACCEPTED:
            return CredentialsError(
                f"{failed}AWS does not accept these credentials ({code}): {reason}",
                hint="Check which identity is in use: aws sts get-caller-identity",
            )
        case Meaning.DENIED:
            return DeniedError(
                f"{failed}access denied: {reason}",
                hint=f"The identity in use needs {action_of(error)}; a bucket, key or organisation "
                "policy can deny it as well.",
            )
    described = reason if code in reason or not code else f"{reason} ({code})"
    if meaning(error) is Meaning.MISSING:
        return NotFoundError(failed + described)
    return TwoBucketsError(failed + described)


def action_of(error: ClientError) -> str:
    """Return the IAM action that the failed operation needs, such as `s3:GetObject`.

    The operation alone, such as `FilterLogEvents`, where neither AWS nor this module names it.
    """
    named = named_action(str(error))
    if named is not None:
        return named
    operation = str(error.operation_name)
    # S3 does not name the action, and most of its actions are called as their operation.
    default = f"s3:{operation}" if _OF_S3.search(operation) else operation
    return _ACTIONS.get(operation, default)


def named_action(text: str) -> str | None:
    """Return the IAM action that AWS's words say is not allowed, None when they name none."""
    named = _NAMED_ACTION.search(text)
    return named.group(1) if named else None
