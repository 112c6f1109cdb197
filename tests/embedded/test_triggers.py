"""The three triggers, deployed: what reaches the processor, in which order, and what comes back."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.processor.test_handler import AWKWARD_KEYS
from twobuckets.cli import cli
from twobuckets.stack import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from twobuckets.aws.clients import Aws

STAGING = "local-staging-000000000000-us-east-1"
ARCHIVE = "local-archive-000000000000-us-east-1"

# What a file holds says what its processing is like; what was done is taken down outside.
PROCESSOR = """
import json, os, time
from pathlib import Path



def notes():
    return Path(os.environ["NOTES"])


def note(what, file, text):
    line = {"what": what, "key": file.key, "text": text, "attempt": file.attempt, "at": time.time()}
    with notes().open("a") as lines:
        lines.write(json.dumps(line) + "\\n")


def process(file):
    text = file.text()
    note("start", file, text)
    if text.startswith("slow"):
        time.sleep(1.5)
    if text.startswith("die") and file.attempt == 1:
        os._exit(3)
    if "fail" in text and not notes().with_name("mended").exists():
        note("fail", file, text)
        raise ValueError(f"no luck with {text}")
    note("end", file, text)
"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A deployed pipeline whose user code takes down what it does."""

    aws: Aws
    folder: Path

    def deploy(self, trigger: str, *arguments: str, at_once: int | None = None) -> Result:
        notes = json.dumps(str(self.folder / "notes"))
        settings = f"""stack = "local"
[processor]
timeout = "20s"
environment = {{NOTES = {notes}}}
[deploy]
trigger = "{trigger}"
{f"maximum_concurrency = {at_once}" if at_once else ""}
"""
        (self.folder / "twobuckets.toml").write_text(settings)
        return self.run("deploy", "--yes", "--json", *arguments)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments))

    def put(self, key: str, text: str) -> None:
        self.aws.s3.put_object(Bucket=STAGING, Key=key, Body=text.encode())

    def wait(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command that waits for fates, and return the final ones."""
        result = self.run(*arguments, "--wait", "--timeout", "2m", "--json")
        assert result.exit_code in (0, 3), result.output
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [line for line in lines if line.get("is_final")]

    def notes(self) -> list[dict[str, Any]]:
        lines = (self.folder / "notes").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def is_idle(self) -> bool:
        """Tell whether all that was begun is done."""
        count = Counter(note["what"] for note in self.notes())
        return count["start"] == count["end"]

    def archived(self, key: str) -> list[str]:
        """Return what the archive holds of a key, the current object first."""
        listed = self.aws.s3.list_object_versions(Bucket=ARCHIVE, Prefix=key)
        return [
            self.aws.s3.get_object(Bucket=ARCHIVE, Key=key, VersionId=item["VersionId"])["Body"]
            .read()
            .decode()
            for item in listed.get("Versions", [])
            if item["Key"] == key
        ]

    def wait_until_processed(self, seconds: float = 90) -> None:
        self.wait_until(
            lambda: not self.aws.s3.list_objects_v2(Bucket=STAGING).get("KeyCount"), seconds
        )

    def has_empty_queues(self) -> bool:
        """Tell whether no message is left: one is deleted a moment after its file is archived."""
        urls = self.aws.sqs.list_queues().get("QueueUrls", [])
        return not any(self.in_queue(url.rpartition("/")[2]) for url in urls)

    def wait_until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.notes(), self.run("logs").output)
            time.sleep(0.1)

    def url_of(self, queue: str) -> str:
        return self.aws.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def arn_of(self, queue: str) -> str:
        answer = self.aws.sqs.get_queue_attributes(
            QueueUrl=self.url_of(queue), AttributeNames=["QueueArn"]
        )
        return answer["Attributes"]["QueueArn"]

    def in_queue(self, name: str) -> int:
        url = self.url_of(name)
        counts = self.aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        return sum(
            int(value)
            for attribute, value in counts["Attributes"].items()
            if attribute.startswith("ApproximateNumberOfMessages")
        )


@pytest.fixture
def pipeline(embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    (tmp_path / "processor.py").write_text(PROCESSOR)
    (tmp_path / "notes").touch()
    monkeypatch.chdir(tmp_path)
    return Pipeline(embedded, tmp_path)


def race(pipeline: Pipeline, keys: int) -> Counter[str]:
    """Upload three versions of each key in the same moments; return how often each law is broken.

    `overlap`: two process() of a key at once. `late`: one of an older version begins after one of
    a newer is done. `landed`: an older one is done after a newer one.
    """
    # As many as the server runs at once: a cold start takes longer than the slow ones are slow.
    for number in range(8):
        pipeline.put(f"warm/{number}", "slow")
    pipeline.wait_until_processed()
    for number in range(keys):
        pipeline.put(f"race/{number}", "slow 1")
    pipeline.wait_until(lambda: sum(n["text"] == "slow 1" for n in pipeline.notes()) >= 2)
    for text in ("quick 2", "quick 3"):
        for number in range(keys):
            pipeline.put(f"race/{number}", text)
    pipeline.wait_until_processed()
    # An older version that was overtaken has left staging while it is processed.
    pipeline.wait_until(pipeline.is_idle)
    broken: Counter[str] = Counter()
    by_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in pipeline.notes():
        if line["key"].startswith("race/"):
            by_key[line["key"]].append(line)
    assert len(by_key) == keys
    for lines in by_key.values():
        running: set[str] = set()
        done: set[int] = set()
        seen: set[str] = set()
        for line in lines:
            version = int(line["text"][-1])
            if line["what"] == "start":
                seen |= {"overlap"} if running else set()
                seen |= {"late"} if any(other > version for other in done) else set()
                running.add(line["text"])
            else:
                seen |= {"landed"} if any(other > version for other in done) else set()
                running.discard(line["text"])
                done.add(version)
        broken.update(seen)
    for number in range(keys):
        assert pipeline.archived(f"race/{number}")[0] == "quick 3"
    return broken


def test_an_ordered_pipeline_runs_one_file_of_a_key_at_a_time(pipeline: Pipeline):
    deployed = pipeline.deploy("ordered")
    assert deployed.exit_code == 0, deployed.output
    assert race(pipeline, keys=6) == Counter()

    for number, key in enumerate(AWKWARD_KEYS):
        pipeline.put(key, f"quick {number}")
    pipeline.wait_until_processed()
    for number, key in enumerate(AWKWARD_KEYS):
        assert pipeline.archived(key) == [f"quick {number}"]

    # A version that always fails keeps a good one of its key waiting, but not for good.
    pipeline.put("poisoned", "fail 1")
    pipeline.wait_until(lambda: "fail 1" in {line["text"] for line in pipeline.notes()})
    pipeline.put("poisoned", "quick 2")
    pipeline.wait_until(lambda: pipeline.archived("poisoned") == ["quick 2"])
    assert pipeline.in_queue("local-ordered-failures.fifo") == 0

    # What failed for good waits in staging; once mended, a wake-up goes by the queue as well.
    (pipeline.folder / "bad.csv").write_text("fail for good")
    [fate] = pipeline.wait("upload", "bad.csv")
    assert (fate["fate"], fate["attempts"]) == ("failed", 3)
    assert fate["error"]["type"] == "ValueError"
    pipeline.wait_until(lambda: pipeline.in_queue("local-ordered-failures.fifo") == 1)
    (pipeline.folder / "mended").touch()
    [fate] = pipeline.wait("reprocess", "bad.csv", "--yes")
    assert fate["fate"] == "archived"
    # From the archive to staging, and back by the queue.
    [fate] = pipeline.wait("reprocess", "bad.csv", "--yes")
    assert fate["fate"] == "archived"
    assert pipeline.archived("bad.csv") == ["fail for good"] * 2

    # The function's process dies: the message is seen again when its visibility is over.
    url = pipeline.url_of("local-ordered.fifo")
    pipeline.aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    pipeline.put("killed", "die")
    pipeline.wait_until_processed()
    assert pipeline.archived("killed") == ["die"]
    assert [n["attempt"] for n in pipeline.notes() if n["key"] == "killed"] == [1, 2, 2]


def test_without_a_queue_the_same_race_breaks_every_law(pipeline: Pipeline):
    assert pipeline.deploy("notification").exit_code == 0
    broken = race(pipeline, keys=2)
    assert broken["overlap"]
    assert broken["landed"]


def test_a_queue_brings_failed_files_back_and_keeps_what_is_given_up(pipeline: Pipeline):
    deployed = pipeline.deploy("queue")
    assert deployed.exit_code == 0, deployed.output
    for name, text in (("good.csv", "quick"), ("bad.csv", "fail")):
        (pipeline.folder / name).write_text(text)
    fates = {fate["key"]: fate for fate in pipeline.wait("upload", "good.csv", "bad.csv")}
    assert fates["good.csv"]["fate"] == "archived"
    assert (fates["bad.csv"]["fate"], fates["bad.csv"]["attempts"]) == ("failed", 3)
    bad = [note for note in pipeline.notes() if note["key"] == "bad.csv"]
    starts = [note["at"] for note in bad if note["what"] == "start"]
    assert starts[1] - starts[0] >= 1
    assert starts[2] - starts[1] >= 2
    pipeline.wait_until(lambda: pipeline.in_queue("local-failures") == 1)
    (pipeline.folder / "mended").touch()
    [fate] = pipeline.wait("reprocess", "bad.csv", "--yes")
    assert fate["fate"] == "archived"


def test_dead_letters_go_back_to_where_they_came_from(pipeline: Pipeline):
    assert pipeline.deploy("ordered").exit_code == 0
    keys = [f"bad-{number}.csv" for number in range(3)]
    for key in keys:
        (pipeline.folder / key).write_text("fail")
    assert {fate["fate"] for fate in pipeline.wait("upload", *keys)} == {"failed"}
    dead, other = "local-ordered-failures.fifo", "local-failures"
    pipeline.wait_until(lambda: pipeline.in_queue(dead) == len(keys))
    # Doctor names the files that failed for good, and the notes of them.
    examined = pipeline.run("doctor", "--check", "stuck", "--check", "failure-queue", "--json")
    findings = map(json.loads, examined.stdout.splitlines())
    counts = {finding["check"]: finding["count"] for finding in findings if "check" in finding}
    assert counts == {"stuck-failed": 3, "failure-queue": 3}

    # What Lambda gave up on, in the form that it notes it, and what is nobody's.
    pipeline.aws.functions.put_function_event_invoke_config(
        FunctionName="local-processor",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": pipeline.arn_of(other)}},
    )
    url = pipeline.url_of("local-ordered.fifo")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    pipeline.aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    pipeline.put("unrouted.csv", "fail")
    pipeline.wait_until(lambda: pipeline.in_queue(other) == 1)
    pipeline.aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    pipeline.aws.sqs.send_message(QueueUrl=pipeline.url_of(other), MessageBody="hello")

    planned = pipeline.run("redrive", "--dry-run", "--json")
    found = {line["queue"]: line for line in map(json.loads, planned.stdout.splitlines()[:-1])}
    assert {name: line["waiting"] for name, line in found.items()} == {dead: 3, other: 2}
    assert found[dead]["sources"] == ["local-ordered.fifo"]
    assert pipeline.run("redrive").exit_code == 2  # nobody is there to be asked
    assert pipeline.in_queue(dead) + pipeline.in_queue(other) == 5

    # One that fails again comes back to where it lay.
    moved = pipeline.run("redrive", "--count", "1", "--yes", "--json")
    assert json.loads(moved.stdout.splitlines()[-1])["moved"] == 1, moved.output
    pipeline.wait_until(lambda: pipeline.in_queue("local-ordered.fifo") == 0)
    pipeline.wait_until(lambda: pipeline.in_queue(dead) == 3)

    (pipeline.folder / "mended").touch()
    moved = pipeline.run("redrive", "--rate", "50", "--yes", "--json")
    assert moved.exit_code == 3, moved.output
    lines = {line.get("queue"): line for line in map(json.loads, moved.stdout.splitlines())}
    assert (lines[None]["moved"], lines[None]["left"]) == (4, 1)
    assert lines[other]["reasons"] == ["it is none of the function's events"]
    pipeline.wait_until_processed()
    for key in (*keys, "unrouted.csv"):
        assert pipeline.archived(key) == ["fail"]
    assert (pipeline.in_queue(dead), pipeline.in_queue(other)) == (0, 1)


SWITCHES = ("queue", "ordered", "notification", "ordered", "queue", "notification")


def test_the_trigger_is_switched_each_way_and_no_file_is_left_behind(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    apply, functions = plan.apply, pipeline.aws.functions

    def apply_while_files_come(*arguments: Any, **named: Any) -> Iterator[Any]:
        """Upload once it is decided to change the stack, and at each event of that.

        What a queue is told of then goes with it: nothing takes it out any more.
        """
        for source in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.update_event_source_mapping(UUID=source["UUID"], Enabled=False)
        pipeline.put("meanwhile/first", "slow")
        for number, event in enumerate(apply(*arguments, **named)):
            pipeline.put(f"meanwhile/{number}", "quick")
            yield event

    assert pipeline.deploy("notification").exit_code == 0
    monkeypatch.setattr(plan, "apply", apply_while_files_come)
    for trigger in SWITCHES:
        pipeline.put("before", "quick")
        pipeline.wait_until_processed()
        pipeline.wait_until(pipeline.has_empty_queues)
        deployed = pipeline.deploy(trigger)
        assert deployed.exit_code == 0, deployed.output
        pipeline.put("after", "quick")
        pipeline.wait_until_processed()
    assert pipeline.archived("meanwhile/first") == ["slow"] * len(SWITCHES)

    # A queue that holds messages is not taken away, and what it holds is said.
    monkeypatch.setattr(plan, "apply", apply)
    assert pipeline.deploy("ordered").exit_code == 0
    [source] = functions.list_event_source_mappings()["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=source["UUID"], Enabled=False)
    for number in range(3):
        pipeline.put(f"waiting/{number}", "quick")
    pipeline.wait_until(lambda: pipeline.in_queue("local-ordered.fifo") == 3)
    refused = pipeline.deploy("notification")
    assert refused.exit_code == 1
    said = "it takes the queue local-ordered.fifo away, which holds 3 messages (3 waiting, "
    assert said in refused.output
    functions.update_event_source_mapping(UUID=source["UUID"], Enabled=True)
    pipeline.wait_until_processed()
