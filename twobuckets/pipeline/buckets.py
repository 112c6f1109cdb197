"""What S3 says of a bucket's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import attempt
from twobuckets.errors import DeniedError, TwoBucketsError
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.pipeline.policies import statements_of
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mypy_boto3_s3 import S3Client

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups


LEAST_TRANSITION_SIZE: Final = "TransitionDefaultMinimumObjectSize"
"""Stands beside the lifecycle rules, and is S3's own value again when it is not written with them.

Source: S3 API reference, PutBucketLifecycleConfiguration.
"""

WITHOUT_VERSIONS: Final = {
    "staging": "a file that arrives again under its key replaces one that is not processed yet",
    "archive": "a file archived again under its key replaces the one before for good, and "
    "reprocessing has to keep a second copy",
}
"""What it means that the staging or the archive bucket keeps no versions."""

REQUESTER_PAYS: Final = (
    "the bucket is Requester Pays and another account's: S3 refuses whatever does not agree to "
    "pay, as nothing here does"
)


def payment_hint(bucket: str) -> str:
    """Return what to do about a bucket of somebody else's that is Requester Pays."""
    return (
        "Use credentials of the account that owns it, or let its owner run: aws s3api "
        f"put-bucket-request-payment --bucket {shell_word(bucket)} "
        "--request-payment-configuration Payer=BucketOwner"
    )


def refuses_until_paid(s3: S3Client, bucket: str) -> bool:
    """Tell whether S3 refuses a bucket for no other reason than that the requester does not pay.

    Such a refusal says nothing but "Access Denied", so the same is asked once more by somebody who
    pays for it, a hundredth of a cent at most (S3 user guide, "Using Requester Pays buckets"). The
    account that owns the bucket is never refused for it.
    """
    is_refused = _may_list(s3, bucket, pays=False) is False
    return is_refused and _may_list(s3, bucket, pays=True) is True


def _may_list(s3: S3Client, bucket: str, *, pays: bool) -> bool | None:
    """Tell whether a bucket may be listed, None where that stays open."""
    payer: Any = {"RequestPayer": "requester"} if pays else {}
    try:
        with attempt(f"list s3://{bucket}"):
            s3.list_objects_v2(Bucket=bucket, MaxKeys=1, **payer)
    except DeniedError:
        return False
    except TwoBucketsError:
        return None
    return True


