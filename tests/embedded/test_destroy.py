"""Emptying and deleting buckets on the embedded AWS, whatever the keys and whoever uploads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from twobuckets.cli.app import App
from twobuckets.errors import AccessError, TwoBucketsError
from twobuckets.stack.destroy import Contents, Removed, count_contents, empty, remove_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.aws.clients import Aws
    from twobuckets.s3.engine import Sender

BUCKET = "pile"
# Without control characters: the embedded AWS lists versions without encoding them.
KEYS = [" ", "a//b", "ключ", "a&<>\"'b", "line\nbreak", "?*[x]", "+%20", "\u202e", "a" * 1024]


@pytest.fixture
def sender(embedded: Aws) -> Iterator[Sender]:
    with App(flags={"stack": "local"}).connect() as connected:
        yield connected


@pytest.fixture
def aws(embedded: Aws) -> Aws:
    """The embedded AWS with a versioned bucket."""
    embedded.s3.create_bucket(Bucket=BUCKET)
    embedded.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return embedded


def test_any_key_is_counted_and_removed_in_all_its_versions(aws: Aws, sender: Sender):
    for key in KEYS:
        for body in (b"x", b"yy"):
            aws.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        aws.s3.create_multipart_upload(Bucket=BUCKET, Key=key)
    aws.s3.delete_object(Bucket=BUCKET, Key=KEYS[0])
    count = len(KEYS)
    assert count_contents(sender, BUCKET) == Contents(
        BUCKET,
        objects=count - 1,
        noncurrent_versions=count + 1,
        delete_markers=1,
        incomplete_uploads=count,
        size_bytes=3 * count,
    )
    removed = list(remove_bucket(aws.s3, sender, BUCKET, delete_data=True))
    assert sum(step.versions for step in removed) == 2 * count + 1
    assert sum(step.uploads for step in removed) == count
    assert count_contents(sender, BUCKET) is None


def test_a_key_that_s3_refuses_to_delete_is_named_and_stays(aws: Aws, sender: Sender):
    # Alone, because the embedded AWS refuses a whole request where AWS refuses one of its keys.
    aws.s3.put_object(Bucket=BUCKET, Key="second\u202e", Body=b"x")
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": f"arn:aws:s3:::{BUCKET}/second*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    aws.s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    with pytest.raises(AccessError, match="refused to delete 'second") as refused:
        list(remove_bucket(aws.s3, sender, BUCKET, delete_data=True))
    assert "s3:DeleteObjectVersion" in (refused.value.hint or "")
    found = count_contents(sender, BUCKET)
    assert found is not None
    assert found.objects == 1


def test_what_arrives_after_the_last_look_is_kept_without_delete_data(aws: Aws, sender: Sender):
    aws.s3.put_object(Bucket=BUCKET, Key="just now", Body=b"x")
    with pytest.raises(TwoBucketsError, match="something arrived in it meanwhile"):
        list(remove_bucket(aws.s3, sender, BUCKET, delete_data=False))
    assert aws.s3.get_object(Bucket=BUCKET, Key="just now")["Body"].read() == b"x"


def test_what_arrives_after_the_last_look_goes_with_delete_data(aws: Aws, sender: Sender):
    arriving = iter([True])

    def arrive(**_: Any):
        if next(arriving, False):
            aws.s3.put_object(Bucket=BUCKET, Key="just now", Body=b"x")

    aws.s3.meta.events.register("before-call.s3.DeleteBucket", arrive, unique_id="arrive")
    try:
        removed = list(remove_bucket(aws.s3, sender, BUCKET, delete_data=True))
    finally:
        aws.s3.meta.events.unregister("before-call.s3.DeleteBucket", unique_id="arrive")
    assert removed == [Removed(BUCKET, versions=1)]
    assert count_contents(sender, BUCKET) is None


def test_somebody_who_never_stops_uploading_does_not_keep_it_busy_for_ever(
    aws: Aws, sender: Sender
):
    removing = empty(sender, BUCKET)
    aws.s3.put_object(Bucket=BUCKET, Key="again", Body=b"x")
    with pytest.raises(TwoBucketsError, match="something keeps uploading to it"):  # noqa: PT012
        for _ in removing:
            aws.s3.put_object(Bucket=BUCKET, Key="again", Body=b"x")


def test_delete_markers_alone_go_with_the_bucket(aws: Aws, sender: Sender):
    aws.s3.delete_object(Bucket=BUCKET, Key="never was")
    list(remove_bucket(aws.s3, sender, BUCKET, delete_data=False))
    assert count_contents(sender, BUCKET) is None


def test_without_permission_to_list_the_action_is_named(aws: Aws, sender: Sender):
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:ListBucketVersions",
        "Resource": f"arn:aws:s3:::{BUCKET}",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    aws.s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    with pytest.raises(AccessError) as refused:
        count_contents(sender, BUCKET)
    assert "s3:ListBucketVersions" in (refused.value.hint or "")
