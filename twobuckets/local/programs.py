"""Runs other people's programs against the embedded AWS, and keeps them from the real one."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twobuckets.local.lifecycle import Server

# Where everything that is not for this machine goes; `ALL_PROXY` is curl's.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_LOOPBACK = "127.0.0.1,localhost,::1"
# Variables of other programs that name endpoints, remotes or keys of the user's.
_OTHERS = ("RCLONE_", "S3_ENDPOINT_URL")


@dataclass(frozen=True, slots=True)
class Call:
    """A program's arguments, its own name first, and its whole environment, which holds a key."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def call_of(
    server: Server, command: Sequence[str], environ: Mapping[str, str], *, closed_port: int
) -> Call:
    """Return how to run a command so that it reaches this server and no other AWS.

    `AWS_ENDPOINT_URL` leads most programs here. Of those that ignore it, the known ones get what
    they take instead: the AWS CLI before 2.13, s5cmd and rclone (its remote `:s3:`). For the rest,
    whatever leaves this machine has to pass a proxy at `closed_port`, where nobody listens.
    """
    kept = {name: value for name, value in environ.items() if not _is_replaced(name)}
    environment = {
        **kept,
        **_to_server(server),
        **_of_rclone(server),
        # s5cmd's.
        "S3_ENDPOINT_URL": server.endpoint_url,
        **_to_nowhere(closed_port),
    }
    name, *options = command
    if PurePath(name).name in ("aws", "aws.exe"):
        # Of two the CLI takes the last, so one that is given by hand counts.
        options = ["--endpoint-url", server.endpoint_url, *options]
    return Call((name, *options), environment)


def reserve_closed_port() -> int:
    """Return a port of the loopback that refuses connections for as long as this process lives.

    The program that this process becomes by `exec` is still the same process: it inherits the
    socket, which is bound and never listens, so nobody else can take the port.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    bound.set_inheritable(True)
    port: int = bound.getsockname()[1]
    bound.detach()
    return port


def _is_replaced(name: str) -> bool:
    if name == "AWS_PAGER":
        return False
    upper = name.upper()
    return name.startswith(("AWS_", *_OTHERS)) or upper in _PROXIES or upper == "NO_PROXY"


def _to_server(server: Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ENDPOINT_URL": server.endpoint_url,
        # No file of the user's may name another endpoint, and no machine's role another key.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _of_rclone(server: Server) -> dict[str, str]:
    return {
        "RCLONE_CONFIG": os.devnull,
        # For AWS it sends checksums in a way that its library allows over TLS only.
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_REGION": server.region,
        "RCLONE_S3_ENDPOINT": server.endpoint_url,
        "RCLONE_S3_FORCE_PATH_STYLE": "true",
    }


def _to_nowhere(closed_port: int) -> dict[str, str]:
    proxy = f"http://127.0.0.1:{closed_port}"
    proxies = {name: proxy for upper in _PROXIES for name in (upper, upper.lower())}
    return {
        **proxies,
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        # Without it, Node.js takes no notice of the others.
        "NODE_USE_ENV_PROXY": "1",
    }
