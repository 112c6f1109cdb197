"""What CloudFormation says of the stack that the pipeline came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups
    from twobuckets.settings import Pipeline

MADE_BY_STACK: Final = {
    "staging": ("CreateStagingBucket", "StagingBucketName"),
    "archive": ("CreateArchiveBucket", "ArchiveBucketName"),
}
"""For each bucket of a pipeline, the template's parameters that say whether the stack makes it, and
how it is named."""


def existing_buckets(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the buckets that a stack of these parameters did not make, by their role."""
    return {
        role: parameters[name]
        for role, (is_made, name) in MADE_BY_STACK.items()
        if parameters.get(is_made) == "false" and parameters.get(name)
    }


class StackFacts:
    """The pipeline's stack. Raises CouldNotLook."""

    def __init__(self, aws: Aws, pipeline: Pipeline, lookups: Lookups) -> None:
        self._aws = aws
        self._pipeline = pipeline
        self._lookups = lookups

    def description(self) -> dict[str, Any] | None:
        """Return the stack's description; None for a pair that no stack is named for."""
        name = self._pipeline.stack
        if name is None:
            return None
        answer = self._lookups.read(
            f"the stack {name}",
            "cloudformation:DescribeStacks",
            lambda: self._aws.cloudformation.describe_stacks(StackName=name),
            # CloudFormation has no code of its own for a missing stack.
            absent=("ValidationError",),
        )
        return answer["Stacks"][0] if answer else None

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs by their key, none for a pair without a stack."""
        described = self.description() or {}
        return {
            output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])
        }

    def existing_buckets(self) -> frozenset[str]:
        """Return the pipeline's buckets that were there before the stack, which it did not make."""
        described = self.description() or {}
        parameters = {
            parameter["ParameterKey"]: parameter.get("ParameterValue", "")
            for parameter in described.get("Parameters", [])
        }
        return frozenset(existing_buckets(parameters).values())

    def drifted_resources(self) -> list[dict[str, Any]]:
        """Return what CloudFormation found changed or deleted when it last compared."""

        def call() -> Any:
            request: dict[str, Any] = {
                "StackName": str(self._pipeline.stack),
                "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"],
            }
            drifts = []
            # botocore has no paginator for this one.
            while True:
                page = self._aws.cloudformation.describe_stack_resource_drifts(**request)
                drifts += page["StackResourceDrifts"]
                if not page.get("NextToken"):
                    return drifts
                request["NextToken"] = page["NextToken"]

        what, permission = "the stack's drift", "cloudformation:DescribeStackResourceDrifts"
        drifts: list[dict[str, Any]] = self._lookups.read(what, permission, call)
        return drifts
