"""What doctor says of objects that stay in staging, and what it makes of the processor's log."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from tests.doctor.conftest import (
    ARCHIVE,
    FUNCTION,
    FUNCTION_ARN,
    GROUP,
    REGION,
    STAGING,
    Answers,
    HandMadePair,
    Run,
    let_in,
    log,
    notify,
    outcome,
    put,
    run_doctor,
)
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.cli.site import site_of
from twobuckets.cli.views import human
from twobuckets.doctor import Diagnosis, select_checks
from twobuckets.doctor.staging import iter_staged
from twobuckets.doctor.summary import DoctorSummary
from twobuckets.processor.contract import ORIGIN, Origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def stuck(*arguments: str) -> Run:
    """Run doctor's checks of what is stuck, however young it is."""
    return run_doctor("--check", "stuck", "--older-than", "0s", *arguments)


def test_the_same_error_on_many_objects_is_one_finding_with_all_their_keys(ours: HandMadePair):
    keys = [f"in/{number:03} ü.csv" for number in range(30)]
    answers = put(ours, *keys)
    log(ours, *(outcome(key, answer) for key, answer in zip(keys, answers, strict=True)))
    run = stuck()
    found = run.of("stuck-failed")
    assert run.exit_code == 3
    assert found["count"] == 30
    assert sorted(found["objects"]) == keys
    assert found["error"] == "ValueError: row 7 of … is bad"
    assert found["size_bytes"] == 30 * 7
    assert len(found["examples"]) == 3


@pytest.mark.parametrize(("folders", "found"), [(None, ["a"]), ("process", ["a", "in/"])])
def test_what_stands_for_a_folder_is_stuck_only_where_it_is_processed(
    ours: HandMadePair, folders: str | None, found: list[str]
):
    variables = {"ARCHIVE_BUCKET": ARCHIVE} | ({"TWOBUCKETS_FOLDERS": folders} if folders else {})
    ours.functions.update_function_configuration(
        FunctionName=FUNCTION, Environment={"Variables": variables}
    )
    put(ours, "in/", body=b"")
    put(ours, "a")
    objects = [key for finding in stuck().findings for key in finding["objects"]]
    assert sorted(objects) == found
    status = CliRunner().invoke(cli, ["--json", "status"])
    (staging,) = [
        line
        for line in map(json.loads, status.stdout.splitlines())
        if line["type"] == "staging-status"
    ]
    assert staging["staged"]["objects"] == len(found)


@pytest.mark.parametrize("write", [repr, quote, lambda key: quote_plus(key, safe="/")])
def test_an_error_that_writes_the_key_in_another_way_is_the_same_error(
    ours: HandMadePair, write: Callable[[str], str]
):
    keys = [f"in/{letter} \u202e ü.csv" for letter in "abc"]
    answers = put(ours, *keys)
    errors = [{"type": "OSError", "message": f"no {write(key)} here", "trace": ""} for key in keys]
    lines = zip(keys, answers, errors, strict=True)
    log(ours, *(outcome(key, answer, error=error) for key, answer, error in lines))
    assert stuck().of("stuck-failed")["count"] == 3


def test_what_is_stuck_costs_what_the_settings_say(ours: HandMadePair, tmp_path: Path):
    put(ours, "a", body=bytes(1024**2))
    usual = stuck().of("stuck-in-progress")["cost_month_usd"]
    (tmp_path / "twobuckets.toml").write_text("prices.usd_per_gb_month = 2.3\n")
    assert usual == pytest.approx(0.023 / 1024, abs=1e-6)
    assert stuck().of("stuck-in-progress")["cost_month_usd"] == pytest.approx(2.3 / 1024, abs=1e-6)


def test_different_errors_are_different_findings_the_largest_first(ours: HandMadePair):
    keys = ["a", "b", "c"]
    answers = put(ours, *keys)
    other = {"error": {"type": "KeyError", "message": "'id'", "trace": ""}}
    errors: list[dict[str, Any]] = [other, {}, {}]
    log(
        ours,
        *(outcome(k, a, **e) for k, a, e in zip(keys, answers, errors, strict=True)),
    )
    assert [(f["count"], f["error"].split(":")[0]) for f in stuck().findings] == [
        (2, "ValueError"),
        (1, "KeyError"),
    ]


