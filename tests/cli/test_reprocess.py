"""`twobuckets reprocess` on a pair made by hand: what it goes on with, shows and refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber
from click.testing import CliRunner, Result

from tests.faults.proxy import Asked, FaultProxy, Refusal
from tests.s3.scripted import Received, answer, refuse, serving
from twobuckets.cli import cli
from twobuckets.pipeline.waking import Waker
from twobuckets.reprocess.batch import KINDS
from twobuckets.reprocess.journals import require_unfinished
from twobuckets.settings import state_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from twobuckets.reprocess.journal import Journal

STAGING, ARCHIVE = "hand-staging", "hand-archive"
GROUP = "/aws/lambda/hand-processor"
pytestmark = pytest.mark.usefixtures("fake_credentials")


def run(*words: str, json_lines: bool = True) -> Result:
    options = ["--json"] if json_lines else []
    result = CliRunner().invoke(cli, [*options, "reprocess", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def records(result: Result, *types: str) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in result.stdout.splitlines()]
    return [record for record in read if not types or record["type"] in types]


def name_pair(monkeypatch: pytest.MonkeyPatch, url: str, archive: str = ARCHIVE) -> None:
    for name, value in (("STAGING", STAGING), ("ARCHIVE", archive), ("ENDPOINT_URL", url)):
        monkeypatch.setenv(f"TWOBUCKETS_{name}", value)


@pytest.fixture
def s3(
    empty_moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_credentials: None
) -> S3Client:
    monkeypatch.chdir(tmp_path)
    name_pair(monkeypatch, empty_moto_url)
    s3 = boto3.client("s3", endpoint_url=empty_moto_url)
    for bucket in (STAGING, ARCHIVE, "other-archive"):
        s3.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return s3


def keys(s3: S3Client, bucket: str) -> list[str]:
    page = s3.list_object_versions(Bucket=bucket)
    return [version["Key"] for version in page.get("Versions", [])]


def open_unfinished(url: str) -> Journal:
    place = json.dumps([url, STAGING, ARCHIVE])
    return require_unfinished(state_directory(os.environ, "reprocess"), place=place)


def leave_unfinished(*words: str) -> None:
    """Agree to a run that can't go on: a batch job without a role."""
    result = run(*words, "--batch", "--yes")
    assert result.exit_code == 2, result.output
    (needs,) = records(result, "batch-permissions")
    assert "batchoperations" in json.dumps(needs["trust"])


