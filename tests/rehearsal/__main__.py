"""Plays the rehearsal in full: `python -m tests.rehearsal [--objects 3000]`.

It starts an embedded AWS of its own, and stops it. Takes some minutes: six of them are the wait
until every try of a notification that never came must be over.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.embedded.conftest import aws_of
from tests.rehearsal import play
from twobuckets import local
from twobuckets.settings import local_state


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__)
    parser.add_argument("--objects", type=int, default=3000)
    parser.add_argument("--young", action="store_true", help="do not wait; stop at the first look")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(XDG_STATE_HOME=folder, AWS_CONFIG_FILE=os.devnull)
        state = local_state(os.environ)
        server = local.start(state, environ=os.environ)
        try:
            project = Path(folder, "project")
            project.mkdir()
            os.chdir(project)
            began = time.monotonic()

            def say(what: str) -> None:
                print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

            play.rehearse(aws_of(server), project, options.objects, young=options.young, say=say)
        finally:
            os.chdir("/")
            local.stop(state)


if __name__ == "__main__":
    main()
