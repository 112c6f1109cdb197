"""Keys and address for requests to S3 that are signed by hand, as botocore would find them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import botocore.exceptions

from twobuckets.aws import attempt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from botocore.credentials import Credentials


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where and how to reach S3 without boto3: for the hot loops that sign by hand.

    With `hashes_payload`, every body's SHA-256 is signed; with `checks_when_required`, no checksum
    is sent that an operation does not require (AWS SDKs reference guide, "Data integrity
    protections"). `is_aws` is whether it is AWS itself.
    """

    url: str
    region: str
    path_style: bool
    ca_bundle: str | None
    proxy: str | None = field(repr=False)
    hashes_payload: bool = False
    checks_when_required: bool = False
    is_aws: bool = True


class S3Keys(Protocol):
    """Credentials for requests that are signed by hand."""

    def current(self) -> tuple[str, str, str | None]:
        """Return access key, secret key and session token as they are now."""

    @property
    def expire_at(self) -> datetime | None:
        """When the keys stop working; None for keys that last, or whose end nobody told."""

    def renewed(self) -> tuple[str, str, str | None]:
        """Return the keys after fetching new ones, where the kind of credentials can."""


class SessionKeys:
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
class FixedKeys:
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
    is_given = url is not None
    if not is_given and not _PLAIN_REGION.fullmatch(region):
        return None
    if url is None:
        # botocore's own choice for the oldest region.
        host = "s3" if region == "us-east-1" else f"s3.{region}"
        url = f"https://{host}.amazonaws.com"
    address = S3Address(
        url.rstrip("/"),
        region,
        # botocore puts the bucket into the path of every endpoint that is given.
        path_style=is_given,
        ca_bundle=environ.get("AWS_CA_BUNDLE") or section.get("ca_bundle"),
        proxy=None,
        is_aws=is_aws_url(url),
    )
    return FixedKeys(access_key, secret_key, token), address


def is_aws_url(url: str) -> bool:
    """Tell whether a URL leads to AWS itself."""
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


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
        elif secrets:
            # Keys are taken whole from one file.
            secrets = {k: v for k, v in secrets.items() if k[4:] not in _KEY_NAMES}
        merged |= secrets or {}
    except botocore.exceptions.ConfigNotFound:
        pass
    except botocore.exceptions.BotoCoreError:
        return None
    return merged if found or name is None else None
