"""pip and uv, each as far as a build needs it: install wheels, build one, and say why not."""

from __future__ import annotations

import enum
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from twobuckets.artifact import pip_for_target
from twobuckets.artifact.lines import redacted
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.artifact.target import Target

_log = logging.getLogger(__name__)

_OLDEST_GLIBC_MINOR = 17
_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Connection refused"
    r"|Failed to fetch|error sending request|dns error",
)
# pip, then uv.
_PIP_NOT_FOUND = re.compile(
    r"No matching distribution found for (.+?)(?: \(from .*)?$", re.MULTILINE
)
_PIP_VERSIONS = re.compile(r"satisfies the requirement .*\(from versions: (?!none\))(.*)\)")
_PIP_LINK = re.compile(r"Skipping link: (.*)")
_UV_NO_MATCH = re.compile(r"Because (?:all versions of )?(\S+?) has no wheels with a matching")
_UV_NO_WHEEL = re.compile(r"Because (?:all versions of )?(\S+?) ha(?:s|ve) no usable wheels")
_UV_UNKNOWN = re.compile(r"Because (\S+) was not found|(\S+) was not found in the package registry")
_UV_NO_VERSION = re.compile(r"Because there is no version of (\S+)|no versions? of (\S+)")
_UV_BUILD = re.compile(r"Building source distributions.*disabled|Failed to build `([^`]+)`")


class Lack(enum.Enum):
    """What is not there of a requirement."""

    NAME = "name"
    VERSION = "version"
    WHEEL = "wheel"
    """There are wheels, for other machines or Pythons."""
    ANY_WHEEL = "any wheel"
    """There is an sdist only, or an sdist and wheels for others."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an installer failed: the requirement that lacks something, when it is one.

    `needs_build` names what could only be built, `None` when nothing was refused; `output` is what
    the installer said, without secrets.
    """

    output: str
    requirement: str | None = None
    lack: Lack | None = None
    versions: str = ""
    needs_build: str | None = None

    @property
    def is_unreachable(self) -> bool:
        """Whether the index did not answer."""
        return _UNREACHABLE.search(self.output) is not None


class Installer(Protocol):
    """What installs wheels for a target and builds single wheels with this machine's Python."""

    def install(
        self, requirements: Path, folder: Path, target: Target, *, with_dependencies: bool
    ) -> Refusal | None:
        """Unpack wheels into a folder, building nothing; return why that failed."""

    def build(self, folder: Path, wheels: Path, options: Sequence[str]) -> str | None:
        """Build the wheel of a folder in isolation; return the end of the output when it fails."""

    def build_source(self, requirements: Path, wheels: Path) -> str | None:
        """Build the wheel of an sdist, archive or repository; return why that failed."""


def find_installer(cwd: Path, secrets: Iterable[str], scratch: Path) -> Installer:
    """Return the pip of this Python, or uv where pip is missing.

    Both run in `cwd`, with their own configuration. Raises TwoBucketsError when there is neither.
    """
    run = _Runner(cwd, frozenset(secrets), scratch)
    if importlib.util.find_spec("pip") is not None:
        return _Pip(run)
    uv = shutil.which("uv")
    if uv is not None:
        return _Uv(uv, run)
    raise TwoBucketsError(
        f"Could not install the requirements: there is no pip for {sys.executable} and no uv",
        hint=f"Run: {sys.executable} -m ensurepip",
    )


class _Runner:
    """Runs an installer, and hides the secrets in what it says."""

    def __init__(self, cwd: Path, secrets: frozenset[str], scratch: Path) -> None:
        self._cwd = cwd
        self._secrets = secrets
        self._scratch = scratch

    def __call__(
        self, command: Sequence[str], variables: Iterable[tuple[str, str]] = ()
    ) -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **dict(variables)},
        )
        output = redacted(done.stdout, self._secrets)
        _log.debug("%s: %s", command[0], output)
        return done.returncode, output

    def build_variables(self) -> list[tuple[str, str]]:
        """Return what makes setuptools leave nothing in the folder that it builds.

        What an earlier build left there would otherwise be packed as well.
        """
        away, config = self._scratch / "build", self._scratch / "distutils.cfg"
        shutil.rmtree(away, ignore_errors=True)
        away.mkdir()
        config.write_text(f"[build]\nbuild_base = {away}\n[egg_info]\negg_base = {away}\n", "utf-8")
        return [("DIST_EXTRA_CONFIG", str(config))]


