"""`twobuckets logs` on a log group of moto's, whose pages are AWS's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

from tests.logs.service import outcome_line
from twobuckets.cli import cli
from twobuckets.cli.records import LogsSummary
from twobuckets.cli.views import human

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

GROUP = "/aws/lambda/intake"
ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
OTHER_ID = "9976a536-e9f4-11e8-9739-2dfe598c3fcd"
TRACE = 'Traceback (most recent call last):\n  File "processor.py", line 3\n'


class Group:
    """A log group; events are written in seconds from its beginning, twenty minutes ago."""

    def __init__(self) -> None:
        self.client: CloudWatchLogsClient = boto3.client("logs", region_name="eu-central-1")
        self.client.create_log_group(logGroupName=GROUP)
        self.began_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=20)
        self._streams: set[str] = set()

    def write(self, stream: str, *lines: tuple[float, str | dict[str, Any]]) -> None:
        if stream not in self._streams:
            self.client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
            self._streams.add(stream)
        for start in range(0, len(lines), 1000):
            self.client.put_log_events(
                logGroupName=GROUP,
                logStreamName=stream,
                logEvents=[
                    {
                        "timestamp": int((self.began_at.timestamp() + after) * 1000),
                        "message": line if isinstance(line, str) else json.dumps(line),
                    }
                    for after, line in lines[start : start + 1000]
                ],
            )

    def invocation(
        self, stream: str, after: float, request_id: str, *lines: str | dict[str, Any]
    ) -> None:
        self.write(
            stream,
            (after, f"START RequestId: {request_id} Version: $LATEST\n"),
            *((after + 0.1, line) for line in lines),
            (after + 0.5, f"END RequestId: {request_id}\n"),
            (after + 0.5, f"REPORT RequestId: {request_id}\tDuration: 500.00 ms\n"),
        )


@pytest.fixture
def group(
    fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[Group]:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("STAGING", "intake-staging"),
        ("ARCHIVE", "intake-archive"),
        ("LOG_GROUP", GROUP),
    ):
        monkeypatch.setenv(f"TWOBUCKETS_{name}", value)
    with mock_aws():
        yield Group()


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["logs", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


def records(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("--json", *arguments).stdout.splitlines()]


FAILURE = {"type": "ValueError", "message": "no header", "trace": TRACE}


def test_each_outcome_is_one_line_in_time_order_across_streams(group: Group):
    group.invocation("b", 2, OTHER_ID, outcome_line("archived", "two.csv", size=2048))
    group.invocation("a", 1, ID, outcome_line("failed", "one.csv", error=FAILURE, attempt=2))
    lines = run().stdout.splitlines()
    assert len(lines) == 2
    stamp = f"{group.began_at + timedelta(seconds=1.1):%Y-%m-%d %H:%M:%S}.100Z"
    assert lines[0].startswith(f"{stamp} failed     one.csv  3 B, 100 ms, attempt 2")
    assert lines[0].endswith("ValueError: no header")
    assert "archived   two.csv  2.0 KiB" in lines[1]


def test_tries_are_counted_whichever_environment_made_them(group: Group):
    for second, stream in enumerate(("a", "b", "a")):
        group.invocation(
            stream, second, ID, outcome_line("failed", "one.csv", error=FAILURE, attempt=1)
        )
    other = outcome_line("failed", "one.csv", error=FAILURE, request_id=OTHER_ID)
    group.invocation("c", 9, OTHER_ID, other)
    shown = [line.partition("ms")[2].partition("  ")[0] for line in run().stdout.splitlines()]
    assert shown == ["", ", attempt 2", ", attempt 3", ""]


@pytest.fixture
def summer_since_five_days(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in a zone of UTC+5:30 and, from five days ago for a hundred days, UTC+6:30."""
    begins, ends = (
        (datetime.now(UTC) + timedelta(days=days)).timetuple().tm_yday for days in (-5, 95)
    )
    monkeypatch.setenv("TZ", f"WIN-5:30SUM-6:30,J{min(begins, 365)},J{min(ends, 365)}")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.usefixtures("summer_since_five_days")
@pytest.mark.parametrize(("days", "hours"), [(10, 5.5), (1, 6.5)])
def test_a_time_is_shown_in_utc_or_in_this_machines_zone_as_it_was_then(
    group: Group, days: int, hours: float
):
    group.began_at -= timedelta(days=days)
    group.write("a", (0, outcome_line("archived", "k")))
    local = run("--since", "2w", "--local").stdout.partition(" archived")[0]
    utc = run("--since", "2w").stdout.partition(" archived")[0]
    assert utc == f"{group.began_at:%Y-%m-%d %H:%M:%S}.000Z"
    offset = f"+{int(hours):02}:30"
    assert local == f"{group.began_at + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}.000{offset}"


