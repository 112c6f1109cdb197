"""What goes to a terminal, to a pipe and to nobody."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.terminal import Terminal, at_terminal
from tests.upload.conftest import Staging, s3_url, staging
from twobuckets.settings import state_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["at_terminal", "s3_url", "staging"]


def test_nothing_is_drawn_where_a_pipe_may_lead_back_to_the_terminal(
    staging: Staging, at_terminal: Callable[..., Terminal]
):
    reads, writes = os.pipe()
    terminal = at_terminal("doctor", stdout=writes)
    os.close(writes)
    assert terminal.end() in (3, 5), terminal.text
    with os.fdopen(reads) as piped:
        assert "staging-" in piped.read()
    assert "Looking at the pipeline" not in terminal.shown
    drawn = at_terminal("doctor")
    drawn.end()
    assert "Looking at the pipeline" in drawn.shown


def test_a_long_message_goes_on_indented_and_its_commands_stay_whole(
    staging: Staging, at_terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWOBUCKETS_STAGING", f"{staging.bucket}-absent")
    terminal = at_terminal("ls", "staging")
    assert terminal.end() == 4
    first, *more = [line for line in terminal.text.splitlines() if line]
    assert first.startswith("Error: ")
    assert more
    assert all(line.startswith("  ") and len(line) < 80 for line in more)


@pytest.mark.parametrize("answer", ["n", ""])
def test_no_changes_nothing_and_leaves_no_run_behind(
    staging: Staging,
    at_terminal: Callable[..., Terminal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TWOBUCKETS_FUNCTION", "processor")
    staging.s3.put_object(Bucket=staging.bucket, Key="waits", Body=b"x")
    staging.s3.create_bucket(
        Bucket=f"{staging.bucket}-archive",
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    terminal = at_terminal("reprocess", "waits")
    terminal.read_until("[y/N]")
    terminal.type("perhaps")
    terminal.read_until("Answer y for yes or n for no.")
    terminal.type(answer)
    assert terminal.end() == 130
    assert terminal.text.rstrip().endswith("Nothing was changed.")
    assert list(state_directory(os.environ, "reprocess").glob("*")) == []
