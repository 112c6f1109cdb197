"""A stack's events: followed live, and searched for the one that made an operation fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from twobuckets.aws import ClientError, attempt, named_action
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.stack.stacks import find_stack, is_busy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef

_FIRST_DELAY_SECONDS: Final = 0.25
_LONGEST_DELAY_SECONDS: Final = 3.0
_STACK_TYPE: Final = "AWS::CloudFormation::Stack"
_STARTS: Final = frozenset(
    {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"}
)


@dataclass(frozen=True, slots=True)
class StackEvent:
    """One step of an operation; `resource` is the logical id, or the stack's name for its own."""

    happened_at: datetime
    event_id: str
    resource: str
    resource_type: str
    physical_id: str | None
    status: str
    reason: str | None

    @property
    def is_of_stack(self) -> bool:
        """Tell whether the event is the stack's own and not one of its resources'."""
        return self.resource_type == _STACK_TYPE


@dataclass(frozen=True, slots=True)
class FailedResource:
    """The first resource that failed, with AWS's reason; the others failed because of it."""

    resource: str
    resource_type: str
    reason: str


def newest_event_id(cloudformation: CloudFormationClient, stack_id: str) -> str | None:
    """Return the id of the last event so far; None for a stack without events."""
    return next((event.event_id for event in _iter_newest_first(cloudformation, stack_id)), None)


def follow(
    cloudformation: CloudFormationClient,
    stack_id: str,
    *,
    after: str | None,
    sleep: Callable[[float], None],
) -> Generator[StackEvent, None, str]:
    """Yield the events after the event `after` as they happen and return the stack's last status.

    Ends when the operation does. Polls with a growing pause, from 0.25 to 3 seconds.
    """
    delay = _FIRST_DELAY_SECONDS
    announced: str | None = None
    with attempt(f"follow the stack {stack_id}, whose operation goes on in AWS"):
        while True:
            # The status first: the events read after it reach at least as far.
            stack = find_stack(cloudformation, stack_id)
            status = stack.status if stack is not None else "DELETE_COMPLETE"
            fresh = _after(cloudformation, stack_id, after)
            for event in fresh:
                yield event
                after = event.event_id
                announced = event.status if event.is_of_stack else announced
            # An operation just asked for may not show yet: the status is then still the old one.
            if not is_busy(status) and announced == status:
                return status
            delay = _FIRST_DELAY_SECONDS if fresh else min(delay * 1.5, _LONGEST_DELAY_SECONDS)
            sleep(delay)


def events_of_last_operation(
    cloudformation: CloudFormationClient, stack_id: str
) -> list[StackEvent]:
    """Return the events since the last creation, update or deletion began, oldest first."""
    found = []
    with attempt(f"read the events of the stack {stack_id}"):
        for event in _iter_newest_first(cloudformation, stack_id):
            found.append(event)
            if event.is_of_stack and event.status in _STARTS:
                break
    return found[::-1]


def find_failure(
    cloudformation: CloudFormationClient, stack_id: str, events: list[StackEvent]
) -> FailedResource | None:
    """Return what failed first among `events`, oldest first; None when nothing did.

    A failure of the template's validation is only told by `DescribeEvents`; without that
    permission the stack's own words stand in.
    """
    failed = [event for event in events if event.status.endswith("_FAILED")]
    # CloudFormation stops whatever else is under way and reports that as failures, too.
    causes = [e for e in failed if not (e.reason or "").endswith("cancelled")] or failed
    first = next((e for e in causes if not e.is_of_stack), causes[0] if causes else None)
    if first is None:
        return None
    if first.is_of_stack and "DescribeEvents" in (first.reason or ""):
        return find_invalid(cloudformation, stack_id=stack_id) or _failure(first)
    return _failure(first)


def find_invalid(
    cloudformation: CloudFormationClient,
    *,
    stack_id: str | None = None,
    change_set_id: str | None = None,
) -> FailedResource | None:
    """Return the first thing that CloudFormation's validation before a deployment refused."""
    of = {"StackName": stack_id} if stack_id else {"ChangeSetName": change_set_id or ""}
    try:
        answer = cloudformation.describe_events(**of, Filters={"FailedEvents": True})
    except ClientError:
        return None
    for event in answer["OperationEvents"]:
        reason = event.get("ValidationStatusReason")
        if reason:
            return FailedResource(
                event.get("LogicalResourceId", ""), event.get("ResourceType", ""), reason
            )
    return None


def failed(what: str, failure: FailedResource | None, status: str, hint: str) -> TwoBucketsError:
    """Return the error that names the first failing resource and AWS's reason."""
    if failure is None:
        return TwoBucketsError(f"Could not {what}: it ended as {status}", hint=hint)
    message = f"Could not {what}: {failure.resource} ({failure.resource_type}): {failure.reason}"
    action = named_action(failure.reason)
    if action is not None:
        return AccessError(message, hint=f"Whoever deploys needs {action}. {hint}")
    return TwoBucketsError(message, hint=hint)


def _failure(event: StackEvent) -> FailedResource:
    return FailedResource(event.resource, event.resource_type, event.reason or event.status)


def _after(
    cloudformation: CloudFormationClient, stack_id: str, after: str | None
) -> list[StackEvent]:
    newest_first = _iter_newest_first(cloudformation, stack_id)
    return list(takewhile(lambda event: event.event_id != after, newest_first))[::-1]


def _iter_newest_first(cloudformation: CloudFormationClient, stack_id: str) -> Iterator[StackEvent]:
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
    for page in pages:
        for event in page["StackEvents"]:
            yield _parse_event(event)


def _parse_event(event: StackEventTypeDef) -> StackEvent:
    return StackEvent(
        happened_at=event["Timestamp"],
        event_id=event["EventId"],
        resource=event.get("LogicalResourceId", event["StackName"]),
        resource_type=event.get("ResourceType", ""),
        physical_id=event.get("PhysicalResourceId") or None,
        status=event.get("ResourceStatus", ""),
        reason=event.get("ResourceStatusReason") or None,
    )