@pytest.mark.usefixtures("summer_since_five_days")
@pytest.mark.parametrize("zone", [(), ("--local",)])
def test_a_time_that_is_shown_can_be_given_back(group: Group, zone: tuple[str, ...]):
    group.write("a", *((second, outcome_line("archived", f"k{second}")) for second in range(3)))
    second = run(*zone).stdout.splitlines()[1].partition(" archived")[0]
    keys = [line.split()[3] for line in run("--since", second, *zone).stdout.splitlines()]
    assert keys == ["k1", "k2"]


def test_a_pipe_without_a_line_says_what_was_read(group: Group):
    group.write("a", (0, outcome_line("archived", "k")))
    found = run("--key", "other")
    assert (found.stdout, found.stderr[:34]) == ("", f"No matching entries in {GROUP}"[:34])
    assert run().stderr == ""


def test_json_is_exact_and_ends_with_a_summary(group: Group):
    key = 'a\x1b[31m "[b]\u202e\n.csv'
    group.write("a", (1, outcome_line("rejected", key, error=FAILURE)), (2, "plain\ttext\n"))
    outcome, line, summary = records()
    assert (outcome["type"], outcome["outcome"], outcome["key"]) == ("outcome", "rejected", key)
    assert outcome["error"] == FAILURE
    assert outcome["duration"] == 0.1
    assert (line["type"], line["message"]) == ("log-line", "plain\ttext")
    assert summary["type"] == "summary"
    assert summary["outcomes"] == {"rejected": 1, "line": 1}


def test_nothing_from_a_log_acts_on_a_terminal(group: Group):
    evil = "\x1b]0;owned\x07 [bold]x[/bold] \u202e\x9b2J\r"
    group.write("a", (1, outcome_line("failed", evil, error={**FAILURE, "message": evil})))
    group.write("a", (2, evil + "\n"))
    for arguments in ((), ("--failed",)):
        shown = run(*arguments).stdout
        assert not set(shown) & set("\x1b\x07\x9b\u202e\r")
        assert "\\x1b" in shown
        assert "[bold]x[/bold]" in shown


def test_failed_shows_failures_only_and_their_traces(group: Group):
    group.invocation("a", 1, ID, "hello", outcome_line("archived", "good"))
    group.invocation("a", 2, OTHER_ID, outcome_line("failed", "bad", error=FAILURE))
    shown = run("--failed").stdout
    assert "good" not in shown
    assert "hello" not in shown
    assert "bad" in shown
    assert '    File "processor.py", line 3' in shown


def test_the_failures_of_a_processor_that_is_not_ours_are_shown(group: Group):
    group.invocation("a", 1, ID, f"[ERROR] KeyError: 'Records'\n{TRACE}")
    group.invocation("b", 5, OTHER_ID, f"2026 {OTHER_ID} Task timed out after 3.00 seconds\n\n")
    shown = run("--failed").stdout
    assert f"raised     invocation {ID}  KeyError: 'Records'" in shown
    assert f"timed-out  invocation {OTHER_ID}" in shown


def test_a_log_that_is_not_ours_shows_its_lines_without_lambdas_notes(group: Group):
    group.invocation("a", 1, ID, "moving x", f"[WARNING]\t2026-05-04T12:00:00.123Z\t{ID}\tslow\n")
    json_line = {"timestamp": "t", "level": "INFO", "message": "moved x", "requestId": OTHER_ID}
    group.write("b", (3, json_line))
    lines = [line[24:] for line in run().stdout.splitlines()]
    assert [line.split() for line in lines] == [
        ["moving", "x"],
        ["warning", "slow"],
        ["info", "moved", "x"],
    ]


def test_a_key_brings_all_lines_of_the_invocations_that_touched_it(group: Group):
    key = "in/a ü.csv"
    group.invocation("a", 1, ID, "before", outcome_line("failed", key, request_id=ID))
    group.invocation("a", 3, OTHER_ID, "stranger", outcome_line("archived", "in/b.csv"))
    group.invocation("b", 5, OTHER_ID, "event for in/a+%C3%BC.csv", "after it")
    group.invocation("c", 6, OTHER_ID, "event for in/a+%C3%BC.csv.gz")
    shown = run("--key", key).stdout
    assert "before" in shown
    assert "after it" in shown
    assert f"start      {ID}" in shown
    assert "stranger" not in shown
    assert ".csv.gz" not in shown


