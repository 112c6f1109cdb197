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

if TYPE_CHECKING:
    from collections.abc import Callable
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
    if text.startswith("fail") and not notes().with_name("mended").exists():
        raise ValueError(f"no luck with {text}")
    note("end", file, text)
"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A deployed pipeline whose user code takes down what it does."""

    aws: Aws
    folder: Path

    def deploy(self, trigger: str, *arguments: str) -> Result:
        notes = json.dumps(str(self.folder / "notes"))
        settings = f"""stack = "local"
[processor]
timeout = "20s"
environment = {{NOTES = {notes}}}
[deploy]
trigger = "{trigger}"
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

    def wait_until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.notes(), self.run("logs").output)
            time.sleep(0.1)

    def in_queue(self, name: str) -> int:
        url = self.aws.sqs.get_queue_url(QueueName=name)["QueueUrl"]
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
    url = pipeline.aws.sqs.get_queue_url(QueueName="local-ordered.fifo")["QueueUrl"]
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
    starts = [n["at"] for n in pipeline.notes() if n["key"] == "bad.csv"]
    assert starts[1] - starts[0] >= 1
    assert starts[2] - starts[1] >= 2
    pipeline.wait_until(lambda: pipeline.in_queue("local-failures") == 1)
    (pipeline.folder / "mended").touch()
    [fate] = pipeline.wait("reprocess", "bad.csv", "--yes")
    assert fate["fate"] == "archived"
