"""The errors a user can cause or meet, each with its exit status and a way on."""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitStatus(enum.IntEnum):
    """How a run of the program ends, for scripts."""

    DONE = 0
    """Done, and nothing needs a person."""
    FAILED = 1
    """Failed, or a bug, whose traceback is shown then."""
    USAGE = 2
    """The request itself can't be meant as it stands."""
    ATTENTION = 3
    """Ran to the end, and something needs a person: findings, or items that failed."""
    NOT_FOUND = 4
    """What is named is not deployed, does not exist, or does not run."""
    ACCESS = 5
    """Credentials are missing, over, or lack a permission."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class TwoBucketsError(Exception):
    """Something was attempted and failed, in words for the person who asked for it.

    `message` says what was attempted, on what, and why it failed; `hint` says what to do next.
    Text from AWS or from the user may stand in both as it is: whoever shows it makes it visible.
    """

    exit_code: ClassVar[ExitStatus] = ExitStatus.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnreachableError(TwoBucketsError):
    """AWS, or what stands in for it, does not answer."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "Check the network, --region and --endpoint-url, then run the command again.",
    ) -> None:
        super().__init__(message, hint=hint)


class UsageError(TwoBucketsError):
    """The request itself can't be meant as it stands: a bad value, a bad file, a missing answer."""

    exit_code = ExitStatus.USAGE


class NotFoundError(TwoBucketsError):
    """What the request names is not deployed or does not exist."""

    exit_code = ExitStatus.NOT_FOUND


class AccessError(TwoBucketsError):
    """Credentials are missing, expired or lack a permission."""

    exit_code = ExitStatus.ACCESS


class CredentialsError(AccessError):
    """AWS does not take the credentials, or there are none: nothing else would be answered."""


class DeniedError(AccessError):
    """AWS knows who asks, and refuses this one thing."""
