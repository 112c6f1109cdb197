"""Where Python has no pip, uv does the same: it builds own folders and runs no code of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import packaging
import pytest

from tests.artifact.projects import write_project, write_sdist
from tests.artifact.wheels import write_requirements, write_wheel
from twobuckets import artifact

pytestmark = pytest.mark.slow

_PROGRAM = """
import importlib.util, json
from pathlib import Path
from twobuckets import artifact
from twobuckets.errors import TwoBucketsError
assert importlib.util.find_spec("pip") is None
try:
    built = artifact.build(Path("processor.py"), requirements=Path("requirements.txt"))
    said = {"files": [file.path for file in built.files], "own": [b.is_own for b in built.built]}
except TwoBucketsError as error:
    said = {"error": error.message}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python that has what twobuckets needs to build, and no pip."""
    folder: Path = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    (site / "twobuckets").symlink_to(Path(artifact.__file__).parents[1])
    return folder / "bin" / "python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "processor.py").write_text("def process(file): pass\n")
    return folder


def build(python: Path, project: Path, *lines: str) -> dict[str, list[str | bool]]:
    write_requirements(project, *lines)
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    done = subprocess.run(
        [python, "-c", _PROGRAM],
        cwd=project,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    said: dict[str, list[str | bool]] = json.loads(done.stdout)
    return said


def test_an_own_folder_is_built_and_nothing_is_left_in_it(bare_python, project, tmp_path):
    write_wheel(project / "wheels", "lower")
    trace = tmp_path / "TRACE"
    own = write_project(project / "own", "own", trace=trace, requires=("lower",))
    before = sorted(own.iterdir())
    said = build(bare_python, project, "-e ./own")
    assert {"own.py", "lower.py"} <= set(said["files"])
    assert said["own"] == [True]
    assert trace.exists()
    assert sorted(own.iterdir()) == before


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_wheel_names_by_its_url_is_never_built(bare_python, project, tmp_path, is_folder):
    trace = tmp_path / "TRACE"
    if is_folder:
        where = write_project(project / "theirs", "stranger", trace=trace)
    else:
        where = write_sdist(project, "stranger", trace=trace)
    write_wheel(project / "wheels", "upper", requires=(f"stranger @ {where.as_uri()}",))
    assert "stranger" in build(bare_python, project, "upper")["error"]
    assert not trace.exists()


def test_what_there_is_not_is_told_apart(bare_python, project, tmp_path):
    write_sdist(project, "stranger", trace=tmp_path / "TRACE")
    (project / "wheels").mkdir()
    (project / "stranger-1.0.tar.gz").rename(project / "wheels" / "stranger-1.0.tar.gz")
    write_wheel(project / "wheels", "there")
    write_wheel(project / "wheels", "mac", tag="cp313-cp313-macosx_14_0_arm64")
    for line, message in (
        ("stranger", "only its source"),
        ("nowhere", "no package nowhere on the index"),
        ("there==9", "no there==9 on the index"),
        ("mac", "no wheel for python3.13 on arm64"),
    ):
        error = str(build(bare_python, project, line)["error"])
        assert message in error
        assert ("only its source" in error) == (line == "stranger")
    assert not (tmp_path / "TRACE").exists()
