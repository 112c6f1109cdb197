"""The broker's artifact: the same bytes for everybody, and whole without the rest of us."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from twobuckets.artifact import build_broker
from twobuckets.settings import load

if TYPE_CHECKING:
    from pathlib import Path

ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
from twobuckets.broker import handler
answer = handler({"requestContext": {"http": {"method": "GET"}}}, None)
assert answer["statusCode"] == 200 and answer["body"].endswith("</html>\\n"), answer
ours = sorted(name for name in sys.modules if name.startswith("twobuckets"))
print(*ours)
"""


def test_it_runs_alone_in_a_bare_python(tmp_path: Path):
    built = build_broker(load({}, {}, tmp_path))
    with zipfile.ZipFile(built.path) as packed:
        packed.extractall(tmp_path / "task")
        names = packed.namelist()
    assert not [name for name in names if name.startswith("twobuckets/processor")]
    assert not [name for name in names if "__pycache__" in name]
    environ = {"STAGING_BUCKET": "staging", "AWS_REGION": "eu-west-1"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(tmp_path / "task")],
        capture_output=True,
        text=True,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()[-1].split()) == {
        "twobuckets",
        "twobuckets.broker",
        "twobuckets.broker.actions",
        "twobuckets.broker.grants",
        "twobuckets.broker.handler",
        "twobuckets.broker.paths",
        "twobuckets.broker.storage",
        "twobuckets.page",
        "twobuckets.sigv4",
    }


def test_the_same_version_gives_the_same_bytes(tmp_path: Path):
    one, other = (build_broker(load({}, {}, tmp_path / name)) for name in ("one", "other"))
    assert one.path != other.path
    assert one.sha256 == other.sha256
