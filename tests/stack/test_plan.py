"""Planning and applying against answers that CloudFormation gives; the emulator can't give them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import ANY, Stubber

from twobuckets.aws.clients import Aws, FixedIdentity
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.stack.destroy import require_destroyable
from twobuckets.stack.events import (
    events_of_last_operation,
    find_failure,
    follow,
    newest_event_id,
)
from twobuckets.stack.plan import ResourceAction, apply, discard, plan, require_deployable
from twobuckets.stack.stacks import find_stack
from twobuckets.stack.template import template_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_cloudformation import CloudFormationClient

    from twobuckets.stack.events import StackEvent

NAME = "intake"
STACK_ID = f"arn:aws:cloudformation:eu-central-1:123456789012:stack/{NAME}/1"
CHANGE_SET_ID = "arn:aws:cloudformation:eu-central-1:123456789012:changeSet/twobuckets-1/2"
AT = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)
TEMPLATE = template_text()
PARAMETERS = {"StagingBucketName": "first", "ArchiveBucketName": "second", "MemorySize": "512"}

numbers = count()


@pytest.fixture(scope="module")
def aws() -> Aws:
    """Clients that reach nothing: every answer is scripted."""
    return Aws(identity=FixedIdentity("http://127.0.0.1:9", "eu-central-1", "key", "secret"))


@pytest.fixture
def stub(aws: Aws) -> Iterator[Stubber]:
    """Scripted answers of CloudFormation, each of which has to be asked for."""
    with Stubber(aws.cloudformation) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def cloudformation(aws: Aws, stub: Stubber) -> CloudFormationClient:
    return aws.cloudformation


def never(_: float):
    """Stands in for waiting where nothing is to be waited for."""
    raise AssertionError("it slept")


def stack(status: str, **more: Any) -> dict[str, Any]:
    described = {
        "StackName": NAME,
        "StackId": STACK_ID,
        "StackStatus": status,
        "CreationTime": AT,
        "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in PARAMETERS.items()],
        "Outputs": [{"OutputKey": "FunctionName", "OutputValue": "intake-processor"}],
        **more,
    }
    return {"Stacks": [described]}


def event(
    resource: str, status: str, reason: str = "", kind: str = "AWS::SQS::Queue", **more: Any
) -> dict[str, Any]:
    return {
        "StackId": STACK_ID,
        "StackName": NAME,
        "EventId": f"event-{next(numbers)}",
        "LogicalResourceId": resource,
        "ResourceType": kind,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "Timestamp": AT,
        **more,
    }


def stack_event(status: str, reason: str = "", **more: Any) -> dict[str, Any]:
    return event(NAME, status, reason, "AWS::CloudFormation::Stack", **more)


def page(*events: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    """Return a page of events as CloudFormation orders them, newest first."""
    answer: dict[str, Any] = {"StackEvents": list(reversed(events))}
    if token:
        answer["NextToken"] = token
    return answer


def no_stack(stub: Stubber):
    stub.add_client_error(
        "describe_stacks", "ValidationError", f"Stack with id {NAME} does not exist", 400
    )


def refusal(cloudformation: CloudFormationClient) -> TwoBucketsError:
    with pytest.raises(TwoBucketsError) as refused:
        require_deployable(cloudformation, NAME)
    return refused.value


# --- half-done states ----------------------------------------------------------------------------


def test_no_stack_and_a_stack_in_review_can_be_created(
    cloudformation: CloudFormationClient, stub: Stubber
):
    no_stack(stub)
    assert require_deployable(cloudformation, NAME) is None
    stub.add_response("describe_stacks", stack("REVIEW_IN_PROGRESS", Parameters=[]))
    assert require_deployable(cloudformation, NAME) is None


@pytest.mark.parametrize(
    "status",
    [
        "CREATE_IN_PROGRESS",
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "DELETE_IN_PROGRESS",
    ],
)
def test_an_operation_under_way_can_be_followed_or_called_off(
    cloudformation: CloudFormationClient, stub: Stubber, status: str
):
    stub.add_response("describe_stacks", stack(status, LastUpdatedTime=AT))
    error = refusal(cloudformation)
    assert f"under way since 13:30:00 UTC ({status})" in error.message
    assert "deploy --follow" in (error.hint or "")
    can_be_called_off = "cancel-update-stack --stack-name intake" in (error.hint or "")
    assert can_be_called_off == (status == "UPDATE_IN_PROGRESS")


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"])
def test_what_a_failed_creation_left_says_why_and_that_it_can_only_be_destroyed(
    cloudformation: CloudFormationClient, stub: Stubber, status: str
):
    stub.add_response("describe_stacks", stack(status))
    stub.add_response(
        "describe_stack_events",
        page(
            stack_event("CREATE_IN_PROGRESS"),
            event("UploadRole", "CREATE_FAILED", "Resource creation cancelled"),
            event("FailureQueue", "CREATE_FAILED", "Queue name is invalid"),
            stack_event("ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create"),
            stack_event(status),
        ),
    )
    error = refusal(cloudformation)
    assert "FailureQueue (AWS::SQS::Queue): Queue name is invalid" in error.message
    assert "`twobuckets --stack intake destroy`" in (error.hint or "")


def test_a_rollback_that_failed_says_how_to_finish_it(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_response("describe_stacks", stack("UPDATE_ROLLBACK_FAILED"))
    stub.add_response(
        "describe_stack_events",
        page(
            stack_event("UPDATE_IN_PROGRESS"),
            event("ProcessorRole", "UPDATE_FAILED", "Role is gone"),
            stack_event("UPDATE_ROLLBACK_FAILED"),
        ),
    )
    error = refusal(cloudformation)
    assert "ProcessorRole (AWS::SQS::Queue): Role is gone" in error.message
    assert "continue-update-rollback --stack-name intake" in (error.hint or "")
    assert "--resources-to-skip ProcessorRole" in (error.hint or "")


def test_a_deletion_that_failed_says_to_delete_to_the_end(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_response("describe_stacks", stack("DELETE_FAILED"))
    stub.add_response(
        "describe_stack_events",
        page(stack_event("DELETE_IN_PROGRESS"), event("FailureQueue", "DELETE_FAILED", "denied")),
    )
    error = refusal(cloudformation)
    assert "FailureQueue (AWS::SQS::Queue): denied" in error.message
    assert "destroy" in (error.hint or "")


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED"])
def test_a_stack_at_rest_can_be_deployed_to(
    cloudformation: CloudFormationClient, stub: Stubber, status: str
):
    stub.add_response("describe_stacks", stack(status))
    found = require_deployable(cloudformation, NAME)
    assert found is not None
    assert found.parameters == PARAMETERS


def test_a_stack_of_something_else_is_left_alone(
    cloudformation: CloudFormationClient, stub: Stubber
):
    for require in (require_deployable, require_destroyable):
        stub.add_response("describe_stacks", stack("CREATE_COMPLETE", Parameters=[]))
        with pytest.raises(TwoBucketsError, match="not a pipeline of twobuckets"):
            require(cloudformation, NAME)


def test_a_protected_stack_is_not_destroyed_and_nothing_of_it_is(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_response("describe_stacks", stack("CREATE_COMPLETE", EnableTerminationProtection=True))
    with pytest.raises(TwoBucketsError, match="termination protection is on") as refused:
        require_destroyable(cloudformation, NAME)
    assert "--no-enable-termination-protection" in (refused.value.hint or "")


def test_a_missing_permission_to_look_at_the_stack_is_named(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_client_error(
        "describe_stacks",
        "AccessDenied",
        "User: arn:aws:iam::1:user/u is not authorized to perform: cloudformation:DescribeStacks",
        403,
    )
    with pytest.raises(AccessError) as refused:
        find_stack(cloudformation, NAME)
    assert "cloudformation:DescribeStacks" in (refused.value.hint or "")


# --- events --------------------------------------------------------------------------------------


def test_following_waits_for_the_operation_to_show_and_ends_with_it(
    cloudformation: CloudFormationClient, stub: Stubber
):
    old = stack_event("CREATE_COMPLETE")
    begun = stack_event("UPDATE_IN_PROGRESS")
    queue = event("FailureQueue", "UPDATE_COMPLETE")
    done = stack_event("UPDATE_COMPLETE")
    # At first the stack still has the status of before, which is no end.
    stub.add_response("describe_stacks", stack("CREATE_COMPLETE"))
    stub.add_response("describe_stack_events", page(old))
    stub.add_response("describe_stacks", stack("UPDATE_IN_PROGRESS"))
    stub.add_response("describe_stack_events", page(old, begun))
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"))
    stub.add_response("describe_stack_events", page(begun, queue, token="more"))
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    stub.add_response("describe_stack_events", page(old, begun, queue, done))
    slept: list[float] = []
    seen = list(follow(cloudformation, STACK_ID, after=old["EventId"], sleep=slept.append))
    assert [e.event_id for e in seen] == [e["EventId"] for e in (begun, queue, done)]
    assert slept == [pytest.approx(0.375), 0.25, 0.25]


def test_polling_slows_down_while_nothing_happens(
    cloudformation: CloudFormationClient, stub: Stubber
):
    begun = stack_event("UPDATE_IN_PROGRESS")
    for _ in range(12):
        stub.add_response("describe_stacks", stack("UPDATE_IN_PROGRESS"))
        stub.add_response("describe_stack_events", page(begun))
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    stub.add_response("describe_stack_events", page(begun, stack_event("UPDATE_COMPLETE")))
    slept: list[float] = []
    list(follow(cloudformation, STACK_ID, after=begun["EventId"], sleep=slept.append))
    assert slept == sorted(slept)
    assert slept[-1] == 3.0


def test_a_deleted_stack_that_can_no_longer_be_described_has_been_deleted(
    cloudformation: CloudFormationClient, stub: Stubber
):
    no_stack(stub)
    stub.add_response("describe_stack_events", page(stack_event("DELETE_COMPLETE")))
    assert len(list(follow(cloudformation, STACK_ID, after=None, sleep=never))) == 1


def test_what_fails_because_something_else_failed_is_not_the_cause(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_response(
        "describe_stack_events",
        page(
            event("Old", "CREATE_FAILED", "from the operation before"),
            stack_event("UPDATE_IN_PROGRESS"),
            event("ArchiveBucket", "UPDATE_FAILED", "Resource update cancelled"),
            event("Processor", "UPDATE_FAILED", "The runtime is not supported"),
            event("StagingBucket", "UPDATE_FAILED", "Resource update cancelled"),
            stack_event("UPDATE_ROLLBACK_IN_PROGRESS"),
        ),
    )
    events = events_of_last_operation(cloudformation, STACK_ID)
    assert events[0].status == "UPDATE_IN_PROGRESS"
    failure = find_failure(cloudformation, STACK_ID, events)
    assert failure is not None
    assert (failure.resource, failure.reason) == ("Processor", "The runtime is not supported")


def test_a_failed_validation_is_looked_up_where_cloudformation_tells_it(
    cloudformation: CloudFormationClient, stub: Stubber
):
    failed = stack_event(
        "CREATE_FAILED", "Validation failed with 1 error(s). Call DescribeEvents to retrieve them"
    )
    stub.add_response("describe_stack_events", page(stack_event("CREATE_IN_PROGRESS"), failed))
    stub.add_response(
        "describe_events",
        {
            "OperationEvents": [
                {"EventId": "1"},
                {
                    "EventId": "2",
                    "LogicalResourceId": "StagingBucket",
                    "ResourceType": "AWS::S3::Bucket",
                    "ValidationStatusReason": "the name is taken",
                },
            ]
        },
        {"StackName": STACK_ID, "Filters": {"FailedEvents": True}},
    )
    events = events_of_last_operation(cloudformation, STACK_ID)
    failure = find_failure(cloudformation, STACK_ID, events)
    assert failure is not None
    assert (failure.resource, failure.reason) == ("StagingBucket", "the name is taken")


def test_without_permission_to_look_it_up_the_stacks_own_words_stand_in(
    cloudformation: CloudFormationClient, stub: Stubber
):
    failed = stack_event("CREATE_FAILED", "Validation failed. Call DescribeEvents")
    stub.add_response("describe_stack_events", page(stack_event("CREATE_IN_PROGRESS"), failed))
    stub.add_client_error("describe_events", "AccessDenied", "no", 403)
    events = events_of_last_operation(cloudformation, STACK_ID)
    failure = find_failure(cloudformation, STACK_ID, events)
    assert failure is not None
    assert failure.reason == "Validation failed. Call DescribeEvents"


# --- plan and apply ------------------------------------------------------------------------------


def change(action: str, resource: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Resource",
        "ResourceChange": {
            "Action": action,
            "LogicalResourceId": resource,
            "ResourceType": kind,
            **more,
        },
    }


def change_set(status: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    parameters = {**PARAMETERS, "MemorySize": "1024"}
    return {
        "Status": status,
        "ChangeSetId": CHANGE_SET_ID,
        "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        "Changes": list(changes),
        **more,
    }


def detail(name: str) -> dict[str, Any]:
    return {"Target": {"Attribute": "Properties", "Name": name}}


def clients(aws: Aws) -> tuple[Any, Any, Any]:
    """Return the clients that a plan is made with."""
    return aws.cloudformation, aws.s3, aws.sqs


@pytest.mark.parametrize("url", [None, "https://s3.eu-central-1.amazonaws.com/bucket/key"])
def test_a_template_goes_with_the_request_or_is_named_in_it(
    aws: Aws, stub: Stubber, url: str | None
):
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    present = require_deployable(aws.cloudformation, NAME)
    given = {"TemplateBody": TEMPLATE} if url is None else {"TemplateURL": url}
    named = ("StackName", "ChangeSetName", "ChangeSetType", "Parameters", "Capabilities")
    stub.add_client_error(
        "create_change_set",
        "ValidationError",
        expected_params={**given, **dict.fromkeys(named, ANY)},
    )
    with pytest.raises(TwoBucketsError, match="ValidationError"):
        plan(
            *clients(aws),
            NAME,
            present,
            PARAMETERS,
            template=TEMPLATE,
            template_url=url,
            sleep=lambda _: None,
        )


def update(aws: Aws, stub: Stubber, *answers: dict[str, Any], taken_back: bool = False):
    """Plan an update, with these answers of DescribeChangeSet."""
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response("create_change_set", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
    for answer in answers:
        stub.add_response("describe_change_set", answer)
    if taken_back:
        stub.add_response("delete_change_set", {})
    given = {**PARAMETERS, "MemorySize": "1024"}
    return plan(
        *clients(aws),
        NAME,
        present,
        given,
        template=template_text(),
        sleep=lambda _: None,
    )


@pytest.mark.parametrize("replacement", ["False", "Conditional"])
def test_a_bucket_that_may_stay_keeps_what_others_added(aws: Aws, stub: Stubber, replacement: str):
    rule: Any = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": ""}}
    changed = change(
        "Modify",
        "StagingBucket",
        "AWS::S3::Bucket",
        Replacement=replacement,
        PhysicalResourceId="first",
        Details=[detail("LifecycleConfiguration")],
    )
    with Stubber(aws.s3) as s3:
        s3.add_response("get_bucket_lifecycle_configuration", {"Rules": [rule]})
        with pytest.raises(TwoBucketsError, match="the lifecycle rule theirs"):
            update(aws, stub, change_set("CREATE_COMPLETE", changed), taken_back=True)


def test_a_plan_reads_every_page_and_tells_what_becomes_of_data(aws: Aws, stub: Stubber):
    planned = update(
        aws,
        stub,
        change_set("CREATE_PENDING"),
        change_set("CREATE_IN_PROGRESS"),
        change_set(
            "CREATE_COMPLETE",
            change("Add", "UploadRole", "AWS::IAM::Role"),
            change(
                "Modify",
                "Processor",
                "AWS::Lambda::Function",
                Replacement="False",
                PhysicalResourceId="intake-processor",
                Details=[detail("MemorySize"), detail("MemorySize"), detail("Code")],
            ),
            NextToken="more",
        ),
        change_set(
            "CREATE_COMPLETE",
            change(
                "Modify",
                "ArchiveBucket",
                "AWS::S3::Bucket",
                Replacement="True",
                PolicyAction="ReplaceAndRetain",
                Details=[detail("BucketName")],
            ),
            change("Remove", "FailureQueue", "AWS::SQS::Queue", PolicyAction="Delete"),
            change("Remove", "StagingBucket", "AWS::S3::Bucket", PolicyAction="Retain"),
            change("Modify", "ProcessorLog", "AWS::Logs::LogGroup", Replacement="Conditional"),
        ),
    )
    told = {c.resource: (c.action, c.endangers_data, c.keeps_old) for c in planned.changes}
    assert told == {
        "UploadRole": (ResourceAction.ADD, False, False),
        "Processor": (ResourceAction.CHANGE, False, False),
        "ArchiveBucket": (ResourceAction.REPLACE, True, True),
        "FailureQueue": (ResourceAction.DELETE, True, False),
        "StagingBucket": (ResourceAction.RELEASE, True, True),
        "ProcessorLog": (ResourceAction.MAY_REPLACE, True, True),
    }
    assert planned.changes[1].properties == ("Code", "MemorySize")
    assert [(p.parameter, p.before, p.after) for p in planned.parameters] == [
        ("MemorySize", "512", "1024")
    ]
    assert planned.endangers_data


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create.",
        "No updates are to be performed.",
    ],
)
def test_no_change_leaves_no_change_set(aws: Aws, stub: Stubber, reason: str):
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response("create_change_set", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
    stub.add_response("describe_change_set", change_set("FAILED", StatusReason=reason))
    stub.add_response("delete_change_set", {}, {"ChangeSetName": CHANGE_SET_ID})
    planned = plan(
        *clients(aws),
        NAME,
        present,
        PARAMETERS,
        template=TEMPLATE,
        sleep=never,
    )
    assert planned.changes == ()


def test_a_change_set_that_cloudformation_refuses_names_the_resource(aws: Aws, stub: Stubber):
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response("create_change_set", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
    stub.add_response("describe_change_set", change_set("FAILED", StatusReason="Validation failed"))
    stub.add_response(
        "describe_events",
        {
            "OperationEvents": [
                {
                    "EventId": "1",
                    "LogicalResourceId": "FailureQueue",
                    "ResourceType": "AWS::SQS::Queue",
                    "ValidationStatusReason": "it exists already",
                }
            ]
        },
        {"ChangeSetName": CHANGE_SET_ID, "Filters": {"FailedEvents": True}},
    )
    stub.add_response("delete_change_set", {}, {"ChangeSetName": CHANGE_SET_ID})
    with pytest.raises(TwoBucketsError, match=r"FailureQueue .*: it exists already"):
        plan(
            *clients(aws),
            NAME,
            present,
            PARAMETERS,
            template=template_text(),
            sleep=never,
        )


def test_parameters_that_no_setting_covers_keep_their_value(aws: Aws, stub: Stubber):
    described = stack("UPDATE_COMPLETE")
    described["Stacks"][0]["Parameters"].append(
        {"ParameterKey": "AlarmTopicArn", "ParameterValue": "arn:aws:sns:eu-central-1:1:ops"}
    )
    stub.add_response("describe_stacks", described)
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response(
        "create_change_set",
        {"Id": CHANGE_SET_ID, "StackId": STACK_ID},
        {
            "StackName": NAME,
            "ChangeSetName": ANY,
            "ChangeSetType": "UPDATE",
            "TemplateBody": ANY,
            "Capabilities": ["CAPABILITY_IAM"],
            "Parameters": [
                *({"ParameterKey": k, "ParameterValue": v} for k, v in PARAMETERS.items()),
                {"ParameterKey": "AlarmTopicArn", "UsePreviousValue": True},
            ],
        },
    )
    stub.add_response(
        "describe_change_set", change_set("FAILED", StatusReason="No updates are to be performed")
    )
    stub.add_response("delete_change_set", {})
    plan(
        *clients(aws),
        NAME,
        present,
        PARAMETERS,
        template=TEMPLATE,
        sleep=never,
    )


def test_interrupting_the_planning_takes_the_change_set_back(aws: Aws, stub: Stubber):
    def interrupt(_: float):
        raise KeyboardInterrupt

    no_stack(stub)
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response("create_change_set", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
    stub.add_response("describe_change_set", change_set("CREATE_IN_PROGRESS"))
    stub.add_response("delete_change_set", {})
    stub.add_response("describe_stacks", stack("REVIEW_IN_PROGRESS"))
    stub.add_response("list_change_sets", {"Summaries": []})
    stub.add_response("delete_stack", {}, {"StackName": STACK_ID})
    with Stubber(aws.s3) as s3:
        for _ in range(2):
            s3.add_client_error("head_bucket", "404", http_status_code=404)
        with pytest.raises(KeyboardInterrupt):
            plan(
                *clients(aws),
                NAME,
                present,
                PARAMETERS,
                template=template_text(),
                sleep=interrupt,
            )


def test_a_stack_that_another_change_set_waits_for_is_not_taken_back(aws: Aws, stub: Stubber):
    planned = update(
        aws, stub, change_set("CREATE_COMPLETE", change("Add", "UploadRole", "AWS::IAM::Role"))
    )
    stub.add_response("delete_change_set", {})
    discard(aws.cloudformation, planned)


@pytest.mark.parametrize(("code", "words"), [("403", "another account"), ("301", "another region")])
def test_a_bucket_name_of_somebody_else_is_refused_before_anything_is_made(
    aws: Aws, stub: Stubber, code: str, words: str
):
    no_stack(stub)
    present = require_deployable(aws.cloudformation, NAME)
    with Stubber(aws.s3) as s3:
        s3.add_client_error("head_bucket", code, http_status_code=int(code))
        with pytest.raises(TwoBucketsError, match="the bucket name first is taken") as refused:
            plan(
                *clients(aws),
                NAME,
                present,
                PARAMETERS,
                template=template_text(),
                sleep=never,
            )
    assert words in refused.value.message


def test_applying_reports_the_first_failing_resource_and_that_all_is_as_before(
    aws: Aws, stub: Stubber
):
    planned = update(
        aws, stub, change_set("CREATE_COMPLETE", change("Add", "UploadRole", "AWS::IAM::Role"))
    )
    before = stack_event("UPDATE_COMPLETE")
    operation = [
        stack_event("UPDATE_IN_PROGRESS"),
        event("UploadRole", "CREATE_FAILED", "not authorized to perform: iam:CreateRole"),
        stack_event("UPDATE_ROLLBACK_IN_PROGRESS"),
        stack_event("UPDATE_ROLLBACK_COMPLETE"),
    ]
    stub.add_response("describe_stack_events", page(before))
    stub.add_response("execute_change_set", {}, {"ChangeSetName": CHANGE_SET_ID})
    stub.add_response("describe_stacks", stack("UPDATE_ROLLBACK_COMPLETE"))
    stub.add_response("describe_stack_events", page(before, *operation))
    stub.add_response("describe_stack_events", page(before, *operation))
    seen: list[StackEvent] = []
    with pytest.raises(AccessError) as refused:
        seen.extend(apply(aws.cloudformation, planned, sleep=never))
    assert [e.event_id for e in seen] == [e["EventId"] for e in operation]
    assert "UploadRole (AWS::SQS::Queue): not authorized" in refused.value.message
    assert "runs as before" in (refused.value.hint or "")
    assert "iam:CreateRole" in (refused.value.hint or "")


def test_a_stack_without_events_has_no_newest_one(
    cloudformation: CloudFormationClient, stub: Stubber
):
    stub.add_response("describe_stack_events", page())
    assert newest_event_id(cloudformation, STACK_ID) is None


def test_a_queue_that_goes_away_has_to_be_empty(aws: Aws, stub: Stubber):
    gone = change(
        "Remove",
        "ArrivalQueue",
        "AWS::SQS::Queue",
        PhysicalResourceId="https://sqs.eu-central-1.amazonaws.com/123456789012/intake-arrivals",
    )
    counts = {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesNotVisible": "2",
        "ApproximateNumberOfMessagesDelayed": "1",
    }
    stub.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    present = require_deployable(aws.cloudformation, NAME)
    stub.add_response("create_change_set", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
    stub.add_response("describe_change_set", change_set("CREATE_COMPLETE", gone))
    stub.add_response("delete_change_set", {}, {"ChangeSetName": CHANGE_SET_ID})
    with Stubber(aws.sqs) as sqs:
        sqs.add_response("get_queue_attributes", {"Attributes": counts})
        with pytest.raises(TwoBucketsError, match="intake-arrivals away, which holds 3 messages"):
            plan(
                *clients(aws),
                NAME,
                present,
                {**PARAMETERS, "MemorySize": "1024"},
                template=TEMPLATE,
                sleep=never,
            )
    stub.assert_no_pending_responses()
