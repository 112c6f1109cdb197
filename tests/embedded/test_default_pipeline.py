"""`--stack local` needs no preparation: server and pipeline are there when they are needed."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, keys_of, make_pair
from twobuckets import local
from twobuckets.cli.app import App
from twobuckets.errors import UsageError
from twobuckets.settings import local_state

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.aws.clients import Aws


def wait_for_archived(aws: Aws, staging: str, archive: str, keys: set[str]) -> None:
    deadline = time.monotonic() + 60
    while keys_of(aws, archive) != keys or keys_of(aws, staging):
        assert time.monotonic() < deadline, (keys_of(aws, staging), keys_of(aws, archive))
        time.sleep(0.05)


def test_a_pipeline_is_there_when_a_command_asks_for_it(
    embedded: Aws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    pipeline = App(flags={"stack": "local"}).pipeline
    assert "Deployed the stack local with " in capfd.readouterr().err
    embedded.s3.put_object(Bucket=pipeline.staging, Key="a b.txt", Body=b"one\ntwo\n")
    wait_for_archived(embedded, pipeline.staging, pipeline.archive, {"a b.txt"})
    assert App(flags={"stack": "local"}).pipeline == pipeline
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
    events = embedded.logs.filter_log_events(logGroupName=str(pipeline.log_group))["events"]
    outcomes = [json.loads(e["message"]) for e in events if '"outcome"' in e["message"]]
    assert [(o["outcome"], o["key"]) for o in outcomes] == [("archived", "a b.txt")]


def test_the_project_around_here_is_what_is_deployed(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "twobuckets.toml").write_text(
        '[processor]\nsource = "mine.py"\nprocess = "mine:go"'
    )
    (tmp_path / "mine.py").write_text("def go(file):\n    print('mine saw', file.key)\n")
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    pipeline = App(flags={"stack": "local"}).pipeline
    embedded.s3.put_object(Bucket=pipeline.staging, Key="k", Body=b"1")
    wait_for_archived(embedded, pipeline.staging, pipeline.archive, {"k"})
    events = embedded.logs.filter_log_events(logGroupName=str(pipeline.log_group))["events"]
    assert [event for event in events if "mine saw k" in event["message"]]


def test_a_pair_made_by_hand_needs_no_stack(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_pair(embedded)
    (tmp_path / "twobuckets.toml").write_text(
        f'stack = "local"\nstaging = "{STAGING}"\narchive = "{ARCHIVE}"\nfunction = "{FUNCTION}"\n'
    )
    monkeypatch.chdir(tmp_path)
    pipeline = App().pipeline
    assert (pipeline.staging, pipeline.archive) == (STAGING, ARCHIVE)
    assert pipeline.log_group == f"/aws/lambda/{FUNCTION}"
    stacks = embedded.cloudformation.list_stacks()["StackSummaries"]
    assert {stack["StackStatus"] for stack in stacks} <= {"DELETE_COMPLETE"}


def test_two_that_begin_at_once_deploy_once(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        pipelines = list(pool.map(lambda _: App(flags={"stack": "local"}).pipeline, range(3)))
    assert len({pipeline.staging for pipeline in pipelines}) == 1


def test_a_flag_that_leads_elsewhere_contradicts_the_local_stack(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for flag in ("profile", "endpoint_url", "region"):
        value = "https://s3.example" if flag == "endpoint_url" else "other"
        with pytest.raises(UsageError, match="--" + flag.replace("_", "-")):
            _ = App(flags={"stack": "local", flag: value}).aws


def test_what_the_template_asks_of_buckets_is_there(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pipeline = App(flags={"stack": "local"}).pipeline
    for bucket in (pipeline.staging, pipeline.archive):
        rules = embedded.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        by_id = {rule["ID"]: rule for rule in rules}
        abort = by_id["twobuckets-abort-incomplete-uploads"]
        assert abort["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
        expire = by_id["twobuckets-expire-noncurrent-versions"]
        assert expire["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
        assert expire["Expiration"] == {"ExpiredObjectDeleteMarker": True}
        encryption = embedded.s3.get_bucket_encryption(Bucket=bucket)
        (rule,) = encryption["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        controls = embedded.s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
        assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_a_hidden_server_is_started_by_the_first_command_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state_dir = local_state(os.environ)
    try:
        App(flags={"stack": "local"}).aws.s3.list_buckets()
        server = local.find_running(state_dir)
        assert server is not None
        assert capfd.readouterr().err == f"Started the embedded AWS at {server.endpoint_url}\n"
    finally:
        local.stop(state_dir)
