"""Temporary credentials for one key: a role's rights, narrowed by a session policy."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.aws import attempt, error_code
from twobuckets.errors import AccessError, UsageError
from twobuckets.s3.keys import require_key
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

ACTIONS: Final = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
"""`s3:PutObject` alone creates, sends and completes an upload; the others abort and list parts
(Amazon S3 user guide, "Multipart upload API and permissions")."""

SHORTEST_LIFE: Final = timedelta(minutes=15)
LONGEST_LIFE: Final = timedelta(hours=12)
CHAINED_LIFE: Final = timedelta(hours=1)
"""STS API reference, AssumeRole, DurationSeconds: and what a role that assumes a role gets."""

_LONGEST_POLICY: Final = 2048
_LONGEST_SESSION_NAME: Final = 64
_ROLE_ARN: Final = re.compile(r"arn:([a-z][a-z0-9-]*):iam::([^:]*):role/[!-~]+")
_ACCOUNT: Final = re.compile(r"\d{12}")
_SESSION_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")


@dataclass(frozen=True, slots=True)
class ScopedCredentials:
    """Credentials that can upload one object, list its parts and abort, until `expires_at`.

    `endpoint_url` is None on AWS itself.
    """

    bucket: str
    key: str
    region: str
    endpoint_url: str | None
    role_arn: str
    session_name: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


def resource_of(bucket: str, key: str, *, partition: str = "aws") -> str:
    """Return the IAM resource that matches one object and no other.

    `*`, `?` and `$` of a key would be wildcards and the beginning of variables; `${*}`, `${?}` and
    `${$}` stand for the characters themselves (IAM user guide, "IAM policy elements: Variables and
    tags").
    """
    escaped = re.sub(r"[*?$]", lambda special: f"${{{special[0]}}}", key)
    return f"arn:{partition}:s3:::{bucket}/{escaped}"


def session_policy(bucket: str, key: str, *, partition: str = "aws") -> str:
    """Return the session policy for one object, as JSON.

    Raises UsageError when it is longer than the 2,048 characters of STS. Everything outside ASCII
    is escaped: STS takes characters up to U+00FF only (STS API reference, AssumeRole, Policy).
    """
    policy = json.dumps(
        {
            # Variables, and so the escapes, exist from this version on.
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ACTIONS,
                    "Resource": resource_of(bucket, key, partition=partition),
                }
            ],
        },
        separators=(",", ":"),
    )
    if len(policy) > _LONGEST_POLICY:
        raise _too_long(f"it has {len(policy):,} characters")
    return policy


def session_name_of(key: str) -> str:
    """Return a session name that shows the key in CloudTrail, as far as one can.

    A digest keeps names of different keys apart.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9_+=,.@-]+", "-", key)
    return f"twobuckets-{digest}-{readable}"[:_LONGEST_SESSION_NAME]


def require_role(role_arn: str, *, is_aws: bool) -> str:
    """Return the partition that resources have in policies of a role. Raises UsageError for none.

    Other makers of S3 write roles in their own ways: Ceph names a tenant or nothing in place of the
    account, MinIO itself in place of the partition. Their policies name resources as AWS does.
    """
    role = _ROLE_ARN.fullmatch(role_arn)
    is_role = role is not None and (
        not is_aws or (role[1].startswith("aws") and _ACCOUNT.fullmatch(role[2]) is not None)
    )
    if role is None or not is_role:
        raise UsageError(
            f"Could not assume the role {role_arn!r}: that is not the ARN of a role",
            hint="Give it as arn:aws:iam::123456789012:role/NAME.",
        )
    return role[1] if role[1].startswith("aws") else "aws"


def request_credentials(
    sts: STSClient,
    *,
    role_arn: str,
    bucket: str,
    key: str,
    lives_for: timedelta,
    region: str,
    endpoint_url: str | None = None,
    session_name: str | None = None,
) -> ScopedCredentials:
    """Assume a role for one key and return the credentials.

    Raises UsageError for what STS would not take, and AccessError when the role may not be assumed
    or not for so long.
    """
    partition = require_role(role_arn, is_aws=endpoint_url is None)
    name = session_name if session_name is not None else session_name_of(require_key(key))
    if _SESSION_NAME.fullmatch(name) is None:
        raise UsageError(
            f"Could not use the session name {name!r}: STS takes 2 to 64 letters, digits and"
            " _+=,.@-"
        )
    policy = session_policy(bucket, require_key(key), partition=partition)
    _require_life(sts, lives_for)
    try:
        with attempt(f"assume the role {role_arn}"):
            answer = sts.assume_role(
                RoleArn=role_arn,
                RoleSessionName=name,
                Policy=policy,
                DurationSeconds=int(lives_for.total_seconds()),
            )["Credentials"]
    except Exception as error:
        if error_code(error.__cause__ or error) == "PackedPolicyTooLarge":
            raise _too_long("STS can't pack it") from error
        raise
    return ScopedCredentials(
        bucket=bucket,
        key=key,
        region=region,
        endpoint_url=endpoint_url,
        role_arn=role_arn,
        session_name=name,
        access_key_id=answer["AccessKeyId"],
        secret_access_key=answer["SecretAccessKey"],
        session_token=answer["SessionToken"],
        expires_at=answer["Expiration"],
    )


def _require_life(sts: STSClient, lives_for: timedelta) -> None:
    if not SHORTEST_LIFE <= lives_for <= LONGEST_LIFE:
        raise UsageError(
            f"Could not get credentials for {format_duration(lives_for)}: STS gives them for 15"
            " minutes to 12 hours",
            hint="Give --expires 1h, for example.",
        )
    if lives_for <= CHAINED_LIFE:
        return
    with attempt("find out whose credentials are in use"):
        caller = sts.get_caller_identity()["Arn"]
    if ":assumed-role/" in caller:
        raise AccessError(
            f"Could not get credentials for {format_duration(lives_for)}: {caller} is itself an"
            " assumed role, and what it assumes lives for one hour at most",
            hint="Give --expires 1h, or use the credentials of a user.",
        )


def _too_long(why: str) -> UsageError:
    return UsageError(
        f"Could not write a session policy for this key: {why}, and STS allows"
        f" {_LONGEST_POLICY:,} characters",
        hint="Choose a shorter key, or one with fewer characters outside ASCII; `twobuckets"
        " presign` has no such limit.",
    )
