"""`reprocess` against a pipeline that runs: nothing is lost, whatever comes in between."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.faults.proxy import FaultProxy
from tests.faults.storm import environment_of
from twobuckets.cli import cli
from twobuckets.reprocess.batch import KINDS
from twobuckets.reprocess.journals import require_unfinished
from twobuckets.settings import state_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3.type_defs import CopySourceTypeDef

    from tests.faults.proxy import Asked
    from twobuckets import local
    from twobuckets.aws.clients import Aws

STAGING = "local-staging-000000000000-us-east-1"
ARCHIVE = "local-archive-000000000000-us-east-1"

KEYS = [
    "plain.csv",
    " blanks at both ends ",
    "plus+and%2Bpercent",
    "é and é",
    "emoji 🗂️",
    "/leading and trailing/",
    "a//b",
    "../up/..",
    "new\nline\tand\x1b[31m escape \x7f",
    "quotes ' \" `",
    "*?[x]",
    "${aws:username}",
    "[bold]",
    "&lt;&amp;",
    "k" * 1024,
]


@pytest.fixture
def pipeline(embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """A deployed pipeline whose processor reads each file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "processor.py").write_text("def process(file):\n    file.read()\n")
    result = run("deploy", "--yes")
    assert result.exit_code == 0, result.output
    yield embedded
    # Nothing may wake the processor any more while the next test begins.
    disconnect(embedded)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--stack", "local", *arguments])


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def disconnect(aws: Aws) -> None:
    aws.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})


def versions(aws: Aws, bucket: str) -> Counter[str]:
    """Return how many versions each key has."""
    pages = aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    return Counter(version["Key"] for page in pages for version in page.get("Versions", []))


def archive_directly(aws: Aws, *keys: str, body: bytes = b"content") -> None:
    for key in keys:
        aws.s3.put_object(
            Bucket=ARCHIVE,
            Key=key,
            Body=body,
            ContentType="text/x-test",
            Metadata={"who": "me"},
            Tagging="team=a%20b",
        )


def wait_until_archived(aws: Aws, expected: Counter[str], seconds: float = 60) -> None:
    ends_at = time.monotonic() + seconds
    while versions(aws, STAGING) or versions(aws, ARCHIVE) != expected:
        assert time.monotonic() < ends_at, (versions(aws, STAGING), versions(aws, ARCHIVE))
        time.sleep(0.2)


def test_every_kind_of_key_goes_back_and_is_archived_again_with_all_that_describes_it(
    pipeline: Aws,
):
    archive_directly(pipeline, *KEYS)
    result = run("reprocess", "--prefix", "", "--yes", "--wait", "--json")
    assert result.exit_code == 0, result.output
    assert {r["key"] for r in records(result) if r["type"] == "reprocessed"} == set(KEYS)
    assert records(result)[-1]["outcomes"] == {"archived": len(KEYS)}
    assert versions(pipeline, STAGING) == Counter()
    assert versions(pipeline, ARCHIVE) == Counter(KEYS * 2)
    for key in KEYS:
        head = pipeline.s3.head_object(Bucket=ARCHIVE, Key=key)
        assert (head["ContentType"], head["Metadata"]["who"]) == ("text/x-test", "me")
        tags = pipeline.s3.get_object_tagging(Bucket=ARCHIVE, Key=key)["TagSet"]
        assert tags == [{"Key": "team", "Value": "a b"}]


def test_single_keys_of_every_kind_are_found(pipeline: Aws):
    disconnect(pipeline)
    archive_directly(pipeline, *KEYS)
    result = run("reprocess", "--yes", "--", *KEYS)
    assert result.exit_code == 0, result.output
    assert versions(pipeline, STAGING) == versions(pipeline, ARCHIVE) == Counter(KEYS)


