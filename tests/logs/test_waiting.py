"""What became of staged objects: from outcome lines, and from S3 where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from tests.conftest import put_into_moto
from tests.logs.service import EPOCH, Clock, Service, outcome_line, response, wait_for_fates
from twobuckets.logs.lines import OUTCOME_OR_FAILURE_PATTERN
from twobuckets.logs.objects import AwaitedVersion, find_objects
from twobuckets.logs.waiting import (
    Fate,
    Policy,
    Tracker,
)
from twobuckets.pipeline.retries import asynchronous

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STAGING, ARCHIVE = "intake-staging", "intake-archive"
ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
MINUTE = timedelta(minutes=1)
ONCE = asynchronous(MINUTE, retries=0)


class World:
    """A clock, a log group, and S3 with both buckets; counts the requests that reach S3."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log = Service(self.clock)
        self.s3: S3Client = boto3.client("s3")
        self.requests: list[str] = []
        for bucket in (STAGING, ARCHIVE):
            self.s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
            )
        self.s3.meta.events.register("before-call.s3", self._count)

    def _count(self, model: Any, **_: Any) -> None:
        self.requests.append(model.name)

    def stage(
        self, key: str, body: bytes = b"abc", version_id: str | None = None
    ) -> AwaitedVersion:
        etag = self.s3.put_object(Bucket=STAGING, Key=key, Body=body)["ETag"]
        return AwaitedVersion(key, version_id, etag, self.clock.now(), len(body))

    def archive(self, key: str) -> None:
        source = {"Bucket": STAGING, "Key": key}
        self.s3.copy_object(Bucket=ARCHIVE, Key=key, CopySource=source)  # type: ignore[arg-type]
        self.s3.delete_object(Bucket=STAGING, Key=key)

    def line(self, outcome: str, staged: AwaitedVersion, *, after: float, **fields: Any) -> None:
        line = outcome_line(
            outcome,
            staged.key,
            etag=staged.etag.strip('"'),
            version_id=staged.version_id,
            **fields,
        )
        self.log.write(line, after=after, late=0.3)

    def tracker(
        self, *, logs: Any = None, log: bool = True, policy: Policy | None = None
    ) -> Tracker:
        return Tracker(
            s3=self.s3,
            staging=STAGING,
            archive=ARCHIVE,
            logs=(logs or self.log.client) if log else None,
            log_group="/aws/lambda/intake",
            now=self.clock.now,
            sleep=self.clock.sleep,
            policy=policy or Policy(),
        )

    def wait(
        self, *staged: AwaitedVersion, timeout: timedelta = 5 * MINUTE, **options: Any
    ) -> list[Fate]:
        return list(wait_for_fates(self.tracker(**options), staged, timeout=timeout))


@pytest.fixture
def world(fake_credentials: None) -> Iterator[World]:
    with mock_aws():
        yield World()


def test_each_object_gets_its_outcome_line(world: World):
    good, bad = world.stage("good.csv"), world.stage("bad.csv", version_id="v7")
    world.line("archived", good, after=2, archive_version_id="a1")
    error = {"type": "Reject", "message": "no header", "trace": "t"}
    world.line("rejected", bad, after=3, error=error)
    fates = {f.key: f for f in world.wait(good, bad)}
    assert fates["good.csv"].fate == "archived"
    assert fates["good.csv"].archive_version_id == "a1"
    assert fates["good.csv"].bucket == ARCHIVE
    assert fates["bad.csv"].fate == "rejected"
    assert fates["bad.csv"].error is not None
    assert fates["bad.csv"].error.message == "no header"
    assert all(f.is_final for f in fates.values())


def test_an_outcome_that_is_read_before_its_version_is_added_is_not_lost(world: World):
    slow, quick = world.stage("slow"), world.stage("quick")
    tracker = world.tracker()
    world.line("rejected", quick, after=0.1, reason="no header")
    tracker.add(slow)
    for _ in range(3):
        world.clock.sleep(1)
        assert list(tracker.poll()) == []
    tracker.add(quick)
    assert [(f.key, f.fate) for f in tracker.poll()] == [("quick", "rejected")]


def test_a_failure_counts_only_when_lambda_has_given_up(world: World):
    staged = world.stage("k")
    error = {"type": "ValueError", "message": "no", "trace": ""}
    for after in (1, 62, 185):
        world.line("failed", staged, after=after, error=error, duration_ms=500)
    told = world.wait(staged, policy=Policy(tells_retries=True))
    assert [(f.fate, f.is_final, f.attempts) for f in told] == [
        ("failed", False, 1),
        ("failed", False, 2),
        ("failed", True, 3),
    ]


def test_a_failure_that_a_retry_mends_ends_archived(world: World):
    staged = world.stage("k")
    world.line("failed", staged, after=1, error={"type": "E", "message": "m"})
    world.line("archived", staged, after=62)
    told = world.wait(staged)
    assert [(f.fate, f.attempts) for f in told] == [("archived", 2)]


