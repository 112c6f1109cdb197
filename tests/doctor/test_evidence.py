"""Evidence counts by identity: what the log names explains an object, and a guess says so."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from tests.doctor.conftest import (
    FUNCTION,
    STAGING,
    Answers,
    HandMadePair,
    Run,
    log,
    outcome,
    put,
    run_doctor,
)
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.cli.site import site_of
from twobuckets.cli.views import human
from twobuckets.doctor import Diagnosis, select_checks
from twobuckets.doctor.summary import DoctorSummary

ID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"


def stuck(*arguments: str) -> Run:
    """Run doctor's checks of what is stuck, however young it is."""
    return run_doctor("--check", "stuck", "--older-than", "0s", *arguments)


def death(request_id: str = ID) -> str:
    """Return Lambda's line about an invocation that ran into the time-out."""
    return f"2026-01-01T00:00:00.000Z {request_id} Task timed out after 3.00 seconds"


def out_of_memory(request_id: str = ID) -> str:
    """Return Lambda's report on an invocation that ran out of memory."""
    record = {"requestId": request_id, "status": "error", "errorType": "Runtime.OutOfMemory"}
    line = {"time": "2026-01-01T00:00:00.000Z", "type": "platform.report", "record": record}
    return json.dumps(line)


def not_loaded(request_id: str = ID, *, as_json: bool) -> list[str]:
    """Return what Lambda says of an invocation for which the code could not be loaded."""
    said = "Unable to import module 'processor': No module named 'numpy'"
    kind = "Runtime.ImportModuleError"
    if not as_json:
        init = "\tPhase: init\tStatus: error\tError Type: "
        return [
            f"[ERROR] {kind}: {said}\nTraceback (most recent call last):",
            f"INIT_REPORT Init Duration: 2.33 ms{init}{kind}\t",
            f"START RequestId: {request_id} Version: $LATEST",
            f"END RequestId: {request_id}",
            (
                f"REPORT RequestId: {request_id}\tDuration: 2.50 ms\tMemory Size: 128 MB\t"
                f"Max Memory Used: 30 MB\tStatus: error\tError Type: {kind}"
            ),
        ]
    error = {"errorMessage": said, "errorType": kind, "requestId": "", "stackTrace": []}
    record = {"requestId": request_id, "status": "error", "errorType": kind}
    return [
        json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "ERROR"} | error),
        json.dumps({"type": "platform.initReport", "record": {"status": "error"}}),
        json.dumps({"type": "platform.start", "record": {"requestId": request_id}}),
        json.dumps({"type": "platform.report", "record": record}),
    ]


IMPORTING = [
    '  File "/var/lang/lib/python3.13/importlib/__init__.py", line 88, in import_module\n',
    '  File "/var/task/processor.py", line 3, in <module>\n    TABLE = os.environ["TABLE"]\n',
]


def raised_in_import(request_id: str, *, as_json: bool) -> list[str]:
    """Return what Lambda says of an invocation whose module raises an error of its own."""
    if not as_json:
        said = "[ERROR] KeyError: 'TABLE'\nTraceback (most recent call last):\n" + "".join(
            IMPORTING
        )
        return [
            said,
            "INIT_REPORT Init Duration: 2 ms\tStatus: error\tError Type: Runtime.Unknown",
            f"START RequestId: {request_id} Version: $LATEST",
            said,
            f"END RequestId: {request_id}",
            (
                f"REPORT RequestId: {request_id}\tDuration: 2.50 ms\tMemory Size: 128 MB\t"
                "Max Memory Used: 30 MB\tStatus: error\tError Type: Runtime.Unknown"
            ),
        ]
    error = {"errorMessage": "'TABLE'", "errorType": "KeyError", "stackTrace": IMPORTING}
    said = json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "ERROR"} | error)
    failed = {"status": "error", "errorType": "Runtime.Unknown"}
    return [
        said,
        json.dumps({"type": "platform.initReport", "record": {"phase": "init"} | failed}),
        json.dumps({"type": "platform.start", "record": {"requestId": request_id}}),
        said,
        json.dumps({"type": "platform.report", "record": {"requestId": request_id} | failed}),
    ]


