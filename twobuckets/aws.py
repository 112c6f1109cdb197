"""Sessions, clients and AWS's errors in our words: the only importer of boto3."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import botocore.exceptions
from botocore.exceptions import ClientError

from twobuckets import __version__
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError, UsageError

# boto3 and botocore's session are imported where they are used: together they take 0.4 s, which is
# half of what it takes to upload 5,000 small files.
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import boto3
    from botocore.credentials import Credentials
    from botocore.session import Session
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

__all__ = [
    "Aws",
    "ClientError",
    "FixedIdentity",
    "action_of",
    "attempt",
    "error_code",
    "explain",
    "named_action",
]

EXPIRED_CODES: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
DENIED_CODES: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"}
)
BAD_KEY_CODES: Final = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "AuthFailure",
    }
)
MISSING_CODES: Final = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchUpload",
        "NoSuchVersion",
        "NotFound",
        "ResourceNotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
    }
)
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
_NAMED_ACTION = re.compile(r"perform:? ([a-z0-9-]+:[A-Za-z*]+)")
_OPERATION_CALL = re.compile(
    r"An error occurred \([^)]*\) when calling the \w+ operation(?: \([^)]*\))?: "
)


@dataclass(frozen=True, slots=True)
class FixedIdentity:
    """Credentials and an endpoint that nothing in the environment or AWS's files may change."""

    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where and how to reach S3 without boto3: for the hot loops that sign by hand."""

    url: str
    region: str
    path_style: bool | None
    ca_bundle: str | None
    proxy: str | None


class S3Keys(Protocol):
    """Credentials for requests that are signed by hand."""

    def current(self) -> tuple[str, str, str | None]:
        """Return access key, secret key and session token as they are now."""

    @property
    def expire_at(self) -> datetime | None:
        """When the keys stop working; None for keys that last, or whose end nobody told."""

    def renewed(self) -> tuple[str, str, str | None]:
        """Return the keys after fetching new ones, where the kind of credentials can."""


class _SessionKeys:
    """The session's credentials; botocore renews them."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def current(self) -> tuple[str, str, str | None]:
        frozen = self._credentials.get_frozen_credentials()
        return frozen.access_key or "", frozen.secret_key or "", frozen.token

    @property
    def expire_at(self) -> datetime | None:
        self.current()
        found: datetime | None = getattr(self._credentials, "_expiry_time", None)
        return found

    def renewed(self) -> tuple[str, str, str | None]:
        # S3 refused them although their time may not be up, as after a revoked session.
        refresh = getattr(self._credentials, "_protected_refresh", None)
        if refresh is not None:
            with attempt("renew the AWS credentials"):
                refresh(is_mandatory=False)
        return self.current()


