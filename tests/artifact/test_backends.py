"""Own folders are built by the backends that people use, flat and with src, from a real index."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from twobuckets import artifact

pytestmark = pytest.mark.slow

_SETUPTOOLS = (
    '[build-system]\nrequires = ["setuptools>=61"]\nbuild-backend = "setuptools.build_meta"\n'
)
_HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
_POETRY = (
    '[build-system]\nrequires = ["poetry-core>=1"]\nbuild-backend = "poetry.core.masonry.api"\n'
)
_UV = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
BACKENDS = {
    ("setuptools", "flat"): _SETUPTOOLS + '[tool.setuptools]\npackages = ["mylib"]\n',
    ("setuptools", "src"): _SETUPTOOLS,
    ("hatchling", "flat"): _HATCHLING,
    ("hatchling", "src"): _HATCHLING,
    ("poetry-core", "flat"): _POETRY,
    ("poetry-core", "src"): _POETRY,
    ("uv", "flat"): _UV + '[tool.uv.build-backend]\nmodule-root = ""\n',
    ("uv", "src"): _UV,
}
PROCESSOR = "import mylib.table\n\ndef process(file):\n    return mylib.table.ROWS\n"


def write_library(project: Path, backend: str, layout: str) -> Path:
    library = project / "lib"
    package = library / ("src/mylib" if layout == "src" else "mylib")
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "table.py").write_text("ROWS = 7\n")
    (library / "pyproject.toml").write_text(
        BACKENDS[backend, layout] + '[project]\nname = "mylib"\nversion = "0.1"\n'
    )
    (project / "processor.py").write_text(PROCESSOR)
    (project / "requirements.txt").write_text("-e ./lib\n")
    return library


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
def test_an_editable_folder_is_packed_and_works_without_it(tmp_path, backend, layout):
    library = write_library(tmp_path, backend, layout)
    before = {str(path) for path in tmp_path.rglob("*")}
    found = artifact.build(
        tmp_path / "processor.py",
        requirements=tmp_path / "requirements.txt",
        architecture=artifact.NATIVE,
    )
    after = {str(path) for path in tmp_path.rglob("*")} - before
    assert {path for path in after if "/.twobuckets" not in path} == set()
    assert found.unchecked is None
    library.rename(tmp_path / "elsewhere")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(found.path) as packed:
        packed.extractall(unpacked)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import processor as p; print(p.process(0))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, unpacked],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath},
    )
    assert done.stdout == "7\n"


def test_what_an_earlier_build_left_in_a_folder_is_not_packed(tmp_path):
    library = write_library(tmp_path, "setuptools", "src")
    (library / "build" / "lib" / "mylib").mkdir(parents=True)
    (library / "build" / "lib" / "mylib" / "gone.py").touch()
    found = artifact.build(
        tmp_path / "processor.py",
        requirements=tmp_path / "requirements.txt",
        architecture=artifact.NATIVE,
    )
    assert "mylib/gone.py" not in {file.path for file in found.files}