def ended_in_import(request_id: str, *, as_json: bool) -> list[str]:
    """Return what Lambda says of an invocation whose module ends the process."""
    kind = "Runtime.ExitError"
    if not as_json:
        return [
            f"INIT_REPORT Init Duration: 2.33 ms\tPhase: init\tStatus: error\tError Type: {kind}",
            f"START RequestId: {request_id} Version: $LATEST",
            f"RequestId: {request_id} Error: Runtime exited with error: exit status 9\n{kind}",
            f"END RequestId: {request_id}",
            (
                f"REPORT RequestId: {request_id}\tDuration: 2.50 ms\tMemory Size: 128 MB\t"
                f"Max Memory Used: 30 MB\tStatus: error\tError Type: {kind}"
            ),
        ]
    failed = {"status": "error", "errorType": kind}
    return [
        json.dumps({"type": "platform.initReport", "record": {"phase": "init"} | failed}),
        json.dumps({"type": "platform.start", "record": {"requestId": request_id}}),
        json.dumps({"type": "platform.report", "record": {"requestId": request_id} | failed}),
    ]


UNLOADED = {
    "No module named 'numpy'": not_loaded,
    "KeyError: 'TABLE'": raised_in_import,
    "Runtime.ExitError: the code could not be loaded": ended_in_import,
}


class Later(App):
    """The program, an hour after everything of the test."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


def diagnose_later() -> dict[str, dict[str, Any]]:
    """Return the findings about stuck objects as doctor sees them an hour later, by check."""
    diagnosis = Diagnosis(site_of(Later(), older_than=None), select_checks(["stuck"]))
    return {
        found.check: {"detail": found.detail, "n": found.count} for found in diagnosis.findings()
    }


# -- deaths


def test_a_death_that_nothing_names_is_told_as_a_guess_and_woken(ours: HandMadePair):
    put(ours, "a")
    log(ours, out_of_memory())
    found = stuck().of("stuck-unnamed")
    assert found["examples"] == ["a"]
    assert found["detail"].startswith("Most likely")
    assert found["error"].startswith("Runtime.OutOfMemory")
    fixed = stuck("--fix", "--dry-run")
    assert [line["check"] for line in fixed.lines if line["type"] == "action"] == ["stuck-unnamed"]


def test_one_death_does_not_explain_two_objects(ours: HandMadePair):
    put(ours, "a", "b")
    log(ours, death(), stream="one")
    log(ours, death(), stream="two")
    run = stuck()
    assert run.of("stuck-unnamed")["count"] == 1
    assert run.of("stuck-in-progress")["count"] == 1


def test_a_death_under_a_request_that_names_another_key_explains_nothing(ours: HandMadePair):
    (_, other) = put(ours, "lost", "other")
    ours.s3.delete_object(Bucket=STAGING, Key="other", VersionId=other["VersionId"])
    log(ours, outcome("other", other, request_id=ID, attempt=1), stream="one")
    log(ours, death(ID), stream="two")
    assert stuck().checks == {"stuck-in-progress"}


def test_a_death_whose_request_was_archived_in_a_later_try_explains_nothing(ours: HandMadePair):
    (_, other) = put(ours, "lost", "other")
    ours.s3.delete_object(Bucket=STAGING, Key="other", VersionId=other["VersionId"])
    log(ours, death(ID), stream="one")
    log(ours, outcome("other", other, "archived", request_id=ID, error=None), stream="two")
    assert stuck().checks == {"stuck-in-progress"}


def test_a_death_under_a_request_that_names_the_object_is_its_last_word(ours: HandMadePair):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, request_id=ID, attempt=1), stream="one")
    log(ours, out_of_memory(ID), stream="two")
    found = stuck().of("stuck-out-of-memory")
    assert found["objects"] == ["a"]
    assert "ikely" not in found["detail"]


def test_somebody_elses_invocation_that_said_what_it_worked_on_explains_nothing_else(
    pair: HandMadePair,
):
    put(pair, "lost")
    log(
        pair,
        f"START RequestId: {ID} Version: $LATEST",
        f"processing s3://{STAGING}/other",
        f"RequestId: {ID} Error: Runtime exited with error: signal: killed\nRuntime.ExitError",
        f"REPORT RequestId: {ID}\tDuration: 1.00 ms\tStatus: error",
    )
    assert stuck().checks == {"stuck-in-progress"}


# -- throttles


def throttle(answers: Answers, *minutes_ago: int) -> None:
    """Answer that Lambda throttled the function in these minutes."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    at = [minute - timedelta(minutes=ago) for ago in minutes_ago]
    answers.give(
        "GetMetricData",
        lambda _: {
            "MetricDataResults": [{"Id": "throttles", "Timestamps": at, "Values": [3.0] * len(at)}]
        },
    )