def test_an_outcome_of_another_version_says_nothing_of_this_one(ours: HandMadePair):
    (old,) = put(ours, "a", body=b"old")
    log(ours, outcome("a", old))
    put(ours, "a", body=b"new")
    assert stuck().checks == {"stuck-in-progress"}


def test_what_the_processor_refused_is_not_called_failed(ours: HandMadePair):
    (answer,) = put(ours, "a")
    error = {"type": "Reject", "message": "no table", "trace": ""}
    log(ours, outcome("a", answer, "rejected", error=error))
    assert stuck().of("stuck-rejected")["error"] == "Reject: no table"


def test_an_older_version_that_came_back_is_told_apart(ours: HandMadePair):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, "superseded", error=None, reason="a newer one was archived"))
    found = stuck().of("stuck-superseded")
    assert found["remedy"] is None
    assert found["fixable"] is False


def test_what_the_processor_did_not_find_and_is_there_now_is_to_be_woken(ours: HandMadePair):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, "missing", error=None, reason="no longer in staging"))
    found = stuck().of("stuck-missed")
    assert found["fixable"] is True
    assert found["remedy"].endswith("doctor --fix --check stuck-missed --older-than 0s")
    site = site_of(App(), older_than=timedelta())
    diagnosis = Diagnosis(site, select_checks(["stuck"]))
    list(diagnosis.findings())
    assert diagnosis.stuck is not None
    wakeable = list(diagnosis.stuck.iter_wakeable())
    assert [(staged.key, reason) for staged, reason in wakeable] == [("a", None)]


def test_a_key_that_the_filter_leaves_out_is_named(pair: HandMadePair):
    rules = [{"Name": "suffix", "Value": ".csv"}]
    notify(pair.s3, FUNCTION_ARN, Filter={"Key": {"FilterRules": rules}})
    put(pair, "a.CSV", "b.csv")
    run = stuck()
    assert run.of("stuck-filtered")["objects"] == ["a.CSV"]
    assert run.of("stuck-in-progress")["objects"] == ["b.csv"]


def test_with_broken_wiring_objects_were_never_told_of_and_one_command_mends_both(
    pair: HandMadePair,
):
    pair.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    put(pair, "a")
    found = stuck().of("stuck-never-invoked")
    assert found["error"] == "notification-missing"
    assert "--check notification-missing --check stuck-never-invoked" in found["remedy"]


def test_a_function_that_is_switched_off_throttles(pair: HandMadePair):
    pair.functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=0)
    put(pair, "a")
    assert stuck().checks == {"stuck-throttled"}


def test_an_object_whose_exact_version_is_in_the_archive_was_not_deleted(ours: HandMadePair):
    (answer, other, torn) = put(ours, "a", "b", "torn")
    for key, version_id, body in (
        ("a", answer["VersionId"], b"content"),
        ("b", "some-older-version", b"content"),
        # Of this very version, by what was written down, and of its size; and not its bytes.
        ("torn", torn["VersionId"], b"CONTENT"),
    ):
        note = Origin(STAGING, version_id, other["ETag"].strip('"'), None, "").note()
        ours.s3.put_object(Bucket=ARCHIVE, Key=key, Body=body, Metadata={ORIGIN: note})
    run = stuck()
    assert run.of("stuck-archived")["objects"] == ["a"]
    assert run.of("stuck-in-progress")["objects"] == ["b", "torn"]


def test_without_a_record_of_origin_equal_content_archived_later_is_proof(pair: HandMadePair):
    put(pair, "same", "different")
    pair.s3.put_object(Bucket=ARCHIVE, Key="same", Body=b"content")
    pair.s3.put_object(Bucket=ARCHIVE, Key="different", Body=b"CONTENT")
    run = stuck()
    assert run.of("stuck-archived")["objects"] == ["same"]
    assert run.of("stuck-in-progress")["objects"] == ["different"]


def test_an_older_archived_object_is_no_proof(pair: HandMadePair):
    let_in(pair)
    pair.s3.put_object(Bucket=ARCHIVE, Key="a", Body=b"content")
    time.sleep(1.1)
    put(pair, "a")
    assert stuck().checks == {"stuck-in-progress"}


REQUEST = "11111111-2222-3333-4444-555555555555"


