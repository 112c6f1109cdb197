"""What a batch job's copies may have met is looked at, and taken back where something newer came.

The job is played by a copy without conditions, as S3 Batch Operations makes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.faults.proxy import Asked, FaultProxy
from tests.s3.credentials import FixedCredentials
from tests.s3.scripted import answer
from twobuckets.pipeline.conversation import hold
from twobuckets.processor.contract import ORIGIN, Origin
from twobuckets.reprocess.batch import KINDS
from twobuckets.reprocess.items import Item, State
from twobuckets.reprocess.journals import create
from twobuckets.reprocess.moving import Mover
from twobuckets.reprocess.overtaken import find_undisturbed
from twobuckets.reprocess.plan import Action, Kind, Rules, iter_archived, plan_listed
from twobuckets.s3.engine import Keys, connect, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

    from twobuckets.reprocess.journal import Journal


STAGING, ARCHIVE, KEY = "in-bucket", "done-bucket", "a key & more"


@dataclass
class Intake:
    """Two buckets with versions, and the file `old` archived in the first place."""

    s3: S3Client
    url: str
    archived: str = ""
    etag: str = ""

    def upload(self, body: str) -> str:
        return self.s3.put_object(Bucket=STAGING, Key=KEY, Body=body.encode())["VersionId"]

    def archive(self, body: str, staged: str) -> str:
        """Archive as the processor does, with its note of what was archived."""
        note = Origin(STAGING, staged, "", None, "").note()
        return self.s3.put_object(
            Bucket=ARCHIVE, Key=KEY, Body=body.encode(), Metadata={ORIGIN: note}
        )["VersionId"]

    def copy(self) -> str:
        """Do the job's task."""
        source: CopySourceTypeDef = {
            "Bucket": ARCHIVE,
            "Key": KEY,
            "VersionId": self.archived,
        }
        return self.s3.copy_object(Bucket=STAGING, Key=KEY, CopySource=source)["VersionId"]

    def clear(self, version_id: str, *, hide: bool = True) -> None:
        """Clear staging of what is archived as the processor does."""
        if hide:
            self.s3.delete_object(Bucket=STAGING, Key=KEY)
        self.s3.delete_object(Bucket=STAGING, Key=KEY, VersionId=version_id)

    def versions(self, bucket: str) -> list[str]:
        """The contents of a key's versions, the newest first; a delete marker is "-"."""
        page = self.s3.list_object_versions(Bucket=bucket)
        rows = [
            (v["LastModified"], v["IsLatest"], v["VersionId"]) for v in page.get("Versions", [])
        ]
        markers = page.get("DeleteMarkers", [])
        rows += [(m["LastModified"], m["IsLatest"], "") for m in markers]
        rows.sort(key=lambda row: (row[1], row[0]), reverse=True)
        return [self.read(bucket, row[2]) if row[2] else "-" for row in rows]

    def read(self, bucket: str, version_id: str) -> str:
        body = self.s3.get_object(Bucket=bucket, Key=KEY, VersionId=version_id)["Body"]
        return body.read().decode()


@pytest.fixture
def intake(empty_moto_url: str) -> Intake:
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
    intake = Intake(s3, empty_moto_url)
    intake.archived = intake.archive("old", "v0")
    intake.etag = s3.head_object(Bucket=ARCHIVE, Key=KEY)["ETag"].strip('"')
    return intake


@pytest.fixture
def journal(tmp_path: Path, intake: Intake) -> Iterator[Journal]:
    """A run that gave its one copy to a job, which nobody has looked after yet."""
    now = datetime.now(UTC)
    with create(tmp_path, fingerprint="f", description={}, now=now) as journal:
        journal.add([Action(KEY, Kind.COPY, intake.archived, intake.etag, 3)])
        journal.approve()
        journal.begin_job(now.timestamp(), kinds=KINDS)
        yield journal


def look_after(intake: Intake, journal: Journal) -> Item:
    """Do what follows a job, and return what the journal says of the file then."""
    endpoint = parse_endpoint(intake.url, region="us-east-1", path_style=True)
    with connect(endpoint, FixedCredentials(Keys("a", "b"))) as sender:
        mover = Mover(
            sender, journal, staging=STAGING, archive=ARCHIVE, now=lambda: datetime.now(UTC)
        )
        list(mover.run(journal.iter_items(State.BEGUN)))
    (item,) = journal.iter_items()
    return item


def test_a_copy_that_met_nothing_is_done(intake: Intake, journal: Journal):
    intake.copy()
    assert look_after(intake, journal).state is State.DONE
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["old"], ["old"])


def test_what_the_processor_has_archived_again_meanwhile_is_done_too(
    intake: Intake, journal: Journal
):
    copied = intake.copy()
    intake.archive("old", copied)
    intake.clear(copied, hide=False)
    assert look_after(intake, journal).state is State.DONE
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == ([], ["old", "old"])


