"""What doctor and status say of a mess, held against what was made."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from twobuckets.cli import cli

if TYPE_CHECKING:
    from tests.rehearsal.mess import Mess

YOUNG = "stuck-in-progress"
"""What an object is that nobody was told of, until every try must be over."""


def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command on the embedded AWS; its status, its JSON lines and what it said beside."""
    result = CliRunner().invoke(cli, ["--stack", "local", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, result.stdout + result.stderr


def check_doctor(mess: Mess, *, is_young: bool) -> list[dict[str, Any]]:
    """Hold doctor's findings against the truth; return them.

    `is_young` says that the objects which nobody was told of may still be under way.
    """
    old = ("--older-than", "0s", "--uploads-older-than", "0s")
    status, lines, _ = run("doctor", "--json", *old)
    assert status == 3
    findings = [line for line in lines if line["type"] == "finding"]
    (summary,) = [line for line in lines if line["type"] == "summary"]
    stuck = [f for f in findings if f["check"].startswith("stuck-")]
    untold = mess.keys("lost")
    for finding in stuck:
        _check_finding(mess, finding, untold)
    by_check = _counts(stuck)
    expected = mess.expected()
    if is_young:
        expected[YOUNG] = expected.pop("stuck-never-invoked")
    assert by_check == expected, f"doctor {by_check}, made {expected}"
    # Three errors, however many keys, rows and ids stand in them.
    errors = [f["error"] for f in stuck if f["check"] == "stuck-failed"]
    assert len(errors) == 3, errors
    _check_summary(mess, summary, expected)
    _check_uploads(mess, findings)
    others = {f["check"] for f in findings if f["severity"] == "problem"} - expected.keys()
    assert others <= {"upload-orphaned"}, others
    return findings


def _check_finding(mess: Mess, finding: dict[str, Any], untold: set[str]) -> None:
    keys = set(finding["objects"])
    check, error = finding["check"], finding["error"] or ""
    fates = {mess.fates[key] for key in keys}
    assert len(keys) == finding["count"] or finding["objects_cut"], finding
    if keys & untold:
        # Nearness in time is no evidence: what nobody was told of is blamed on no error.
        assert check in (YOUNG, "stuck-never-invoked"), (check, sorted(keys & untold)[:3])
        assert keys <= untold
    else:
        (fate,) = fates
        assert check == fate.check
        assert error.startswith(fate.error), (error, fate)
    assert set(finding["examples"]) <= keys
    assert finding["remedy"] or finding["severity"] == "info", finding


def _check_summary(mess: Mess, summary: dict[str, Any], expected: Counter[str]) -> None:
    staged = len(mess.staged())
    assert summary["staged"] == staged, summary
    assert summary["stuck"] == staged, summary
    assert Counter(summary["causes"]) == expected, summary["causes"]


def _check_uploads(mess: Mess, findings: list[dict[str, Any]]) -> None:
    orphaned = [f for f in findings if f["check"] == "upload-orphaned"]
    assert sum(f["count"] for f in orphaned) == len(mess.uploads)
    assert sum(f["size_bytes"] for f in orphaned) == sum(mess.uploads.values())


def check_words(mess: Mess) -> None:
    """Hold what a person reads against the truth."""
    status, _, said = run("doctor", "--older-than", "0s")
    assert status == 3
    assert "Nothing is wrong" not in said
    assert not re.search(r"\b1 (?:files|objects|lines|parts|findings)\b", said), said
    assert "\x1b" not in said
    assert "\u202e" not in said


def check_status(mess: Mess) -> None:
    """Hold status against the truth: files are counted, not tries."""
    status, lines, _ = run("status", "--json")
    assert status in (0, 3)
    (outcomes,) = [line for line in lines if line["type"] == "outcomes-status"]
    counts = Counter(outcomes["counts"])
    archived, rejected = mess.keys("good", "held"), mess.keys("reject")
    failed = mess.keys("key", "row", "ledger", "sleep")
    assert counts["archived"] == len(archived), outcomes
    assert counts["rejected"] == len(rejected), outcomes
    assert counts["failed"] == len(failed), outcomes
    assert outcomes["tries"]["failed"] == 3 * len(failed), outcomes
    (staging,) = [line for line in lines if line["type"] == "staging-status"]
    assert staging["staged"]["objects"] == len(mess.staged())
    assert staging["uploads"]["uploads"] == len(mess.uploads)


def _counts(findings: list[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding["check"]] += finding["count"]
    return counts
