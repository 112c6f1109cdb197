"""Small projects made on the spot, whose build leaves a trace and needs nothing from an index."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

# A whole build backend, so that a build that nobody asked for would succeed, and be seen.
_BACKEND = """
import os, pathlib, zipfile

NAME, MODULES, REQUIRES, TAG = {name!r}, {modules!r}, {requires!r}, {tag!r}

def _leave_trace():
    pathlib.Path({trace!r}).touch()

_leave_trace()

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    wheel = f"{{NAME}}-1.0-{{TAG}}.whl"
    metadata = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: 1.0\\n"
    for requirement in REQUIRES:
        metadata += f"Requires-Dist: {{requirement}}\\n"
        if "extra ==" in requirement:
            metadata += "Provides-Extra: " + requirement.split("'")[1] + "\\n"
    about = f"{{NAME}}-1.0.dist-info"
    members = {{module: pathlib.Path(module).read_text() for module in MODULES}}
    members[f"{{about}}/METADATA"] = metadata
    members[f"{{about}}/WHEEL"] = f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {{TAG}}\\n"
    members[f"{{about}}/RECORD"] = "".join(f"{{path}},,\\n" for path in members)
    with zipfile.ZipFile(pathlib.Path(folder, wheel), "w") as packed:
        for path, text in members.items():
            packed.writestr(path, text)
    return wheel
"""


def write_project(
    folder: Path,
    name: str,
    *,
    trace: Path,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
) -> Path:
    """Write a project with one module of its name; building it makes the file `trace`."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = _BACKEND.format(
        name=name, modules=[f"{name}.py"], requires=requires, tag=tag, trace=str(trace)
    )
    (folder / "backend.py").write_text(backend)
    (folder / f"{name}.py").write_text(f"VALUE = {name!r}\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


def write_sdist(folder: Path, name: str, *, trace: Path, tag: str = "py3-none-any") -> Path:
    """Write an sdist of such a project into a folder."""
    source = write_project(folder / f".{name}" / f"{name}-1.0", name, trace=trace, tag=tag)
    (source / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    archive = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(source, f"{name}-1.0")
    return archive


def write_repository(folder: Path, name: str, *, trace: Path) -> Path:
    """Write such a project as a git repository with one commit."""
    write_project(folder, name, trace=trace)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
