"""What a deployed stack says of its pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.aws import ClientError, attempt, error_code
from twobuckets.errors import NotFoundError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


def require_outputs(cloudformation: CloudFormationClient, stack: str) -> dict[str, str]:
    """Return the outputs of a stack by their key.

    Raises NotFoundError when there is no such stack, or none that was ever created.
    """
    with attempt(f"read the outputs of stack {stack}"):
        try:
            described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            # CloudFormation has no code of its own for a missing stack.
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                raise _not_deployed(stack) from None
            raise
    if described["StackStatus"] in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE"):
        raise _not_deployed(stack)
    return {
        output["OutputKey"]: output["OutputValue"]
        for output in described.get("Outputs", [])
        if "OutputKey" in output and "OutputValue" in output
    }


def _not_deployed(stack: str) -> NotFoundError:
    return NotFoundError(
        f"There is no stack {stack} in this account and region",
        hint=f"`twobuckets --stack {stack} deploy` creates it; `aws cloudformation list-stacks` "
        "shows the ones there are; --region and --profile choose another place.",
    )
