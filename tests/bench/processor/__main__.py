"""Counts and measures what one archived file costs: requests, CPU, memory, and reading.

    python -m tests.bench.processor                     everything, 5 rounds
    python -m tests.bench.processor requests            the requests only, which are exact
    python -m tests.bench.processor cpu read --rounds 9
    python -m tests.bench.processor requests --markdown the tables of the README and the manual

`requests` counts on the yardstick, an S3-shaped server in memory (see tests.bench), what archiving
a file takes in each case: by ours, by the handler that tutorials show, and by the fewest calls that
move an object. `cpu` takes the handlers in turn and tells CPU seconds of INIT, of the first and of
a warm invocation. `read` reads 1 GiB on loopback and over connections of 20 ms and 85 MB/s, and one
column of a Parquet file, one member of a zip archive and a gzip file. Readers other than ours are
installed into a virtual environment of their own.

Requests are exact. CPU is steadier than the clock; a busy machine makes megabytes a second
worthless.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import yardstick
from tests.bench.processor import costs
from tests.bench.processor.cases import CASES, GIB, KIB, MIB, events
from tests.bench.tools import ARCHIVE, STAGING, environment
from tests.bench.yardstick import Yardstick

OURS = "twobuckets"
HANDLERS = {
    OURS: "twobuckets.processor.handler",
    "tutorial": "tests.bench.processor.contenders.tutorial",
    "bare": "tests.bench.processor.contenders.bare",
}
READERS = ("boto3", "smart_open", "s3fs", "pyarrow")
MEMORY_MB = 512
LINKS = {"loopback": ("0ms", 0), "20 ms, 85 MB/s": ("20ms", 85_000_000)}
WARM = 100


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.processor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", help="of: requests, cpu, read", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", action="append", help="only these ways of reading")
    parser.add_argument("--markdown", action="store_true", help="the tables of README and manual")
    asked = parser.parse_args()
    if unknown := set(asked.part) - {"requests", "cpu", "read"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = asked.part or ["requests", "cpu", "read"]
    home = Path.home() / ".cache" / "twobuckets-bench"
    home.mkdir(parents=True, exist_ok=True)
    with yardstick.running(home) as server, tempfile.TemporaryDirectory() as scratch:
        if "requests" in parts:
            count_requests(server, Path(scratch), markdown=asked.markdown)
        if "cpu" in parts:
            measure_cpu(server, Path(scratch), asked.rounds)
        if "read" in parts:
            measure_reading(server, home, Path(scratch), asked.rounds, asked.way)


def count_requests(server: Yardstick, scratch: Path, *, markdown: bool) -> None:
    """Print how many requests each handler makes in each case, and what a million files cost."""
    rows = []
    for case in CASES:
        told = [case.name]
        for name in HANDLERS:
            server.reset(STAGING, ARCHIVE)
            case.fill(server)
            delivered = [event for event in events(server) for _ in range(case.repeats)]
            server.ask("zero")
            server.ask("log")
            failed = invoke(server, scratch, name, delivered, reads=case.reads)["failed"]
            requests = server.ask("stats")["requests"]
            number = (
                f"{costs.count(requests)}, {failed} failed" if failed else costs.count(requests)
            )
            told += [str(number), f"{costs.dollars(requests) * 1e6:,.2f}"]
            if not markdown:
                order = " ".join(server.ask("log")["operations"][:16])
                print(f"{case.name}, {name}: {costs.shown(requests)}\n    {order}")
        rows.append(told)
    head = ["one file"]
    for name in HANDLERS:
        head += [name, "$ a million"]
    print("\n" + costs.markdown(head, rows) + "\n")


def measure_cpu(server: Yardstick, scratch: Path, rounds: int) -> None:
    """Print the CPU of INIT, of the first and of the hundredth invocation, the handlers in turn."""
    small = CASES[0]
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in HANDLERS}
    for _ in range(rounds):
        for name in HANDLERS:
            server.reset(STAGING, ARCHIVE)
            server.ask("fill", bucket=STAGING, n=WARM, size=4 * KIB, crc32=1)
            taken[name].append(invoke(server, scratch, name, events(server), reads=small.reads))
    rows = []
    for name, runs in taken.items():
        init = median(run["init_cpu"] for run in runs)
        first = median(run["invocation_cpu"][0] for run in runs)
        # What is measured of one invocation is as fine as the clock of the system.
        warm = median(median(run["invocation_cpu"][WARM // 2 :]) for run in runs)
        rows.append(
            [
                name,
                f"{init * 1e3:.0f}",
                f"{first * 1e3:.0f}",
                f"{costs.start_seconds(init, first, MEMORY_MB):.2f}",
                f"{warm * 1e3:.1f}",
                f"{median(run['peak_mib'] for run in runs):.0f}",
            ]
        )
    head = ["handler", "INIT, CPU ms", "first, CPU ms", f"start at {MEMORY_MB} MB, s"]
    print("\n" + costs.markdown([*head, "warm, CPU ms", "peak, MiB"], rows) + "\n")


def measure_reading(
    server: Yardstick, home: Path, scratch: Path, rounds: int, ways: list[str] | None
) -> None:
    """Print how fast each way reads 1 GiB, and what it asks for where less is needed."""
    from tests.bench.processor.reading import WAYS

    chosen = [way for way in WAYS if not ways or way in ways]
    python = install_readers(home)
    server.reset(STAGING)
    server.ask("fill", bucket=STAGING, n=1, size=GIB, crc32=1)
    [event] = events(server)
    key = event["Records"][0]["s3"]["object"]["key"]
    for link, (latency, rate) in LINKS.items():
        server.set_latency(latency)
        server.ask("rate", bytes=rate)
        print_reading(f"1 GiB, {link}", server, python, scratch, rounds, "whole", key, GIB, chosen)
    server.ask("reset")
    server.reset(STAGING)
    server.ask("keep", bytes=GIB)
    for use, path in make_files(python, home / "files").items():
        put(server, use, path)
        shown = f"{use}, {path.stat().st_size / 1e6:.0f} MB, 20 ms, 85 MB/s"
        print_reading(shown, server, python, scratch, rounds, use, use, path.stat().st_size, chosen)
    server.set_latency("0ms")
    server.ask("rate", bytes=0)


def print_reading(
    title: str,
    server: Yardstick,
    python: Path,
    scratch: Path,
    rounds: int,
    use: str,
    key: str,
    size: int,
    ways: list[str],
) -> None:
    """Read one object in each way and print what it took."""
    taken: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            server.ask("zero")
            try:
                run = measure(
                    server,
                    scratch,
                    [str(python), "-m", "tests.bench.processor.reading", way, use, STAGING, key],
                )
            except subprocess.CalledProcessError as error:
                sys.stderr.write(f"{way}, {use}: {error.stderr[-300:]}\n")
                continue
            taken[way].append({**run, **server.ask("stats")})
    rows = [
        [
            way,
            f"{size / 1e6 / median(run['seconds'] for run in runs):,.0f}",
            f"{median(run['cpu'] for run in runs):.2f}",
            f"{median(run['peak_mib'] for run in runs):.0f}",
            str(runs[-1]["requests"].get("GET", 0)),
            f"{runs[-1]['sent_bytes'] / 1e6:,.1f}",
        ]
        for way, runs in taken.items()
        if runs
    ]
    head = [title, "MB/s", "CPU s", "peak, MiB", "GETs", "MB sent"]
    print("\n" + costs.markdown(head, rows) + "\n")


def invoke(
    server: Yardstick, scratch: Path, name: str, delivered: list[dict[str, Any]], *, reads: str
) -> dict[str, Any]:
    """Deliver events to a handler in a process of its own, and return what it took."""
    path = scratch / "events.json"
    path.write_text(json.dumps(delivered))
    return measure(
        server,
        scratch,
        [sys.executable, "-m", "tests.bench.processor.invoking", HANDLERS[name], str(path)],
        READS=reads,
        ARCHIVE_BUCKET=ARCHIVE,
        TWOBUCKETS_PROCESS="tests.bench.processor.user:process",
        AWS_LAMBDA_FUNCTION_NAME="bench",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(MEMORY_MB),
    )


def measure(
    server: Yardstick, scratch: Path, command: list[str], **variables: str
) -> dict[str, Any]:
    """Run a program that prints JSON. Raises CalledProcessError if it fails."""
    root = str(Path(__file__).parents[3])
    environ: Mapping[str, str] = {
        **environment(server, scratch),
        "PYTHONPATH": root,
        **variables,
    }
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


def install_readers(home: Path) -> Path:
    """Return the Python of an environment with the other readers, made once."""
    venv, stamp = home / "readers", home / "readers.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(READERS):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", *READERS], check=True)
        stamp.write_text(" ".join(READERS))
    return venv / "bin" / "python"


_MAKE_PARQUET = """
import os, sys, pyarrow, pyarrow.parquet
rows, double = 1_500_000, pyarrow.float64()
def column():
    values = pyarrow.py_buffer(os.urandom(8 * rows))
    return pyarrow.Array.from_buffers(double, rows, [None, values])

