"""The errors a user can cause or meet, each with its exit status and a way on."""

from __future__ import annotations

from typing import ClassVar


class TwoBucketsError(Exception):
    """Something was attempted and failed, in words for the person who asked for it.

    `message` says what was attempted, on what, and why it failed; `hint` says what to do next.
    Text from AWS or from the user may stand in both as it is: whoever shows it makes it visible.
    """

    exit_code: ClassVar[int] = 1

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

    exit_code = 2


class NotFoundError(TwoBucketsError):
    """What the request names is not deployed or does not exist."""

    exit_code = 4


class AccessError(TwoBucketsError):
    """Credentials are missing, expired or lack a permission."""

    exit_code = 5