def test_a_throttle_that_had_ended_before_objects_came_explains_nothing(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a")
    throttle(answers, 5, 6, 7)
    assert "stuck-never-invoked" in diagnose_later()


def test_a_throttle_when_objects_came_is_told_as_a_guess_and_woken(
    pair: HandMadePair, answers: Answers
):
    put(pair, "a")
    throttle(answers, 0, 7)
    found = stuck().of("stuck-throttled")
    assert "most likely it holds their events back" in found["detail"]
    fixed = stuck("--fix", "--dry-run")
    assert "stuck-throttled" in [line.get("check") for line in fixed.lines]


# -- code that can't be loaded


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("error", UNLOADED)
def test_code_that_could_not_be_loaded_is_told_with_its_error_at_once(
    ours: HandMadePair, error: str, as_json: bool
):
    put(ours, "a", "b")
    for number in range(3):
        for request_id in (ID, OTHER):
            lines = UNLOADED[error](request_id, as_json=as_json)
            log(ours, *lines, stream=f"{request_id} {number}")
    # Nobody says from what age on objects are stuck: every try is over.
    run = run_doctor("--check", "stuck")
    found = run.of("stuck-failed")
    assert sorted(found["objects"]) == ["a", "b"]
    assert "could not be loaded" in found["detail"]
    assert error in found["error"]
    assert run.exit_code == 3
    assert run.lines[-1]["stuck"] == 2


def test_code_that_is_tried_again_is_not_called_stuck_yet(ours: HandMadePair):
    put(ours, "a")
    log(ours, *not_loaded(as_json=True))
    assert run_doctor("--check", "stuck").checks == set()


def test_what_ends_a_process_that_was_loaded_is_not_taken_for_its_code(ours: HandMadePair):
    put(ours, "a", "b")
    # The code was mended meanwhile: the same stream tells of an environment that did start.
    lines = [
        *ended_in_import(OTHER, as_json=False)[:1],
        "INIT_START Runtime Version: python:3.13.v1",
        f"START RequestId: {ID} Version: $LATEST",
        f"RequestId: {ID} Error: Runtime exited with error: exit status 3\nRuntime.ExitError",
    ]
    log(ours, *lines)
    found = stuck().of("stuck-unnamed")
    assert found["count"] == 1


# -- tries


def test_a_failure_that_is_tried_again_is_not_told_as_the_last(ours: HandMadePair):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, attempt=1))
    found = stuck().of("stuck-failed")
    assert (
        "failed so far, and Lambda tries these again by itself, 3 times in all" in found["detail"]
    )
    assert run_doctor("--check", "stuck").checks == set()


def test_a_young_file_that_failed_for_good_is_stuck_already(ours: HandMadePair):
    (answer, other) = put(ours, "a", "b")
    log(ours, outcome("a", answer, attempt=3))
    error = {"type": "Reject", "message": "no table", "trace": ""}
    log(ours, outcome("b", other, "rejected", attempt=1, error=error))
    run = run_doctor("--check", "stuck")
    assert run.exit_code == 3
    assert run.of("stuck-failed")["objects"] == ["a"]
    assert run.of("stuck-rejected")["objects"] == ["b"]
    assert "failed each time it tried" in run.of("stuck-failed")["detail"]
    assert (run.lines[-1]["stuck"], run.lines[-1]["causes"]) == (
        2,
        {"stuck-failed": 1, "stuck-rejected": 1},
    )


def test_a_failure_after_which_no_try_came_is_the_last(ours: HandMadePair):
    (answer,) = put(ours, "a")
    log(ours, outcome("a", answer, attempt=1))
    found = diagnose_later()["stuck-failed"]
    assert "failed each time it tried" in found["detail"]


# -- what has to come first


def test_waking_a_function_that_is_switched_off_waits_for_it_to_be_switched_on(ours: HandMadePair):
    (answer, _) = put(ours, "a", "b")
    log(ours, outcome("a", answer))
    ours.functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=0)
    run = stuck("--fix", "--yes", "--check", "stuck-failed")
    found = run.of("stuck-failed")
    assert "First: The function's reserved concurrency is 0" in found["detail"]
    assert "--fix --check concurrency-zero --check stuck-failed" in found["remedy"]
    assert [line for line in run.lines if line["type"] == "applied"] == []
    assert "Not woken yet" in run.stderr
    assert run.exit_code == 3


def test_reprocess_says_what_comes_first_and_that_it_is_not_done(
    ours: HandMadePair, answers: Answers
):
    put(ours, "a")
    answers.give("Invoke", {"StatusCode": 202})
    words = ["reprocess", "a", "--yes"]
    well = CliRunner().invoke(cli, words)
    assert (well.exit_code, "switched on" in well.stderr) == (0, False), well.output
    ours.functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=0)
    held = CliRunner().invoke(cli, words)
    assert held.exit_code == 3, held.output
    assert "doctor --fix --check concurrency-zero" in held.stderr