def test_a_dry_run_changes_nothing_and_says_the_same_plan(pipeline: Aws):
    archive_directly(pipeline, "a", "b")
    planned = run("reprocess", "--prefix", "", "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    items = [r for r in records(planned) if r["type"] == "item"]
    assert [(i["key"], i["kind"]) for i in items] == [("a", "copy"), ("b", "copy")]
    assert versions(pipeline, ARCHIVE) == Counter(["a", "b"])
    assert versions(pipeline, STAGING) == Counter()
    done = run("reprocess", "--prefix", "", "--yes", "--json")
    assert [r for r in records(done) if r["type"] == "plan"] == [
        r for r in records(planned) if r["type"] == "plan"
    ]


def test_without_a_terminal_and_without_yes_it_asks_for_one_of_them(pipeline: Aws):
    archive_directly(pipeline, "a")
    result = run("reprocess", "a")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert versions(pipeline, ARCHIVE) == Counter(["a"])


def test_a_file_that_waits_in_staging_is_woken_as_it_is(pipeline: Aws):
    disconnect(pipeline)
    archive_directly(pipeline, "k", body=b"older")
    staged = pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"newer")
    result = run("reprocess", "k", "--yes", "--wait", "--json")
    assert result.exit_code == 0, result.output
    (woken,) = [r for r in records(result) if r["type"] == "reprocessed"]
    assert (woken["kind"], woken["version_id"]) == ("wake", staged["VersionId"])
    assert versions(pipeline, STAGING) == Counter()
    assert pipeline.s3.get_object(Bucket=ARCHIVE, Key="k")["Body"].read() == b"newer"
    assert versions(pipeline, ARCHIVE) == Counter({"k": 2})


def test_a_named_archived_version_is_not_put_over_a_file_that_waits(pipeline: Aws):
    disconnect(pipeline)
    archived = pipeline.s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"older")
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"newer")
    result = run("reprocess", "k", "--version-id", archived["VersionId"], "--yes", "--json")
    assert result.exit_code == 3, result.output
    assert pipeline.s3.get_object(Bucket=STAGING, Key="k")["Body"].read() == b"newer"
    assert versions(pipeline, ARCHIVE) == Counter(["k"])


def test_a_key_that_is_nowhere_is_said_so_and_exits_3(pipeline: Aws):
    result = run("reprocess", "nowhere", "--yes", "--json")
    assert result.exit_code == 3, result.output
    plan = records(result)[0]
    assert plan["skipped"] == {"neither in the archive nor in staging": 1}


def test_an_older_archived_version_comes_back_by_its_id_and_both_stay(pipeline: Aws):
    disconnect(pipeline)
    older = pipeline.s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"older")
    pipeline.s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"newer")
    result = run("reprocess", "k", "--version-id", older["VersionId"], "--yes")
    assert result.exit_code == 0, result.output
    assert pipeline.s3.get_object(Bucket=STAGING, Key="k")["Body"].read() == b"older"
    assert pipeline.s3.get_object(Bucket=ARCHIVE, Key="k")["Body"].read() == b"newer"
    assert versions(pipeline, ARCHIVE) == Counter(["k", "k"])


