"""`status` on pipelines of which parts are missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from twobuckets.cli import cli

if TYPE_CHECKING:
    from click.testing import Result


@pytest.fixture
def nowhere(
    empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Settings that name a pair of which nothing exists."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("ENDPOINT_URL", empty_moto_url),
        ("STAGING", "no-staging"),
        ("ARCHIVE", "no-archive"),
        ("FUNCTION", "no-function"),
        ("LOG_GROUP", "/aws/lambda/no-function"),
    ):
        monkeypatch.setenv(f"TWOBUCKETS_{name}", value)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments])


def test_what_does_not_exist_is_said_once_each_and_ends_with_4(nowhere: None):
    shown = run()
    assert shown.exit_code == 4, shown.output
    assert shown.stdout.count("DOES NOT EXIST") == 3
    for name in ("no-staging", "no-archive", "no-function"):
        assert sum(f"{name} " in line for line in shown.stdout.splitlines()) == 1
    for claimed in ("Wiring", "Last hour", "permission", "could not be read"):
        assert claimed not in shown.stdout


def test_scripts_get_what_is_missing_as_records(nowhere: None):
    lines = [json.loads(line) for line in run("--json").stdout.splitlines()]
    missing = [(line["part"], line["name"]) for line in lines if line["type"] == "part-missing"]
    assert missing == [
        ("staging", "no-staging"),
        ("archive", "no-archive"),
        ("function", "no-function"),
    ]
    assert (lines[-1]["missing"], lines[-1]["unread"]) == (3, 0)