class _Pip:
    def __init__(self, run: _Runner) -> None:
        self._run = run

    def install(
        self, requirements: Path, folder: Path, target: Target, *, with_dependencies: bool
    ) -> Refusal | None:
        wheels = ["--only-binary", ":all:", *self._platform(target)]
        complete = [] if with_dependencies else ["--no-deps"]
        status, output = self._guarded(
            target,
            *("install", "--no-user", "--no-compile", "--target", str(folder), *wheels, *complete),
            *("--requirement", str(requirements)),
        )
        if status == 0:
            return None
        if pip_for_target.REFUSED in output:
            begun = re.findall(
                r"^ *(?:Collecting|Processing) (.+?)(?: \(from .*)?$", output, re.MULTILINE
            )
            return Refusal(output, needs_build=begun[-1] if begun else "a requirement")
        missing = _PIP_NOT_FOUND.search(output)
        if missing is None:
            return Refusal(output)
        lack, versions = self._lack_of(missing[1], requirements, target)
        return Refusal(output, requirement=missing[1], lack=lack, versions=versions)

    def _lack_of(self, requirement: str, requirements: Path, target: Target) -> tuple[Lack, str]:
        """Return what there is not of a requirement, and the versions that there are."""
        single = requirements.with_name("lacking.txt")
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        lines = requirements.read_text("utf-8").splitlines()
        options = [line for line in lines if line.startswith(_INDEX_OPTIONS)]
        single.write_text("\n".join([*options, requirement]) + "\n", "utf-8")
        _, output = self._guarded(
            target,
            *("download", "-vv", "--no-deps", "--dest", str(requirements.with_name("nothing"))),
            *("--only-binary", ":all:", *self._platform(target), "--requirement", str(single)),
        )
        versions = _PIP_VERSIONS.search(output)
        is_named = re.compile(rf"\b{re.sub(r'[-_.]+', '[-_.]+', name)}-", re.IGNORECASE)
        skipped = [link for link in _PIP_LINK.findall(output) if is_named.search(link)]
        wanted = re.search(r"===?\s*([^\s,*]+)$", requirement)
        of_version = [link for link in skipped if wanted is None or f"-{wanted[1]}" in link]
        if any("No sources permitted" in link for link in of_version):
            return Lack.ANY_WHEEL, ""
        if of_version:
            return Lack.WHEEL, ""
        if versions is not None or skipped:
            return Lack.VERSION, versions[1] if versions is not None else ""
        return Lack.NAME, ""

    def build(self, folder: Path, wheels: Path, options: Sequence[str]) -> str | None:
        single = wheels / "folder.txt"
        single.write_text("\n".join([*options, folder.resolve().as_uri()]) + "\n", "utf-8")
        # The build's own requirements come as wheels.
        return self._wheel(single, wheels, "--only-binary", ":all:", "--ignore-requires-python")

    def build_source(self, requirements: Path, wheels: Path) -> str | None:
        return self._wheel(requirements, wheels)

    def _wheel(self, requirements: Path, wheels: Path, *options: str) -> str | None:
        status, output = self._run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--no-input", "--no-deps", *options),
                *("--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", str(wheels)),
                *("--requirement", str(requirements)),
            ],
            self._run.build_variables(),
        )
        return output if status else None

    def _guarded(self, target: Target, command: str, *arguments: str) -> tuple[int, str]:
        return self._run(
            [
                *(sys.executable, pip_for_target.__file__, json.dumps(target.markers()), command),
                *("--no-input", "--disable-pip-version-check", *arguments),
            ]
        )

    @staticmethod
    def _platform(target: Target) -> list[str]:
        """Return the options that choose the target's wheels.

        pip takes a wheel only if a `--platform` names its tag exactly, so every glibc that the
        target's can stand in for is named (PEP 600), newest first.
        """
        if target.native:
            return []
        options = ["--implementation", "cp", "--python-version", target.full_version]
        for minor in range(target.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1):
            options += ["--platform", f"manylinux_2_{minor}_{target.machine}"]
        return [*options, "--platform", f"manylinux2014_{target.machine}"]


_INDEX_OPTIONS = (
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-index",
    "--trusted-host",
    "--pre",
)


class _Uv:
    def __init__(self, uv: str, run: _Runner) -> None:
        self._uv = uv
        self._run = run

    def install(
        self, requirements: Path, folder: Path, target: Target, *, with_dependencies: bool
    ) -> Refusal | None:
        options = ["--python", sys.executable]
        if not target.native:
            # uv knows glibc 2.28 but not every version between; the wheels for 2.28 run on 2.34.
            glibc = "manylinux_2_28" if target.glibc_minor >= 28 else "manylinux2014"
            options = ["--python-version", target.full_version]
            options += ["--python-platform", f"{target.machine}-{glibc}"]
        if not with_dependencies:
            options.append("--no-deps")
        status, output = self._run(
            [
                *(self._uv, "pip", "install", "--no-progress", "--color", "never"),
                *("--only-binary", ":all:", "--target", str(folder), *options),
                *("--requirement", str(requirements)),
            ]
        )
        return _uv_failure(" ".join(output.split())) if status else None

    def build(self, folder: Path, wheels: Path, options: Sequence[str]) -> str | None:
        given: dict[str, list[str]] = {}
        for option in options:
            name, _, value = option.partition(" ")
            given.setdefault(name, []).append(value)
        variables = [
            (variable, separator.join(given[name]))
            for name, variable, separator in (
                # Not as arguments, which everybody on this machine can read.
                ("--index-url", "UV_DEFAULT_INDEX", " "),
                ("--extra-index-url", "UV_INDEX", " "),
                ("--find-links", "UV_FIND_LINKS", ","),
            )
            if name in given
        ]
        status, output = self._run(
            [
                # The folder itself is built all the same; its build's requirements come as wheels.
                *(self._uv, "build", "--wheel", "--no-build", "--no-create-gitignore"),
                *("--no-progress", "--color", "never", "--python", sys.executable),
                *(["--no-index"] if "--no-index" in given else []),
                *("--out-dir", str(wheels), str(folder)),
            ],
            [*variables, *self._run.build_variables()],
        )
        return output if status else None

    def build_source(self, requirements: Path, wheels: Path) -> str | None:
        raise TwoBucketsError(
            "Could not build what the requirements have as source only: uv alone can't",
            hint=f"Run: {sys.executable} -m ensurepip",
        )


def _uv_failure(output: str) -> Refusal:
    for pattern, lack in (
        (_UV_UNKNOWN, Lack.NAME),
        (_UV_NO_MATCH, Lack.WHEEL),
        (_UV_NO_WHEEL, Lack.ANY_WHEEL),
        (_UV_NO_VERSION, Lack.VERSION),
    ):
        found = pattern.search(output)
        if found is not None:
            return Refusal(output, requirement=next(filter(None, found.groups())), lack=lack)
    refused = _UV_BUILD.search(output)
    return Refusal(output, needs_build=(refused[1] or "a requirement") if refused else None)
