"""`python -m twobuckets.local.server --state DIR [--port N]`: runs the embedded AWS."""

import argparse
import json
import os
import sys
from pathlib import Path

from twobuckets.local.state import StateDirectory


class Reports:
    """Tells the process that started this one how the start goes, one JSON object a line."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def send(self, **report: object) -> None:
        """Write one report; nobody needs to listen any more."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(report).encode() + b"\n")
        except BrokenPipeError:
            self._descriptor = None

    def close(self) -> None:
        """End the reports."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def main() -> int:
    """Run until a signal ends it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m twobuckets.local.server", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the state directory")
    parser.add_argument("--port", type=int, help="default: the last run's, or a free one")
    parser.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.report_fd is not None and os.fork():
        # The parent waits for this process only, and the child belongs to no terminal.
        os._exit(0)
    reports = Reports(arguments.report_fd)
    reports.send(pid=os.getpid())
    # Imported late: the fork above has to happen while there is only one thread.
    from twobuckets.local.server.launch import StartError, serve

    try:
        serve(StateDirectory(arguments.state.resolve()), arguments.port, reports)
    except StartError as error:
        reports.send(error=str(error), hint=error.hint)
        sys.stderr.write(f"{error}\n{error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is saved; threads of the emulator that still wait for something may not keep us.
    os._exit(status)
