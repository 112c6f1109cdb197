"""What S3 refuses the processor for its own reasons: a finding for each reason, which it names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.doctor.conftest import (
    ARCHIVE,
    STAGING,
    Answers,
    HandMadePair,
    log,
    outcome,
    put,
    run_doctor,
)
from tests.doctor.test_evidence import stuck
from twobuckets.processor.refusals import ClosedError, reason_of_one

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SSE_C = "InvalidRequest", "The object was stored using a form of Server Side Encryption."
DENIED = (
    "AccessDenied",
    "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: kms:Decrypt on resource",
)


def refused(key: str, answer: Mapping[str, Any], code: str, message: str, kind: str) -> str:
    """Return the line that our processor writes of a refusal in S3's words."""
    reason = reason_of_one(code, message)
    assert reason is not None
    error = {"type": "ClosedError", "message": str(ClosedError(STAGING, key, reason))}
    return outcome(key, answer, kind, error=error)


def test_each_key_of_encryption_that_is_out_of_reach_is_a_finding_of_its_own(ours: HandMadePair):
    answers = put(ours, "theirs 1", "theirs 2", "closed", "bad")
    log(
        ours,
        refused("theirs 1", answers[0], *SSE_C, "rejected"),
        refused("theirs 2", answers[1], *SSE_C, "rejected"),
        refused("closed", answers[2], *DENIED, "failed"),
        outcome("bad", answers[3]),
    )
    run = stuck()
    assert run.of("stuck-own-key")["objects"] == ["theirs 1", "theirs 2"]
    assert "SSE-C" in run.of("stuck-own-key")["error"]
    assert run.of("stuck-own-key")["remedy"] is None
    assert run.of("stuck-kms")["objects"] == ["closed"]
    assert "kms:Decrypt" in run.of("stuck-kms")["error"]
    assert "--error" in run.of("stuck-kms")["remedy"]
    assert run.of("stuck-failed")["objects"] == ["bad"]
    asked = ["--check", "stuck-own-key", "--check", "stuck-kms"]
    fixed = run_doctor("--older-than", "0s", "--fix", "--dry-run", *asked)
    assert {line["check"] for line in fixed.lines if line["type"] == "action"} == {"stuck-kms"}


def test_a_processor_of_somebody_elses_is_heard_as_well(pair: HandMadePair):
    put(pair, "theirs", "kms")
    request = "11111111-2222-3333-4444-55555555555"
    for number, (key, (code, message)) in enumerate((("theirs", SSE_C), ("kms", DENIED))):
        said = f"An error occurred ({code}) when calling the GetObject operation: {message}"
        log(
            pair,
            f"START RequestId: {request}{number} Version: $LATEST",
            f"[ERROR] ClientError: {said}\nTraceback (most recent call last): on {key}",
            f"END RequestId: {request}{number}",
            f"REPORT RequestId: {request}{number}\tDuration: 2.50 ms\tMemory Size: 128 MB",
            stream=key,
        )
    run = stuck()
    assert run.of("stuck-own-key")["objects"] == ["theirs"]
    assert run.of("stuck-kms")["objects"] == ["kms"]


UNTIL = datetime(2999, 1, 1, tzinfo=UTC)
LOCKS: dict[str, dict[str, Any]] = {
    "a legal hold": {"ObjectLockLegalHoldStatus": "ON"},
    "Object Lock, in compliance mode": {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": UNTIL,
    },
}


@pytest.mark.parametrize("lock", LOCKS)
def test_what_a_lock_keeps_in_staging_is_told_with_the_lock(
    ours: HandMadePair, answers: Answers, lock: str
):
    put(ours, "held", "free")
    for key in ("held", "free"):
        source = {"Bucket": STAGING, "Key": key}
        ours.s3.copy_object(Bucket=ARCHIVE, Key=key, CopySource=source)
    enabled = {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}
    answers.give("GetObjectLockConfiguration", lambda params: enabled)
    answers.give("HeadObject", held_in_staging(ours, LOCKS[lock]))
    run = stuck()
    assert run.of("stuck-locked")["objects"] == ["held"]
    assert run.of("stuck-locked")["error"] == lock
    assert run.of("stuck-locked")["severity"] == "notice"
    assert run.of("stuck-archived")["objects"] == ["free"]


def held_in_staging(pair: HandMadePair, lock: Mapping[str, Any]) -> Callable[..., Any]:
    """Return what answers a HEAD of the held object in staging, with the fields of its lock."""
    head = dict(pair.s3.head_object(Bucket=STAGING, Key="held"))

    def answer(params: dict[str, Any]) -> Any:
        is_held = params["context"]["input_params"].get("Bucket") == STAGING
        return {**head, **lock} if is_held and params["url_path"].endswith("/held") else None

    return answer


def test_mfa_delete_is_told_of_the_bucket_and_of_what_it_keeps(
    ours: HandMadePair, answers: Answers
):
    put(ours, "a")
    ours.s3.copy_object(Bucket=ARCHIVE, Key="a", CopySource={"Bucket": STAGING, "Key": "a"})
    answers.give("GetBucketVersioning", {"Status": "Enabled", "MFADelete": "Enabled"})
    run = stuck()
    assert run.of("stuck-locked")["objects"] == ["a"]
    assert run.of("stuck-locked")["error"].startswith("MFA Delete")
    assert run_doctor("--check", "mfa-delete").of("mfa-delete")["subject"] == f"s3://{STAGING}"


def test_suspended_versions_are_told(ours: HandMadePair, answers: Answers):
    answers.give("GetBucketVersioning", {"Status": "Suspended"})
    told = run_doctor("--check", "versioning").findings
    assert ["suspended" in finding["detail"] for finding in told] == [True, True]