def test_an_archive_without_versions_keeps_its_objects(pipeline: Aws, tmp_path: Path):
    disconnect(pipeline)
    pipeline.s3.create_bucket(Bucket="plain-archive")
    pipeline.s3.put_object(Bucket="plain-archive", Key="k", Body=b"content")
    (tmp_path / "twobuckets.toml").write_text(
        f'stack = "local"\nstaging = "{STAGING}"\narchive = "plain-archive"\n'
    )
    result = run("reprocess", "k", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert records(result)[0]["copies"] == 1
    assert versions(pipeline, "plain-archive") == versions(pipeline, STAGING) == Counter(["k"])


@pytest.mark.parametrize(
    ("action", "resource", "states", "staged"),
    [
        ("s3:GetObject", "*", ["failed", "failed", "failed"], []),
        ("s3:GetObject", "b", ["done", "failed", "done"], ["a", "c"]),
    ],
)
def test_what_a_policy_denies_is_reported_exactly_and_completed_later(
    pipeline: Aws, action: str, resource: str, states: list[str], staged: list[str]
):
    disconnect(pipeline)
    archive_directly(pipeline, "a", "b", "c")
    # S3 tells times in seconds, and only a later copy proves that it is ours.
    time.sleep(1.1)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": f"arn:aws:s3:::{ARCHIVE}/{resource}",
    }
    pipeline.s3.put_bucket_policy(
        Bucket=ARCHIVE, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    result = run("reprocess", "--prefix", "", "--yes", "--json")
    assert result.exit_code == 3, result.output
    moved = sorted((r["key"], r["state"]) for r in records(result) if r["type"] == "reprocessed")
    assert moved == list(zip("abc", states, strict=True))
    assert versions(pipeline, STAGING) == Counter(staged)
    pipeline.s3.delete_bucket_policy(Bucket=ARCHIVE)
    again = run("reprocess", "--prefix", "", "--yes", "--json")
    assert again.exit_code == 0, again.output
    assert versions(pipeline, STAGING) == versions(pipeline, ARCHIVE) == Counter(["a", "b", "c"])


def test_failures_of_the_logs_are_processed_again(pipeline: Aws, tmp_path: Path):
    (tmp_path / "processor.py").write_text("def process(file):\n    raise ValueError('no luck')\n")
    assert run("deploy", "--yes").exit_code == 0
    pipeline.s3.put_object(Bucket=STAGING, Key="bad one", Body=b"content")
    ends_at = time.monotonic() + 30
    while "bad one" not in run("reprocess", "--failed", "--dry-run", "--json").stdout:
        assert time.monotonic() < ends_at
        time.sleep(0.3)
    (tmp_path / "processor.py").write_text("def process(file):\n    file.read()\n")
    assert run("deploy", "--yes").exit_code == 0
    result = run("reprocess", "--failed", "--yes", "--wait", "--json")
    assert result.exit_code == 0, result.output
    wait_until_archived(pipeline, Counter(["bad one"]))


@pytest.mark.parametrize("arguments", [["--prefix", ""], ["k"]])
def test_what_is_under_a_delete_marker_in_staging_does_not_wait_there(
    pipeline: Aws, arguments: list[str]
):
    disconnect(pipeline)
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"older")
    pipeline.s3.delete_object(Bucket=STAGING, Key="k")
    archive_directly(pipeline, "k", "other")
    result = run("reprocess", *arguments, "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert versions(pipeline, ARCHIVE)["k"] == 1
    assert pipeline.s3.get_object(Bucket=STAGING, Key="k")["Body"].read() == b"content"


def archived_body(aws: Aws, key: str = "k") -> bytes:
    return aws.s3.get_object(Bucket=ARCHIVE, Key=key)["Body"].read()


def connect(aws: Aws, notification: Any) -> None:
    notification.pop("ResponseMetadata", None)
    aws.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration=notification
    )


def test_a_file_whose_copy_a_rejected_upload_covers_is_in_the_archive_still(
    pipeline: Aws, tmp_path: Path
):
    """The upload comes between the copy and the processor, and is taken first."""
    (tmp_path / "processor.py").write_text(
        "from twobuckets.processor import Reject\n"
        "def process(file):\n"
        "    if file.read() == b'BAD':\n"
        "        raise Reject('no file of ours')\n"
    )
    assert run("deploy", "--yes").exit_code == 0
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"GOOD")
    wait_until_archived(pipeline, Counter(["k"]))
    disconnect(pipeline)
    copied = run("reprocess", "k", "--yes", "--json")
    assert copied.exit_code == 0, copied.output
    # S3's times have whole seconds, and a wake-up has nothing else to order two uploads by.
    time.sleep(1.1)
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"BAD")
    rejected = run("reprocess", "k", "--yes", "--wait", "--json")
    assert rejected.exit_code == 3, rejected.output
    assert records(rejected)[-1]["outcomes"] == {"rejected": 1}
    assert archived_body(pipeline) == b"GOOD"
    # The operator deletes what is no good, and the copy comes to light again.
    staged = pipeline.s3.head_object(Bucket=STAGING, Key="k")["VersionId"]
    pipeline.s3.delete_object(Bucket=STAGING, Key="k", VersionId=staged)
    again = run("reprocess", "k", "--yes", "--wait", "--json")
    assert again.exit_code == 0, again.output
    assert archived_body(pipeline) == b"GOOD"
    assert versions(pipeline, STAGING) == Counter()