@dataclass(frozen=True, slots=True)
class _FixedKeys:
    """Keys written down somewhere, which nobody renews."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def current(self) -> tuple[str, str, str | None]:
        return self.access_key, self.secret_key, self.token

    @property
    def expire_at(self) -> datetime | None:
        return None

    def renewed(self) -> tuple[str, str, str | None]:
        return self.current()


class Aws:
    """One session and its clients, each made on first use and shared by all threads.

    With `identity` the clients talk to that endpoint with those credentials alone: AWS variables,
    profiles and configuration files are not read. Without it, credentials are botocore's business.
    With `environ`, the process's environment, S3's hot loops do without a session where that comes
    to the same.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        identity: FixedIdentity | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = environ
        self._region = region
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._identity = identity
        self._lock = threading.RLock()

    @cached_property
    def session(self) -> boto3.Session:
        """The boto3 session. Raises UsageError when the profile does not exist."""
        import boto3

        if self._identity is not None:
            return boto3.Session(
                botocore_session=_isolated_session(),
                aws_access_key_id=self._identity.access_key_id,
                aws_secret_access_key=self._identity.secret_access_key,
                region_name=self._identity.region,
            )
        with attempt("open an AWS session"):
            return boto3.Session(profile_name=self._profile, region_name=self._region)

    @property
    def region(self) -> str:
        """The region in use. Raises UsageError when none is set anywhere."""
        region = self.session.region_name
        if region is None:
            raise explain(botocore.exceptions.NoRegionError(), "find the region") from None
        return region

    @property
    def custom_endpoint_url(self) -> str | None:
        """The endpoint that is not AWS's own, None on AWS."""
        return self._identity.endpoint_url if self._identity else self._endpoint_url

    def _client(self, service: str, **config: Any) -> Any:
        from botocore.config import Config

        settings = Config(
            # SigV4 always: SigV2 leaves length and conditions unsigned (see presigned requests).
            signature_version="s3v4" if service == "s3" else None,
            # The default of 60 s hides a dead endpoint from somebody who waits at a prompt.
            connect_timeout=10,
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=64,
            user_agent_extra=f"twobuckets/{__version__}",
            # An identity's endpoint is on this machine, where no proxy of the environment leads.
            proxies={} if self._identity else None,
            **config,
        )
        # boto3's sessions are not thread-safe while they make a client.
        with self._lock, attempt(f"reach {service}"):
            client = self.session.client(  # type: ignore[call-overload]
                service, endpoint_url=self.custom_endpoint_url, config=settings
            )
        # Whoever registers for a longer name is asked earlier, and botocore does so for this one.
        event = f"needs-retry.{client.meta.service_model.service_id.hyphenize()}"
        client.meta.events.register_first(event, _retry_refused_connection)
        return client

    @cached_property
    def _plain_access(self) -> tuple[S3Keys, S3Address] | None:
        identity = self._identity
        if identity is not None:
            keys = _FixedKeys(identity.access_key_id, identity.secret_access_key)
            url, region = identity.endpoint_url, identity.region
            return keys, S3Address(url, region, path_style=True, ca_bundle=None, proxy=None)
        if self._environ is None:
            return None
        return find_plain_access(
            self._environ,
            profile=self._profile,
            region=self._region,
            endpoint_url=self._endpoint_url,
        )

    def require_s3_keys(self) -> S3Keys:
        """Return the credentials for requests signed by hand. Raises AccessError without any."""
        if self._plain_access is not None:
            return self._plain_access[0]
        with attempt("sign a request to S3"):
            credentials = self.session.get_credentials()
            if credentials is None:
                raise botocore.exceptions.NoCredentialsError
        return _SessionKeys(credentials)

    @property
    def s3_address(self) -> S3Address:
        """Where and how requests signed by hand reach S3: exactly as the S3 client would."""
        if self._plain_access is not None:
            return self._plain_access[1]
        from botocore.utils import get_environ_proxies

        url = str(self.s3.meta.endpoint_url)
        bundle = self.session._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 has no door to it
        proxies = get_environ_proxies(url)
        return S3Address(
            url,
            self.region,
            path_style=True if self._endpoint_url else None,
            ca_bundle=bundle,
            proxy=proxies.get(url.partition(":")[0]),
        )

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3, requests signed with SigV4."""
        style = "path" if self._identity or self._endpoint_url else "auto"
        client: S3Client = self._client("s3", s3={"addressing_style": style})
        return client

    @cached_property
    def s3control(self) -> S3ControlClient:
        """Amazon S3 Control: Batch Operations."""
        client: S3ControlClient = self._client("s3control")
        return client

    @cached_property
    def functions(self) -> LambdaClient:
        """AWS Lambda."""
        client: LambdaClient = self._client("lambda")
        return client

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """Amazon CloudWatch Logs."""
        client: CloudWatchLogsClient = self._client("logs")
        client.meta.events.register("before-parse.cloudwatch-logs.FilterLogEvents", _read_log_page)
        return client

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """Amazon CloudWatch: the function's metrics."""
        client: CloudWatchClient = self._client("cloudwatch")
        return client

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """AWS CloudFormation."""
        client: CloudFormationClient = self._client("cloudformation")
        return client

    @cached_property
    def sts(self) -> STSClient:
        """AWS Security Token Service."""
        client: STSClient = self._client("sts")
        return client

    @cached_property
    def sqs(self) -> SQSClient:
        """Amazon SQS: the failure queue."""
        client: SQSClient = self._client("sqs")
        return client

    @cached_property
    def iam(self) -> IAMClient:
        """AWS IAM: reads and simulates the processor's role."""
        client: IAMClient = self._client("iam")
        return client