def test_the_first_failure_is_final_where_asked(world: World):
    staged = world.stage("k")
    world.line("failed", staged, after=1, error={"type": "E", "message": "m"})
    told = world.wait(staged, policy=Policy(retries=ONCE))
    assert [(f.fate, f.is_final) for f in told] == [("failed", True)]
    assert world.clock.now() - EPOCH < timedelta(seconds=15)


def test_a_time_out_told_in_advance_and_again_is_one_attempt(world: World):
    staged = world.stage("k")
    error = {"type": "TimeoutExpected", "message": "m"}
    world.line("failed", staged, after=57, duration_ms=56_000, error=error)
    world.line("failed", staged, after=60, duration_ms=59_000, error=error)
    told = world.wait(staged, timeout=2 * MINUTE)
    assert [(f.fate, f.attempts) for f in told] == [("failed", 1)]
    assert told[0].detail == "not tried again so far (attempt 1)"


def test_a_record_that_ends_well_after_its_time_out_was_foretold_is_archived(world: World):
    staged = world.stage("k")
    world.line("failed", staged, after=57, duration_ms=56_000, error={"type": "T", "message": "m"})
    world.line("archived", staged, after=58.5)
    told = world.wait(staged, policy=Policy(retries=ONCE))
    assert [f.fate for f in told] == ["archived"]


def test_a_line_about_the_same_content_from_before_is_not_taken(world: World):
    world.clock.at = EPOCH + timedelta(seconds=600)
    staged = world.stage("k")
    world.line("failed", staged, after=560, error={"type": "E", "message": "old"})
    told = world.wait(staged, timeout=MINUTE, policy=Policy(retries=ONCE))
    assert [f.fate for f in told] == ["unknown"]


def test_a_line_about_another_version_is_not_taken(world: World):
    staged = world.stage("k", version_id="mine")
    world.log.write(outcome_line("archived", "k", version_id="other"), after=1)
    world.log.write(outcome_line("archived", "k", version_id="mine", bucket="elsewhere"), after=1)
    assert [f.fate for f in world.wait(staged, timeout=MINUTE)] == ["unknown"]


def test_a_duplicates_missing_line_before_the_archived_one_misleads_nobody(world: World):
    staged = world.stage("k")
    world.line("missing", staged, after=1.0)
    world.line("archived", staged, after=1.1)
    assert [f.fate for f in world.wait(staged)] == ["archived"]


def test_a_superseded_version_is_told(world: World):
    staged = world.stage("k")
    world.line("superseded", staged, after=1.0, reason="a newer version is in staging")
    told = world.wait(staged)
    assert [(f.fate, f.detail) for f in told] == [("superseded", "a newer version is in staging")]


def test_lines_are_read_in_few_requests_for_many_objects(world: World):
    staged = [AwaitedVersion(f"k{n:05}", f"v{n}", "e", EPOCH) for n in range(4_000)]
    for number, item in enumerate(staged):
        world.line("archived", item, after=1 + number / 400)
    fates = world.wait(*staged)
    assert len(fates) == 4_000
    assert {f.fate for f in fates} == {"archived"}
    assert len(world.log.requests) < 40
    assert len(world.requests) < 40


def test_little_else_of_the_log_is_asked_for_once_outcome_lines_are_seen(world: World):
    first, last = world.stage("first"), world.stage("last")
    world.line("archived", first, after=1)
    world.line("archived", last, after=30)
    assert {f.fate for f in world.wait(first, last)} == {"archived"}
    patterns = [request.get("filterPattern") for request in world.log.requests]
    assert patterns[0] is None
    assert patterns[-1] == OUTCOME_OR_FAILURE_PATTERN


def test_what_arrives_late_is_waited_for_while_more_is_added(world: World):
    def uploads() -> Iterator[AwaitedVersion]:
        for number in range(5):
            world.clock.sleep(1)
            staged = world.stage(f"k{number}")
            world.line("archived", staged, after=number + 2)
            yield staged

    tracker = world.tracker()
    seen_while_uploading = 0
    fates = []
    feed = uploads()
    for fate in wait_for_fates(tracker, feed, timeout=MINUTE):
        fates.append(fate.key)
        if feed.gi_frame is not None:  # type: ignore[attr-defined]
            seen_while_uploading += 1
    assert sorted(fates) == [f"k{n}" for n in range(5)]
    assert seen_while_uploading > 0


# -- pipelines whose processor is not ours


def test_without_any_log_s3_tells_what_is_archived(world: World):
    moved, stays = world.stage("moved"), world.stage("stays")
    world.archive("moved")
    fates = {f.key: f for f in world.wait(moved, stays, log=False, timeout=MINUTE)}
    assert fates["moved"].fate == "archived"
    assert fates["moved"].bucket == ARCHIVE
    assert fates["stays"].fate == "unknown"


def test_a_copy_in_parts_is_known_by_its_size(world: World):
    world.clock.at = EPOCH.now(EPOCH.tzinfo)
    staged = world.stage("k")
    world.s3.delete_object(Bucket=STAGING, Key="k")
    world.s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"xyz")
    assert [f.fate for f in world.wait(staged, log=False)] == ["archived"]


