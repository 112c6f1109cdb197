"""A world in which every file is too much for Lambda: a job of AWS Batch has it.

An invocation only looks and submits; the job, an actor of its own, runs the same handler with the
version as its event. It begins late, is tried again, dies in the middle, and there are two of a
version where two invocations looked for one before either had submitted it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.racemodel.s3 import Client
from tests.racemodel.world import Scenario, World
from twobuckets import processor as real_processor
from twobuckets.processor import contract

QUEUE = "intake-heavy"


@dataclass(slots=True)
class _Job:
    id: str
    name: str
    is_over: bool = False


class JobWorld(World):
    """A world with jobs, of which `begun` counts those that were submitted.

    Each dies as its upload says that the invocation of the first event does.
    """

    def __init__(self, scenario: Scenario, processor: ModuleType = real_processor) -> None:
        super().__init__(scenario, processor)
        self.begun = 0
        self._jobs: list[_Job] = []
        self.client = Client(self.s3, lambda operation, arguments: self._step(operation))
        self.client.on_read = self._on_read
        self.client.unfound_head = scenario.unfound_head

    @contextmanager
    def _installed(self) -> Iterator[None]:
        with super()._installed():
            self.processor.runtime._clients["batch"] = self
            os.environ[contract.HEAVY_QUEUE] = QUEUE
            os.environ[contract.HEAVY_MATCH] = "*"
            try:
                yield
            finally:
                del os.environ[contract.HEAVY_QUEUE], os.environ[contract.HEAVY_MATCH]

    # --- AWS Batch, as far as the processor asks it ---

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_jobs"
        return SimpleNamespace(paginate=self._list_jobs)

    def _list_jobs(self, **asked: Any) -> Iterator[Any]:
        self._step("ListJobs")
        (name,) = asked["filters"][0]["values"]
        yield {
            "jobSummaryList": [
                {"jobId": job.id, "status": "SUCCEEDED" if job.is_over else "RUNNING"}
                for job in self._jobs
                if job.name == name
            ]
        }

    def submit_job(self, **asked: Any) -> dict[str, str]:
        self._step("SubmitJob")
        self.begun += 1
        job = _Job(f"job {self.begun}", asked["jobName"])
        self._jobs.append(job)
        [wake] = asked["containerOverrides"]["environment"]
        self._begin(job, json.loads(wake["value"]))
        return {"jobId": job.id}

    def _begin(self, job: _Job, event: dict[str, Any]) -> None:
        [wanted] = event["wake"]
        upload = next(stored for stored in self.laws.uploads if stored.etag == wanted["etag"])
        planned = next((u for u in self.scenario.uploads if u.body == upload.body), None)
        deaths = planned.deaths if planned is not None else ()
        context = SimpleNamespace(aws_request_id=job.id)

        def process() -> None:
            # A job's environment names no queue. The handler reads it before it asks anything, so
            # nobody else runs until it has.
            del os.environ[contract.HEAVY_QUEUE]
            try:
                self.handler(event, context)
            finally:
                os.environ[contract.HEAVY_QUEUE] = QUEUE

        def run() -> None:
            for number in range(contract.JOB_TRIES):
                if self._ends_well(process, deaths[number] if number < len(deaths) else None):
                    break
            self._actor().kill_after(None)
            job.is_over = True

        self.scheduler.spawn(job.id, run)

    def _step(self, operation: str) -> None:
        os.environ[contract.HEAVY_QUEUE] = QUEUE
        self.scheduler.step(operation)
