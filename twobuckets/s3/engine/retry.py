"""Decides whether a request is sent again, and when."""

import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta

from twobuckets.aws.codes import LATER, Meaning, meaning_of
from twobuckets.s3.engine.flight import Try
from twobuckets.s3.engine.records import Response, Signer

_CONFLICT = "ConditionalRequestConflict"
# Answers that say "not now" rather than "no", whatever their code.
_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
# A body may be damaged on its way; one that is wrong in itself is refused again and again.
_DAMAGED_ATTEMPTS = 4
# S3 asks for a conditional upload in parts to be begun anew after a conflict (API reference,
# CompleteMultipartUpload, If-None-Match). Another try costs less, and nothing is lost by it.
_COMPLETE_ATTEMPTS = 3
# Where a name leads nowhere, or nobody listens, it seldom is another thing a little later.
_UNREACHABLE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is sent, and the bounds of the random pause in between (full jitter)."""

    attempts: int = 8
    first_pause: timedelta = timedelta(milliseconds=200)
    longest_pause: timedelta = timedelta(seconds=20)

    def pause(self, attempts: int, jitter: float) -> float:
        """Return the seconds to wait after that many attempts; `jitter` is between 0 and 1."""
        ceiling: float = self.first_pause.total_seconds() * 2.0 ** min(attempts - 1, 30)
        return jitter * min(ceiling, self.longest_pause.total_seconds())


def find_pause(
    trying: Try,
    outcome: Response | Exception,
    *,
    reused: bool,
    policy: RetryPolicy,
    signer: Signer,
    jitter: float,
) -> float | None:
    """Return the seconds until a request is sent again that failed or was refused; None if never.

    `reused` says whether it went over a connection that had carried others; `jitter` is between 0
    and 1. What the next attempt has to know is noted in `trying`.
    """
    if isinstance(outcome, Response):
        return _find_pause_of_refusal(trying, outcome, policy, signer, jitter)
    if not isinstance(outcome, OSError) or isinstance(outcome, ssl.CertificateError):
        # A changed file or a wrong certificate is the same the next time.
        return None
    if not trying.request.retries:
        return None
    if reused and trying.stale < 3:
        # The server may close a kept connection just as it is used again. Nothing tells this
        # from an answer that got lost, so it counts in what the caller hears.
        trying.attempts -= 1
        trying.stale += 1
        return 0.0
    most = policy.attempts
    if isinstance(outcome, ConnectionRefusedError | socket.gaierror):
        most = min(most, _UNREACHABLE_ATTEMPTS)
    return policy.pause(trying.attempts, jitter) if trying.attempts < most else None


def _find_pause_of_refusal(
    trying: Try, answer: Response, policy: RetryPolicy, signer: Signer, jitter: float
) -> float | None:
    if not trying.request.retries:
        return None
    means = meaning_of(answer.code)
    passing = (
        answer.status in _PASSING_STATUS
        or means in LATER
        or (
            means is Meaning.DAMAGED
            and trying.request.length > 0
            and trying.attempts < _DAMAGED_ATTEMPTS
        )
    )
    most = policy.attempts
    if answer.code == _CONFLICT and trying.request.method == "POST":
        most = min(most, _COMPLETE_ATTEMPTS)
    if passing and trying.attempts < most:
        return max(policy.pause(trying.attempts, jitter), _parse_retry_after(answer))
    if passing or trying.signed is None or trying.renewals >= 2:
        return None
    if signer.learn(trying.request, trying.signed, answer):
        trying.renewals += 1
        return 0.0
    return None


def asks_for_less(answer: Response) -> bool:
    """Say whether S3 refused a request because there were too many at once."""
    return answer.status in {429, 503} or meaning_of(answer.code) is Meaning.BUSY


def _parse_retry_after(answer: Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(60.0, float(text)) if text.isdigit() else 0.0
