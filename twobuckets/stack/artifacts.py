"""The artifact bucket of an account and region: made when missing, filled by content hash."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import IO, TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.pipeline.lifecycle import OUR_RULES
from twobuckets.pipeline.policies import tls_only

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import LifecycleRuleTypeDef
    from mypy_boto3_sts import STSClient

    from twobuckets.stack.template import Location

# Every region but this one has to be named to CreateBucket (S3 API reference, CreateBucket).
_UNNAMED_REGION: Final = "us-east-1"
_OLD_VERSIONS_DAYS: Final = 90
_PAGES: Final = "pages/"
# A day longer than the longest signature in a page lives.
_PAGES_DAYS: Final = 8
_PAGES_RULE: Final[LifecycleRuleTypeDef] = {
    "ID": f"{OUR_RULES}pages",
    "Status": "Enabled",
    "Filter": {"Prefix": _PAGES},
    "Expiration": {"Days": _PAGES_DAYS},
}


def find_account(sts: STSClient) -> tuple[str, str]:
    """Return the account of the credentials in use and its partition, such as `aws`."""
    with attempt("find out which AWS account this is"):
        identity = sts.get_caller_identity()
    return identity["Account"], identity["Arn"].split(":")[1]


def artifact_bucket(place: Location) -> str:
    """Return the name of the bucket that holds the artifacts of every stack of a place."""
    return f"twobuckets-artifacts-{place.account}-{place.region}"


def artifact_key(sha256: str) -> str:
    """Return the key of an artifact: equal code has an equal key and is no change of the stack."""
    return f"{sha256}.zip"


def upload(s3: S3Client, place: Location, path: Path, sha256: str) -> bool:
    """Put an artifact under its hash, unless it is there; tell whether it had to be sent.

    Makes the bucket when it is missing: private, encrypted, versioned and, where the endpoint has
    TLS, TLS only. S3 itself checks the bytes against the hash. Raises AccessError when the bucket
    belongs to another account: whoever owns it could put their code into the function.
    """
    with path.open("rb") as body:
        return _put(s3, place, artifact_key(sha256), body, sha256, "application/zip")


def put_template(s3: S3Client, place: Location, text: str) -> str:
    """Put a template under its hash, unless it is there, and return the URL that it has for AWS.

    CloudFormation reads it with the caller's rights. Raises what `upload` raises.
    """
    body = text.encode()
    sha256 = hashlib.sha256(body).hexdigest()
    key = f"{sha256}.yaml"
    _put(s3, place, key, body, sha256, "application/yaml")
    return f"{s3.meta.endpoint_url}/{artifact_bucket(place)}/{key}"


def _put(
    s3: S3Client, place: Location, key: str, body: bytes | IO[bytes], sha256: str, content_type: str
) -> bool:
    """Put what has this hash, unless it is there; tell whether it had to be sent."""
    bucket = artifact_bucket(place)
    _require_bucket(s3, bucket, place)
    with attempt(f"put the artifact at s3://{bucket}/{key}"):
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
        if _is_there(s3, bucket, key, place, checksum):
            return False
        s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=body,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
            ExpectedBucketOwner=place.account,
        )
    return True


def put_page(s3: S3Client, place: Location, html: str) -> tuple[str, str]:
    """Put an upload page into the artifact bucket for a week, and return bucket and key.

    Nobody can read it without a signature. Raises what `upload` raises.
    """
    bucket = artifact_bucket(place)
    key = f"{_PAGES}{hashlib.sha256(html.encode()).hexdigest()}.html"
    _require_bucket(s3, bucket, place)
    with attempt(f"put the page at s3://{bucket}/{key}"):
        _require_rule_for_pages(s3, bucket, place)
        s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=html.encode(),
            ContentType="text/html; charset=utf-8",
            CacheControl="no-store",
            ExpectedBucketOwner=place.account,
        )
    return bucket, key


def _require_rule_for_pages(s3: S3Client, bucket: str, place: Location) -> None:
    """Have S3 expire pages, in buckets that were made before there were any as well."""
    owned: dict[str, Any] = {"Bucket": bucket, "ExpectedBucketOwner": place.account}
    try:
        rules = list(s3.get_bucket_lifecycle_configuration(**owned)["Rules"])
    except ClientError as error:
        if meaning(error) is not Meaning.NOT_CONFIGURED:
            raise
        rules = []
    if all(rule.get("ID") != _PAGES_RULE["ID"] for rule in rules):
        s3.put_bucket_lifecycle_configuration(
            **owned, LifecycleConfiguration={"Rules": [*rules, _PAGES_RULE]}
        )


def _is_there(s3: S3Client, bucket: str, key: str, place: Location, checksum: str) -> bool:
    """Tell whether the key holds these very bytes, by the checksum that S3 keeps of them."""
    try:
        head = s3.head_object(
            Bucket=bucket, Key=key, ExpectedBucketOwner=place.account, ChecksumMode="ENABLED"
        )
    except ClientError as error:
        # Without s3:ListBucket a missing key is a 403; sending it settles the matter.
        if meaning(error) in (Meaning.MISSING, Meaning.DENIED):
            return False
        raise
    return head.get("ChecksumSHA256") == checksum


def _require_bucket(s3: S3Client, bucket: str, place: Location) -> None:
    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=place.account)
    except ClientError as error:
        if meaning(error) is Meaning.MISSING:
            _make_bucket(s3, bucket, place)
            return
        if meaning(error) is Meaning.DENIED:
            raise AccessError(
                f"Could not use the artifact bucket {bucket}: access denied",
                hint=f"The identity in use needs s3:ListBucket on it, and account {place.account} "
                "has to own it: code from a bucket of somebody else is never deployed.",
            ) from None
        with attempt(f"look at the artifact bucket {bucket}"):
            raise


def _make_bucket(s3: S3Client, bucket: str, place: Location) -> None:
    """Create and protect the bucket; protecting again what is protected changes nothing."""
    where: dict[str, Any] = (
        {}
        if place.region == _UNNAMED_REGION
        else {"CreateBucketConfiguration": {"LocationConstraint": place.region}}
    )
    with attempt(f"create the artifact bucket {bucket}"):
        try:
            s3.create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerEnforced", **where)
        except ClientError as error:
            if error_code(error) == "BucketAlreadyExists":
                raise TwoBucketsError(
                    f"Could not create the artifact bucket {bucket}: another account owns a "
                    "bucket of that name",
                    hint="Deploy in another region, or with `twobuckets template` and tools of "
                    "your own.",
                ) from None
            # Two deployments at once: the other one made it.
            if error_code(error) != "BucketAlreadyOwnedByYou":
                raise
    owned: dict[str, Any] = {"Bucket": bucket, "ExpectedBucketOwner": place.account}
    with attempt(f"protect the artifact bucket {bucket}"):
        s3.put_public_access_block(
            **owned,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
        )
        s3.put_bucket_encryption(
            **owned,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        )
        s3.put_bucket_versioning(**owned, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_lifecycle_configuration(
            **owned,
            LifecycleConfiguration={
                "Rules": [
                    {
                        "ID": f"{OUR_RULES}old-versions",
                        "Status": "Enabled",
                        "Filter": {"Prefix": ""},
                        "NoncurrentVersionExpiration": {"NoncurrentDays": _OLD_VERSIONS_DAYS},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                    }
                ]
            },
        )
        if place.uses_tls:
            policy = tls_only(f"arn:{place.partition}:s3:::{bucket}")
            s3.put_bucket_policy(**owned, Policy=json.dumps(policy))