def test_switching_a_function_on_is_done_when_it_is_asked_for_by_name(
    ours: HandMadePair, answers: Answers
):
    put(ours, "a")
    ours.functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=0)
    answers.give("Invoke", {"StatusCode": 202, "ResponseMetadata": {"HTTPStatusCode": 202}})
    plain = run_doctor("--older-than", "0s", "--fix", "--dry-run")
    assert "concurrency-zero" not in [x["check"] for x in plain.lines if x["type"] == "action"]
    named = ("--check", "concurrency-zero", "--check", "stuck-throttled")
    run = run_doctor(*named, "--older-than", "0s", "--fix", "--yes")
    done = [(x["check"], x["done"]) for x in run.lines if x["type"] == "applied"]
    assert done == [("concurrency-zero", 1), ("stuck-throttled", 1)]
    assert "ReservedConcurrentExecutions" not in ours.functions.get_function_concurrency(
        FunctionName=FUNCTION
    )


def test_a_death_before_an_object_came_explains_nothing(ours: HandMadePair):
    log(ours, death(), seconds_ago=60)
    put(ours, "a")
    assert stuck().checks == {"stuck-in-progress"}


# -- one moment for all numbers


def test_a_summary_says_what_was_checked_and_what_stuck_objects_it_leaves_out(ours: HandMadePair):
    answers = put(ours, "a", "b")
    lines = zip("ab", answers, strict=True)
    log(ours, *(outcome(key, answer) for key, answer in lines))
    run = run_doctor("--check", "stuck-rejected", "--older-than", "0s")
    assert run.exit_code == 0
    summary = run.lines[-1]
    assert (summary["stuck"], summary["causes"], summary["checks"]) == (2, {}, ["stuck-rejected"])
    shown = str(human(_as_summary(summary)))
    assert "2 stuck, 2 of them for causes that were not asked for" in shown
    assert "The checks asked for (stuck-rejected) found nothing." in shown
    assert "Nothing is wrong" not in shown


def test_after_a_fix_all_numbers_are_of_the_moment_before_it(ours: HandMadePair, answers: Answers):
    (answer, _) = put(ours, "a", "b")
    log(ours, outcome("a", answer), out_of_memory(OTHER))
    answers.give("Invoke", {"StatusCode": 202, "ResponseMetadata": {"HTTPStatusCode": 202}})
    run = stuck("--fix", "--yes")
    summary = run.lines[-1]
    assert summary["causes"] == {"stuck-failed": 1, "stuck-unnamed": 1}
    assert (summary["stuck"], summary["fixed"], summary["problems"]) == (2, 1, 1)
    shown = str(human(_as_summary(summary)))
    assert "When doctor looked: 2 objects in staging" in shown
    assert shown.endswith("1 finding fixed, 1 problem left")


def _as_summary(line: dict[str, Any]) -> DoctorSummary:
    """Return the record that a line of JSON was written from."""
    fields = {name: value for name, value in line.items() if name != "type"}
    fields["stuck_after"] = timedelta(seconds=fields["stuck_after"])
    fields["checks"] = tuple(fields["checks"])
    return DoctorSummary(**fields)


def test_the_remedy_of_a_failure_wakes_what_failed_with_its_error_only(ours: HandMadePair):
    first, second, third = put(ours, "a1", "a2", "b")
    other = {"type": "KeyError", "message": "'id'", "trace": ""}
    lines = [outcome("a1", first), outcome("a2", second), outcome("b", third, error=other)]
    log(ours, *lines)
    run = stuck()
    remedies = {f["error"].partition(":")[0]: shlex.split(f["remedy"]) for f in run.findings}
    assert remedies["KeyError"][1:] == [
        *("reprocess", "--stuck", "--older-than", "0s"),
        *("--error", "KeyError: 'id'"),
    ]
    pattern = remedies["ValueError"][-1]
    assert pattern == "ValueError: row * of * is bad"
    chosen = ("--stuck", "--older-than", "0s", "--error", pattern, "--dry-run", "--json")
    shown = CliRunner().invoke(cli, ["reprocess", *chosen])
    told = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [x["wakes"] for x in told if x["type"] == "plan"] == [2], told


def test_choosing_by_error_needs_failures_to_choose_from(ours: HandMadePair):
    refused = CliRunner().invoke(cli, ["reprocess", "a", "--error", "KeyError*"])
    assert refused.exit_code == 2
    assert "--failed or --stuck" in refused.stderr
