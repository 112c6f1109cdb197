"""What a killed build leaves behind goes with the next one, and nothing of a living one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twobuckets import artifact
from twobuckets.artifact.scratch import draft_beside, scratch_folder

PROCESSOR = "def process(file): pass\n"
# Says when it is in the middle: while the check imports its module, and the draft is written.
_WAITING = "import pathlib, time\npathlib.Path({mark!r}).touch()\ntime.sleep(20)\n"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def start_build(project: Path) -> subprocess.Popen[bytes]:
    """Start a build and return when it is in its middle."""
    mark = project / "mark"
    (project / "processor.py").write_text(_WAITING.format(mark=str(mark)) + PROCESSOR)
    program = (
        "from pathlib import Path; from twobuckets import artifact;"
        "artifact.build(Path('processor.py'), architecture=artifact.NATIVE)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=project, env={**os.environ})
    until = time.monotonic() + 60
    while not mark.exists():
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    mark.unlink()
    return child


def drafts(project: Path) -> list[Path]:
    return list((project / ".twobuckets").glob(".processor.zip.*"))


def test_after_a_kill_the_next_build_clears_up(temporary, project):
    child = start_build(project)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(drafts(project)) == 1
    (left,) = temporary.iterdir()
    (project / "processor.py").write_text(PROCESSOR)
    artifact.build(project / "processor.py", architecture=artifact.NATIVE)
    assert drafts(project) == []
    assert not left.exists()
    assert list(temporary.iterdir()) == []


def test_a_build_under_way_keeps_what_it_needs(temporary, project, tmp_path):
    child = start_build(project)
    try:
        (scratch,), (draft,) = list(temporary.iterdir()), drafts(project)
        # Another project of the same file, and the same project.
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "processor.py").write_text(PROCESSOR)
        artifact.build(
            tmp_path / "other" / "processor.py",
            architecture=artifact.NATIVE,
            out=project / ".twobuckets" / "processor.zip",
        )
        assert scratch.exists()
        assert draft.exists()
    finally:
        child.kill()
        child.wait()


def test_files_of_others_stay(temporary, project):
    (temporary / "twobuckets-build-x").symlink_to(project)
    (project / "kept").touch()
    (project / ".out.zip.12345678").mkdir()
    (project / ".out.zip.bak").touch()
    with scratch_folder(), draft_beside(project / "out.zip"):
        pass
    assert (project / "kept").exists()
    assert (project / ".out.zip.bak").exists()
