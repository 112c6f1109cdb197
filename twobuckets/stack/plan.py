"""What a deployment would do, as CloudFormation's change set says it.

The way through: `require_deployable` (reads) tells a stack that can be deployed to from one in a
half-done state; `plan` (writes a change set and nothing else) says what would change; `apply`
(writes) executes it and follows the events; `discard` takes the change set back.
"""

from __future__ import annotations

import contextlib
import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.queues import depth_of
from twobuckets.pipeline.stack import MADE_BY_STACK
from twobuckets.stack.events import (
    FailedResource,
    StackEvent,
    events_of_last_operation,
    failed,
    find_failure,
    find_invalid,
    follow,
    newest_event_id,
)
from twobuckets.stack.foreign import WHOLE, find_foreign
from twobuckets.stack.stacks import (
    REVIEW,
    UNMADE,
    Stack,
    find_resources,
    find_stack,
    require_idle,
    require_ours,
)
from twobuckets.stack.template import names_of_parameters
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import (
        DescribeChangeSetOutputTypeDef,
        ParameterTypeDef,
        ResourceChangeTypeDef,
    )
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from twobuckets.stack.existing import ExistingBucket

_HOLD_DATA: Final = frozenset({"AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::Logs::LogGroup"})
_QUEUES: Final = frozenset({"FailureQueue", "ArrivalQueue", "OrderedQueue", "OrderedFailures"})
_DEAD_LETTERS: Final = "OrderedFailures"
_KEPT: Final = frozenset({"StagingBucket", "ArchiveBucket", "ProcessorLog", "WatcherLog"}) | _QUEUES
"""What the template keeps in the account when something else takes its place."""
_DEPLOYED: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})
# CloudFormation says in words alone that a change set is empty; these are its two ways.
_NO_CHANGE: Final = ("didn't contain changes", "No updates are to be performed")
_POLL_SECONDS: Final = 0.5


