"""One session and its clients, each set up as the commands need it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import botocore.exceptions

from twobuckets import __version__
from twobuckets.aws import ClientError, attempt, explain, is_hopeless
from twobuckets.aws.s3_access import (
    FixedKeys,
    S3Address,
    SessionKeys,
    find_plain_access,
    is_aws_url,
)

# boto3 and botocore's session are imported where they are used: together they take 0.4 s, which is
# half of what it takes to upload 5,000 small files.
if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3
    from botocore.session import Session
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

    from twobuckets.aws.s3_access import S3Keys


@dataclass(frozen=True, slots=True)
class FixedIdentity:
    """Credentials and an endpoint that nothing in the environment or AWS's files may change."""

    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str


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

    @property
    def keeps_conditions(self) -> bool:
        """Whether S3 is known to keep to conditions on writes: AWS does, and the embedded AWS."""
        return self._identity is not None or self.s3_address.is_aws

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
        client.meta.events.register_first(event, _retry_failed_connection)
        return client

    @cached_property
    def _plain_access(self) -> tuple[S3Keys, S3Address] | None:
        identity = self._identity
        if identity is not None:
            keys = FixedKeys(identity.access_key_id, identity.secret_access_key)
            url, region = identity.endpoint_url, identity.region
            return keys, S3Address(
                url, region, path_style=True, ca_bundle=None, proxy=None, is_aws=False
            )
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
        return SessionKeys(credentials)

    @property
    def s3_address(self) -> S3Address:
        """Where and how requests signed by hand reach S3: exactly as the S3 client would."""
        if self._plain_access is not None:
            return self._plain_access[1]
        from botocore.utils import get_environ_proxies

        # botocore's own rules decide, with an invented bucket: regions, FIPS, dualstack, transfer
        # acceleration, partitions. Neither has a public door.
        signing: dict[str, Any] = {}
        with attempt("find S3's address"):
            address, _, _ = self.s3._resolve_endpoint_ruleset(  # type: ignore[attr-defined]  # noqa: SLF001
                self.s3.meta.service_model.operation_model("PutObject"), {"Bucket": _ANY}, signing
            )
        parts = urlsplit(address)
        host = parts.netloc.removeprefix(f"{_ANY}.")
        is_path_style = host == parts.netloc
        url = f"{parts.scheme}://{host}"
        bundle = self.session._session.get_config_variable("ca_bundle")  # noqa: SLF001
        config: Any = self.s3.meta.config
        proxy = get_environ_proxies(url).get(parts.scheme)
        return S3Address(
            url,
            signing.get("signing", {}).get("region", self.region),
            path_style=is_path_style,
            ca_bundle=bundle,
            # As curl and botocore take it: without a scheme it is HTTP.
            proxy=f"http://{proxy}" if proxy and "://" not in proxy else proxy,
            hashes_payload=bool((config.s3 or {}).get("payload_signing_enabled")),
            checks_when_required=config.request_checksum_calculation == "when_required",
            is_aws=is_aws_url(url),
        )

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3, requests signed with SigV4."""
        style = "path" if self._identity or self._endpoint_url else None
        if style is not None and self._identity is None:
            # What the profile says of S3 holds for endpoints of one's own as well.
            section = self.session._session.get_config_variable("s3") or {}  # noqa: SLF001
            style = section.get("addressing_style", style)
        client: S3Client = self._client("s3", s3={"addressing_style": style} if style else None)
        for operation in ("HeadBucket", "HeadObject"):
            client.meta.events.register(
                f"before-parameter-build.s3.{operation}", _note_bucket_of_head
            )
            client.meta.events.register(
                f"after-call.s3.{operation}", partial(_name_refusal, client)
            )
        return client

    @cached_property
    def s3control(self) -> S3ControlClient:
        """Amazon S3 Control: Batch Operations."""
        client: S3ControlClient = self._client("s3control")
        return client

    @cached_property
    def batch(self) -> Any:
        """AWS Batch."""
        return self._client("batch")

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
    def sns(self) -> SNSClient:
        """Amazon SNS: whom a topic tells of S3's events."""
        client: SNSClient = self._client("sns")
        return client

    @cached_property
    def events(self) -> EventBridgeClient:
        """Amazon EventBridge: the rules that bring S3's events."""
        client: EventBridgeClient = self._client("events")
        return client

    @cached_property
    def iam(self) -> IAMClient:
        """AWS IAM: reads and simulates the processor's role."""
        client: IAMClient = self._client("iam")
        return client


def list_profiles() -> list[str]:
    """Return the profiles of AWS's files."""
    import botocore.session

    profiles: list[str] = botocore.session.Session().available_profiles
    return profiles


def list_regions() -> list[str]:
    """Return the regions where S3 is, as far as botocore knows them."""
    import botocore.session

    regions: list[str] = botocore.session.Session().get_available_regions("s3")
    return regions


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


_HEAD_OF: Final = "twobuckets_head_of"


def _note_bucket_of_head(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
    context[_HEAD_OF] = params["Bucket"]


def _name_refusal(
    client: S3Client,
    http_response: Any,
    parsed: dict[str, Any],
    context: Mapping[str, Any],
    **_: Any,
) -> None:
    """Let a refused HEAD say so where it is the credentials that are refused.

    An answer to HEAD has no body: whether a key was revoked or lacks a permission is told by the
    same 403. The refusal of a list of the bucket says which.
    """
    if http_response.status_code not in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN):
        return
    try:
        client.list_objects_v2(Bucket=context[_HEAD_OF], MaxKeys=1)
    except ClientError as error:
        if is_hopeless(error):
            parsed["Error"] = error.response["Error"]
    except botocore.exceptions.BotoCoreError:
        pass


_ANY: Final = "any-bucket"
_FAILED_PAUSE_SECONDS: Final = 0.25
_FAILED_ATTEMPTS: Final = 3


def _retry_failed_connection(
    attempts: int, caught_exception: Exception | None, **_: Any
) -> float | None:
    """Return after how many seconds a failed connection is tried again; raise it at the last.

    Where a name leads nowhere, or nobody listens, it seldom is another thing a little later.
    botocore's own pauses are for servers that have too much to do, and take up to 15 s.
    """
    if not isinstance(
        caught_exception,
        botocore.exceptions.EndpointConnectionError | botocore.exceptions.ProxyConnectionError,
    ):
        return None
    if attempts >= _FAILED_ATTEMPTS:
        raise caught_exception
    return _FAILED_PAUSE_SECONDS * attempts
