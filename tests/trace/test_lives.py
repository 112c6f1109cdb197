"""`trace` tells exactly what happened: a script makes lives, knows them, and compares."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.trace.lives import ARCHIVE, STAGING, Happened, Lives, environment
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.processor import Reject, contract, runtime
from twobuckets.settings import state_directory
from twobuckets.upload.journal import BegunFile, UploadJournal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lives(
    empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Lives]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "_clients", {})
    for name, value in environment(empty_moto_url).items():
        monkeypatch.setenv(name, value)
    yield Lives(empty_moto_url)
    runtime._processes.clear()
    runtime._attempts.clear()


def good(_: Any) -> None:
    """Process a file well."""


def bad(_: Any) -> None:
    raise ValueError("no header")


def refuse(_: Any) -> None:
    raise Reject("not one of ours")


def run(*words: str, exit_code: int | None = None, json_lines: bool = True) -> Result:
    result = CliRunner().invoke(cli, ["--json", *words] if json_lines else list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if exit_code is not None:
        assert result.exit_code == exit_code, result.output
    return result


def traced(*words: str, exit_code: int | None = None) -> list[dict[str, Any]]:
    result = run("trace", *words, exit_code=exit_code)
    return [json.loads(line) for line in result.stdout.splitlines()]


def told(records: list[dict[str, Any]], key: str) -> list[Happened]:
    return [
        (r["event"], r["version_id"] or r["archive_version_id"], r["attempt"])
        for r in records
        if r["type"] == "trace-event" and r["key"] == key
    ]


def state_of(records: list[dict[str, Any]], key: str) -> dict[str, Any]:
    (state,) = [r for r in records if r["type"] == "traced-state" and r["key"] == key]
    return state


def archived_at_once(lives: Lives, key: str) -> None:
    lives.invoke(good, lives.event(key, lives.put(key)), says="archived")
    lives.ends(key, "archived")


def retried(lives: Lives, key: str) -> None:
    event = lives.event(key, lives.put(key))
    request = lives.invoke(bad, event, says="failed")
    lives.invoke(bad, event, says="failed", request_id=request)
    lives.invoke(good, event, says="archived", request_id=request)
    lives.ends(key, "archived")


def under_way(lives: Lives, key: str) -> None:
    lives.invoke(bad, lives.event(key, lives.put(key)), says="failed")
    lives.ends(key, "retrying")


def given_up(lives: Lives, key: str) -> None:
    event = lives.event(key, lives.put(key))
    request = lives.invoke(bad, event, says="failed")
    for _ in range(2):
        lives.invoke(bad, event, says="failed", request_id=request)
    lives.ends(key, "failed")


def rejected(lives: Lives, key: str) -> None:
    lives.invoke(refuse, lives.event(key, lives.put(key)), says="rejected")
    lives.ends(key, "rejected")


def rejected_then_fixed(lives: Lives, key: str) -> None:
    version = lives.put(key)
    lives.invoke(refuse, lives.event(key, version), says="rejected")
    wake = contract.wake_event(STAGING, key, version_id=version, etag=None, size_bytes=7)
    lives.invoke(good, wake, says="archived")
    lives.ends(key, "archived")


def timed_out_without_a_word(lives: Lives, key: str) -> None:
    event = lives.event(key, lives.put(key))
    request = "0b7d3a0e-0000-4000-8000-00000000dead"
    lives.die(request, key)
    lives.invoke(good, event, says="archived", request_id=request)
    lives.ends(key, "archived")


def delivered_twice(lives: Lives, key: str) -> None:
    event = lives.event(key, lives.put(key))
    lives.invoke(good, event, says="archived")
    lives.invoke(good, event, says="archived")
    lives.ends(key, "archived")


def uploaded_twice(lives: Lives, key: str) -> None:
    for body in (b"first", b"second"):
        lives.invoke(good, lives.event(key, lives.put(key, body)), says="archived")
    lives.ends(key, "archived")


def the_same_bytes_twice(lives: Lives, key: str) -> None:
    for _ in range(2):
        lives.invoke(good, lives.event(key, lives.put(key)), says="archived")
    lives.ends(key, "archived")


def replaced_while_processed(lives: Lives, key: str) -> None:
    first = lives.event(key, lives.put(key, b"first"))
    second: list[str] = []

    def replace(file: Any) -> None:
        second.append(lives.put(key, b"second"))
        raise ValueError("cut short")

    request = lives.invoke(replace, first, says="failed")
    lives.invoke(good, first, says="superseded", request_id=request)
    lives.invoke(good, lives.event(key, second[0]), says="archived")
    lives.ends(key, "archived")


def overtaken(lives: Lives, key: str) -> None:
    first, second = lives.put(key, b"first"), lives.put(key, b"second")
    old = lives.event(key, first)
    lives.invoke(good, lives.event(key, second), says="archived")
    lives.invoke(good, old, says="superseded")
    lives.ends(key, "archived")


def deleted_by_hand(lives: Lives, key: str) -> None:
    event = lives.event(key, lives.put(key))
    lives.hide(key)
    lives.invoke(good, event, says="missing")
    lives.ends(key, "deleted")


def deleted_from_the_archive(lives: Lives, key: str) -> None:
    archived_at_once(lives, key)
    lives.hide(key, ARCHIVE)
    lives.ends(key, "deleted")


def came_back(lives: Lives, key: str) -> None:
    deleted_by_hand(lives, key)
    archived_at_once(lives, key)


def never_told(lives: Lives, key: str) -> None:
    lives.put(key)
    lives.ends(key, "waiting")


def stands_for_a_folder(lives: Lives, key: str) -> None:
    lives.put(f"{key}/", b"")
    lives.ends(f"{key}/", "folder")


def shares_an_event(lives: Lives, key: str) -> None:
    keys = [f"{key}/{number}" for number in range(3)]
    events = [lives.event(one, lives.put(one)) for one in keys]

    def some(file: Any) -> None:
        if file.key == keys[1]:
            raise ValueError("only this one")

    request = lives.invoke(some, *events, says="archived failed archived")
    # What is left of the event's files is found archived already.
    lives.invoke(good, *events, says="archived archived archived", request_id=request)
    for one in keys:
        lives.ends(one, "archived")


def begun_elsewhere(lives: Lives, key: str) -> None:
    lives.s3.create_multipart_upload(Bucket=STAGING, Key=key)
    lives.note(key, "upload-begun", None)
    lives.ends(key, "uploading")


def begun_here(lives: Lives, key: str) -> None:
    upload = lives.s3.create_multipart_upload(Bucket=STAGING, Key=key)["UploadId"]
    directory = state_directory(os.environ, "uploads")
    journal = UploadJournal(directory, endpoint=lives.url, bucket=STAGING)
    with journal.claim("/data/a big one.bin", key) as claim:
        claim.begin(BegunFile(upload, 8 << 20, "/data/a big one.bin", key, 1 << 24, 0))
    lives.note(key, "upload-begun", None)
    lives.ends(key, "uploading")


def resumed(lives: Lives, key: str) -> None:
    upload = lives.s3.create_multipart_upload(Bucket=STAGING, Key=key)["UploadId"]
    part = lives.s3.upload_part(
        Bucket=STAGING, Key=key, UploadId=upload, PartNumber=1, Body=b"content"
    )
    done = lives.s3.complete_multipart_upload(
        Bucket=STAGING,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    lives.note(key, "put", done["VersionId"])
    lives.invoke(good, lives.event(key, done["VersionId"]), says="archived")
    lives.ends(key, "archived")


def left_behind(lives: Lives, key: str) -> None:
    """Crash between the copy and the delete."""
    version = lives.put(key)
    head = lives.s3.head_object(Bucket=STAGING, Key=key)
    origin = contract.Origin(
        STAGING,
        version,
        head["ETag"].strip('"'),
        None,
        head["LastModified"].strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    copy = lives.s3.put_object(
        Bucket=ARCHIVE, Key=key, Body=b"content", Metadata={contract.ORIGIN: origin.note()}
    )
    lives.note(key, "archived", version)
    assert copy["VersionId"]
    lives.ends(key, "waiting")


def reprocessed_twice(lives: Lives, key: str) -> None:
    archived_at_once(lives, key)
    for _ in range(2):
        run("reprocess", key, "--yes", exit_code=0)
        listed = lives.s3.list_object_versions(Bucket=STAGING, Prefix=key)["Versions"]
        (version,) = [v["VersionId"] for v in listed if v["IsLatest"]]
        # The journal's word on the version comes before the version's arrival itself.
        lives.note(key, "reprocess", version)
        lives.note(key, "put", version)
        lives.invoke(good, lives.event(key, version), says="archived")
    lives.ends(key, "archived")


LIVES = (
    archived_at_once,
    retried,
    under_way,
    given_up,
    rejected,
    rejected_then_fixed,
    timed_out_without_a_word,
    delivered_twice,
    uploaded_twice,
    the_same_bytes_twice,
    replaced_while_processed,
    overtaken,
    deleted_by_hand,
    deleted_from_the_archive,
    came_back,
    never_told,
    stands_for_a_folder,
    shares_an_event,
    begun_elsewhere,
    begun_here,
    resumed,
    left_behind,
    reprocessed_twice,
)
ODD_KEYS = ("日本", "in/a b+c%20ü.csv", "in", "in/x\u202e.csv", "a'\"b")


def test_every_life_is_told_as_it_was(lives: Lives):
    for life in LIVES:
        life(lives, f"lives/{life.__name__}")
    for key in ODD_KEYS:
        retried(lives, key)
    # The same name in another bucket is another file.
    lives.write({"twobuckets": 1, "outcome": "failed", "bucket": "other", "key": "in"})
    records = traced(*lives.truth, exit_code=3)
    for key, truth in lives.truth.items():
        assert sorted(told(records, key), key=str) == sorted(truth, key=str), key
        assert state_of(records, key)["state"] == lives.states[key], key
        times = [r["at"] for r in records if r["type"] == "trace-event" and r["key"] == key]
        assert times == sorted(times), key
    assert records[-1]["keys"] == len(lives.truth)
    assert records[-1]["needs_you"] == 2


def test_one_version_is_told_from_the_others(lives: Lives):
    uploaded_twice(lives, "twice")
    first = lives.truth["twice"][0][1]
    records = traced("twice", "--version-id", str(first), exit_code=0)
    assert told(records, "twice") == [("put", first, None), ("archived", first, 1)]
    archived = next(r for r in records if r.get("event") == "archived")["archive_version_id"]
    assert told(traced("twice", "--version-id", archived), "twice") == told(records, "twice")


def test_what_comes_next_and_the_command_for_it(lives: Lives, monkeypatch: pytest.MonkeyPatch):
    for life in (given_up, under_way, never_told, begun_here, left_behind):
        life(lives, life.__name__)
    records = traced(*lives.states)
    assert state_of(records, "given_up")["command"] == "twobuckets reprocess given_up"
    trying = state_of(records, "under_way")
    waits = datetime.fromisoformat(trying["next_at"]) - datetime.fromisoformat(trying["since"])
    assert waits == timedelta(minutes=1)
    assert "2nd time of 3" in trying["next"]
    begun = state_of(records, "begun_here")["command"]
    assert begun == "twobuckets upload '/data/a big one.bin' --key begun_here"
    monkeypatch.setattr(App, "now", lambda _: datetime.now(UTC) + timedelta(hours=3))
    records = traced(*lives.states, exit_code=3)
    assert state_of(records, "never_told")["state"] == "stuck"
    assert state_of(records, "never_told")["command"] == "twobuckets doctor"
    assert state_of(records, "under_way")["state"] == "failed"
    assert state_of(records, "left_behind")["command"] == "twobuckets doctor --fix"


def test_a_prefix_finds_keys_in_either_bucket_up_to_a_limit(lives: Lives):
    for number in range(3):
        archived_at_once(lives, f"day/{number}")
    never_told(lives, "day/0-staged")
    begun_elsewhere(lives, "day/4-begun")
    records = traced("--prefix", "day/", exit_code=0)
    keys = [r["key"] for r in records if r["type"] == "traced-key"]
    assert keys == ["day/0", "day/0-staged", "day/1", "day/2", "day/4-begun"]
    assert not records[-1]["has_more"]
    limited = traced("--prefix", "day/", "--limit", "2")
    assert [r["key"] for r in limited if r["type"] == "traced-key"] == keys[:2]
    assert limited[-1]["has_more"]
    assert run("trace", "--prefix", "night/").exit_code == 4


def test_following_shows_what_happens_once(lives: Lives, monkeypatch: pytest.MonkeyPatch):
    event = lives.event("f", lives.put("f"))
    turns = iter([lambda: lives.invoke(good, event, says="archived"), lambda: None])

    def sleep(_: App, seconds: float) -> None:
        assert seconds > 0
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        turn()

    monkeypatch.setattr(App, "sleep", sleep)
    result = run("trace", "f", "--follow", exit_code=130)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert told(records, "f") == lives.truth["f"]
    states = [r["state"] for r in records if r["type"] == "traced-state"]
    assert states == ["waiting", "archived"]


def test_a_person_reads_a_line_for_each_event_and_no_escapes(lives: Lives):
    def hostile(_: Any) -> None:
        raise ValueError("\x1b[2Jgone\nsecond line")

    event = lives.event("h", lives.put("h"))
    lives.invoke(hostile, event, says="failed")
    shown = run("trace", "h", json_lines=False).stdout
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert lines[0] == "h"
    assert " put " in lines[1]
    assert r"ValueError: \x1b[2Jgone\nsecond line" in lines[2]
    assert lines[-1].startswith("  now: retrying since ")
    # -v shows the trace as well.
    assert "Traceback" in run("trace", "h", "-v", json_lines=False).stdout
    assert "Traceback" not in shown


def test_what_can_not_be_read_is_said_and_the_rest_shown(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
):
    archived_at_once(lives, "there")
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", "/aws/lambda/none")
    records = traced("there", exit_code=0)
    # From the archive's own note it is known all the same.
    truth = {(event, version, None) for event, version, _ in lives.truth["there"]}
    assert set(told(records, "there")) == truth
    assert records[-1]["log_start_at"] is None


def test_usage(lives: Lives):
    assert run("trace").exit_code == 2
    assert run("trace", "k", "--prefix", "p").exit_code == 2
    assert run("trace", "a", "b", "--version-id", "v").exit_code == 2
    assert run("trace", "nobody-knows").exit_code == 4
