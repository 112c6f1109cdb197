"""What CloudFormation says a stack is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from twobuckets.aws import ClientError, attempt, error_code
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

REVIEW: Final = "REVIEW_IN_PROGRESS"
"""The stack is a name only: a change set to create it waits, or was left."""

UNMADE: Final = frozenset({"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"})
"""The creation failed; CloudFormation lets such a stack be deleted and nothing else."""

_OURS: Final = frozenset({"StagingBucketName", "ArchiveBucketName"})
"""Parameters that tell the template of a pipeline from any other."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as it stands; `changed_at` is the start of its last update, None before the first."""

    name: str
    stack_id: str
    status: str
    status_reason: str | None
    created_at: datetime
    changed_at: datetime | None
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    is_protected: bool

    @property
    def is_busy(self) -> bool:
        """Tell whether an operation is under way."""
        return is_busy(self.status)


def is_busy(status: str) -> bool:
    """Tell whether a stack of this status has an operation under way."""
    return status.endswith("_IN_PROGRESS") and status != REVIEW


def find_stack(cloudformation: CloudFormationClient, name: str) -> Stack | None:
    """Return the stack of a name, or of a stack id also after its deletion; None if there is none.

    Raises AccessError without `cloudformation:DescribeStacks`.
    """
    with attempt(f"look at the stack {name}"):
        try:
            found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            # CloudFormation has no code of its own for a missing stack.
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
    if found["StackStatus"] == "DELETE_COMPLETE" and not name.startswith("arn:"):
        return None
    return _stack_of(found)


def find_pipelines(cloudformation: CloudFormationClient) -> list[Stack]:
    """Return the stacks of a region that are pipelines and were created, by name.

    Raises AccessError without `cloudformation:DescribeStacks`.
    """
    with attempt("look at the stacks"):
        pages = cloudformation.get_paginator("describe_stacks").paginate()
        stacks = [_stack_of(found) for page in pages for found in page["Stacks"]]
    pipelines = (s for s in stacks if s.parameters.keys() >= _OURS and s.status != REVIEW)
    return sorted(pipelines, key=lambda stack: stack.name)


def _stack_of(found: StackTypeDef) -> Stack:
    return Stack(
        name=found["StackName"],
        stack_id=found.get("StackId", found["StackName"]),
        status=found["StackStatus"],
        status_reason=found.get("StackStatusReason") or None,
        created_at=found["CreationTime"],
        changed_at=found.get("LastUpdatedTime"),
        parameters={
            parameter["ParameterKey"]: parameter.get("ParameterValue", "")
            for parameter in found.get("Parameters", [])
            if "ParameterKey" in parameter
        },
        outputs={
            output["OutputKey"]: output["OutputValue"]
            for output in found.get("Outputs", [])
            if "OutputKey" in output and "OutputValue" in output
        },
        is_protected=found.get("EnableTerminationProtection", False),
    )


def find_resources(
    cloudformation: CloudFormationClient, stack: Stack, resource_type: str
) -> dict[str, str]:
    """Return the resources of one type that a stack has: their physical ids by their names."""
    with attempt(f"list the resources of the stack {stack.name}"):
        pages = cloudformation.get_paginator("list_stack_resources").paginate(
            StackName=stack.stack_id
        )
        found = {
            resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "")
            for page in pages
            for resource in page["StackResourceSummaries"]
            if resource["ResourceType"] == resource_type
            and resource["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
        }
    return {name: physical_id for name, physical_id in found.items() if physical_id}


def require_ours(stack: Stack) -> None:
    """Raise TwoBucketsError for a stack that is not a pipeline's: it is somebody's something."""
    if stack.status != REVIEW and not stack.parameters.keys() >= _OURS:
        raise TwoBucketsError(
            f"The stack {stack.name} is not a pipeline of twobuckets: its template has no "
            f"parameters {' and '.join(sorted(_OURS))}",
            hint="Check --stack, --region and --profile. Nothing was changed.",
        )


def require_idle(stack: Stack, verb: str) -> None:
    """Raise TwoBucketsError while an operation on the stack is under way."""
    if not stack.is_busy:
        return
    since = f" since {stack.changed_at:%H:%M:%S} UTC" if stack.changed_at else ""
    hint = (
        f"`twobuckets --stack {stack.name} deploy --follow` watches it to its end; then {verb} "
        "again."
    )
    if stack.status == "UPDATE_IN_PROGRESS":
        hint += (
            " It can be called off with: aws cloudformation cancel-update-stack --stack-name "
            + stack.name
        )
    raise TwoBucketsError(
        f"Could not {verb} the stack {stack.name}: an operation is under way{since} "
        f"({stack.status})",
        hint=hint,
    )
