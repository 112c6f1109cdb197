"""What AWS Batch says of the jobs that have files, and of their queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.processor.contract import WAKE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups

UNFINISHED: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""States of a job that may still do something (AWS Batch user guide, "Job states")."""
# What AWS Batch says of a job that waits for what will never be there (user guide, "Jobs stuck in
# RUNNABLE status").
_MISCONFIGURED: Final = "MISCONFIGURATION:"
_IDS_A_CALL: Final = 100


class Job(NamedTuple):
    """A job; `reason` is AWS Batch's for how it stands, with the container's own behind it."""

    job_id: str
    status: str
    reason: str

    @property
    def is_under_way(self) -> bool:
        """Tell whether it may still process its file by itself."""
        return self.status in UNFINISHED and not self.reason.startswith(_MISCONFIGURED)


class JobFacts:
    """Jobs by their ids, and how many a queue has. Raises CouldNotLook."""

    def __init__(self, aws: Aws, lookups: Lookups) -> None:
        self._aws = aws
        self._lookups = lookups

    def find(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """Return the jobs that there are, of a hundred a call; AWS keeps an ended one for days."""
        found: dict[str, Job] = {}
        ids = list(dict.fromkeys(job_ids))
        for start in range(0, len(ids), _IDS_A_CALL):
            some = ids[start : start + _IDS_A_CALL]

            def call(some: list[str] = some) -> Any:
                return self._aws.batch.describe_jobs(jobs=some)["jobs"]

            what = f"the jobs from {some[0]} on"
            for job in self._lookups.read(what, "batch:DescribeJobs", call):
                found[job["jobId"]] = Job(job["jobId"], job["status"], _reason_of(job))
        return found

    def counts(self, queue: str) -> dict[str, int]:
        """Return how many jobs of a queue have not ended, by their state."""

        def call() -> Any:
            pages = self._aws.batch.get_paginator("list_jobs")
            return {
                status: sum(
                    len(page["jobSummaryList"])
                    for page in pages.paginate(jobQueue=queue, jobStatus=status)
                )
                for status in UNFINISHED
            }

        counts: dict[str, int] = self._lookups.read(f"the jobs of {queue}", "batch:ListJobs", call)
        return counts

    def queue_state(self, queue: str) -> str | None:
        """Return whether a queue is ENABLED or DISABLED, or what AWS Batch says is wrong with it.

        None where there is no such queue.
        """

        def call() -> Any:
            return self._aws.batch.describe_job_queues(jobQueues=[queue])["jobQueues"]

        found = self._lookups.read(f"the job queue {queue}", "batch:DescribeJobQueues", call)
        if not found:
            return None
        state, status = found[0]["state"], found[0].get("status", "VALID")
        return str(state) if status == "VALID" else f"{status}: {found[0].get('statusReason', '')}"


def wake_of_job(event: Mapping[str, Any]) -> str | None:
    """Return what the job that EventBridge tells of was submitted with, None for another event.

    Shape: AWS Batch user guide, "Batch job state change events".
    """
    if event.get("source") != "aws.batch":
        return None
    try:
        variables = event["detail"]["container"]["environment"]
        return next((str(one["value"]) for one in variables if one["name"] == WAKE), None)
    except (KeyError, TypeError):
        # A job of a kind without containers, or nothing that AWS Batch sent.
        return None


def _reason_of(job: Mapping[str, Any]) -> str:
    container = job.get("container", {})
    said = (job.get("statusReason"), container.get("reason"))
    return ": ".join(str(one) for one in said if one)
