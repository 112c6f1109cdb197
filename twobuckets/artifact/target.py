"""Where an artifact is to run: the Python and the machine its wheels must be built for."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass

from twobuckets.errors import UsageError

NATIVE = "native"
"""The architecture that stands for this very machine, which is where the embedded AWS runs."""

_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
_NEWEST_PATCH = 99
_RUNTIME = re.compile(r"python3\.(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Target:
    """A Lambda runtime on an architecture; `machine` is the architecture in the words of wheels."""

    runtime: str
    architecture: str
    python: tuple[int, int]
    machine: str

    @property
    def python_version(self) -> str:
        """The Python version as `3.13`."""
        return f"{self.python[0]}.{self.python[1]}"

    @property
    def full_version(self) -> str:
        """The Python version with a patch level, newer than any that exists.

        Lambda keeps a runtime at the newest patch level, which nobody can know here.
        """
        return f"{self.python_version}.{_NEWEST_PATCH}"

    def markers(self, patch: int | None = None) -> dict[str, str]:
        """Return the environment markers of the runtime (PEP 508); none for this machine's own.

        `patch` is the patch level of Python, by default newer than any.
        """
        if self.native:
            return {}
        full = self.full_version if patch is None else f"{self.python_version}.{patch}"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.python_version,
            "sys_platform": "linux",
        }

    @property
    def native(self) -> bool:
        """Whether the artifact is for this machine, whatever that is."""
        return self.architecture == NATIVE

    @property
    def glibc_minor(self) -> int:
        """The newest glibc 2.x that compiled wheels may need.

        Lambda's Python 3.12 and later run on Amazon Linux 2023 with glibc 2.34, the earlier ones
        on Amazon Linux 2 with glibc 2.26 (Lambda guide, lambda-runtimes).
        """
        return 34 if self.python >= (3, 12) else 26

    def __str__(self) -> str:
        return f"{self.runtime} on {'this machine' if self.native else self.architecture}"


def parse_target(runtime: str, architecture: str) -> Target:
    """Return the target that a Lambda runtime and architecture name.

    `NATIVE` means this machine and the Python that runs now, whatever the runtime says.
    Raises UsageError for a runtime that is not Python 3 or an architecture Lambda does not have.
    """
    if architecture == NATIVE:
        return Target(native_runtime(), NATIVE, sys.version_info[:2], platform.machine())
    match = _RUNTIME.fullmatch(runtime)
    if match is None:
        raise UsageError(
            f"Could not build the processor for runtime {runtime!r}: it is not a Python runtime",
            hint="Write for example python3.13.",
        )
    if architecture not in _MACHINES:
        raise UsageError(
            f"Could not build the processor for architecture {architecture!r}: Lambda lacks it",
            hint=f"Write one of {', '.join(_MACHINES)}.",
        )
    return Target(runtime, architecture, (3, int(match[1])), _MACHINES[architecture])


def native_runtime() -> str:
    """Return the runtime that this Python is, such as `python3.12`."""
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def loads_here(target: Target) -> bool:
    """Tell whether code compiled for the target can be loaded by a matching Python here."""
    if target.native:
        return True
    here = (sys.platform, platform.machine(), platform.libc_ver()[0])
    return here == ("linux", target.machine, "glibc")