def test_an_older_copy_is_never_archived_over_a_newer_file(pipeline: Aws):
    """As another run's copy that arrives when a newer file was uploaded and archived."""
    notification = pipeline.s3.get_bucket_notification_configuration(Bucket=STAGING)
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"older")
    wait_until_archived(pipeline, Counter(["k"]))
    older = pipeline.s3.head_object(Bucket=ARCHIVE, Key="k")
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"newer")
    wait_until_archived(pipeline, Counter({"k": 2}))
    disconnect(pipeline)
    source: CopySourceTypeDef = {"Bucket": ARCHIVE, "Key": "k", "VersionId": older["VersionId"]}
    copied = pipeline.s3.copy_object(Bucket=STAGING, Key="k", CopySource=source)
    arguments = ["--yes", "--wait", "--json", "--failed-to", "failed.jsonl"]
    woken = run("reprocess", "k", *arguments)
    assert woken.exit_code == 3, woken.output
    assert records(woken)[-1]["outcomes"] == {"superseded": 1}
    assert json.loads(Path("failed.jsonl").read_text("utf-8").splitlines()[0])["key"] == "k"
    assert (archived_body(pipeline), versions(pipeline, ARCHIVE)) == (b"newer", Counter({"k": 2}))
    pipeline.s3.delete_object(Bucket=STAGING, Key="k", VersionId=copied["VersionId"])
    # Whoever asks for that version means it.
    connect(pipeline, notification)
    chosen = ["--version-id", older["VersionId"]]
    result = run("reprocess", "k", *chosen, "--yes", "--wait", "--json")
    assert result.exit_code == 0, result.output
    assert archived_body(pipeline) == b"older"