def test_what_the_job_did_not_copy_is_copied_from_here(intake: Intake, journal: Journal):
    assert look_after(intake, journal).state is State.DONE
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["old"], ["old"])


def archive_in_parts(intake: Intake, journal: Journal) -> None:
    """Let the archived version be one of parts, the ETag of which no copy has."""
    note = {ORIGIN: Origin(STAGING, "v0", "", None, "").note()}
    where: Any = {"Bucket": ARCHIVE, "Key": KEY}
    upload_id = intake.s3.create_multipart_upload(**where, Metadata=note)["UploadId"]
    part = intake.s3.upload_part(**where, UploadId=upload_id, PartNumber=1, Body=b"old")
    done = intake.s3.complete_multipart_upload(
        **where,
        UploadId=upload_id,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    intake.s3.delete_object(**where, VersionId=intake.archived)
    intake.archived, intake.etag = done["VersionId"], done["ETag"].strip('"')
    assert intake.etag.endswith("-1")
    with journal.db.writing() as db:
        change = "UPDATE item SET version_id = ?, etag = ?"
        db.execute(change, (intake.archived, intake.etag))


def test_a_copy_of_an_object_of_parts_is_known_by_the_processor_s_note(
    intake: Intake, journal: Journal
):
    archive_in_parts(intake, journal)
    note = {ORIGIN: Origin(STAGING, "v0", "", None, "").note()}
    intake.s3.put_object(Bucket=STAGING, Key=KEY, Body=b"old", Metadata=note)
    item = look_after(intake, journal)
    assert (item.kind, item.state) == (Kind.COPY, State.DONE)
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["old"], ["old"])


def test_a_copy_over_a_newer_file_is_taken_back_and_that_file_is_woken(
    intake: Intake, journal: Journal
):
    newer = intake.upload("newer")
    intake.copy()
    item = look_after(intake, journal)
    assert (item.kind, item.state, item.version_id) == (Kind.WAKE, State.PLANNED, newer)
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["newer"], ["old"])


def test_a_newer_file_over_the_copy_is_woken_and_the_copy_taken_back(
    intake: Intake, journal: Journal
):
    intake.copy()
    newer = intake.upload("newer")
    item = look_after(intake, journal)
    assert (item.kind, item.version_id) == (Kind.WAKE, newer)
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["newer"], ["old"])


def test_a_newer_file_that_was_buried_with_the_copy_comes_to_light_again(
    intake: Intake, journal: Journal
):
    intake.upload("newer")
    copied = intake.copy()
    intake.archive("old", copied)
    intake.clear(copied)
    assert intake.versions(STAGING) == ["-", "newer"]
    item = look_after(intake, journal)
    assert (item.state, "on top in staging again" in str(item.reason)) == (State.LEFT, True)
    assert intake.versions(STAGING)[0] == "newer"
    assert intake.versions(ARCHIVE) == ["old", "old"]


def test_a_newer_file_that_somebody_deleted_before_the_copy_came_stays_deleted(
    intake: Intake, journal: Journal
):
    intake.upload("newer")
    intake.s3.delete_object(Bucket=STAGING, Key=KEY)
    item = look_after(intake, journal)
    assert (item.state, "under a delete marker" in str(item.reason)) == (State.LEFT, True)
    assert intake.versions(STAGING) == ["-", "newer"]
    assert intake.versions(ARCHIVE) == ["old"]


def test_a_copy_of_what_is_no_longer_current_is_taken_back(intake: Intake, journal: Journal):
    intake.archive("newer", "v1")
    intake.copy()
    item = look_after(intake, journal)
    assert item.state is State.LEFT
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == ([], ["newer", "old"])


def test_what_was_archived_of_such_a_copy_stays_under_the_newer_one(
    intake: Intake, journal: Journal
):
    intake.archive("newer", "v1")
    copied = intake.copy()
    intake.archive("old", copied)
    newer = intake.archive("newer", "v1")
    item = look_after(intake, journal)
    assert (item.state, newer in str(item.reason)) == (State.LEFT, False)
    assert intake.versions(STAGING) == []
    assert intake.versions(ARCHIVE) == ["newer", "old", "newer", "old"]


def test_a_newer_archived_version_under_the_copy_s_is_named_and_nothing_deleted(
    intake: Intake, journal: Journal
):
    newer = intake.archive("newer", "v1")
    copied = intake.copy()
    intake.archive("old", copied)
    intake.clear(copied, hide=False)
    item = look_after(intake, journal)
    assert (item.state, newer in str(item.reason)) == (State.LEFT, True)
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == ([], ["old", "newer", "old"])


def test_a_version_that_was_chosen_comes_back_over_newer_ones(intake: Intake, journal: Journal):
    with journal.db.writing() as db:
        db.execute("UPDATE item SET is_chosen = 1")
    intake.archive("newer", "v1")
    intake.copy()
    assert look_after(intake, journal).state is State.DONE
    assert (intake.versions(STAGING), intake.versions(ARCHIVE)) == (["old"], ["newer", "old"])


