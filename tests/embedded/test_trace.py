"""`trace` with real functions on the embedded AWS: of ours, and of somebody else's processor."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from tests.embedded.intake import name_pair
from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, make_pair
from twobuckets.cli import cli

if TYPE_CHECKING:
    import pytest

    from twobuckets import local
    from twobuckets.aws.clients import Aws


def trace(*words: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["--json", "trace", *words])
    assert result.exit_code in (0, 3), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def events(records: list[dict[str, Any]], key: str) -> list[tuple[str, str | None]]:
    told = [r for r in records if r["type"] == "trace-event" and r["key"] == key]
    return [(r["event"], r["error"]["message"] if r["error"] else None) for r in told]


def test_a_foreign_processor_is_told_by_what_its_invocations_printed(
    embedded: Aws, embedded_server: local.Server, monkeypatch: pytest.MonkeyPatch
):
    pair = make_pair(embedded)
    name_pair(embedded_server, monkeypatch, STAGING, ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_FUNCTION", FUNCTION)
    pair.put("in/good one.csv", "in/fail.csv")
    pair.wait_for_lines("no luck with in/fail.csv", 1)
    waited_until = time.monotonic() + 20
    while "in/good one.csv" not in pair.archived():
        assert time.monotonic() < waited_until
        time.sleep(0.05)
    pair.wait_for_lines("REPORT RequestId", 2)
    records = trace("in/good one.csv", "in/fail.csv")
    # The archive keeps no versions, and staging nothing of what left it.
    good = events(records, "in/good one.csv")
    assert sorted(good, key=str) == [("archived", None), ("invoked", None)]
    assert events(records, "in/fail.csv")[:2] == [
        ("put", None),
        ("raised", "no luck with in/fail.csv"),
    ]
    states = {r["key"]: r["state"] for r in records if r["type"] == "traced-state"}
    assert states == {"in/good one.csv": "archived", "in/fail.csv": "retrying"}