def test_a_second_run_s_slow_copy_is_not_archived_over_a_newer_file(
    pipeline: Aws, embedded_server: local.Server, tmp_path: Path
):
    """Two runs have planned one version; the second one copies what the first one's copy became.

    S3 reads a copy's source when the copy begins, and the destination's condition counts when it
    ends. The embedded S3 copies in one instant, so the proxy makes the two of it.
    """
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"older")
    wait_until_archived(pipeline, Counter(["k"]))
    asked, begins, ends = threading.Event(), threading.Event(), threading.Event()

    def copy_slowly(request: Asked) -> bytes | None:
        if request.method != "PUT" or b"x-amz-copy-source:" not in request.fields:
            return None
        asked.set()
        assert begins.wait(60)
        version_id = pipeline.s3.head_object(Bucket=ARCHIVE, Key="k")["VersionId"]
        begins.clear()
        assert ends.wait(60)
        source: CopySourceTypeDef = {"Bucket": ARCHIVE, "Key": "k", "VersionId": version_id}
        copied = pipeline.s3.copy_object(
            Bucket=STAGING, Key="k", CopySource=source, IfNoneMatch="*"
        )
        etag = copied["CopyObjectResult"]["ETag"].replace('"', "&quot;")
        body = f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode()
        return (
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n"
            f"x-amz-version-id: {copied['VersionId']}\r\n"
            f"x-amz-copy-source-version-id: {version_id}\r\n\r\n"
        ).encode() + body

    with FaultProxy(rate=0, refuses=copy_slowly) as proxy:
        environ = environment_of(embedded_server, tmp_path, staging=STAGING, archive=ARCHIVE)
        command = [sys.executable, "-m", "twobuckets", "reprocess", "k", "--yes", "--json"]
        second = subprocess.Popen(
            command,
            env=environ | {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "no_proxy": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(60)
        first = run("reprocess", "k", "--yes", "--wait", "--json")
        assert first.exit_code == 0, first.output
        wait_until_archived(pipeline, Counter({"k": 2}))
        begins.set()
        while begins.is_set():
            time.sleep(0.01)
        pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"newer")
        wait_until_archived(pipeline, Counter({"k": 3}))
        ends.set()
        said, _ = second.communicate(timeout=60)
    assert second.returncode == 3, said
    moved = next(record for record in map(json.loads, said.splitlines()) if "state" in record)
    assert moved["state"] == "left", moved
    wait_until_archived(pipeline, Counter({"k": 3}))
    assert archived_body(pipeline) == b"newer"


def give_to_a_job(place: str) -> None:
    """Let a batch job have the copies of the unfinished run, and be over without a report."""
    directory = state_directory(os.environ, "reprocess")
    with require_unfinished(directory, place=place) as journal:
        journal.begin_job(time.time(), kinds=KINDS)
        journal.note_job(None)


def test_a_newer_file_that_was_buried_with_a_batch_job_s_copy_is_processed_after_all(
    pipeline: Aws,
):
    notification: Any = pipeline.s3.get_bucket_notification_configuration(Bucket=STAGING)
    disconnect(pipeline)
    archive_directly(pipeline, "k", body=b"older")
    assert run("reprocess", "k", "--batch", "--yes").exit_code == 2, "it needs a role"
    give_to_a_job(json.dumps([pipeline.s3_address.url, STAGING, ARCHIVE]))
    # S3 tells times in seconds, and only a later copy proves that it is the job's.
    time.sleep(1.1)
    pipeline.s3.put_object(Bucket=STAGING, Key="k", Body=b"newer")
    source: CopySourceTypeDef = {"Bucket": ARCHIVE, "Key": "k"}
    copied = pipeline.s3.copy_object(Bucket=STAGING, Key="k", CopySource=source)
    version = pipeline.s3.head_object(Bucket=STAGING, Key="k", VersionId=copied["VersionId"])
    wake = {
        "bucket": STAGING,
        "key": "k",
        "version_id": copied["VersionId"],
        "etag": version["ETag"].strip('"'),
        "size": version["ContentLength"],
    }
    event = json.dumps({"twobuckets": 1, "wake": [wake]}).encode()
    pipeline.functions.invoke(FunctionName="local-processor", Payload=event)
    assert versions(pipeline, ARCHIVE) == Counter({"k": 2})
    assert "Contents" not in pipeline.s3.list_objects_v2(Bucket=STAGING), "the newer file is hidden"
    # The processor tells by those seconds as well which of two files came later.
    time.sleep(1.1)
    connect(pipeline, notification)
    result = run("reprocess", "k", "--yes", "--json")
    assert result.exit_code == 3, result.output
    ends_at = time.monotonic() + 30
    while pipeline.s3.get_object(Bucket=ARCHIVE, Key="k")["Body"].read() != b"newer":
        assert time.monotonic() < ends_at, result.output
        time.sleep(0.2)


def fail_on(aws: Aws, tmp_path: Path, *keys: str) -> None:
    """Let the processor refuse files, and mend it."""
    broken = "from twobuckets.processor import Reject\ndef process(file):\n    raise Reject('x')\n"
    (tmp_path / "processor.py").write_text(broken)
    assert run("deploy", "--yes").exit_code == 0
    for key in keys:
        aws.s3.put_object(Bucket=STAGING, Key=key, Body=b"content")
    ends_at = time.monotonic() + 30
    while run("logs", "--json").stdout.count('"rejected"') < len(keys):
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    (tmp_path / "processor.py").write_text("def process(file):\n    file.read()\n")
    assert run("deploy", "--yes").exit_code == 0


def test_what_doctor_finds_stuck_is_woken_named_by_it_or_looked_for(pipeline: Aws, tmp_path: Path):
    fail_on(pipeline, tmp_path, *KEYS)
    found = run("doctor", "--older-than", "0s", "--json")
    assert found.exit_code == 3, found.output
    command = [sys.executable, "-m", "twobuckets", "--stack", "local", "reprocess", "--json"]
    planned = subprocess.run(
        [*command, "--from-file", "-", "--dry-run"], input=found.stdout_bytes, capture_output=True
    )
    items = [r for r in map(json.loads, planned.stdout.splitlines()) if r["type"] == "item"]
    assert sorted((i["key"], i["kind"]) for i in items) == sorted((k, "wake") for k in KEYS)
    # Without --wait: clocks may differ, so refusals of a moment ago would count as new ones.
    result = run("reprocess", "--stuck", "--older-than", "0s", "--yes", "--json")
    assert result.exit_code == 0, result.output
    wait_until_archived(pipeline, Counter(KEYS))


def test_a_canary_that_fails_again_stops_the_run(pipeline: Aws, tmp_path: Path):
    (tmp_path / "processor.py").write_text(
        "from twobuckets.processor import Reject\ndef process(file):\n    raise Reject('never')\n"
    )
    assert run("deploy", "--yes").exit_code == 0
    keys = [f"k{n}" for n in range(10)]
    archive_directly(pipeline, *keys)
    arguments = ["--prefix", "", "--canary", "2", "--yes", "--json", "--failed-to", "failed.jsonl"]
    result = run("reprocess", *arguments)
    assert result.exit_code == 3, result.output
    group, summary = records(result)[-2:]
    assert (group["fate"], group["error"], group["objects"]) == ("rejected", "Reject: never", 2)
    assert (summary["done"], summary["planned"]) == (2, 8)
    assert summary["outcomes"] == {"rejected": 2}
    assert sum(versions(pipeline, ARCHIVE).values()) == 10
    assert sum(versions(pipeline, STAGING).values()) == 2
    again = run("reprocess", "--from-file", "failed.jsonl", "--dry-run", "--json")
    items = [(r["key"], r["kind"]) for r in records(again) if r["type"] == "item"]
    assert sorted(items) == sorted((key, "wake") for key in versions(pipeline, STAGING))


def run_interrupted(tmp_path: Path, kills: int, longest: float) -> None:
    """Start the command again and again, killing it at random moments, until one comes to its end.

    That one has to find that all is done.
    """
    command = [sys.executable, "-m", "twobuckets", "--stack", "local"]
    command += ["reprocess", "--prefix", "", "--yes", "--json"]
    random.seed(20260504)
    said = tmp_path / "said.jsonl"
    for number in range(kills + 1):
        with (
            said.open("w") as stdout,
            subprocess.Popen(command, cwd=tmp_path, stdout=stdout, stderr=stdout) as process,
        ):
            try:
                process.wait(random.uniform(0.3, longest) if number < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                status = run("reprocess", "--status", "--json")
                if status.exit_code == 0 and records(status)[0]["is_ended"]:
                    # Killed after its end: the same command would be a new request.
                    return
            else:
                lines = said.read_text().splitlines(keepends=True)
                unlucky = [line for line in lines if '"state": "done"' not in line]
                assert process.returncode == 0, "".join(unlucky)
                return


@pytest.mark.slow
@pytest.mark.parametrize(("objects", "kills"), [(600, 30)])
def test_killed_again_and_again_it_copies_next_to_nothing_twice(
    pipeline: Aws, tmp_path: Path, objects: int, kills: int
):
    disconnect(pipeline)
    keys = [f"scan {n:05}.csv" for n in range(objects)]
    archive_directly(pipeline, *keys)
    # S3 tells times in seconds, and only a later copy proves that it is ours.
    time.sleep(1.1)
    run_interrupted(tmp_path, kills, 0.9)
    staged = versions(pipeline, STAGING)
    assert set(staged) == set(keys)
    assert versions(pipeline, ARCHIVE) == Counter(keys)
    assert sum(staged.values()) <= 1.05 * objects


@pytest.mark.slow
def test_killed_again_and_again_while_the_processor_archives_nothing_is_lost(
    pipeline: Aws, tmp_path: Path
):
    keys = [f"scan {n:05}.csv" for n in range(150)]
    archive_directly(pipeline, *keys)
    # S3 tells times in seconds, and only a later copy proves that it is ours.
    time.sleep(1.1)
    run_interrupted(tmp_path, 12, 0.9)
    ends_at = time.monotonic() + 120
    while staged := versions(pipeline, STAGING):
        assert time.monotonic() < ends_at, staged
        time.sleep(0.2)
    archived = versions(pipeline, ARCHIVE)
    assert archived.keys() == set(keys)
    assert min(archived.values()) >= 2


@pytest.mark.slow
def test_two_runs_over_the_same_keys_at_once_do_each_other_no_harm(pipeline: Aws, tmp_path: Path):
    keys = [f"scan {n:05}.csv" for n in range(200)]
    archive_directly(pipeline, *keys)
    command = [sys.executable, "-m", "twobuckets", "--stack", "local", "reprocess", "--yes"]
    processes = [
        subprocess.Popen([*command, "--prefix", prefix], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for prefix in ("", "scan")
    ]
    assert {process.wait(120) for process in processes} <= {0, 3}
    ends_at = time.monotonic() + 120
    while staged := versions(pipeline, STAGING):
        assert time.monotonic() < ends_at, staged
        time.sleep(0.2)
    archived = versions(pipeline, ARCHIVE)
    assert archived.keys() == set(keys)
    assert min(archived.values()) >= 2