def test_what_lies_close_together_is_looked_at_a_thousand_versions_a_request(
    intake: Intake, tmp_path: Path
):
    """Of 60 objects three were archived anew, one was deleted, and one came again as it was."""
    s3 = intake.s3
    keys = [f"many/{number:03}" for number in range(60)]
    put = {key: s3.put_object(Bucket=ARCHIVE, Key=key, Body=key.encode()) for key in keys}
    for key in keys[10:13]:
        s3.put_object(Bucket=ARCHIVE, Key=key, Body=b"newer")
    s3.delete_object(Bucket=ARCHIVE, Key=keys[20])
    s3.put_object(Bucket=ARCHIVE, Key=keys[30], Body=keys[30].encode())
    now = datetime.now(UTC)
    endpoint = parse_endpoint(intake.url, region="us-east-1", path_style=True)
    with (
        create(tmp_path, fingerprint="f", description={}, now=now) as journal,
        connect(endpoint, FixedCredentials(Keys("a", "b"))) as sender,
    ):
        journal.add(
            Action(key, Kind.COPY, put[key]["VersionId"], put[key]["ETag"].strip('"'), 8)
            for key in keys
        )
        items = list(journal.iter_items())
        (undisturbed,) = hold(sender, [find_undisturbed(items, ARCHIVE)])
        (few,) = hold(sender, [find_undisturbed(items[:3], ARCHIVE)])
    disturbed = {item.key for item in items if item.id not in undisturbed}
    # moto leaves out the first row after a key marker.
    assert disturbed - {keys[0]} == {*keys[10:13], keys[20]}
    assert few == set(), "single looks are cheaper"


def test_a_run_asks_once_for_all_that_has_arrived(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keys = [f"many/{number:03}" for number in range(60)]
    for key in keys:
        intake.s3.put_object(Bucket=ARCHIVE, Key=key, Body=key.encode())
    asked: list[str] = []

    def note(request: Asked) -> None:
        asked.append(request.method + " versions" * ("versions" in request.target))

    with FaultProxy(rate=0, upstream=intake.url, refuses=note) as proxy:
        endpoint = parse_endpoint(proxy.url, region="us-east-1", path_style=True)
        now = datetime.now(UTC)
        with (
            create(tmp_path, fingerprint="f", description={}, now=now) as journal,
            connect(endpoint, FixedCredentials(Keys("a", "b"))) as sender,
        ):
            journal.add(plan_listed(iter_archived(sender, ARCHIVE, "many/"), [], Rules()))
            asked.clear()
            mover = Mover(sender, journal, staging=STAGING, archive=ARCHIVE, now=lambda: now)
            ends = list(mover.run(journal.iter_items(State.PLANNED)))
    assert {end.state for end in ends} == {State.DONE}
    # One HEAD is for the clock; and moto leaves out the first row after a key marker.
    assert Counter(asked) == {"HEAD": 2, "PUT": 60, "GET versions": 1}


@pytest.mark.parametrize("covered", [False, True], ids=["on top", "covered by the same bytes"])
def test_a_copy_whose_version_is_not_told_is_taken_back_only_if_it_surely_is_the_copy(
    intake: Intake, tmp_path: Path, covered: bool
):
    """Something newer is archived while the copy is made, by an endpoint that is not AWS."""
    uploaded: list[str] = []

    def copy(asked: Asked) -> bytes | None:
        if asked.method != "PUT":
            return None
        intake.copy()
        intake.archive("newer", "v1")
        if covered:
            uploaded.append(intake.upload("old"))
        result = f"<CopyObjectResult><ETag>&quot;{intake.etag}&quot;</ETag></CopyObjectResult>"
        return answer(200, result.encode(), f"x-amz-copy-source-version-id: {intake.archived}")

    now = datetime.now(UTC)
    with FaultProxy(rate=0, upstream=intake.url, refuses=copy) as proxy:
        endpoint = parse_endpoint(proxy.url, region="us-east-1", path_style=True)
        with (
            create(tmp_path, fingerprint="f", description={}, now=now) as journal,
            connect(endpoint, FixedCredentials(Keys("a", "b"))) as sender,
        ):
            journal.add([Action(KEY, Kind.COPY, intake.archived, intake.etag, 3)])
            mover = Mover(sender, journal, staging=STAGING, archive=ARCHIVE, now=lambda: now)
            [end] = mover.run(journal.iter_items(State.PLANNED))
    assert intake.versions(ARCHIVE) == ["newer", "old"]
    if covered:
        assert intake.read(STAGING, uploaded[0]) == "old"
        assert end.state is State.FAILED
        assert "no version id to take it back by" in (end.reason or "")
    else:
        assert intake.versions(STAGING) == []
        assert end.state is State.LEFT
