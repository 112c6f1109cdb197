"""What an error code of AWS means: decided here, for every room and for every service.

Where an answer has no body, as that to a HEAD, its status in decimals stands for the code.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Meaning(enum.Enum):
    """What a refusal says about the request, and about all others."""

    EXPIRED = enum.auto()
    """The credentials were good and are no longer: sign in again."""
    NOT_ACCEPTED = enum.auto()
    """The credentials are unknown, revoked, or were not used as they are."""
    WRONG_CLOCK = enum.auto()
    """The signature's time is too far from AWS's."""
    DENIED = enum.auto()
    """The identity lacks a permission, or a policy denies it."""
    MISPLACED = enum.auto()
    """The account or the address is wrong, whatever is asked of it."""
    MISSING = enum.auto()
    """What is named does not exist."""
    NOT_CONFIGURED = enum.auto()
    """The bucket exists, and has no such configuration."""
    LOST_RACE = enum.auto()
    """A condition does not hold: somebody else was there first."""
    CONFLICT = enum.auto()
    """Another request for the same thing is under way: the outcome is open, so ask again."""
    BUSY = enum.auto()
    """There are too many requests: the same one later, and fewer of them."""
    PASSING = enum.auto()
    """The same request may well succeed a little later."""
    DAMAGED = enum.auto()
    """What arrived is not what its checksum says, on the way or from the start."""
    UNKNOWN_HERE = enum.auto()
    """The endpoint does not know what is asked of it."""
    OTHER = enum.auto()
    """Anything else; it says so in words."""


# Amazon S3 API reference, "Error responses", and the common errors of the other services' APIs.
_CODES: Final = {
    Meaning.EXPIRED: ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
    Meaning.NOT_ACCEPTED: (
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "401",
    ),
    Meaning.WRONG_CLOCK: ("RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"),
    Meaning.DENIED: (
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "UnauthorizedOperation",
        "403",
    ),
    Meaning.MISPLACED: (
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "NotSignedUp",
        "PermanentRedirect",
        "301",
    ),
    Meaning.MISSING: (
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchUpload",
        "NoSuchVersion",
        "NotFound",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
        "404",
    ),
    Meaning.NOT_CONFIGURED: (
        "NoSuchBucketPolicy",
        "NoSuchCORSConfiguration",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "NoSuchTagSet",
        "OwnershipControlsNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
    ),
    Meaning.LOST_RACE: ("PreconditionFailed", "412"),
    Meaning.CONFLICT: ("ConditionalRequestConflict", "OperationAborted", "409"),
    Meaning.BUSY: (
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "429",
        "503",
    ),
    Meaning.PASSING: (
        "IncompleteBody",
        "InternalError",
        "InternalFailure",
        "RequestTimeout",
        "500",
        "502",
        "504",
    ),
    Meaning.DAMAGED: (
        "BadDigest",
        "InvalidChunkSizeError",
        "MalformedTrailerError",
        "MalformedXML",
        "XAmzContentChecksumMismatch",
    ),
    Meaning.UNKNOWN_HERE: ("MethodNotAllowed", "NotImplemented", "405", "501"),
}
_MEANINGS: Final = {code: meaning for meaning, codes in _CODES.items() for code in codes}
# What the services with other codes say of a signature from a wrong clock.
_WRONG_CLOCK: Final = re.compile("Signature expired|Signature not yet current")

CREDENTIALS_OVER: Final = frozenset({Meaning.EXPIRED, Meaning.NOT_ACCEPTED})
"""These credentials get no answer from AWS any more, whatever is asked."""
HOPELESS: Final = CREDENTIALS_OVER | {Meaning.WRONG_CLOCK}
"""No other request of the same run would be answered either."""
LATER: Final = frozenset({Meaning.CONFLICT, Meaning.BUSY, Meaning.PASSING})
"""The same request is worth sending again."""


def meaning_of(code: str, message: str = "") -> Meaning:
    """Return what a code means; some services tell a wrong clock in their message only."""
    if message and _WRONG_CLOCK.search(message):
        return Meaning.WRONG_CLOCK
    return _MEANINGS.get(code, Meaning.OTHER)