def foreign(*lines: str) -> tuple[str, ...]:
    """Return the log of one invocation of somebody else's processor."""
    return f"START RequestId: {REQUEST} Version: $LATEST", *lines, f"END RequestId: {REQUEST}"


def logged(level: str, text: str) -> str:
    return f"[{level}]\t2026-01-01T00:00:00.000Z\t{REQUEST}\t{text}"


def test_somebody_elses_processor_that_raised_is_quoted(pair: HandMadePair):
    put(pair, "in/a b.csv", "other")
    log(
        pair,
        *foreign(
            logged("INFO", f"processing s3://{STAGING}/in/a b.csv"),
            "[ERROR] ZeroDivisionError: division by zero\nTraceback (most recent call last):\n  x",
            f"REPORT RequestId: {REQUEST}\tDuration: 5.00 ms\tMemory Size: 128 MB\t",
        ),
    )
    run = stuck()
    found = run.of("stuck-failed")
    assert found["objects"] == ["in/a b.csv"]
    assert found["error"] == "ZeroDivisionError: division by zero"
    assert run.of("stuck-in-progress")["objects"] == ["other"]


def test_an_exception_that_somebody_elses_processor_swallowed_is_found(pair: HandMadePair):
    put(pair, "a")
    trace = (
        f"unhandled exception for s3://{STAGING}/a\nTraceback (most recent call last):\n"
        "  File \"/var/task/index.py\", line 1\nKeyError: 'ARCHIVE'"
    )
    log(pair, *foreign(logged("ERROR", trace)))
    assert stuck().of("stuck-failed")["error"] == "KeyError: 'ARCHIVE'"


def test_a_processor_that_does_not_decode_keys_is_told_so(pair: HandMadePair):
    put(pair, "a b+ü.csv")
    log(
        pair,
        *foreign(
            logged("INFO", "fetching a+b%2B%C3%BC.csv"),
            "[ERROR] ClientError: An error occurred (NoSuchKey) when calling GetObject",
        ),
    )
    found = stuck().of("stuck-key")
    assert "unquote_plus" in found["detail"]


def test_a_processor_that_prints_why_it_did_not_find_a_key_is_told_to_decode_it(
    pair: HandMadePair,
):
    put(pair, "with space.txt")
    said = "could not with+space.txt An error occurred (NoSuchKey) when calling CopyObject"
    log(pair, *foreign(f"ERROR {said}"))
    found = stuck().of("stuck-key")
    assert found["error"].startswith("ERROR could not … An error occurred (NoSuchKey)")


def test_what_a_processor_prints_of_an_error_is_shown_with_what_it_left(pair: HandMadePair):
    put(pair, "a", "b")
    log(
        pair,
        *foreign("fetching a", "ERROR no luck with a", "disk error occurred", "handled b", "done"),
    )
    run = stuck()
    assert {(f["examples"][0], f["error"]) for f in run.findings} == {
        ("a", "ERROR no luck with …"),
        ("b", None),
    }
    assert run.checks == {"stuck-left"}


def test_a_line_about_something_else_does_not_name_a_key_with_a_blank(pair: HandMadePair):
    put(pair, " ", "a b", "x y")
    log(pair, *foreign(logged("INFO", "extra bytes of x y read"), "Task timed out after 3.00 s"))
    told = {key: f["check"] for f in stuck().findings for key in f["objects"]}
    assert told["x y"] != "stuck-in-progress"
    assert told[" "] == told["a b"] == "stuck-in-progress"


def test_a_processor_that_says_nothing_wrong_and_moves_nothing_is_told_so(pair: HandMadePair):
    put(pair, "a")
    log(pair, *foreign(logged("INFO", "handled 'a'")))
    assert stuck().checks == {"stuck-left"}