class ResourceAction(enum.Enum):
    """What happens to a resource."""

    ADD = "add"
    CHANGE = "change"
    MAY_REPLACE = "may replace"
    REPLACE = "replace"
    DELETE = "delete"
    RELEASE = "release"
    """It leaves the stack and stays in the account with what is in it."""


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """What happens to one resource; `properties` are the ones that change."""

    action: ResourceAction
    resource: str
    resource_type: str
    physical_id: str | None
    properties: tuple[str, ...]
    holds_data: bool
    keeps_old: bool
    """The resource that is replaced, or leaves the stack, stays in the account."""

    @property
    def endangers_data(self) -> bool:
        """Tell whether something that holds data goes away or is no longer the one in use."""
        return self.holds_data and self.action not in (ResourceAction.ADD, ResourceAction.CHANGE)


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """A parameter of the template that gets another value; None where it had or gets none."""

    parameter: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deployment would do to the stack, and to the buckets that it is built around."""

    stack: str
    creates: bool
    changes: tuple[ResourceChange, ...]
    parameters: tuple[ParameterChange, ...]
    change_set_id: str
    stack_id: str
    existing_buckets: tuple[ExistingBucket, ...] = ()

    @property
    def steps(self) -> int:
        """Return how many things are changed; 0 where there is nothing to deploy."""
        return len(self.changes) + sum(bool(bucket.changes) for bucket in self.existing_buckets)

    @property
    def endangers_data(self) -> bool:
        """Tell whether something that holds data is replaced, deleted or no longer used."""
        return any(change.endangers_data for change in self.changes) or any(
            bucket.is_released for bucket in self.existing_buckets
        )


@dataclass(frozen=True, slots=True)
class DeploySummary:
    """How a deployment ended: `outcome` is deployed, unchanged, planned or followed.

    Of an operation that was only followed, nobody here knows its changes or its artifact.
    """

    type_name: ClassVar[str] = "summary"

    stack: str
    outcome: str
    changes: int | None
    artifact_sha256: str | None
    outputs: Mapping[str, str]


def require_deployable(cloudformation: CloudFormationClient, name: str) -> Stack | None:
    """Return the stack as it stands, None when there is none yet.

    Raises TwoBucketsError for a stack that can't be deployed to, with the way out.
    """
    stack = find_stack(cloudformation, name)
    if stack is None or stack.status == REVIEW:
        return None
    require_ours(stack)
    require_idle(stack, "deploy")
    if stack.status in UNMADE:
        raise failed(
            f"deploy the stack {name}, which is what a failed creation left ({stack.status})",
            _why(cloudformation, stack),
            stack.status,
            f"It can only be deleted: `twobuckets --stack {name} destroy`, then deploy again.",
        )
    if stack.status in ("UPDATE_ROLLBACK_FAILED", "IMPORT_ROLLBACK_FAILED"):
        failure = _why(cloudformation, stack)
        skip = f" --resources-to-skip {failure.resource}" if failure is not None else ""
        raise failed(
            f"deploy the stack {name}, whose last rollback failed ({stack.status})",
            failure,
            stack.status,
            "Fix that and finish the rollback: aws cloudformation continue-update-rollback "
            f"--stack-name {name} (where it can't be fixed, leave it out: {skip.strip()})"
            if skip
            else "Finish the rollback: aws cloudformation continue-update-rollback "
            f"--stack-name {name}",
        )
    if stack.status == "DELETE_FAILED":
        raise failed(
            f"deploy the stack {name}, whose deletion failed half-way",
            _why(cloudformation, stack),
            stack.status,
            f"Delete it to the end: `twobuckets --stack {name} destroy`, then deploy again.",
        )
    return stack


def plan(
    cloudformation: CloudFormationClient,
    s3: S3Client,
    sqs: SQSClient,
    name: str,
    stack: Stack | None,
    parameters: Mapping[str, str],
    *,
    template: str,
    template_url: str | None = None,
    sleep: Callable[[float], None],
) -> Plan:
    """Return what deploying the template with these parameters would do to the `stack`.

    A template that `is_large` needs the URL where CloudFormation finds it. Parameters that are not
    given keep their value. Makes a change set, which stays for `apply` or
    `discard` unless there is no change. Raises TwoBucketsError when a new bucket's name is taken,
    when CloudFormation refuses, and when the deployment would wipe a bucket's foreign rules, or
    take a queue away that holds messages.
    """
    before = stack.parameters if stack is not None else {}
    for is_made, parameter in MADE_BY_STACK.values():
        is_new = parameters[parameter] != before.get(parameter) or before.get(is_made) == "false"
        if is_new and parameters.get(is_made) != "false":
            _require_free(s3, parameters[parameter], name)
    # What the template no longer has, it can't be given.
    kept = (before.keys() - parameters.keys()) & names_of_parameters(template)
    given: list[ParameterTypeDef] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
    ]
    given += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)]
    # Any, as a type can't say that it is one of the two.
    source: dict[str, Any]
    source = {"TemplateBody": template} if template_url is None else {"TemplateURL": template_url}
    with attempt(f"plan the deployment of the stack {name}"):
        answer = cloudformation.create_change_set(
            StackName=name,
            ChangeSetName=f"twobuckets-{uuid.uuid4().hex}",
            ChangeSetType="CREATE" if stack is None else "UPDATE",
            **source,
            Parameters=given,
            Capabilities=["CAPABILITY_IAM"],
        )
    drafted = Plan(
        stack=name,
        creates=stack is None,
        changes=(),
        parameters=(),
        change_set_id=answer["Id"],
        stack_id=answer["StackId"],
    )
    try:
        described, changes = _describe(cloudformation, drafted, sleep)
        if not changes:
            discard(cloudformation, drafted)
            return drafted
        require_harmless(cloudformation, s3, sqs, name, stack, changes)
    except BaseException:
        # Ctrl-C included: nobody is to find a change set that nobody decided on.
        with contextlib.suppress(TwoBucketsError):
            discard(cloudformation, drafted)
        raise
    after = {p["ParameterKey"]: p.get("ParameterValue") for p in described.get("Parameters", [])}
    return Plan(
        stack=name,
        creates=drafted.creates,
        changes=changes,
        parameters=tuple(
            ParameterChange(key, before.get(key), after.get(key))
            for key in sorted(before.keys() | after.keys())
            if stack is not None and before.get(key) != after.get(key)
        ),
        change_set_id=drafted.change_set_id,
        stack_id=drafted.stack_id,
    )


def apply(
    cloudformation: CloudFormationClient, planned: Plan, *, sleep: Callable[[float], None]
) -> Iterator[StackEvent]:
    """Execute a plan and yield the stack's events until it is done.

    Raises TwoBucketsError with the first failing resource and AWS's reason. Leaving the iterator
    early leaves the operation going on in AWS.
    """
    before = newest_event_id(cloudformation, planned.stack_id)
    with attempt(f"deploy the stack {planned.stack}"):
        try:
            cloudformation.execute_change_set(ChangeSetName=planned.change_set_id)
        except ClientError:
            # AWS said no, so nothing is under way.
            with contextlib.suppress(TwoBucketsError):
                discard(cloudformation, planned)
            raise
    yield from _watch(cloudformation, planned.stack, planned.stack_id, before, sleep)


def watch(
    cloudformation: CloudFormationClient, stack: Stack, *, sleep: Callable[[float], None]
) -> Iterator[StackEvent]:
    """Yield the events of the operation that is under way, from its beginning to its end."""
    so_far = events_of_last_operation(cloudformation, stack.stack_id)
    yield from so_far
    if stack.is_busy:
        after = so_far[-1].event_id if so_far else None
        yield from _watch(cloudformation, stack.name, stack.stack_id, after, sleep)


def discard(cloudformation: CloudFormationClient, planned: Plan) -> None:
    """Take a plan back: delete its change set, and the empty stack that it was to create.

    An empty stack that another change set waits for is left.
    """
    with attempt(f"take back the planned deployment of the stack {planned.stack}"):
        cloudformation.delete_change_set(ChangeSetName=planned.change_set_id)
        if not planned.creates:
            return
        stack = find_stack(cloudformation, planned.stack_id)
        if stack is None or stack.status != REVIEW:
            return
        others = cloudformation.list_change_sets(StackName=planned.stack_id)["Summaries"]
        if all(other.get("ChangeSetId") == planned.change_set_id for other in others):
            cloudformation.delete_stack(StackName=planned.stack_id)


def _watch(
    cloudformation: CloudFormationClient,
    name: str,
    stack_id: str,
    after: str | None,
    sleep: Callable[[float], None],
) -> Iterator[StackEvent]:
    status = yield from follow(cloudformation, stack_id, after=after, sleep=sleep)
    if status in _DEPLOYED:
        return
    failure = find_failure(
        cloudformation, stack_id, events_of_last_operation(cloudformation, stack_id)
    )
    raise failed(f"deploy the stack {name}", failure, status, _after_failure(name, status))


def _after_failure(name: str, status: str) -> str:
    match status:
        case "UPDATE_ROLLBACK_COMPLETE":
            return (
                "AWS has taken the update back: the pipeline runs as before. Fix the cause and "
                "deploy again."
            )
        case "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED":
            return (
                "AWS has taken the creation back. Fix the cause, delete what is left with "
                f"`twobuckets --stack {name} destroy`, and deploy again."
            )
        case "UPDATE_ROLLBACK_FAILED":
            return f"`twobuckets --stack {name} deploy` says how to get out of {status}."
        case _:
            return f"`twobuckets --stack {name} status` shows how the stack stands."


def _describe(
    cloudformation: CloudFormationClient, planned: Plan, sleep: Callable[[float], None]
) -> tuple[DescribeChangeSetOutputTypeDef, tuple[ResourceChange, ...]]:
    """Wait for a change set and return it with its changes, none when it is empty."""
    with attempt(f"read the planned deployment of the stack {planned.stack}"):
        while True:
            described = cloudformation.describe_change_set(ChangeSetName=planned.change_set_id)
            if not described["Status"].endswith(("_PENDING", "_IN_PROGRESS")):
                break
            sleep(_POLL_SECONDS)
        reason = described.get("StatusReason", "")
        if described["Status"] == "FAILED":
            if any(words in reason for words in _NO_CHANGE):
                return described, ()
            raise failed(
                f"plan the deployment of the stack {planned.stack}",
                find_invalid(cloudformation, change_set_id=planned.change_set_id),
                reason,
                "Nothing was changed.",
            )
        changes = list(described["Changes"])
        page = described
        while page.get("NextToken"):
            page = cloudformation.describe_change_set(
                ChangeSetName=planned.change_set_id, NextToken=page["NextToken"]
            )
            changes += page["Changes"]
    return described, tuple(
        _parse_change(change["ResourceChange"]) for change in changes if "ResourceChange" in change
    )


def _parse_change(change: ResourceChangeTypeDef) -> ResourceChange:
    policy = change.get("PolicyAction", "")
    action = {
        ("Add", ""): ResourceAction.ADD,
        ("Import", ""): ResourceAction.ADD,
        ("Modify", "True"): ResourceAction.REPLACE,
        ("Modify", "Conditional"): ResourceAction.MAY_REPLACE,
        ("Remove", ""): ResourceAction.RELEASE if policy == "Retain" else ResourceAction.DELETE,
    }.get((change["Action"], change.get("Replacement", "")), ResourceAction.CHANGE)
    targets = [detail.get("Target", {}) for detail in change.get("Details", [])]
    names = {target.get("Name") or target.get("Attribute") or "" for target in targets}
    return ResourceChange(
        action=action,
        resource=change["LogicalResourceId"],
        resource_type=change["ResourceType"],
        physical_id=change.get("PhysicalResourceId") or None,
        properties=tuple(sorted(names - {""})),
        holds_data=change["ResourceType"] in _HOLD_DATA,
        # Without a policy in the change set, the template's own holds.
        keeps_old=policy in ("Retain", "ReplaceAndRetain")
        or (not policy and change["Action"] == "Modify" and change["LogicalResourceId"] in _KEPT),
    )


def _require_free(s3: S3Client, bucket: str, stack: str) -> None:
    """Raise TwoBucketsError when a bucket that the stack is to create exists already."""
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if meaning(error) is Meaning.MISSING:
            return
        # A 400 is what S3 answers to a HEAD of a bucket in another region.
        is_taken = meaning(error) in (Meaning.DENIED, Meaning.MISPLACED)
        if not is_taken and error_code(error) != "400":
            with attempt(f"look whether the bucket name {bucket} is free"):
                raise
        raise TwoBucketsError(
            f"Could not deploy the stack {stack}: the bucket name {bucket} is taken, by another "
            "account or in another region",
            hint="Bucket names are one space for all of AWS: name another as staging or archive "
            "in twobuckets.toml.",
        ) from None
    raise TwoBucketsError(
        f"Could not deploy the stack {stack}: the bucket {bucket} exists already, and the stack "
        "did not make it",
        hint="To build the stack around it, and leave all that is in it as it is, say so in "
        "deploy.existing_buckets. Else name another bucket; or, for a pair that has a function of "
        "its own, leave `stack` out of the file, name staging, archive and function, and don't "
        "deploy.",
    )


def require_harmless(
    cloudformation: CloudFormationClient,
    s3: S3Client,
    sqs: SQSClient,
    name: str,
    stack: Stack | None,
    changes: tuple[ResourceChange, ...],
) -> None:
    """Raise TwoBucketsError when changes of a plan would lose what is there now.

    `plan` asks; whoever let time go by before `apply` asks again.
    """
    require_empty(sqs, name, changes)
    _require_nothing_foreign(cloudformation, s3, name, stack, changes)


def require_empty(sqs: SQSClient, name: str, changes: Iterable[ResourceChange]) -> None:
    """Raise TwoBucketsError when the changes would take a queue away that holds messages.

    The files that they are about would stay in staging, and nobody would be told.
    """
    leaving = (ResourceAction.DELETE, ResourceAction.RELEASE, ResourceAction.REPLACE)
    for change in changes:
        url = change.physical_id
        if change.resource_type != "AWS::SQS::Queue" or change.action not in leaving or not url:
            continue
        queue = url.rpartition("/")[2]
        with attempt(f"count the messages in {queue}"):
            try:
                answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            except ClientError as error:
                if meaning(error) is Meaning.MISSING:
                    continue
                raise
        counts: Mapping[Any, str] = answer["Attributes"]
        depth = depth_of(counts)
        if depth.total:
            # Nobody is ahead of what a queue for failures holds.
            hint = f"`twobuckets --stack {name} redrive` moves them back once they can be processed"
            if change.resource != _DEAD_LETTERS:
                hint = f"`twobuckets --stack {name} status` shows when the processor is through"
            raise TwoBucketsError(
                f"Could not deploy the stack {name}: it takes the queue {queue} away, which holds "
                f"{counted(depth.total, 'message')} ({depth.waiting:,} waiting, {depth.taken:,} "
                f"being processed or to be tried again, {depth.delayed:,} delayed), and the files "
                "that they are about would stay in staging. Nothing was changed",
                hint=f"{hint}; then deploy again.",
            )


def _require_nothing_foreign(
    cloudformation: CloudFormationClient,
    s3: S3Client,
    name: str,
    stack: Stack | None,
    changes: tuple[ResourceChange, ...],
) -> None:
    """Raise TwoBucketsError when the changes would wipe rules that somebody else put there."""
    function = stack.outputs.get("FunctionName") if stack is not None else None

    def is_ours(arn: str) -> bool:
        return stack is not None and any(
            # A queue's URL ends with its account and name, as its ARN does.
            url.split("/")[-2:] == arn.split(":")[-2:]
            for url in find_resources(cloudformation, stack, "AWS::SQS::Queue").values()
        )

    for change in changes:
        # One that may be replaced may as well be written in place.
        stays = change.action in (ResourceAction.CHANGE, ResourceAction.MAY_REPLACE)
        if change.resource_type != "AWS::S3::Bucket" or not stays:
            continue
        rewritten = WHOLE.intersection(change.properties)
        if change.physical_id is None or not rewritten:
            continue
        foreign = list(
            find_foreign(
                s3,
                change.physical_id,
                rewritten,
                stack=name,
                function=function,
                is_ours=is_ours,
            )
        )
        if foreign:
            raise TwoBucketsError(
                f"Could not deploy the stack {name}: it changes {', '.join(sorted(rewritten))} of "
                f"the bucket {change.physical_id}, and CloudFormation would wipe what somebody "
                f"else added there: {'; '.join(foreign)}. Nothing was changed",
                hint="Take the change of these settings back and deploy the rest; or put the "
                "foreign rules into the template (`twobuckets template`) and deploy that; or, if "
                "nobody needs them, remove them from the bucket first.",
            )


def _why(cloudformation: CloudFormationClient, stack: Stack) -> FailedResource | None:
    return find_failure(
        cloudformation, stack.stack_id, events_of_last_operation(cloudformation, stack.stack_id)
    )
