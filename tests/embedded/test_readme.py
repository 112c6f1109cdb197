"""The README's first pipeline, as somebody who reads it types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import docs

pytestmark = pytest.mark.embedded

# These ask, and here nobody answers.
ASKING = re.compile(r"^twobuckets (?:deploy|reprocess) ?[^#\n]*", re.MULTILINE)


def test_the_first_pipeline_works_as_it_stands_there(tmp_path: Path):
    text = docs.README.read_text("utf-8").partition("\n## A first pipeline\n")[2]
    script = text.partition("```sh\n")[2].partition("```")[0]
    assert len(ASKING.findall(script)) == 2
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )

    try:
        ran = run(ASKING.sub(lambda found: f"{found[0].rstrip()} --yes ", script))
    finally:
        run("twobuckets local stop --reset --yes")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for said in (
        "processed report.csv",
        "2 files, 28 B",
        "Last hour  ",
        "scans/b.csv",
        "curl --fail-with-body",
        "export AWS_SESSION_TOKEN=",
        "copied back report.csv",
    ):
        assert said in ran.stdout, said
    assert len(re.findall(r"^archived +report\.csv", ran.stdout, re.MULTILINE)) == 2
