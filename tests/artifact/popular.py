"""Popular packages for each runtime and architecture: `python -m tests.artifact.popular`.

It asks the package index, so no suite runs it. Each build is done again in another folder, with
another umask, time zone and hash seed, and has to give the same bytes. A Python of the target's
version on PATH also imports what it can load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Pure and compiled, with markers on the Python version (aiohttp), extras and big wheels.
PACKAGES = {
    "requests": "requests",
    "aiohttp": "aiohttp",
    "numpy": "numpy",
    "pandas": "pandas",
    "pydantic": "pydantic",
    "cryptography": "cryptography",
    "pillow": "PIL",
    "lxml": "lxml.etree",
    "sqlalchemy[asyncio]": "sqlalchemy",
    "orjson": "orjson",
}
RUNTIMES = ("python3.12", "python3.13", "python3.14")
ARCHITECTURES = ("arm64", "x86_64")
_BUILD = (
    'umask {umask}; exec "$0" -m twobuckets build --json --runtime {runtime} --architecture {arch}'
)


@dataclass(frozen=True)
class Result:
    """One build of one package for one target."""

    package: str
    runtime: str
    architecture: str
    said: str
    is_right: bool
    seconds: float

    def __str__(self) -> str:
        """Return a line of the table."""
        mark = "same  " if self.is_right else "WRONG "
        target = f"{self.runtime} {self.architecture}"
        return f"{mark} {self.package:22} {target:18} {self.seconds:5.0f} s  {self.said}"


def main(arguments: Sequence[str]) -> int:
    """Print a line for each package and target; 0 when all were built, and to the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    cells = [
        (package, runtime, architecture)
        for package in given.packages
        for runtime in given.runtimes
        for architecture in ARCHITECTURES
    ]
    print(f"host Python {sys.version.split()[0]}, {len(cells)} builds, each twice", flush=True)
    wrong = 0
    with ThreadPoolExecutor(given.workers) as pool:
        for result in pool.map(lambda cell: build_twice(*cell), cells):
            print(result, flush=True)
            wrong += not result.is_right
    print(f"{len(cells) - wrong} of {len(cells)} are right")
    return 1 if wrong else 0


def build_twice(package: str, runtime: str, architecture: str) -> Result:
    """Build once and again, and compare the bytes."""
    begun = time.monotonic()
    artifacts = []
    for umask, zone, seed in (("022", "UTC", "0"), ("077", "Asia/Tokyo", "42")):
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder)
            text = f"import {PACKAGES[package]}\n\ndef process(file): pass\n"
            (project / "processor.py").write_text(text)
            (project / "requirements.txt").write_text(package + "\n")
            done = subprocess.run(
                [
                    *("sh", "-c", _BUILD.format(umask=umask, runtime=runtime, arch=architecture)),
                    sys.executable,
                ],
                cwd=project,
                env={
                    **os.environ,
                    "TZ": zone,
                    "PYTHONHASHSEED": seed,
                    "PYTHONPATH": str(Path.cwd()),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                said = done.stderr.strip().splitlines()[-1][:300]
                took = time.monotonic() - begun
                return Result(package, runtime, architecture, said, is_right=False, seconds=took)
            artifacts.append(json.loads(done.stdout.splitlines()[0]))
    first, second = artifacts
    said = (
        f"{first['sha256'][:12]} {first['unzipped_bytes'] / 2**20:6.1f} MiB,"
        f" bytecode {first['bytecode'] or 'none'}, {first['unchecked'] or 'imported'}"
    )
    is_same = first["sha256"] == second["sha256"]
    took = time.monotonic() - begun
    return Result(package, runtime, architecture, said, is_right=is_same, seconds=took)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