def test_what_lay_in_the_archive_before_is_no_copy_though_its_size_is_the_same(world: World):
    world.s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"xyz")
    world.clock.at = EPOCH.now(EPOCH.tzinfo) + MINUTE
    staged = world.stage("k")
    world.s3.delete_object(Bucket=STAGING, Key="k")
    assert [f.fate for f in world.wait(staged, log=False)] == ["missing"]


def test_what_left_staging_and_is_nowhere_is_missing(world: World):
    staged = world.stage("k")
    world.s3.delete_object(Bucket=STAGING, Key="k")
    assert [f.fate for f in world.wait(staged)] == ["missing"]


def test_what_was_overwritten_in_staging_is_superseded(world: World):
    staged = world.stage("k", b"one")
    world.stage("k", b"another")
    assert [f.fate for f in world.wait(staged)] == ["superseded"]


def write_invocation(world: World, after: float, *lines: str, status: str = "") -> None:
    world.log.write(f"START RequestId: {ID} Version: $LATEST", after=after)
    for number, line in enumerate(lines):
        world.log.write(line, after=after + 0.1 + number / 100)
    world.log.write(f"END RequestId: {ID}", after=after + 0.5)
    world.log.write(f"REPORT RequestId: {ID}\tDuration: 9 ms{status}", after=after + 0.5)


def test_a_foreign_processors_exception_is_told_for_the_object_its_invocation_names(world: World):
    staged, other = world.stage("in/a b.csv"), world.stage("other")
    notification = json.dumps({"Records": [{"s3": {"object": {"key": "in/a+b.csv"}}}]})
    for after in (1, 62, 185):
        write_invocation(
            world,
            after,
            f"event: {notification}",
            "[ERROR] KeyError: 'x'\nTraceback (most recent call last):\n  File \"p.py\"",
        )
    fates = {f.key: f for f in world.wait(staged, other)}
    failed = fates["in/a b.csv"]
    assert (failed.fate, failed.attempts, failed.request_id) == ("failed", 3, ID)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("KeyError", "'x'")
    assert fates["other"].fate == "unknown"


def test_an_error_that_a_foreign_processor_swallows_is_told_soon(world: World):
    staged = world.stage("k.csv")
    trace = "Traceback (most recent call last):\n  File p\nValueError: no header\n"
    write_invocation(world, 1, "moving s3://intake-staging/k.csv", trace)
    (fate,) = world.wait(staged, timeout=15 * MINUTE)
    assert fate.fate == "failed"
    assert fate.error is not None
    assert (fate.error.type, fate.error.message) == ("ValueError", "no header")
    assert fate.detail is not None
    assert "does not try again" in fate.detail
    assert world.clock.now() - EPOCH < MINUTE


def test_an_invocation_that_ends_well_and_leaves_the_file_is_not_waited_for(world: World):
    staged = world.stage("k.csv")
    write_invocation(world, 1, "ERROR could not move k.csv: NoSuchKey")
    (fate,) = world.wait(staged, timeout=15 * MINUTE)
    assert fate.fate == "unknown"
    assert fate.detail is not None
    assert "left it in staging: ERROR could not move k.csv: NoSuchKey" in fate.detail
    assert world.clock.now() - EPOCH < 2 * MINUTE


def test_a_time_out_that_names_no_object_is_mentioned(world: World):
    staged = world.stage("k.csv")
    write_invocation(world, 1, f"2026-05-04T12:00:00.123Z {ID} Task timed out after 3.00 seconds")
    (fate,) = world.wait(staged, timeout=MINUTE)
    assert fate.fate == "unknown"
    assert fate.detail is not None
    assert "Task timed out after 3.00 seconds" in fate.detail


# -- bad days


def test_without_permission_for_the_log_s3_still_tells(world: World):
    def deny(**_: Any) -> Any:
        error = {"Code": "AccessDeniedException", "Message": "no"}
        return response(400, {"Error": error})

    staged = world.stage("k")
    world.archive("k")
    logs = world.log.client
    logs.meta.events.register_first("before-call.logs.FilterLogEvents", deny)
    tracker = world.tracker(logs=logs)
    (fate,) = wait_for_fates(tracker, [staged], timeout=MINUTE)
    assert fate.fate == "archived"
    assert "log group" in tracker.problems[0].message


@pytest.mark.parametrize("count", [5, 100])
def test_objects_are_found_among_many_in_few_requests(world: World, count: int):
    keys = {f"{'x' * 20}/é{n:05}+ %" for n in range(0, count * 3, 3)}
    put_into_moto(ARCHIVE, (f"before/{number}" for number in range(1010 if count > 5 else 0)))
    put_into_moto(ARCHIVE, (f"{'x' * 20}/é{number:05}+ %" for number in range(count * 3)), b"1")
    world.requests.clear()
    missing = {f"{'x' * 20}/é00000", "nowhere"}
    found = find_objects(world.s3, ARCHIVE, keys | missing)
    assert set(found) == keys
    assert len(world.requests) <= max(5, min(len(keys) + 2, 8))