def _read_log_page(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Take a page of log events as its JSON says, which is what the service model says too.

    botocore copies each of up to 10,000 events value by value: four times the work of reading it.
    """
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        page = json.loads(response_dict["body"])
    except ValueError:
        return
    if isinstance(page, dict):
        customized_response_dict.update(page)
        response_dict["body"] = b"{}"


_REFUSED_PAUSE_SECONDS: Final = 0.25
_REFUSED_ATTEMPTS: Final = 3


def _retry_refused_connection(
    attempts: int, caught_exception: Exception | None, **_: Any
) -> float | None:
    """Return after how many seconds a refused connection is tried again; raise it at the last.

    A machine that answers that nobody listens there seldom has somebody listen a little later.
    botocore's own pauses are for servers that have too much to do, and take up to 15 s.
    """
    if not isinstance(caught_exception, botocore.exceptions.EndpointConnectionError):
        return None
    cause = getattr(caught_exception.__context__, "__cause__", None)
    if not isinstance(cause, ConnectionRefusedError):
        return None
    if attempts >= _REFUSED_ATTEMPTS:
        raise caught_exception
    return _REFUSED_PAUSE_SECONDS * attempts


def error_code(error: BaseException) -> str:
    """Return AWS's error code of a botocore ClientError, or an empty string for any other error."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


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
            return AccessError(
                failed + "no AWS credentials were found",
                hint="Sign in (aws sso login), set AWS_PROFILE or --profile, or try it without an "
                "account: --stack local.",
            )
        case botocore.exceptions.NoRegionError():
            return UsageError(
                failed + "no AWS region is set",
                hint="Give --region, set AWS_REGION, or write region in twobuckets.toml.",
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
            return AccessError(f"{failed}{error}", hint="Sign in again, for example: aws sso login")
        case botocore.exceptions.HTTPClientError() | botocore.exceptions.ConnectionError():
            return TwoBucketsError(
                f"{failed}{error}",
                hint="Check the network, --region and --endpoint-url, then run the command again.",
            )
        case botocore.exceptions.ParamValidationError():
            return UsageError(f"{failed}{error}")
        case _:
            return TwoBucketsError(f"{failed}{error}")


def explain_refusal(code: str, message: str, operation: str, what: str) -> TwoBucketsError:
    """Return in words, as `explain` does, why AWS refused a request that was signed by hand.

    `operation` is AWS's name for it, such as `ListObjectsV2`.
    """
    return explain(ClientError({"Error": {"Code": code, "Message": message}}, operation), what)


def _explain_answer(error: ClientError, failed: str) -> TwoBucketsError:
    code = error_code(error)
    reason = _OPERATION_CALL.sub("", str(error)).strip() or code
    if code in EXPIRED_CODES:
        return AccessError(
            f"{failed}the AWS credentials have expired",
            hint="Sign in again (for example: aws sso login), then run the command again.",
        )
    if code in BAD_KEY_CODES:
        return AccessError(
            f"{failed}AWS does not accept these credentials ({code}): {reason}",
            hint="Check which identity is in use: aws sts get-caller-identity",
        )
    if code in DENIED_CODES:
        return AccessError(
            f"{failed}access denied: {reason}",
            hint=f"The identity in use needs {action_of(error)}; a bucket, key or organisation "
            "policy can deny it as well.",
        )
    described = reason if code in reason or not code else f"{reason} ({code})"
    if code in MISSING_CODES:
        return NotFoundError(failed + described)
    return TwoBucketsError(failed + described)


def action_of(error: ClientError) -> str:
    """Return the IAM action that the failed operation needs, such as `s3:GetObject`."""
    named = named_action(str(error))
    if named is not None:
        return named
    operation = str(error.operation_name)
    # S3 alone does not name the action, and most of its actions are called as their operation.
    return _ACTIONS.get(operation, f"s3:{operation}")


def named_action(text: str) -> str | None:
    """Return the IAM action that AWS's words say is not allowed, None when they name none."""
    named = _NAMED_ACTION.search(text)
    return named.group(1) if named else None


def _isolated_session() -> Session:
    """Return a botocore session that reads no AWS variable, profile or file."""
    import botocore.session

    return botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
            "ca_bundle": (None, None, None, None),
            "ignore_configured_endpoint_urls": (None, None, True, None),
        }
    )


