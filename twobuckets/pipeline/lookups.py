"""Look-ups of AWS: each made at most once, and what a refusal of one means for checks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import (
    ClientError,
    Meaning,
    attempt,
    error_code,
    explain,
    explain_refusal,
    is_hopeless,
    meaning,
)
from twobuckets.aws.codes import HOPELESS, meaning_of
from twobuckets.errors import AccessError, TwoBucketsError, UnreachableError, UsageError
from twobuckets.s3.engine import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twobuckets.s3.listing import ListingError

_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands in a record for what could not be read: why, and the IAM action that is denied.

    `action` is None where the reason is another one.
    """

    reason: str
    action: str | None


class CouldNotLook(Exception):
    """A fact could not be read.

    `permission` is the IAM action that is denied, None where the reason is another one.
    """

    def __init__(self, what: str, reason: str, permission: str | None) -> None:
        super().__init__(f"Could not read {what}: {reason}")
        self.what = what
        self.reason = reason
        self.permission = permission

    @property
    def explained(self) -> TwoBucketsError:
        """Return what to end with where nothing can be done without the fact."""
        if self.permission is None:
            return TwoBucketsError(str(self))
        return AccessError(str(self), hint=f"The identity in use needs {self.permission}.")

    @property
    def unread(self) -> Unread:
        """What stands in a record in the fact's place."""
        return Unread(self.reason, self.permission)


class Gone(CouldNotLook):
    """The very thing to look at does not exist, which is a finding of its own: of `found_by`."""

    def __init__(self, what: str, found_by: str, reason: str = "it does not exist") -> None:
        super().__init__(what, reason, None)
        self.found_by = found_by


class Lookups:
    """What was read so far, by what it is; from several threads, each thing once."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        # The first failure to reach a service, by its name in actions: more would take as long.
        self._unreachable: dict[str, CouldNotLook] = {}

    def read(
        self,
        what: str,
        permission: str,
        call: Callable[[], Any],
        *,
        absent: Collection[str] = (),
    ) -> Any:
        """Return what `call` returned the first time, None for an error code in `absent`.

        `what` names the thing in words, and is what it is remembered by. Raises CouldNotLook when
        AWS refuses or a service does not answer, and Gone when the bucket does not exist. Raises
        AccessError when no other look-up would get an answer either, and UnreachableError when S3
        does not answer.
        """
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            if what not in self._answers:
                self._answers[what] = self._look(what, permission, call, absent)
            answer = self._answers[what]
        if isinstance(answer, CouldNotLook):
            raise answer
        return answer

    def _look(
        self, what: str, permission: str, call: Callable[[], Any], absent: Collection[str]
    ) -> Any | CouldNotLook:
        service = permission.partition(":")[0]
        if (known := self._unreachable.get(service)) is not None:
            return CouldNotLook(what, known.reason, None)
        try:
            return _answer(what, permission, call, absent)
        except UnreachableError as error:
            if service == "s3":
                raise
            unreachable = CouldNotLook(what, _reason(error, what), None)
            self._unreachable[service] = unreachable
            return unreachable
        except (AccessError, UsageError):
            # No credentials, or no region: nothing else can be read either.
            raise
        except TwoBucketsError as error:
            if isinstance(error.__cause__, ClientError):
                # A wrong clock, which spoils every other request as well.
                raise
            return CouldNotLook(what, _reason(error, what), None)


def _answer(
    what: str, permission: str, call: Callable[[], Any], absent: Collection[str]
) -> Any | CouldNotLook:
    with attempt(f"read {what}"):
        try:
            return call()
        except ClientError as error:
            code = error_code(error)
            if code in absent:
                return None
            if is_hopeless(error):
                raise explain(error, f"read {what}") from error
            if code == "NoSuchBucket":
                return Gone(what, "bucket-missing", "the bucket does not exist")
            return could_not_look(what, error, permission)


def could_not_look(what: str, error: ClientError, permission: str) -> CouldNotLook:
    """Return what a failed read means for checks; only a denial is about the permission.

    An answer that names no code of AWS's is none of AWS's: a proxy's page, say, or another service.
    Of a HEAD the status is all there is.
    """
    code = error_code(error)
    if (not code or code.isdecimal()) and not str(error.operation_name).startswith("Head"):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", code)
        return CouldNotLook(what, _not_aws(status), None)
    if meaning(error) is Meaning.DENIED:
        return CouldNotLook(what, "access denied", permission)
    return CouldNotLook(what, _reason(explain(error, f"read {what}"), what), None)


def _not_aws(status: object) -> str:
    return f"what answered is not AWS (HTTP status {status}, and no error of AWS's)"


def _reason(error: TwoBucketsError, what: str) -> str:
    return error.message.removeprefix(f"Could not read {what}: ")


def listing_stopped(what: str, error: ListingError, permission: str) -> CouldNotLook:
    """Return what a listing that failed means for checks.

    Raises CredentialsError, or TwoBucketsError for a wrong clock, when no other look-up would get
    an answer either.
    """
    if isinstance(error.reason, Response) and meaning_of(error.reason.code) in HOPELESS:
        operation = permission.partition(":")[2]
        raise explain_refusal(error.reason, operation, f"read {what}") from error
    status = getattr(error.reason, "status", None)
    if status is not None and not getattr(error.reason, "code", ""):
        return CouldNotLook(what, _not_aws(status), None)
    if status == _FORBIDDEN:
        return CouldNotLook(what, "access denied", permission)
    return CouldNotLook(what, str(error), None)