def test_what_lambda_says_in_json_of_an_invocation_is_shown_in_words(group: Group):
    done = {
        "time": "2026-05-04T13:30:00.000Z",
        "type": "platform.runtimeDone",
        "record": {"requestId": ID, "status": "error", "metrics": {"durationMs": 11.49}},
    }
    group.invocation("s", 0, ID, outcome_line("failed", "a", request_id=ID), done)
    shown = run("--key", "a").stdout
    assert "runtimeDone error" in shown
    assert "durationMs" not in shown


def test_a_person_who_finds_nothing_hears_since_when():
    summary = LogsSummary(GROUP, 0, {}, datetime(2026, 5, 4, 13, 30, tzinfo=UTC))
    assert str(human(summary)).splitlines() == [
        f"No matching entries in {GROUP}",
        "since 2026-05-04 13:30Z (see --since).",
    ]


def test_a_key_and_failed_together_show_what_failed_in_its_invocations(group: Group):
    group.invocation("a", 1, ID, "said", outcome_line("failed", "k.csv", error=FAILURE))
    shown = run("--key", "k.csv", "--failed").stdout.splitlines()
    assert "k.csv" in shown[0]
    assert not any("said" in line for line in shown)


def test_a_request_brings_all_of_its_lines_and_retries(group: Group):
    group.invocation("a", 1, ID, "first try")
    group.invocation("a", 2, OTHER_ID, "somebody else")
    group.invocation("b", 62, ID, "second try")
    shown = run("--request-id", ID).stdout
    assert "first try" in shown
    assert "second try" in shown
    assert "somebody else" not in shown


def test_raw_gives_the_lines_as_they_are(group: Group):
    group.write("a", (1, "one\ttwo \x1b[0m\n"), (2, '{"a": 1}'))
    assert run("--raw").stdout == 'one\ttwo \x1b[0m\n{"a": 1}\n'
    events = records("--raw")
    assert [e["type"] for e in events] == ["log-event", "log-event", "summary"]
    assert events[0]["message"] == "one\ttwo \x1b[0m\n"


def test_more_than_a_page_comes_complete(group: Group):
    group.write("a", *((n / 100, f"line {n}") for n in range(10_500)))
    lines = run().stdout.splitlines()
    assert len(lines) == 10_500
    assert lines[-1].endswith("line 10499")


def test_since_and_until_bound_what_is_shown(group: Group):
    group.write("a", *((60 * n, f"minute {n}") for n in range(10)))
    since = (group.began_at + timedelta(minutes=3)).isoformat()
    until = (group.began_at + timedelta(minutes=5)).isoformat()
    lines = run("--since", since, "--until", until).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["3", "4", "5"]


def test_a_log_group_that_does_not_exist_is_named_with_a_way_on(
    group: Group, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", "/aws/lambda/none")
    result = run(exit_code=4)
    assert "/aws/lambda/none" in result.stderr
    assert "runs for the first time" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("--follow", "--until", "1h"), ("--since", "1h", "--until", "2h")]
)
def test_ranges_that_can_mean_nothing_are_usage_errors(group: Group, arguments: tuple[str, ...]):
    run(*arguments, exit_code=2)


def test_a_summary_counts_files_by_outcome_and_error(group: Group):
    for number in range(3):
        key = f"{number}.csv"
        error = FAILURE | {"message": f"row {number} of {key}"}
        line = outcome_line("failed", key, version=f"v{number}", error=error)
        group.invocation("a", number, f"{ID[:-1]}{number}", line, line)
    group.invocation("a", 9, OTHER_ID, outcome_line("archived", "0.csv", version="v0"))
    lines = records("--summary")
    groups = {(g["outcome"], g["files"], g["tries"]) for g in lines if g["type"] == "error-group"}
    assert groups == {("failed", 3, 6), ("archived", 1, 1)}
    last = records("--summary", "--final")
    groups = {(g["outcome"], g["files"], g["tries"]) for g in last if g["type"] == "error-group"}
    assert groups == {("failed", 2, 2), ("archived", 1, 1)}
    assert last[-1]["outcomes"] == {"failed": 2, "archived": 1}
    shown = run("--summary").stdout
    assert "ValueError: row 0 of …" in shown
    assert "0.csv\t1.csv\t2.csv" in shown


def test_the_last_word_on_each_file_is_shown_alone(group: Group):
    for after, kind in enumerate(("failed", "failed", "archived")):
        error = FAILURE if kind == "failed" else None
        group.invocation("a", after, ID, outcome_line(kind, "a.csv", error=error))
    assert [x["outcome"] for x in records("--final") if x["type"] == "outcome"] == ["archived"]


@pytest.mark.parametrize("other", ["--follow", "--raw"])
def test_what_needs_the_end_does_not_go_with_what_comes(group: Group, other: str):
    assert "--final and --summary" in run("--summary", other, exit_code=2).stderr
