"""The on-call rehearsal, small and up to the first look; `python -m tests.rehearsal` plays all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rehearsal import play

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.aws.clients import Aws


@pytest.mark.slow
def test_doctor_and_status_say_of_a_mess_what_was_made(
    embedded: Aws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    play.rehearse(embedded, tmp_path, 60, young=True, say=print)
    assert "doctor says what was made" in capsys.readouterr().out
