"""What a deployed stack says of its pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.errors import NotFoundError
from twobuckets.stack.stacks import REVIEW, find_stack

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


def require_outputs(cloudformation: CloudFormationClient, stack: str) -> dict[str, str]:
    """Return the outputs of a stack by their key.

    Raises NotFoundError when there is no such stack, or none that was ever created.
    """
    found = find_stack(cloudformation, stack)
    if found is None or found.status == REVIEW:
        raise not_deployed(stack)
    return dict(found.outputs)


def not_deployed(stack: str) -> NotFoundError:
    """Return the error that says there is no such stack here."""
    return NotFoundError(
        f"There is no stack {stack} in this account and region",
        hint=f"`twobuckets --stack {stack} deploy` creates it; `aws cloudformation list-stacks` "
        "shows the ones there are; --region and --profile choose another place.",
    )
