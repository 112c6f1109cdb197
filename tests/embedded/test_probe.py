"""`probe` on a deployed pipeline: it arrives or it does not, and leaves nothing behind."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.probe import sending

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from twobuckets.aws.clients import Aws

# Whatever process() gets fails.
PROCESSOR = "def process(file):\n    raise ValueError(file.key)\n"


def probe(*words: str, exit_code: int) -> list[dict[str, Any]]:
    result: Result = CliRunner().invoke(cli, ["--json", "probe", *words])
    assert result.exit_code == exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_probe_arrives_unseen_by_process_and_leaves_nothing(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twobuckets.toml").write_text('stack = "local"\n')
    (tmp_path / "processor.py").write_text(PROCESSOR)
    pipeline = App().pipeline
    s3, buckets = embedded.s3, (pipeline.staging, pipeline.archive)

    def left() -> list[tuple[str, str]]:
        found = []
        for bucket in buckets:
            listed: Any = s3.list_object_versions(Bucket=bucket)
            rows = [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]
            found += [(bucket, row["Key"]) for row in rows]
        return found

    *stages, summary = probe(exit_code=0)
    assert [s["stage"] for s in stages] == [
        "signed",
        "stored",
        "told",
        "started",
        "archived",
        "seen",
    ]
    assert [s["at"] for s in stages[:5]] == sorted(s["at"] for s in stages[:5])
    assert all(s["took"] >= 0 for s in stages)
    assert (summary["fate"], summary["arrived"], summary["kept_because"]) == (
        "archived",
        True,
        None,
    )
    # The archived version, and the marker that hid it in staging.
    assert summary["removed"] == 2
    assert left() == []

    # What a probe that was killed left goes with the next one; what only looks like one stays.
    monkeypatch.setattr(sending, "_LEFT_AFTER", -timedelta(hours=1))
    s3.put_object(
        Bucket=pipeline.archive,
        Key="twobuckets-probe/dead",
        Metadata={"twobuckets-probe": "dead"},
    )
    s3.put_object(Bucket=pipeline.archive, Key="twobuckets-probe/somebodys")
    assert probe(exit_code=0)[-1]["leftovers"] == 1
    assert left() == [(pipeline.archive, "twobuckets-probe/somebodys")]
    s3.delete_object(Bucket=pipeline.archive, Key="twobuckets-probe/somebodys")

    # Nobody is told: it does not arrive, says so, and goes all the same.
    s3.put_bucket_notification_configuration(Bucket=pipeline.staging, NotificationConfiguration={})
    before = left()
    *stages, summary = probe("--timeout", "1s", exit_code=3)
    assert [s["stage"] for s in stages] == ["signed", "stored"]
    assert (summary["arrived"], summary["fate"]) == (False, "unknown")
    assert left() == before

    # Code that may not know probes gets none.
    function = str(pipeline.function)
    variables = embedded.functions.get_function_configuration(FunctionName=function)
    named = variables["Environment"]["Variables"]
    named.pop("TWOBUCKETS_PROBES")
    embedded.functions.update_function_configuration(
        FunctionName=function, Environment={"Variables": named}
    )
    assert probe(exit_code=2) == []
    assert left() == before