def test_a_log_that_may_not_be_read_is_told_and_the_objects_are_still_counted(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a")
    answers.refuse("FilterLogEvents", "AccessDeniedException", 400)
    run = stuck()
    assert run.of("stuck-in-progress")["count"] == 1
    assert run.of("could-not-look")["permission"] == "logs:FilterLogEvents"


def test_a_log_that_fails_to_answer_is_told_like_one_that_may_not_be_read(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a")
    answers.refuse("FilterLogEvents", "InvalidParameterException", 400)
    run = stuck()
    assert run.of("stuck-in-progress")["count"] == 1
    assert "InvalidParameterException" in run.of("could-not-look")["detail"]


def test_young_objects_are_not_stuck_by_default(pair: HandMadePair):
    put(pair, "a")
    run = run_doctor("--check", "stuck")
    assert run.findings == []
    assert run.lines[-1]["staged"] == 1
    assert run.lines[-1]["ages"] == {"under 5m": 1}


def test_whoever_stops_reading_findings_does_not_wait_for_the_listings(pair: HandMadePair):
    put(pair, "a", "b")
    site = site_of(App(), older_than=timedelta())
    assert [staged.key for staged in iter_staged(site)] == ["a", "b"]
    findings = Diagnosis(site, select_checks(())).findings()
    next(findings)
    findings.close()  # type: ignore[attr-defined]
    assert list(iter_staged(site)) == []


def test_a_page_of_the_log_is_what_botocore_makes_of_it(ours: HandMadePair):
    (answer,) = put(ours, "a ü.csv")
    log(ours, outcome("a ü.csv", answer), "plain \u202e text", '{"twobuckets": 1')
    logs = App().aws.logs
    requests: tuple[Any, ...] = ({}, {"limit": 2})
    for request in requests:
        theirs = ours.logs.filter_log_events(logGroupName=GROUP, **request)
        page: Any = logs.filter_log_events(logGroupName=GROUP, **request)
        assert page["events"] == theirs["events"]
        assert page.get("nextToken") == theirs.get("nextToken")
        assert page["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.filter_log_events(logGroupName="none")


def test_hostile_keys_and_errors_are_shown_harmlessly_and_json_is_exact(ours: HandMadePair):
    key = "a\x1b[31m[bold]\u202eb"
    # moto lists such keys without versions only, and takes none with a newline.
    ours.s3.delete_bucket(Bucket=STAGING)
    location: Any = {"LocationConstraint": REGION}
    ours.s3.create_bucket(Bucket=STAGING, CreateBucketConfiguration=location)
    answer = {**put(ours, key)[0], "VersionId": None}
    error = {"type": "ValueError", "message": "\x1b]0;pwned\x07\n", "trace": ""}
    log(ours, outcome(key, answer, error=error))
    found = stuck().of("stuck-failed")
    assert found["objects"] == [key]
    from click.testing import CliRunner

    from twobuckets.cli import cli

    shown = CliRunner().invoke(cli, ["doctor", "--check", "stuck", "--older-than", "0s"]).stdout
    assert "\"$(printf 'a\\033\\13331m\\133bold\\135\\342\\200\\256b')\"" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def orphan(pair: HandMadePair, key: str, parts: int = 3) -> str:
    """Begin an upload and send parts of it."""
    let_in(pair)
    upload_id = str(pair.s3.create_multipart_upload(Bucket=STAGING, Key=key)["UploadId"])
    for number in range(1, parts + 1):
        pair.s3.upload_part(
            Bucket=STAGING, Key=key, UploadId=upload_id, PartNumber=number, Body=b"part"
        )
    return upload_id


@pytest.mark.slow
def test_files_that_cannot_be_read_within_the_time_out_are_named(pair: HandMadePair):
    pair.functions.update_function_configuration(FunctionName=FUNCTION, Timeout=1)
    put(pair, "small")
    put(pair, "large", body=bytes(100_000_000))
    young = run_doctor("--check", "timeout-size")
    assert (young.exit_code, young.of("timeout-size")["severity"]) == (0, "info")
    found = run_doctor("--check", "timeout-size", "--older-than", "0s").of("timeout-size")
    assert found["severity"] == "notice"
    assert found["examples"] == ["large"]
    assert "the function's time-out of 1.0s: 1, of which 1 stuck" in found["detail"]
    assert found["remedy"].endswith(
        f"lambda update-function-configuration --function-name {FUNCTION} --timeout 60"
    )
    pair.functions.update_function_configuration(FunctionName=FUNCTION, Timeout=60)
    assert not run_doctor("--check", "timeout-size", "--older-than", "0s").findings


def test_the_summary_draws_what_lies_in_staging_by_age_and_what_is_stuck_by_cause(
    ours: HandMadePair,
):
    keys = [f"k{number}" for number in range(6)]
    answers = put(ours, *keys)
    kinds = ["failed"] * 4 + ["rejected"] * 2
    lines = [outcome(k, a, kind) for k, a, kind in zip(keys, answers, kinds, strict=True)]
    log(ours, *lines)
    run = stuck()
    assert run.lines[-1]["causes"] == {"stuck-failed": 4, "stuck-rejected": 2}
    drawn = str(human(summary_of(run))).splitlines()
    assert drawn[:5] == [
        "Staged, by age",
        f"      under 5m  {'█' * 40} 6",
        "Stuck, by cause",
        f"        failed  {'█' * 40} 4",
        f"      rejected  {'█' * 20} 2",
    ]
    assert max(map(len, drawn)) <= 80


def test_a_summary_without_stuck_objects_says_from_what_age_on_they_are_stuck(
    ours: HandMadePair,
):
    assert (
        str(human(summary_of(run_doctor("--check", "stuck"))))
        == "0 objects in staging (0 B), 0 stuck\nThe checks asked for (stuck) found nothing."
    )
    put(ours, "young")
    run = run_doctor("--check", "stuck", "--older-than", "20m")
    assert not run.findings
    assert str(human(summary_of(run))).splitlines()[-3:] == [
        "1 object in staging (7 B), 0 stuck:",
        "files younger than 20m may still be under way; --older-than 1m takes them in",
        "The checks asked for (stuck) found nothing.",
    ]


def test_a_finding_fits_80_columns(ours: HandMadePair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    [answer] = put(ours, "a")
    log(ours, outcome("a", answer, "failed"))
    site = site_of(App(), older_than=timedelta(0))
    [finding] = Diagnosis(site, select_checks(["stuck"])).findings()
    subject = f"s3://{'b' * 40}"
    lines = str(human(replace(finding, subject=subject, remedy=""))).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("         (7 B, since ")


def summary_of(run: Run) -> DoctorSummary:
    """Return a run's summary as the record that it was."""
    fields = {name: value for name, value in run.lines[-1].items() if name != "type"}
    after = fields.pop("stuck_after")
    return DoctorSummary(**fields, stuck_after=None if after is None else timedelta(seconds=after))


@pytest.mark.slow
class TestUploads:
    """Multipart uploads that nobody completed. moto dates every upload to 2010."""

    def test_a_few_have_a_finding_each_with_the_command_that_aborts_it(self, pair: HandMadePair):
        upload_id = orphan(pair, "a 'b'")
        found = run_doctor("--check", "uploads").of("upload-orphaned")
        assert "3 parts, 12 B" in found["detail"]
        assert found["size_bytes"] == 12
        assert found["remedy"].endswith(
            f"abort-multipart-upload --bucket {STAGING} --key 'a '\\''b'\\' --upload-id {upload_id}"
        )

    def test_many_are_one_finding(self, pair: HandMadePair):
        for number in range(15):
            orphan(pair, f"k{number}", parts=1)
        found = run_doctor("--check", "uploads").of("upload-orphaned")
        assert found["count"] == 15
        assert found["size_bytes"] == 15 * 4

    def test_they_cost_what_the_settings_say(self, pair: HandMadePair, tmp_path: Path):
        orphan(pair, "a")
        (tmp_path / "twobuckets.toml").write_text("prices.usd_per_gb_month = 999\n")
        found = run_doctor("--check", "uploads").of("upload-orphaned")
        assert found["cost_month_usd"] == pytest.approx(999 * 12 / 1024**3, abs=1e-6)

    def test_one_that_still_gets_parts_is_not_aborted(self, pair: HandMadePair):
        orphan(pair, "a")
        run = run_doctor("--check", "uploads", "--fix", "--yes")
        (applied,) = [line for line in run.lines if line["type"] == "applied"]
        assert (applied["done"], applied["left_count"]) == (0, 1)
        assert "a part came lately" in applied["left"][0]
        assert run.exit_code == 3

    def test_old_ones_are_aborted_and_gone(self, pair: HandMadePair):
        for key in ("a", "b", "c"):
            orphan(pair, key)
        run = run_doctor("--check", "uploads", "--uploads-older-than", "0s", "--fix", "--yes")
        assert run.exit_code == 0
        assert "Uploads" not in pair.s3.list_multipart_uploads(Bucket=STAGING)