# What `find_plain_access` understands; anything else that is set is left to botocore.
_PLAIN_VARIABLES: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_DEFAULT_OUTPUT",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_EXECUTION_ENV",
        "AWS_MAX_ATTEMPTS",
        "AWS_PAGER",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_RETRY_MODE",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
)
_PLAIN_FIELDS: Final = frozenset(
    {
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "ca_bundle",
        "cli_pager",
        "endpoint_url",
        "output",
        "region",
    }
)
_PLAIN_REGION: Final = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-[0-9]")
_KEY_NAMES: Final = ("access_key_id", "secret_access_key", "session_token")


def find_plain_access(
    environ: Mapping[str, str],
    *,
    profile: str | None = None,
    region: str | None = None,
    endpoint_url: str | None = None,
) -> tuple[S3Keys, S3Address] | None:
    """Return the keys and address that botocore would find, where they are plainly written down.

    That is: keys in the environment or in the profile, nothing to assume, exchange or fetch, no
    proxy, and a region of the ordinary partition or an endpoint of one's own. Returns None for
    everything else, so that botocore decides (boto3 guide, "Credentials", "Configuration"). It
    takes 20 ms where a botocore session and an S3 client take 500.
    """
    if any(name.startswith("AWS_") and name not in _PLAIN_VARIABLES for name in environ):
        return None
    if any(name.lower().endswith("_proxy") or name == "BOTO_CONFIG" for name in environ):
        return None
    section = _read_profile(environ, profile or environ.get("AWS_PROFILE"))
    if section is None or not section.keys() <= _PLAIN_FIELDS:
        return None
    # A profile that is named outright goes before the environment's keys; AWS_PROFILE does not.
    written = {} if profile else {name: environ.get(f"AWS_{name.upper()}") for name in _KEY_NAMES}
    if not any(written.values()):
        written = {name: section.get(f"aws_{name}") for name in _KEY_NAMES}
    access_key, secret_key, token = (written[name] or None for name in _KEY_NAMES)
    region = region or environ.get("AWS_DEFAULT_REGION") or section.get("region")
    if access_key is None or secret_key is None or region is None:
        return None
    url = (
        endpoint_url
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or section.get("endpoint_url")
    )
    if url is None and not _PLAIN_REGION.fullmatch(region):
        return None
    if url is None:
        # botocore's own choice for the oldest region.
        host = "s3" if region == "us-east-1" else f"s3.{region}"
        url = f"https://{host}.amazonaws.com"
    address = S3Address(
        url.rstrip("/"),
        region,
        path_style=True if endpoint_url else None,
        ca_bundle=environ.get("AWS_CA_BUNDLE") or section.get("ca_bundle"),
        proxy=None,
    )
    return _FixedKeys(access_key, secret_key, token), address


def _read_profile(environ: Mapping[str, str], name: str | None) -> dict[str, str] | None:
    """Return a profile as both of AWS's files have it; None if botocore is to judge them."""
    from botocore.configloader import load_config, raw_config_parse

    merged: dict[str, str] = {}
    home = environ.get("HOME", "")
    found = False
    try:
        path = environ.get("AWS_CONFIG_FILE", f"{home}/.aws/config")
        profiles = load_config(path)["profiles"]
        found |= (name or "default") in profiles
        merged |= profiles.get(name or "default", {})
    except botocore.exceptions.ConfigNotFound:
        pass
    except botocore.exceptions.BotoCoreError:
        return None
    try:
        path = environ.get("AWS_SHARED_CREDENTIALS_FILE", f"{home}/.aws/credentials")
        secrets = raw_config_parse(path).get(name or "default")
        found |= secrets is not None
        if secrets and "aws_access_key_id" in secrets:
            merged = {k: v for k, v in merged.items() if k[4:] not in _KEY_NAMES}
        merged |= secrets or {}
    except botocore.exceptions.ConfigNotFound:
        pass
    except botocore.exceptions.BotoCoreError:
        return None
    return merged if found or name is None else None
