"""A requirements file to a folder of unpacked wheels for the target's Python and machine."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twobuckets.artifact import pip_for_target
from twobuckets.errors import TwoBucketsError, UsageError

if TYPE_CHECKING:
    from twobuckets.artifact.target import Target

_log = logging.getLogger(__name__)

_OLDEST_GLIBC_MINOR = 17
_NO_WHEEL = (
    # pip, then uv.
    re.compile(r"No matching distribution found for (.+)"),
    re.compile(r"Because (\S+) has no (?:usable )?wheels"),
    re.compile(r"Because (\S+) was not found"),
)
_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Connection refused"
    r"|Failed to fetch|error sending request|dns error",
)


def install(requirements: Path, folder: Path, target: Target) -> None:
    """Unpack the wheels of a requirements file, and of all these need, into a folder.

    It runs the pip of this Python, or uv where pip is missing, with their own configuration, and
    builds nothing: only wheels are taken.
    Raises UsageError when the file is missing, and TwoBucketsError naming the requirement when
    one has no wheel for the target.
    """
    if not requirements.is_file():
        raise UsageError(
            f"Could not install the requirements: {requirements} does not exist",
            hint="Create it, or take [processor] requirements out of twobuckets.toml.",
        )
    if requirements.stat().st_size == 0:
        folder.mkdir()
        return
    # Relative paths in the file mean its own folder, which pip takes from the working directory.
    done = subprocess.run(
        _command(requirements.resolve(), folder, target),
        cwd=requirements.resolve().parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    _log.debug("installing %s for %s: %s", requirements, target, done.stderr)
    if done.returncode:
        raise _failure(done.stderr or done.stdout, requirements, target)
    folder.mkdir(exist_ok=True)
    if (folder / "twobuckets").exists():
        raise UsageError(
            f"Could not build the processor: {requirements} brings twobuckets itself into it",
            hint="Take that line out: the build adds the runtime that the processor needs.",
        )


def _command(requirements: Path, folder: Path, target: Target) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return _pip(requirements, folder, target)
    uv = shutil.which("uv")
    if uv is not None:
        return _uv(uv, requirements, folder, target)
    raise TwoBucketsError(
        f"Could not install the requirements in {requirements}: there is no pip for"
        f" {sys.executable} and no uv",
        hint=f"Run: {sys.executable} -m ensurepip",
    )


def _pip(requirements: Path, folder: Path, target: Target) -> list[str]:
    """Return pip's command line.

    pip takes a wheel only if a `--platform` names its tag exactly, so every glibc that the
    target's can stand in for is named (PEP 600), newest first.
    """
    markers: dict[str, str] = {}
    options = []
    if not target.native:
        markers = _markers(target)
        options = ["--implementation", "cp", "--python-version", target.python_version]
        for minor in range(target.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1):
            options += ["--platform", f"manylinux_2_{minor}_{target.machine}"]
        options += ["--platform", f"manylinux2014_{target.machine}"]
    return [
        *(sys.executable, pip_for_target.__file__, json.dumps(markers)),
        *("install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-user"),
        *("--no-compile", "--only-binary", ":all:", "--target", str(folder), *options),
        *("--requirement", str(requirements)),
    ]


def _uv(uv: str, requirements: Path, folder: Path, target: Target) -> list[str]:
    options = ["--python", sys.executable]
    if not target.native:
        # uv knows glibc 2.28 but not every version between; the wheels for 2.28 run on 2.34.
        glibc = "manylinux_2_28" if target.glibc_minor >= 28 else "manylinux2014"
        options = ["--python-version", target.python_version]
        options += ["--python-platform", f"{target.machine}-{glibc}"]
    return [
        *(uv, "pip", "install", "--quiet", "--no-progress", "--color", "never"),
        *("--only-binary", ":all:", "--target", str(folder), *options),
        *("--requirement", str(requirements)),
    ]


def _markers(target: Target) -> dict[str, str]:
    """Return the environment markers of a Lambda runtime (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python_version}.0",
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python_version}.0",
        "python_version": target.python_version,
        "sys_platform": "linux",
    }


def _failure(output: str, requirements: Path, target: Target) -> TwoBucketsError:
    if _UNREACHABLE.search(output):
        return TwoBucketsError(
            f"Could not install the requirements in {requirements}: the package index does not"
            " answer",
            hint="Check the network and the index in pip's configuration; -v shows its messages.",
        )
    for pattern in _NO_WHEEL:
        named = pattern.search(output)
        if named is not None:
            return TwoBucketsError(
                f"Could not install the requirements in {requirements}: {named[1]} has no wheel for"
                f" {target}",
                hint="Check its name, choose a version that has one, or change architecture or"
                " runtime under [processor] in twobuckets.toml.",
            )
    said = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in said if not line.startswith("WARNING")] or said
    return TwoBucketsError(
        f"Could not install the requirements in {requirements} for {target}:"
        f" {' '.join(errors[-4:]) or 'the installer gave no reason'}",
        hint="Fix the file; -v shows all that the installer said.",
    )
