"""Who S3 says began an incomplete upload, if it was us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.aws import attempt
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient


def find_initiator(sts: STSClient) -> frozenset[str]:
    """Return the names under which S3 shows the identity in use; none where it can't be known."""
    try:
        with attempt("find out which identity is in use"):
            me = sts.get_caller_identity()
    except TwoBucketsError:
        # What can't be proven to be ours is left alone.
        return frozenset()
    # S3 shows the ARN of users and sessions; some endpoints show the account for its root.
    names = {me["Arn"], me["Account"]} if me["Arn"].endswith(":root") else {me["Arn"]}
    return frozenset(names)
