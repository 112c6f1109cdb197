"""Files that are too much for Lambda: a job of AWS Batch runs the same code on them.

The function only decides and submits. The job (`job`) processes, archives and deletes, with the
same pins and the same outcome lines.
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from twobuckets.processor import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twobuckets.processor.looking import Staged

# States of a job that may still do something (AWS Batch user guide, "Job states").
_UNFINISHED = frozenset({"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"})


class Submitted(NamedTuple):
    """The job that has a version; `is_new` is false where it had it before."""

    job_id: str
    is_new: bool
    timeout_seconds: int


class Jobs:
    """Where jobs go, and which files they are for; `client` makes the client when it is needed."""

    def __init__(
        self,
        client: Callable[[], Any],
        *,
        queue: str,
        definition: str,
        larger_than_bytes: int,
        patterns: tuple[str, ...],
        timeout_seconds: int,
    ) -> None:
        self._client = client
        self._queue = queue
        self._definition = definition
        self._larger_than_bytes = larger_than_bytes
        self._patterns = patterns
        self._timeout_seconds = timeout_seconds

    @property
    def longest_seconds(self) -> int:
        """How long all tries of a job may take, without what it waits to begin."""
        return self._timeout_seconds * contract.JOB_TRIES

    def take(self, key: str, size_bytes: int) -> bool:
        """Tell whether a file is a job's: above the size, or of a key that matches a pattern."""
        is_large = 0 < self._larger_than_bytes < size_bytes
        return is_large or any(fnmatchcase(key, pattern) for pattern in self._patterns)

    def submit(self, staged: Staged, sequencer: str | None) -> Submitted:
        """Submit the job of a version unless it has one. Raises what boto3 raises.

        SubmitJob has no token that makes it idempotent, so the job is looked for by its name, which
        the version gives it. Two events in the same instant can submit two: then the second job
        finds the version archived, or runs beside the first, as two invocations do.
        """
        name = job_name(staged.bucket, staged.key, staged.version_id or staged.etag)
        filters: Any = [{"name": "JOB_NAME", "values": [name]}]
        pages = self._client().get_paginator("list_jobs")
        for page in pages.paginate(jobQueue=self._queue, filters=filters):
            for job in page["jobSummaryList"]:
                if job.get("status") in _UNFINISHED:
                    return Submitted(job["jobId"], False, self._timeout_seconds)
        wanted = contract.wake_event(
            staged.bucket,
            staged.key,
            version_id=staged.version_id,
            etag=staged.etag,
            size_bytes=staged.size_bytes,
            sequencer=sequencer,
        )
        answer = self._client().submit_job(
            jobName=name,
            jobQueue=self._queue,
            jobDefinition=self._definition,
            containerOverrides={
                "environment": [{"name": contract.WAKE, "value": json.dumps(wanted)}]
            },
        )
        return Submitted(answer["jobId"], True, self._timeout_seconds)


def job_name(bucket: str, key: str, version: str) -> str:
    """Return the name of a version's jobs, of letters, digits and a hyphen, as Batch allows."""
    text = f"{bucket}/{key}/{version}".encode(errors="surrogatepass")
    return f"twobuckets-{hashlib.sha256(text).hexdigest()}"


def find_jobs(environ: Mapping[str, str], client: Callable[[], Any]) -> Jobs | None:
    """Return where jobs go, None where no file is too much."""
    queue = environ.get(contract.HEAVY_QUEUE)
    if not queue:
        return None
    return Jobs(
        client,
        queue=queue,
        definition=environ.get(contract.HEAVY_DEFINITION, ""),
        larger_than_bytes=int(environ.get(contract.HEAVY_LARGER_THAN) or 0),
        patterns=tuple(filter(None, environ.get(contract.HEAVY_MATCH, "").split(","))),
        timeout_seconds=int(environ.get(contract.HEAVY_TIMEOUT) or 0),
    )
