"""Runs a program and tells what it cost."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one tool: seconds, mebibytes at the peak, and requests by kind."""

    tool: str
    wall: float
    cpu: float
    peak_mib: float
    requests: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what is written to a file."""
        return asdict(self)


class RunError(Exception):
    """A tool failed; its last words are the reason."""


def run(
    tool: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    accept: Sequence[int] = (0,),
) -> Measurement:
    """Run a command to its end and measure it with its children. Raises RunError if it fails."""
    started_at = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started_at
    if process.returncode not in accept:
        raise RunError(f"{tool} ended with {process.returncode}: {said.decode()[-500:]}")
    # Linux counts kibibytes, macOS bytes.
    unit = 2**20 if os.uname().sysname == "Darwin" else 2**10
    return Measurement(tool, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit)


def compare(title: str, taken: Sequence[Measurement]) -> str:
    """Return a table of medians, and how many times faster the first tool is than each."""
    names = list(dict.fromkeys(m.tool for m in taken))
    wall = {name: median(m.wall for m in taken if m.tool == name) for name in names}
    lines = [
        "",
        title,
        f"{'tool':<18}{'wall s':>8}{'cpu s':>8}{'MiB':>7}{'ratio':>8}   requests",
    ]
    for name in names:
        runs = [m for m in taken if m.tool == name]
        cpu, peak = median(m.cpu for m in runs), median(m.peak_mib for m in runs)
        requests = " ".join(f"{kind}:{n}" for kind, n in sorted(runs[-1].requests.items()))
        lines.append(
            f"{name:<18}{wall[name]:>8.2f}{cpu:>8.2f}{peak:>7.0f}"
            f"{wall[name] / wall[names[0]]:>7.1f}×   {requests}"
        )
    return "\n".join(lines)
