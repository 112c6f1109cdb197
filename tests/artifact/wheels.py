"""Small wheels made on the spot, so that no test asks a package index."""

from __future__ import annotations

import zipfile
from pathlib import Path


def write_wheel(
    folder: Path,
    name: str,
    *,
    version: str = "1.0",
    tag: str = "py3-none-any",
    files: dict[str, str] | None = None,
    requires: tuple[str, ...] = (),
    script: bool = False,
) -> Path:
    """Write a wheel that an installer takes; by default it has one module of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    members = dict(files if files is not None else {f"{name}.py": f"VERSION = {version!r}\n"})
    members[f"{about}/METADATA"] = metadata
    members[f"{about}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if script:
        members[f"{about}/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n"
    record = "".join(f"{path},,\n" for path in (*members, f"{about}/RECORD"))
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for path, text in (*members.items(), (f"{about}/RECORD", record)):
            packed.writestr(path, text)
    return wheel


def write_requirements(project: Path, *lines: str) -> Path:
    """Write a requirements file that finds wheels in `wheels/` beside it and nowhere else."""
    (project / "wheels").mkdir(exist_ok=True)
    file = project / "requirements.txt"
    file.write_text("\n".join(("--no-index", "--find-links ./wheels", *lines)) + "\n")
    return file