def test_a_dry_run_of_a_resumed_run_shows_what_is_left_and_changes_nothing(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    leave_unfinished("--prefix", "")
    for _ in range(2):
        shown = run("--resume", "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert [(i["key"], i["kind"]) for i in records(shown, "item")] == [("k", "copy")]
    assert keys(s3, ARCHIVE) == ["k"]
    done = run("--resume", "--yes")
    assert done.exit_code == 0, done.output
    assert (keys(s3, STAGING), keys(s3, ARCHIVE)) == (["k"], ["k"])


@pytest.mark.parametrize("words", [("--prefix", "in/"), ("in/", "in/a")])
def test_what_stands_for_a_folder_is_skipped(s3: S3Client, words: tuple[str, ...]):
    s3.put_object(Bucket=ARCHIVE, Key="in/", Body=b"")
    s3.put_object(Bucket=ARCHIVE, Key="in/a", Body=b"")
    actions = records(run(*words, "--dry-run"), "item")
    assert {action["key"]: action["kind"] for action in actions} == {"in/": "skip", "in/a": "copy"}
    (reason,) = [action["reason"] for action in actions if action["kind"] == "skip"]
    assert "stands for a folder" in reason


def test_the_same_words_go_on_though_hours_ago_means_another_instant(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    leave_unfinished("--prefix", "", "--since", "2h")
    s3.put_object(Bucket=ARCHIVE, Key="later", Body=b"x")
    result = run("--prefix", "", "--since", "2h", "--yes")
    assert result.exit_code == 0, result.output
    assert "Going on with the run of" in result.stderr
    assert keys(s3, STAGING) == ["k"], "the plan is that of the first time"
    status = records(run("--status"), "run-status")[0]
    assert re.search(r"--since \d{4}-\d\d-\d\dT", status["command"])


def test_a_run_of_another_pipeline_is_neither_gone_on_with_nor_shown(
    s3: S3Client, empty_moto_url: str, monkeypatch: pytest.MonkeyPatch
):
    s3.put_object(Bucket=ARCHIVE, Key="mine", Body=b"x")
    leave_unfinished("--prefix", "")
    name_pair(monkeypatch, empty_moto_url, "other-archive")
    assert run("--status").exit_code == 4
    refused = run("--resume", "--yes")
    assert (refused.exit_code, "of this pipeline" in refused.stderr) == (2, True)
    name_pair(monkeypatch, empty_moto_url)
    assert run("--resume", "--yes").exit_code == 0
    assert keys(s3, STAGING) == ["mine"]


def test_the_command_that_status_shows_can_be_pasted(s3: S3Client):
    odd = "-x 'y'"
    s3.put_object(Bucket=ARCHIVE, Key=odd, Body=b"x")
    assert run("--yes", "--restore", "--", odd).exit_code == 0
    (status,) = records(run("--status"), "run-status")
    assert status["command"] == "reprocess --restore -- '-x '\\''y'\\'"


@pytest.mark.parametrize("option", [["--canary", "5"], ["--rate", "10"]])
def test_a_batch_job_takes_neither_canary_nor_rate(s3: S3Client, option: list[str]):
    result = run("--prefix", "", "--batch", *option)
    assert (result.exit_code, option[0] in result.stderr) == (2, True)


def test_while_a_batch_job_s_copies_are_not_looked_at_nothing_is_planned_anew(
    s3: S3Client, empty_moto_url: str
):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    leave_unfinished("--prefix", "")
    with open_unfinished(empty_moto_url) as journal:
        journal.begin_job(1.0, kinds=KINDS)
        journal.note_job("job-7")
    refused = run("--prefix", "", "--restart", "--yes")
    assert refused.exit_code == 2, refused.output
    assert "update-job-status --job-id job-7" in refused.stderr
    with open_unfinished(empty_moto_url) as journal:
        journal.note_job(None)
    assert run("--prefix", "", "--restart", "--yes").exit_code == 2, "nobody has looked yet"
    assert run("--prefix", "", "--yes").exit_code == 0
    assert (keys(s3, STAGING), keys(s3, ARCHIVE)) == (["k"], ["k"])


def log(url: str, *messages: str) -> None:
    logs = boto3.client("logs", endpoint_url=url, region_name="eu-central-1")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="s")
    at = int(datetime.now(UTC).timestamp() * 1000) - 60_000
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName="s",
        logEvents=[
            {"timestamp": at + number, "message": message}
            for number, message in enumerate(messages)
        ],
    )


def outcome(key: str, outcome: str, request_id: str) -> str:
    fields = {"twobuckets": 1, "outcome": outcome, "bucket": STAGING, "key": key, "attempt": 1}
    return json.dumps(fields | {"request_id": request_id, "duration_ms": 1})


def test_invocations_that_failed_without_naming_a_file_are_told_and_exit_3(
    s3: S3Client, empty_moto_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", GROUP)
    killed, tried_again = (
        "11111111-1111-1111-1111-111111111111",
        "2" * 8 + "-2222-2222-2222-" + "2" * 12,
    )
    log(
        empty_moto_url,
        f"2026-05-04T12:00:00.000Z {tried_again} Task timed out after 4.00 seconds",
        outcome("good at last", "archived", tried_again),
        f"2026-05-04T12:00:00.000Z {killed} Task timed out after 4.00 seconds",
        outcome("k", "failed", "3" * 8),
    )
    nothing = run("--failed", "--match", "x", "--yes")
    assert nothing.exit_code == 3, nothing.output
    assert "1 invocation failed without saying on which file" in nothing.stderr
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    some = run("--failed", "--yes")
    assert (some.exit_code, keys(s3, STAGING)) == (3, ["k"]), some.output


def test_an_archive_without_versions_is_left_alone_unless_the_processor_is_ours(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch
):
    """Another one would archive an older copy over a newer file, of which nothing is left then."""
    s3.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    refused = run("k", "--yes")
    assert refused.exit_code == 3, refused.output
    (reason,) = records(refused, "plan")[0]["skipped"]
    assert f"{ARCHIVE} keeps no versions" in reason
    assert "put-bucket-versioning" in reason
    assert keys(s3, STAGING) == []
    s3.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Enabled"})
    # What was written before is overwritten, too, and stays under what comes.
    assert run("k", "--yes").exit_code == 0
    assert (keys(s3, STAGING), keys(s3, ARCHIVE)) == (["k"], ["k"])


def test_after_ctrl_c_it_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def interrupt(received: Received) -> bytes | None:
        if not received.head.startswith("PUT"):
            return silent_log(received)
        started[0].send_signal(signal.SIGINT)
        time.sleep(0.5)
        return None

    with serving(interrupt) as server:
        name_pair(monkeypatch, server.url)
        command = [sys.executable, "-m", "twobuckets", "reprocess", "k", "--yes"]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        _, said = started[0].communicate(timeout=30)
    assert started[0].returncode == 130, said
    assert "Stopped: 0 done" in said
    assert "--resume" in said


def silent_log(received: Received) -> bytes:
    """S3 with one object in the archive, and a log that may not be read."""
    line = received.head.partition("\r\n")[0]
    etag = "0123456789abcdef0123456789abcdef"
    # Whenever the copy comes to staging, what the archive holds is newer: it was archived again.
    described = ("Last-Modified: Thu, 04 May 2056 12:00:00 GMT", f'ETag: "{etag}"')
    if line.startswith("POST / "):
        return answer(400, b'{"__type": "AccessDeniedException", "message": "no"}')
    if line.startswith("POST"):
        deleted = b"<Deleted><Key>k</Key><VersionId>v1</VersionId></Deleted>"
        return answer(200, b"<DeleteResult>%b</DeleteResult>" % deleted)
    if "versioning" in line:
        return answer(200, b"<V><Status>Enabled</Status></V>")
    if "versions" in line:
        return answer(200, b"<V></V>")
    if line.startswith("PUT"):
        copied = f"<CopyObjectResult><ETag>&quot;{etag}&quot;</ETag></CopyObjectResult>"
        return answer(
            200, copied.encode(), "x-amz-version-id: s1", "x-amz-copy-source-version-id: v1"
        )
    if ARCHIVE in line:
        return answer(200, b"", *described, "x-amz-version-id: v1")
    return answer(404)


def test_waiting_says_why_it_could_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", "/aws/lambda/secret")
    with serving(silent_log) as server:
        name_pair(monkeypatch, server.url)
        result = run("k", "--yes", "--wait", "--timeout", "0s")
    assert result.exit_code == 0, result.output
    assert [r["state"] for r in records(result, "reprocessed")] == ["done"]
    assert "outcomes may be late or missing" in result.stderr
    assert "/aws/lambda/secret" in result.stderr


@pytest.mark.parametrize(
    ("archived", "copied", "staged", "state"),
    [
        ("x-amz-checksum-sha512: AAAA", "<ChecksumSHA512>AAAA</ChecksumSHA512>", "", "done"),
        ("x-amz-checksum-xxhash3: AAAA", "<ChecksumXXHASH3>BBBB</ChecksumXXHASH3>", "", "failed"),
        ("x-amz-checksum-sha1: AAAA", "", "x-amz-checksum-sha1: AAAA", "done"),
        ("x-amz-checksum-md5: AAAA", "", "x-amz-checksum-md5: BBBB", "failed"),
        # Parts can be cut in many ways.
        ("x-amz-checksum-sha256: AAAA-2", "<ChecksumSHA256>BBBB</ChecksumSHA256>", "", "done"),
        ("", "", "", "done"),
    ],
)
def test_a_copy_that_differs_is_said_and_nothing_is_ever_deleted(
    monkeypatch: pytest.MonkeyPatch, archived: str, copied: str, staged: str, state: str
):
    """Both are of one size, and their ETags are no MD5s."""

    def script(received: Received) -> bytes:
        line = received.head.partition("\r\n")[0]
        if line.startswith("PUT"):
            result = f"<CopyObjectResult><ETag>&quot;a-1&quot;</ETag>{copied}</CopyObjectResult>"
            ids = ("x-amz-version-id: s1", "x-amz-copy-source-version-id: v1")
            return answer(200, result.encode(), *ids)
        described = ["Last-Modified: Mon, 04 May 2026 12:00:00 GMT"]
        if line.startswith("HEAD") and ARCHIVE in line:
            return answer(200, b"", *described, 'ETag: "b-2"', "x-amz-version-id: v1", archived)
        if line.startswith("HEAD") and "versionId=s1" in line:
            return answer(200, b"", *described, 'ETag: "a-1"', "x-amz-version-id: s1", staged)
        return silent_log(received)

    with serving(script) as server:
        name_pair(monkeypatch, server.url)
        result = run("k", "--yes")
    [said] = records(result, "reprocessed")
    assert said["state"] == state, result.output
    sent = {received.head.partition(" ")[0] for received in server.received}
    assert sent <= {"GET", "HEAD", "PUT"}


OWN_KEY = 400, "InvalidRequest", "The object was stored using a form of Server Side Encryption."
KMS = 403, "AccessDenied", "User: u is not authorized to perform: kms:Decrypt on the resource"
DISABLED = 400, "KMS.DisabledException", "arn:aws:kms:eu-central-1:1:key/k is disabled."
LOCKED = 403, "AccessDenied", "Access Denied because object protected by object lock."
TAGGING = 403, "AccessDenied", "User: u is not authorized to perform: s3:GetObjectTagging"


@pytest.mark.parametrize("asked", [["--prefix", ""], ["closed", "k001", "k002"]])
@pytest.mark.parametrize("refusal", [OWN_KEY, KMS, DISABLED])
def test_an_object_that_nobody_else_can_read_is_left_with_its_reason_and_the_others_go_on(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, asked: list[str]
):
    for key in ("closed", "k001", "k002"):
        s3.put_object(Bucket=ARCHIVE, Key=key, Body=b"x")

    def refuse(asked: Asked) -> Refusal | None:
        # Its own requests, and the copies that are made of it.
        is_meant = "closed" in asked.target and asked.method in ("HEAD", "GET", "PUT")
        return refusal if is_meant and "versions" not in asked.target else None

    result, said = reprocess_refused(monkeypatch, refuse, *asked)
    assert result.exit_code == 3, result.output
    assert "credentials" not in result.output + result.stderr
    [planned] = records(result, "plan")
    reasons = [*planned["skipped"], *(left["reason"] for left in said.values())]
    assert ("SSE-C" if refusal is OWN_KEY else refusal[2]) in reasons[0]
    assert records(result, "summary")[0]["left"] == 1
    assert {said[key]["state"] for key in ("k001", "k002")} == {"done"}
    assert keys(s3, STAGING) == ["k001", "k002"]
    assert keys(s3, ARCHIVE) == ["closed", "k001", "k002"]


def test_a_copy_that_may_not_be_tagged_is_one_failure(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch
):
    for key in ("closed", "k001"):
        s3.put_object(Bucket=ARCHIVE, Key=key, Body=b"x")

    def refuse(asked: Asked) -> Refusal | None:
        return TAGGING if asked.method == "PUT" and "closed" in asked.target else None

    result, said = reprocess_refused(monkeypatch, refuse, "--prefix", "")
    assert result.exit_code == 3, result.output
    assert said["closed"]["state"] == "failed"
    assert "s3:GetObjectTagging" in said["closed"]["reason"]
    assert said["k001"]["state"] == "done"


def test_credentials_that_end_are_no_single_objects_fault(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch
):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    expired = 400, "ExpiredToken", "The provided token has expired."

    def refuse(asked: Asked) -> Refusal | None:
        return expired if asked.method in ("HEAD", "GET") and "/k" in asked.target else None

    result, said = reprocess_refused(monkeypatch, refuse, "k")
    assert (result.exit_code, said) == (5, {}), result.output
    assert "expired" in result.stderr


def test_what_was_written_while_versions_were_suspended_is_copied_and_stays(s3: S3Client):
    for bucket in (STAGING, ARCHIVE):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    # Staging may stay so; what comes into the archive has to leave what is there.
    s3.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Enabled"})
    result = run("k", "--yes")
    [said] = records(result, "reprocessed")
    assert (said["kind"], said["state"]) == ("copy", "done"), result.output
    assert keys(s3, STAGING) == keys(s3, ARCHIVE) == ["k"]


def reprocess_refused(
    monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Asked], Refusal | None], *words: str
) -> tuple[Result, dict[str, dict[str, Any]]]:
    """Reprocess through a proxy that answers some requests as S3 does."""
    url = os.environ["TWOBUCKETS_ENDPOINT_URL"]
    with FaultProxy(rate=0, upstream=url, refuses=refuses) as proxy:
        monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", proxy.url)
        result = run(*words, "--yes")
    return result, {record["key"]: record for record in records(result, "reprocessed", "action")}