class BucketFacts:
    """Buckets by their name. Raises CouldNotLook, and Gone for settings of a missing bucket."""

    def __init__(self, aws: Aws, lookups: Lookups) -> None:
        self._aws = aws
        self._lookups = lookups

    def exists(self, bucket: str) -> bool:
        """Tell whether there is such a bucket. Raises CouldNotLook."""
        found = self._read(
            bucket,
            f"bucket {bucket}",
            "s3:ListBucket",
            lambda: self._aws.s3.head_bucket(Bucket=bucket),
            absent=("404", "NoSuchBucket"),
        )
        return found is not None

    def refuses_until_paid(self, bucket: str) -> bool:
        """Tell whether S3 refuses a bucket because the requester has to pay for its requests."""
        return bool(
            self._lookups.read(
                f"who pays for requests to bucket {bucket}",
                "s3:ListBucket",
                lambda: refuses_until_paid(self._aws.s3, bucket),
            )
        )

    def versioning(self, bucket: str) -> str:
        """Return "Enabled", "Suspended" or, for a bucket that never had versions, ""."""
        answer = self._of_bucket(bucket, "versioning", "s3:GetBucketVersioning")
        return str(answer.get("Status", ""))

    def has_mfa_delete(self, bucket: str) -> bool:
        """Tell whether deleting a version of the bucket takes the root user's MFA device."""
        answer = self._of_bucket(bucket, "versioning", "s3:GetBucketVersioning")
        return answer.get("MFADelete") == "Enabled"

    def has_object_lock(self, bucket: str) -> bool:
        """Tell whether versions of the bucket can be locked against deletes."""
        name, permission = "object_lock_configuration", "s3:GetBucketObjectLockConfiguration"
        absent = "ObjectLockConfigurationNotFoundError"
        answer = self._of_bucket(bucket, name, permission, absent=absent, prefix="get_")
        lock = answer.get("ObjectLockConfiguration", {})
        return bool(lock.get("ObjectLockEnabled") == "Enabled")

    def encryption(self, bucket: str) -> Sequence[Mapping[str, Any]]:
        """Return the rules of the bucket's default encryption."""
        answer = self._of_bucket(
            bucket,
            "encryption",
            "s3:GetEncryptionConfiguration",
            absent="ServerSideEncryptionConfigurationNotFoundError",
        )
        return answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])  # type: ignore[no-any-return]

    def public_access_block(self, bucket: str) -> Mapping[str, bool]:
        """Return the four switches of the bucket's public access block; empty where it has none."""
        name, permission = "public_access_block", "s3:GetBucketPublicAccessBlock"
        absent = "NoSuchPublicAccessBlockConfiguration"
        answer = self._of_bucket(bucket, name, permission, absent=absent, prefix="get_")
        return answer.get("PublicAccessBlockConfiguration", {})  # type: ignore[no-any-return]

    def policy(self, bucket: str) -> list[Mapping[str, Any]]:
        """Return the statements of the bucket's policy."""
        answer = self._of_bucket(
            bucket, "policy", "s3:GetBucketPolicy", absent="NoSuchBucketPolicy"
        )
        return statements_of(answer.get("Policy"))

    def policy_is_public(self, bucket: str) -> bool | None:
        """Return S3's own judgement of the bucket's policy; None where it gives none."""
        name, permission = "policy_status", "s3:GetBucketPolicyStatus"
        answer = self._of_bucket(bucket, name, permission, absent="NoSuchBucketPolicy")
        return answer.get("PolicyStatus", {}).get("IsPublic")  # type: ignore[no-any-return]

    def grants(self, bucket: str) -> Sequence[Mapping[str, Any]]:
        """Return the grants of the bucket's access control list."""
        return self._of_bucket(bucket, "acl", "s3:GetBucketAcl").get("Grants", [])  # type: ignore[no-any-return]

    def lifecycle(self, bucket: str) -> list[dict[str, Any]]:
        """Return the bucket's lifecycle rules."""
        return self._lifecycle(bucket).get("Rules", [])  # type: ignore[no-any-return]

    def least_transition_size(self, bucket: str) -> str | None:
        """Return which least size of objects the bucket's lifecycle transitions go by."""
        return self._lifecycle(bucket).get(LEAST_TRANSITION_SIZE)

    def _lifecycle(self, bucket: str) -> dict[str, Any]:
        name, permission = "lifecycle_configuration", "s3:GetLifecycleConfiguration"
        return self._of_bucket(bucket, name, permission, absent="NoSuchLifecycleConfiguration")

    def cors(self, bucket: str) -> list[dict[str, Any]]:
        """Return the bucket's CORS rules."""
        answer = self._of_bucket(
            bucket, "cors", "s3:GetBucketCORS", absent="NoSuchCORSConfiguration"
        )
        return answer.get("CORSRules", [])  # type: ignore[no-any-return]

    def notification(self, bucket: str) -> dict[str, Any]:
        """Return the bucket's notification configuration."""
        name = "notification_configuration"
        answer = dict(self._of_bucket(bucket, name, "s3:GetBucketNotification"))
        answer.pop("ResponseMetadata", None)
        return answer

    def _of_bucket(
        self,
        bucket: str,
        name: str,
        permission: str,
        *,
        absent: str = "",
        prefix: str = "get_bucket_",
    ) -> dict[str, Any]:
        def call() -> Any:
            return getattr(self._aws.s3, prefix + name)(Bucket=bucket)

        what = f"the {name.replace('_', ' ')} of bucket {bucket}"
        return self._read(bucket, what, permission, call, (absent,) if absent else ()) or {}

    def _read(
        self,
        bucket: str,
        what: str,
        permission: str,
        call: Callable[[], Any],
        absent: Collection[str],
    ) -> Any:
        try:
            return self._lookups.read(what, permission, call, absent=absent)
        except CouldNotLook as stopped:
            if stopped.permission is None or not self.refuses_until_paid(bucket):
                raise
            raise CouldNotLook(stopped.what, REQUESTER_PAYS, None) from stopped
