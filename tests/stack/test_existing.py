"""What a deployment does to buckets that were there before it: conflicts, refusals, merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.stub import Stubber
from moto import mock_aws

from twobuckets.aws.clients import Aws
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.pipeline.buckets import BucketFacts
from twobuckets.pipeline.entries import LIFECYCLE, aborting_rule, change
from twobuckets.pipeline.lookups import Lookups
from twobuckets.stack.existing import plan_existing, settle
from twobuckets.stack.template import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.stack.existing import Settlement

REGION: Final = "eu-central-1"
ACCOUNT = "123456789012"
PLACE = Location(ACCOUNT, REGION, "aws", uses_tls=True)
PROCESSOR = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:intake-processor"
OTHER = f"arn:aws:sqs:{REGION}:{ACCOUNT}:others"
PARAMETERS = {
    "StagingBucketName": "old-in",
    "CreateStagingBucket": "false",
    "ArchiveBucketName": "made",
    "CreateArchiveBucket": "true",
    "AbortIncompleteUploadDays": "3",
    "NoncurrentVersionDays": "30",
    "CorsOrigins": "",
    "Trigger": "notification",
}


@pytest.fixture
def aws(fake_credentials: None) -> Iterator[Aws]:
    with mock_aws():
        aws = Aws(region=REGION)
        aws.s3.create_bucket(
            Bucket="old-in", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield aws


def planned(aws: Aws, *, expires_versions: bool = False, **parameters: str) -> Settlement:
    [settlement] = plan_existing(
        aws.s3,
        BucketFacts(aws, Lookups()),
        None,
        "intake",
        PARAMETERS | parameters,
        PLACE,
        expires_versions=expires_versions,
    )
    return settlement


def notify(aws: Aws, **configuration: Any) -> None:
    written: Any = configuration
    # moto looks whether there is such a function, and there is none before the stack.
    aws.s3.put_bucket_notification_configuration(
        Bucket="old-in", NotificationConfiguration=written, SkipDestinationValidation=True
    )


def route(kind: str, target: str, *events: str, **filters: str) -> dict[str, Any]:
    rules = [{"Name": name, "Value": value} for name, value in filters.items()]
    found: dict[str, Any] = {"Id": "theirs", kind: target, "Events": list(events)}
    return found | ({"Filter": {"Key": {"FilterRules": rules}}} if rules else {})


CONFLICTS = {
    "all of it": (route("QueueArn", OTHER, "s3:ObjectCreated:*"), "others of s3:ObjectCreated:*"),
    "a prefix of it": (
        route("QueueArn", OTHER, "s3:ObjectCreated:Put", prefix="in/", suffix=".csv"),
        "for keys that begin with 'in/' and that end with '.csv'",
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_who_is_told_of_new_files_already_is_named(aws: Aws, name: str):
    configuration, words = CONFLICTS[name]
    notify(aws, QueueConfigurations=[configuration])
    with pytest.raises(TwoBucketsError) as refused:
        planned(aws)
    assert words in refused.value.message
    assert "the notification theirs" in refused.value.message
    assert "EventBridge" in (refused.value.hint or "")


def test_part_of_what_the_processor_is_to_be_told_is_to_be_removed(aws: Aws):
    theirs = route("LambdaFunctionArn", PROCESSOR, "s3:ObjectCreated:Put")
    with Stubber(aws.s3) as stub:
        stub.add_response("head_bucket", {"BucketRegion": REGION})
        stub.add_response("get_bucket_versioning", {"Status": "Enabled"})
        stub.add_client_error(
            "get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"
        )
        stub.add_client_error("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration")
        stub.add_response("list_objects_v2", {})
        stub.add_client_error("get_bucket_cors", "NoSuchCORSConfiguration")
        stub.add_client_error("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration")
        stub.add_response(
            "get_bucket_notification_configuration", {"LambdaFunctionConfigurations": [theirs]}
        )
        with pytest.raises(TwoBucketsError, match="the notification theirs") as refused:
            planned(aws)
    assert (refused.value.hint or "").startswith("Remove it")


def test_who_is_told_of_removals_alone_is_no_conflict(aws: Aws):
    notify(aws, QueueConfigurations=[route("QueueArn", OTHER, "s3:ObjectRemoved:*")])
    assert any("adds the notification" in change for change in planned(aws).shown.changes)


def test_a_rule_of_others_that_aborts_every_upload_is_enough(aws: Aws):
    rules: Any = [aborting_rule("theirs", 7)]
    aws.s3.put_bucket_lifecycle_configuration(
        Bucket="old-in", LifecycleConfiguration={"Rules": rules}
    )
    assert not any("lifecycle" in change for change in planned(aws).shown.changes)


def test_noncurrent_versions_expire_only_where_that_is_asked_for(aws: Aws):
    said = " ".join(planned(aws).shown.changes)
    assert "DELETES" not in said
    said = " ".join(planned(aws, expires_versions=True).shown.changes)
    assert "DELETES everybody's versions that were noncurrent for 30 days" in said


def test_a_key_of_kms_is_told(aws: Aws):
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    rule: Any = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    }
    aws.s3.put_bucket_encryption(
        Bucket="old-in", ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    assert any(key in notice for notice in planned(aws).shown.notices)


def test_a_bucket_of_another_account_is_refused(aws: Aws):
    with Stubber(aws.s3) as stub:
        stub.add_client_error(
            "head_bucket",
            "403",
            http_status_code=403,
            expected_params={"Bucket": "old-in", "ExpectedBucketOwner": ACCOUNT},
        )
        with pytest.raises(AccessError, match="around the bucket old-in: access denied"):
            planned(aws)


def test_a_bucket_of_another_region_is_refused(aws: Aws):
    with Stubber(aws.s3) as stub:
        stub.add_client_error(
            "head_bucket",
            "301",
            http_status_code=301,
            response_meta={"HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}},
        )
        with pytest.raises(TwoBucketsError, match="it is in eu-west-1, and the stack in eu-cent"):
            planned(aws)


def test_a_bucket_that_is_not_there_is_refused(aws: Aws):
    with pytest.raises(NotFoundError, match="there is no such bucket"):
        planned(aws, StagingBucketName="nowhere")


# --- writing -------------------------------------------------------------------------------------


def test_what_somebody_else_adds_after_the_plan_stays(aws: Aws):
    settlement = planned(
        aws,
        CreateStagingBucket="true",
        StagingBucketName="made",
        CreateArchiveBucket="false",
        ArchiveBucketName="old-in",
    )
    rules: Any = [
        {"ID": "later", "Status": "Enabled", "Prefix": "tmp/", "Expiration": {"Days": 1}},
    ]
    aws.s3.put_bucket_lifecycle_configuration(
        Bucket="old-in", LifecycleConfiguration={"Rules": rules}
    )
    settle(aws.s3, settlement, sleep=lambda _: None)
    found = aws.s3.get_bucket_lifecycle_configuration(Bucket="old-in")["Rules"]
    assert [rule.get("ID") for rule in found] == [
        "later",
        "twobuckets-intake-abort-incomplete-uploads",
    ]


def test_a_conflict_that_came_after_the_plan_stops_the_write(aws: Aws):
    settlement = planned(aws)
    notify(aws, QueueConfigurations=[route("QueueArn", OTHER, "s3:ObjectCreated:*")])
    with pytest.raises(TwoBucketsError, match="the notification theirs"):
        settle(aws.s3, settlement, sleep=lambda _: None)
    found = aws.s3.get_bucket_notification_configuration(Bucket="old-in")
    assert [c["Id"] for c in found["QueueConfigurations"]] == ["theirs"]


def test_writes_that_somebody_keeps_winning_are_given_up(aws: Aws):
    def lose(**_: Any) -> None:
        aws.s3.delete_bucket_lifecycle(Bucket="old-in")

    events = aws.s3.meta.events
    events.register("before-call.s3.GetBucketLifecycleConfiguration", lose)
    with pytest.raises(TwoBucketsError, match="not what was written"):
        change(
            aws.s3,
            "old-in",
            LIFECYCLE,
            lambda _: [aborting_rule("ours", 3)],
            sleep=lambda _: None,
        )
