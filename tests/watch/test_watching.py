"""`watch`: one screen, live, for hours, over a network that comes and goes."""

from __future__ import annotations

import io
import json
import os
import re
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from click.testing import CliRunner
from rich.console import Console

from tests.logs.service import EPOCH, Clock, Service, Written, outcome_line
from tests.terminal import Terminal, at_terminal
from twobuckets.aws.clients import Aws
from twobuckets.cli import cli
from twobuckets.cli.views import human, plain
from twobuckets.pipeline.lookups import Unread
from twobuckets.pipeline.status import FailureQueueStatus, StagedCount, StagingStatus, UploadCount
from twobuckets.prices import US_EAST_1
from twobuckets.settings import Pipeline
from twobuckets.watch.gathering import Watcher, WatchPicture
from twobuckets.watch.minutes import Minutes, WatchedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["at_terminal"]


def picture(**fields: Any) -> WatchPicture:
    """A busy moment, with nothing that depends on when the test runs."""
    return WatchPicture(
        **{
            "at": EPOCH,
            "staging": StagingStatus(
                "intake-staging",
                StagedCount(1_204, 3 << 20, EPOCH, (900, 300, 0, 0, 4, 0), True),
                UploadCount(2, None, True),
            ),
            "queues": None,
            "failures": FailureQueueStatus("https://sqs/1/intake-failures", 3, 0),
            "in_flight": 12,
            "begun": tuple(range(30)),
            "outcomes": {"archived": (*[0] * 15, *range(15)), "failed": (*[0] * 29, 7)},
            "errors": (
                WatchedError(
                    "ValueError: no header in …", 7, EPOCH - timedelta(seconds=12), "in/a"
                ),
                WatchedError(
                    "KeyError: 'id\x1b[2J'", 1, EPOCH - timedelta(minutes=9), "in/\u202ex"
                ),
            ),
            "throttled_minutes": 2,
            "log": None,
            "problem": None,
            "requests": 321,
            "hour_usd": 0.004,
            **fields,
        }
    )


def on_screen(shown: WatchPicture, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), no_color=True, markup=False)
    view = human(shown)
    assert view is not None
    with console.capture() as captured:
        console.print(view)
    return captured.get().rstrip("\n").split("\n")


SCREEN = """\
2026-05-04 12:00:00Z   321 requests, under $0.01 an hour   q ends

Staging    1,204 objects, 3.0 MiB · oldest 1d 2h ago
           age <1m █ 900  <15m ▃ 300  <1d ▁ 4
           2 incomplete uploads
Given up   3 events in intake-failures
In flight  12 invocations
Throttled  in 2 minutes of the last 30

Last 30 minutes
  begun            435  .▁▁▁▂▂▂▂▃▃▃▄▄▄▄▅▅▅▅▆▆▆▇▇▇▇████
  archived         105  ................▁▂▂▃▃▄▄▅▆▆▇▇██
  failed             7  .............................█

Errors     7 × ValueError: no header in …
             last 12s ago  in/a
           1 × KeyError: 'id\\x1b[2J'
             last 9m ago  in/\\u202ex"""


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_it_fits_on_a_screen_and_reads_without_colours(width: int, height: int):
    lines = on_screen(picture(), width, height)
    # How long ago that is depends on when the test runs.
    shown = re.sub(r"oldest \S+ \S+ ago", "oldest 1d 2h ago", "\n".join(lines))
    assert shown == SCREEN
    assert len(lines) <= height
    long = picture(errors=(WatchedError("E: " + "x" * 300, 1, EPOCH, "k" * 1024),) * 5)
    lines = on_screen(long, width, height)
    assert all(len(line) <= width for line in lines)
    # The first lines say most: what does not fit is cut below.
    assert lines[3:10] == SCREEN.split("\n")[3:10]


def test_what_can_not_be_seen_is_said():
    lines = on_screen(
        picture(
            problem="Could not list: no answer",
            log=Unread("access denied", "logs:FilterLogEvents"),
            throttled_minutes=Unread("access denied", "cloudwatch:GetMetricData"),
            staging=None,
        ),
        80,
        24,
    )
    assert "No answer: Could not list: no answer" in lines
    assert "Log        not readable, needs logs:FilterLogEvents" in lines
    assert "Throttled  not readable, needs cloudwatch:GetMetricData" in lines


def test_a_pipe_gets_a_line_for_each_look():
    assert plain(picture()) == (
        "2026-05-04 12:00:00Z staged=1204 bytes=3145728 oldest_seconds=0 in_flight=12 begun=435 "
        "archived=105 failed=7"
    )


