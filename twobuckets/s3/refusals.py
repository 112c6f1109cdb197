"""Why S3 did not do what was asked of it, in words."""

from twobuckets import aws
from twobuckets.aws.codes import CREDENTIALS_OVER, meaning_of
from twobuckets.errors import TwoBucketsError, UnreachableError
from twobuckets.s3.engine import Response, SendError


def explain(
    answer: Response | Exception, operation: str, what: str, *, hint: str | None = None
) -> TwoBucketsError:
    """Return why S3 did not do `what`: its refusal, or what came in place of an answer.

    `operation` is AWS's name for what was asked, such as `ListObjectsV2`. With a `hint`, it says
    what to do next instead of what the reason suggests.
    """
    if isinstance(answer, Response):
        error = aws.explain_refusal(answer, operation, what)
    elif isinstance(answer, SendError):
        error = UnreachableError(f"Could not {what}: no answer from S3: {answer}")
    else:
        error = TwoBucketsError(f"Could not {what}: {answer}")
    if hint is not None:
        error.hint = hint
    return error


def are_credentials_over(answer: Response | Exception) -> bool:
    """Tell whether S3 refused the credentials themselves, so that it would whatever was asked."""
    return isinstance(answer, Response) and meaning_of(answer.code) in CREDENTIALS_OVER
