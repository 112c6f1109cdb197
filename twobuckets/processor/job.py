"""What a job of AWS Batch runs: the same handler, with the version that it is for as the event.

`python -m twobuckets.processor.job`, with the artifact's files in the path; the variables are in
`contract`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from twobuckets.processor import contract
from twobuckets.processor.outcome import now_text, write_line
from twobuckets.processor.runtime import RecordsFailedError, handler

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Context:
    """What the handler gets from Lambda, for a job: its id, and no time that runs out here."""

    def __init__(self, job_id: str) -> None:
        self.aws_request_id = job_id


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Process the version that a job is for; return 0 when it is settled, 1 to be tried again."""
    event, job_id = json.loads(environ[contract.WAKE]), environ.get("AWS_BATCH_JOB_ID", "")
    # As Lambda notes it of an invocation: so the log tells which lines are whose.
    start = {"requestId": job_id, "version": "$LATEST"}
    write_line(json.dumps({"time": now_text(), "type": "platform.start", "record": start}))
    try:
        handler(event, _Context(job_id))
    except RecordsFailedError:
        # The outcome's line says it already.
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