@pytest.mark.parametrize("key", ["bad\udcff", "\ud800"])
def test_a_key_that_is_not_utf_8_is_refused_in_words(s3: S3Client, key: str, tmp_path: Path):
    named = run("--yes", "--", key)
    assert (named.exit_code, "not UTF-8" in named.stderr) == (2, True)
    (tmp_path / "list").write_text(json.dumps({"key": key}))
    listed = run("--from-file", "list", "--yes")
    assert (listed.exit_code, "line 1" in listed.stderr) == (2, True), listed.output


def test_a_plan_of_one_counts_one(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    text = run("--prefix", "", "--dry-run", json_lines=False).stdout
    assert "1 is copied back to staging; the archive keeps what it has" in text
    assert "1 object, 1 B" in text


def frozen_pair(received: Received) -> bytes:
    """S3 with one object in the archive, in a tier that no listing tells of."""
    line = received.head.partition("\r\n")[0]
    modified = "Last-Modified: Mon, 04 May 2026 12:00:00 GMT"
    if "versioning" in line:
        return answer(200, b"<V><Status>Enabled</Status></V>")
    if "versions" in line:
        version = (
            b"<Version><Key>k</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest>"
            b"<LastModified>2026-05-04T12:00:00Z</LastModified><ETag>e</ETag><Size>5</Size>"
            b"<StorageClass>INTELLIGENT_TIERING</StorageClass></Version>"
        )
        rows = version if ARCHIVE in line else b""
        return answer(200, b"<V><EncodingType>url</EncodingType>%b</V>" % rows)
    if line.startswith("PUT"):
        return refuse(403, "InvalidObjectState")
    if line.startswith("HEAD") and "/k" in line:
        return answer(
            200, b"", modified, 'ETag: "e"', "x-amz-storage-class: INTELLIGENT_TIERING",
            "x-amz-archive-status: ARCHIVE_ACCESS",
        )  # fmt: skip
    return answer(202 if line.startswith("POST") else 200)


def test_what_lies_in_a_tier_of_intelligent_tiering_is_asked_back_without_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with serving(frozen_pair) as server:
        name_pair(monkeypatch, server.url)
        result = run("--prefix", "", "--restore", "--yes")
        left = run("--prefix", "", "--yes")
        (restore,) = [r for r in server.received if r.head.startswith("POST")]
        listing = next(r for r in server.received if "versions" in r.head and ARCHIVE in r.head)
    assert result.exit_code == 3, result.output
    (asked,) = records(result, "reprocessed")
    assert (asked["kind"], asked["state"]) == ("restore", "left")
    assert b"<Tier>Standard</Tier>" in restore.body
    assert b"Days" not in restore.body
    assert listing.header("x-amz-optional-object-attributes") == "RestoreStatus"
    (refused,) = records(left, "reprocessed")
    assert "archive tier; --restore" in refused["reason"]


def test_what_is_restored_is_not_asked_back_twice(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x", StorageClass="DEEP_ARCHIVE")
    first = run("--prefix", "", "--restore", "--yes")
    assert [r["reason"] for r in records(first, "reprocessed")] == [
        "asked back from where it was archived; run the same command again in some hours"
    ]
    # moto restores at once, and its listings tell nothing of it.
    second = run("--prefix", "", "--restore", "--yes")
    assert [r["reason"] for r in records(second, "reprocessed")] == [
        "restored; run the same command again"
    ]


def test_a_run_that_another_process_works_on_is_not_planned_twice(
    s3: S3Client, empty_moto_url: str
):
    s3.put_object(Bucket=ARCHIVE, Key="k", Body=b"x")
    leave_unfinished("--prefix", "")
    with open_unfinished(empty_moto_url):
        again = run("--prefix", "", "--yes")
        assert (again.exit_code, f"process {os.getpid()}" in again.stderr) == (1, True)
        (status,) = records(run("--status"), "run-status")
        assert (status["is_ended"], status["process"]) == (False, os.getpid())
    (status,) = records(run("--status"), "run-status")
    assert status["process"] is None


def large_object(received: Received) -> bytes:
    """S3 with one object of 6 GiB in the archive, where no upload may be begun."""
    line = received.head.partition("\r\n")[0]
    if "versioning" in line:
        return answer(200, b"<V><Status>Enabled</Status></V>")
    if "versions" in line:
        version = (
            b"<Version><Key>k</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest>"
            b"<LastModified>2026-05-04T12:00:00Z</LastModified><ETag>e</ETag>"
            b"<Size>6442450944</Size></Version>"
        )
        rows = version if ARCHIVE in line else b""
        return answer(200, b"<V><EncodingType>url</EncodingType>%b</V>" % rows)
    if line.startswith("POST"):
        return refuse(403, "AccessDenied")
    if "tagging" in line:
        return answer(200, b"<T><TagSet><Tag><Key>a b</Key><Value>c</Value></Tag></TagSet></T>")
    return answer(
        200, b"", "Last-Modified: Mon, 04 May 2026 12:00:00 GMT", 'ETag: "e"', "Expires: 0",
        "Content-Language: de", "x-amz-meta-who: me", "x-amz-website-redirect-location: /there",
    )  # fmt: skip


def test_a_copy_in_parts_has_all_that_describes_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with serving(large_object) as server:
        name_pair(monkeypatch, server.url)
        assert run("--prefix", "", "--yes").exit_code == 3
        (created,) = [r for r in server.received if r.head.startswith("POST")]
    sent = {
        "expires": "0",
        "content-language": "de",
        "x-amz-meta-who": "me",
        "x-amz-tagging": "a%20b=c",
        "x-amz-website-redirect-location": "/there",
    }
    assert {name: created.header(name) for name in sent} == sent


@pytest.mark.parametrize(
    ("region", "arn"),
    [("cn-north-1", "arn:aws-cn:s3:::in"), ("us-gov-west-1", "arn:aws-us-gov:s3:::in")],
)
def test_the_event_that_wakes_another_s_processor_names_the_bucket_as_its_partition_does(
    region: str, arn: str
):
    functions = boto3.client("lambda", region_name=region)
    sent: list[dict[str, Any]] = []
    functions.meta.events.register(
        "provide-client-params.lambda.Invoke",
        lambda params, **_: sent.append(json.loads(params["Payload"])),
    )
    now = datetime(2026, 5, 4, tzinfo=UTC)
    with Stubber(functions) as stub:
        stub.add_response("invoke", {"StatusCode": 202})
        waker = Waker(functions=functions, function="f", bucket="in", region=region, ours=False)
        waker.ask("k", version_id="v", etag="e", size_bytes=5, now=now)
    assert sent[0]["Records"][0]["s3"]["bucket"]["arn"] == arn