def test_minutes_count_group_and_forget():
    service, minutes = Service(Clock(EPOCH)), Minutes()
    log: list[tuple[float, dict[str, Any]]] = []
    failed = {"type": "ValueError", "message": "row 17 of k1"}
    log += [(5, outcome_line("failed", "k1", error=failed, duration_ms=100))]
    log += [
        (65, outcome_line("failed", "k2", error={**failed, "message": "row 9 of k2"}, attempt=2))
    ]
    log += [(70, outcome_line("archived", "k3", request_id=None))]
    log += [(71, {"type": "platform.start", "record": {"requestId": "12345678"}})]
    for after, line in log:
        service.write(line, after=after)
    now = EPOCH + timedelta(minutes=1, seconds=30)
    service.clock.at = now
    follower_events = service.client.filter_log_events(logGroupName="g")["events"]
    assert len(follower_events) == len(log)
    for event in events_of(service):
        minutes.add(event)
    assert minutes.begun(now)[-2:] == (1, 1)
    assert {k: v[-2:] for k, v in minutes.outcomes(now).items()} == {
        "archived": (0, 1),
        "failed": (1, 1),
    }
    (error,) = minutes.errors(5)
    assert (error.tries, error.last_key, error.error) == (2, "k2", "ValueError: row 9 of …")
    assert minutes.in_flight == 1
    later = now + timedelta(minutes=31)
    minutes.forget(later)
    assert minutes.outcomes(later) == {}
    assert minutes.errors(5) == ()
    assert minutes.in_flight == 0


def events_of(service: Service) -> list[Any]:
    from twobuckets.logs.events import iter_events

    return list(iter_events(service.client, "g"))


def test_eight_hours_stay_in_the_memory_and_the_requests_of_the_first(
    monkeypatch: pytest.MonkeyPatch, fake_credentials: None
):
    clock = Clock(EPOCH)
    service = Service(clock)
    aws = Aws(region="eu-central-1", environ=os.environ)
    logs = service.client
    monkeypatch.setattr(Aws, "logs", logs)
    empty = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    asked: list[str] = []

    def answer(model: Any, **_: Any) -> Any:
        asked.append(model.name)
        http = AWSResponse("https://s3/", 200, {}, io.BytesIO(empty))  # type: ignore[arg-type]
        return http, {"ResponseMetadata": {"HTTPStatusCode": 200}, "IsTruncated": False}

    aws.s3.meta.events.register("before-call", answer)
    pipeline = Pipeline(stack=None, staging="s-bucket", archive="a-bucket", log_group="g")
    watcher = Watcher(aws, pipeline, US_EAST_1, now=EPOCH)
    sizes: list[int] = []
    looks = 0
    for hour in range(8):
        # A look a minute stands for many: each has a hundred new errors, files and requests.
        for minute in range(60):
            clock.at = EPOCH + timedelta(hours=hour, minutes=minute)
            after = (clock.at - EPOCH).total_seconds()
            lines: list[dict[str, Any]] = []
            for number in range(20):
                error = {"type": f"E{hour}{chr(97 + number)}", "message": f"{hour}"}
                lines.append(outcome_line("failed", f"{after}/{number}", error=error))
                start = {"requestId": f"{after:012.0f}-{number}"}
                lines.append({"type": "platform.start", "record": start})
            service.written = [
                Written(f"{after}-{number}", clock.at, clock.at, json.dumps(line))
                for number, line in enumerate(lines)
            ]
            shown = watcher.look(clock.at)
            looks += 1
        kept = watcher.minutes
        sizes.append(len(kept._errors) + len(kept._open) + len(kept._outcomes) + len(kept._begun))
        assert sum(shown.outcomes["failed"]) == 20 * 30
    assert sizes[-1] == sizes[0]
    assert asked.count("ListObjectsV2") == asked.count("ListMultipartUploads") == looks
    assert shown.hour_usd < 0.01


def test_a_network_that_is_lost_is_told_and_waited_for(
    empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch
):
    s3 = boto3.client("s3", endpoint_url=empty_moto_url, region_name="eu-central-1")
    s3.create_bucket(
        Bucket="pair-staging", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        aws = Aws(region="eu-central-1", endpoint_url=dead, environ=os.environ)
        pipeline = Pipeline(stack=None, staging="pair-staging", archive="pair-archive")
        watcher = Watcher(aws, pipeline, US_EAST_1, now=EPOCH)
        shown = watcher.look(EPOCH)
    assert shown.problem is not None
    assert shown.staging is None
    alive = Aws(region="eu-central-1", endpoint_url=empty_moto_url, environ=os.environ)
    monkeypatch.setattr(watcher, "_aws", alive)
    shown = watcher.look(EPOCH + timedelta(seconds=20))
    assert shown.problem is None
    assert shown.staging is not None


def test_on_a_terminal_it_has_the_screen_until_q(
    empty_moto_url: str,
    fake_credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    at_terminal: Callable[..., Terminal],
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    for name in ("staging", "archive"):
        s3 = boto3.client("s3", endpoint_url=empty_moto_url, region_name="eu-central-1")
        s3.create_bucket(
            Bucket=f"pair-{name}",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )
        monkeypatch.setenv(f"TWOBUCKETS_{name.upper()}", f"pair-{name}")
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)
    terminal = at_terminal("watch", "--every", "1s")
    terminal.read_until("no objects wait")
    assert "\x1b[?1049h" in terminal.shown
    terminal.type("q")
    assert terminal.end() == 0
    assert "\x1b[?1049l" in terminal.shown
    assert "Watched for" in terminal.text
    told = CliRunner().invoke(cli, ["--json", "watch", "--every", "1s", "--count", "2"])
    records = [json.loads(line) for line in told.stdout.splitlines()]
    assert [record["type"] for record in records] == ["watch", "watch", "summary"]
    assert CliRunner().invoke(cli, ["watch", "--every", "10ms"]).exit_code == 2
