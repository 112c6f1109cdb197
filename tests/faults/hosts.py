"""What a host does to a program: full disks, limits, files that can't be written, missing locks.

Each is made for real, by the kernel, for one process only; nothing of ours is replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import platform
import resource
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 24, 38, 22, 2
_DAC_OVERRIDE = 1
_CALLS = {"x86_64": {"flock": 73, "fcntl": 72}, "aarch64": {"flock": 32, "fcntl": 25}}


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a disk of that size in memory on a folder; skips where nobody may mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use up what is left of a disk; deleting what is returned gives it back."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for block in (b"x" * 4096, b"x"):
            with contextlib.suppress(OSError):
                while file.write(block):
                    pass
    return filler


def limit_files(size_bytes: int) -> Callable[[], None]:
    """Let the process write no file beyond a size (`ulimit -f`)."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def obey_modes() -> None:
    """Let file modes bind this process although it is root's, from its next exec on."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _DAC_OVERRIDE, 0, 0, 0)


def without_locks(call: str) -> Callable[[], None]:
    """Let one way of locking, `flock` or `fcntl`, fail as on NFS that has no lock daemon."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _CALLS:
        pytest.skip("needs a filter of system calls")
    number = _CALLS[machine][call]
    # Instructions of the classic BPF: load a word, jump if equal, return.
    load, jump, give = 0x20, 0x15, 0x06
    refuse, allow = 0x00050000 | errno.ENOLCK, 0x7FFF0000
    second_argument = 24
    program = [(load, 0, 0, 0)]
    if call == "flock":
        program += [(jump, 0, 1, number), (give, 0, 0, refuse), (give, 0, 0, allow)]
    else:
        program += [
            (jump, 0, 4, number),
            (load, 0, 0, second_argument),
            (jump, 1, 0, fcntl.F_SETLK),
            (jump, 0, 1, fcntl.F_SETLKW),
            (give, 0, 0, refuse),
            (give, 0, 0, allow),
        ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)

    def install() -> None:
        buffer = ctypes.create_string_buffer(code)
        filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
        if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, filter_, 0, 0):
            raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")

    return install
