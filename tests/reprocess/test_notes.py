"""What a copy that is brought back says of its age: the note of the version that it was made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
import pytest

from tests.s3.credentials import FixedCredentials
from twobuckets.processor.contract import ORIGIN, Origin
from twobuckets.reprocess import moving
from twobuckets.reprocess.items import State
from twobuckets.reprocess.journals import create
from twobuckets.reprocess.plan import Action, Kind
from twobuckets.s3.engine import Keys, connect, parse_endpoint

if TYPE_CHECKING:
    from pathlib import Path

STAGING, ARCHIVE = "notes-staging", "notes-archive"
NOTE = Origin(STAGING, "v0", "e0", "00A1", "2026-05-04T12:00:00Z").note()


@pytest.mark.parametrize("is_large", [False, True], ids=["one copy", "in parts"])
@pytest.mark.parametrize("is_chosen", [False, True], ids=["current", "chosen"])
def test_only_a_copy_of_what_nobody_chose_brings_its_note(
    empty_moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_large: bool,
    is_chosen: bool,
):
    if is_large:
        monkeypatch.setattr(moving, "LONGEST_COPY_BYTES", 0)
    s3 = boto3.client(
        "s3",
        endpoint_url=empty_moto_url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    for bucket in (STAGING, ARCHIVE):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put = s3.put_object(
        Bucket=ARCHIVE,
        Key="k",
        Body=b"old",
        ContentType="text/x-test",
        CacheControl="no-store",
        Metadata={ORIGIN: NOTE, "who": "me"},
        Tagging="team=a",
    )
    action = Action(
        "k", Kind.COPY, put["VersionId"], put["ETag"].strip('"'), 3, is_chosen=is_chosen
    )
    endpoint = parse_endpoint(empty_moto_url, region="us-east-1", path_style=True)
    now = datetime.now(UTC)
    with (
        create(tmp_path, fingerprint="f", description={}, now=now) as journal,
        connect(endpoint, FixedCredentials(Keys("a", "b"))) as sender,
    ):
        journal.add([action])
        mover = moving.Mover(sender, journal, staging=STAGING, archive=ARCHIVE, now=lambda: now)
        (end,) = mover.run(journal.iter_items(State.PLANNED))
    assert end.state is State.DONE, end.reason
    staged = s3.head_object(Bucket=STAGING, Key="k")
    assert staged["Metadata"].get(ORIGIN) == (None if is_chosen else NOTE)
    assert staged["Metadata"]["who"] == "me"
    assert (staged["ContentType"], staged["CacheControl"]) == ("text/x-test", "no-store")
    tags = s3.get_object_tagging(Bucket=STAGING, Key="k")["TagSet"]
    assert tags == [{"Key": "team", "Value": "a"}]
