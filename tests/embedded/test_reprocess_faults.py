"""`reprocess` through a network that breaks: nothing is lost, and the report is exact."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.embedded.intake import ARCHIVE, STAGING, name_pair
from tests.faults.proxy import Asked, Fault, FaultProxy, fault_proxy
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.s3.engine import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws

__all__ = ["fault_proxy"]


@pytest.fixture
def pair(
    embedded: Aws, embedded_server: local.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Aws:
    """Two buckets with versions and nothing that is woken by them; a journal folder of its own."""
    for bucket in (STAGING, ARCHIVE):
        embedded.s3.create_bucket(Bucket=bucket)
        embedded.s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )
    name_pair(embedded_server, monkeypatch, STAGING, ARCHIVE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return embedded


def versions(aws: Aws, bucket: str) -> Counter[str]:
    """Return how many versions each key has."""
    pages = aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    return Counter(version["Key"] for page in pages for version in page.get("Versions", []))


def archive_many(count: int) -> set[str]:
    keys = {f"scans & more/{number:05}.csv" for number in range(count)}
    with App().connect() as sender:
        puts = (Request("PUT", ARCHIVE, key, body=key.encode()) for key in keys)
        for _, answer in sender.send_all(puts):
            assert isinstance(answer, Response)
            assert answer.ok
    # S3 tells times in seconds, and only a later copy proves that it is ours.
    time.sleep(1.1)
    return keys


def reprocess(*arguments: str) -> tuple[Result, dict[str, Any], dict[str, str]]:
    """Run the command and return its result, its summary, and what it says of each key."""
    words = ["reprocess", "--prefix", "", "--yes", "--json", *arguments]
    result = CliRunner().invoke(cli, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    records = [json.loads(line) for line in result.stdout.splitlines()]
    said = [(r["key"], r["state"]) for r in records if r["type"] == "reprocessed"]
    assert len(dict(said)) == len(said)
    summary = records[-1] if records and records[-1]["type"] == "summary" else {}
    return result, summary, dict(said)


def require_exact(aws: Aws, keys: set[str], said: dict[str, str]) -> None:
    """Compare what was reported with what the buckets hold."""
    assert set(said) == keys
    assert versions(aws, ARCHIVE) == Counter(keys)
    assert set(versions(aws, STAGING)) == {key for key, state in said.items() if state == "done"}


def break_everything(aws: Aws, make_proxy: Callable[..., FaultProxy], count: int) -> FaultProxy:
    """Reprocess through every fault, with one copy in a hundred denied."""
    keys = archive_many(count)
    denied: set[str] = set()

    def refuse_copy(asked: Asked) -> tuple[int, str, str] | None:
        # A policy denies the same key every time, also when the answer to a copy got lost.
        if asked.method != "PUT" or zlib.crc32(asked.target.encode()) % 100:
            return None
        denied.add(asked.target)
        return 403, "AccessDenied", "no"

    faults = [fault for fault in Fault if fault is not Fault.CORRUPT]
    proxy = make_proxy(rate=0.1, seed=5, delay=0.05, faults=faults, refuses=refuse_copy)
    result, summary, said = reprocess()
    assert result.exit_code == 3, result.output
    require_exact(aws, keys, said)
    assert Counter(said.values()) == {"done": count - len(denied), "failed": len(denied)}
    assert (summary["done"], summary["failed"]) == (count - len(denied), len(denied))
    assert denied
    proxy.refuses = lambda _: None
    result, summary, said = reprocess()
    assert result.exit_code == 0, result.output
    assert (len(said), summary["done"]) == (len(denied), count)
    assert versions(aws, STAGING) == versions(aws, ARCHIVE) == Counter(keys)
    return proxy


def test_nothing_is_lost_through_every_fault_and_refused_copies_are_reported_one_by_one(
    pair: Aws, fault_proxy: Callable[..., FaultProxy]
):
    proxy = break_everything(pair, fault_proxy, 400)
    assert len(proxy.counts) >= 5


@pytest.mark.slow
def test_five_thousand_objects_come_through_every_fault(
    pair: Aws, fault_proxy: Callable[..., FaultProxy]
):
    proxy = break_everything(pair, fault_proxy, 5000)
    assert len(proxy.counts) == len(Fault) - 1


@pytest.mark.parametrize("begins", [20, 120, 199])
def test_credentials_that_expire_end_with_5_and_the_same_command_completes_it(
    pair: Aws, fault_proxy: Callable[..., FaultProxy], begins: int
):
    keys = archive_many(200)
    seen = 0

    def expire(asked: Asked) -> tuple[int, str, str] | None:
        nonlocal seen
        # Only what the run itself asks of objects: the plan was made with time left.
        seen += asked.method in ("PUT", "POST")
        return (400, "ExpiredToken", "The provided token has expired.") if seen > begins else None

    proxy = fault_proxy(rate=0, refuses=expire)
    result, _, said = reprocess()
    assert result.exit_code == 5, result.output
    assert "expired" in result.stderr
    proxy.refuses = lambda _: None
    again, summary, more = reprocess()
    assert again.exit_code == 0, again.output
    assert summary["done"] == len(keys)
    assert said.keys() | more.keys() == keys
    assert versions(pair, STAGING) == versions(pair, ARCHIVE) == Counter(keys)


def test_a_look_that_expired_credentials_refuse_is_not_taken_for_a_version_that_is_gone(
    pair: Aws, fault_proxy: Callable[..., FaultProxy]
):
    keys = archive_many(50)
    expired = (400, "ExpiredToken", "The provided token has expired.")
    proxy = fault_proxy(rate=0, refuses=lambda asked: expired if asked.method == "PUT" else None)
    assert reprocess()[0].exit_code == 5

    def is_look_at_version(asked: Asked) -> bool:
        return asked.method in ("HEAD", "GET") and "versionId" in asked.target

    proxy.refuses = lambda asked: expired if is_look_at_version(asked) else None
    result, _, said = reprocess()
    assert (result.exit_code, said) == (5, {}), result.output
    proxy.refuses = lambda _: None
    assert reprocess()[0].exit_code == 0
    assert versions(pair, STAGING) == versions(pair, ARCHIVE) == Counter(keys)
