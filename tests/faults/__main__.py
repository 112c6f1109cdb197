"""Blows a storm over files on the embedded AWS and says what it did to them.

    python -m tests.faults                                 5,000 files, 15 % faults, kills every 6 s
    python -m tests.faults --files 300 --kill-every 3 --rate 0.1

Ends with 1 when a file is lost or wrong, or a report is untrue.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.embedded.conftest import aws_of
from tests.faults.storm import Wishes, describe, run_storm
from twobuckets import local
from twobuckets.settings import local_state


def main() -> int:
    """Blow, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=0.15, help="faults, as a share of requests")
    parser.add_argument("--kill-every", type=float, default=6.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep what was written")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    state = local_state({"XDG_STATE_HOME": str(folder / "server")})
    server = local.start(state, environ=os.environ)
    try:
        wishes = Wishes(asked.files, asked.rate, asked.kill_every, asked.seed)
        storm = run_storm(server, aws_of(server), folder / "storm", wishes)
    finally:
        local.stop(state)
    describe(storm)
    if asked.keep or not storm.is_good:
        print(f"All that was said is in {folder}")
    else:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    return 0 if storm.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