table = pyarrow.table({f"c{n}": column() for n in range(21)})
pyarrow.parquet.write_table(table, sys.argv[1], row_group_size=75_000, use_dictionary=False)
"""


def make_files(python: Path, folder: Path) -> dict[str, Path]:
    """Return a file for each use that is not reading everything, made once."""
    folder.mkdir(exist_ok=True)
    files = {use: folder / f"reading.{use}" for use in ("parquet", "zip", "gzip")}
    if not files["parquet"].exists():
        subprocess.run([python, "-c", _MAKE_PARQUET, files["parquet"]], check=True)
    if not files["zip"].exists():
        with zipfile.ZipFile(files["zip"], "w") as archive:
            for number, block in enumerate(_blocks(1000, 100 * KIB)):
                archive.writestr(f"members/{number:04}.txt", block)
    if not files["gzip"].exists():
        with gzip.open(files["gzip"], "wb", compresslevel=1) as file:
            for block in _blocks(64, MIB):
                file.write(block)
    return files


def _blocks(count: int, size: int) -> Iterator[bytes]:
    for _ in range(count):
        yield os.urandom(size // 2).hex().encode()


def put(server: Yardstick, key: str, path: Path) -> None:
    """Put a file into staging."""
    import urllib.request

    address = f"{server.control}/{STAGING}/{key}"
    # Not read as a whole: what this process had at its peak its children count as theirs.
    length = {"Content-Length": str(path.stat().st_size)}
    with path.open("rb") as body:
        request = urllib.request.Request(address, data=body, headers=length, method="PUT")
        with urllib.request.urlopen(request):
            pass


if __name__ == "__main__":
    main()
