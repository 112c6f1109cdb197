"""AWS Batch: the emulator's jobs succeed at once and run nothing, and no stack can have one.

Here each job is a process of its own, with the artifact that it names and the credentials of its
role: a few at a time, tried as often as its definition says, ended at its time-out, with its lines
in the log group of the definition and its end as an event of EventBridge. Jobs that have not ended
when the server does are taken up by the next one, from their first try on.

Not emulated: images (a job runs this Python, with what Lambda provides and the artifact), networks,
vCPUs, memory and disk, compute environments' limits, job arrays and dependencies, priorities,
reasons for not being placed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twobuckets.local.server.children import LogStream, log_group_named, provided_folders
from twobuckets.processor import contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from twobuckets.local.server.children import Children

logger = logging.getLogger(__name__)

AT_ONCE = 2
RETRY_SECONDS = 1.0
END_GRACE_SECONDS = 2.0
_TERMINAL = frozenset({"SUCCEEDED", "FAILED"})
_TRIES = 1
"""AWS: a job is tried once where nothing says more."""


class JobRunner:
    """Runs jobs; `touch` hears of changes."""

    def __init__(self, children: Children, endpoint_url: str, touch: Callable[[], None]) -> None:
        self._children = children
        self._endpoint_url = endpoint_url
        self._touch = touch
        self._slots = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Take up what an earlier server left."""
        from ministack.services import batch

        for account, region, job in list(_jobs_of_all(batch)):
            if job["status"] not in _TERMINAL:
                job["status"] = "SUBMITTED"
                self.run(job, account, region)

    def run(self, job: dict[str, Any], account: str, region: str) -> None:
        """Run a job in a thread of its own, when its turn comes."""
        threading.Thread(
            target=self._run, args=(job, account, region), name=f"job-{job['jobId']}", daemon=True
        ).start()

    def terminate(self, job: dict[str, Any], reason: str) -> None:
        """End a job for good, whether or not it has begun."""
        job["_terminated"] = reason
        with self._lock:
            process = self._running.get(job["jobId"])
        if process is not None:
            _end(process)

    def close(self) -> None:
        """End all processes; their jobs stay as they are, for the next server."""
        self._closed.set()
        with self._lock:
            running = list(self._running.values())
        for process in running:
            _end(process)

    def _run(self, job: dict[str, Any], account: str, region: str) -> None:
        from ministack.core.responses import _request_account_id, _request_region

        _request_account_id.set(account)
        _request_region.set(region)
        job["status"] = "RUNNABLE"
        with self._slots:
            if self._closed.is_set():
                return
            try:
                is_done = self._try_all(job, account, region)
            except Exception as error:
                logger.exception("Job %s", job["jobId"])
                job["statusReason"] = f"{type(error).__name__}: {error}"
                is_done = False
            if self._closed.is_set():
                return
            job["status"] = "SUCCEEDED" if is_done else "FAILED"
            job["stoppedAt"] = _now_ms()
            _publish(job)
            self._touch()

    def _try_all(self, job: dict[str, Any], account: str, region: str) -> bool:
        definition = _definition_of(job["jobDefinition"])
        container = definition["containerProperties"]
        tries = int((definition.get("retryStrategy") or {}).get("attempts", _TRIES))
        timeout = (definition.get("timeout") or {}).get("attemptDurationSeconds")
        variables = _variables(container) | _variables(job["_overrides"])
        job["container"] = {
            "image": container.get("image", ""),
            "environment": [{"name": n, "value": v} for n, v in variables.items()],
        }
        job["attempts"] = []
        code = self._children.unpack(_read_artifact(variables[contract.ARTIFACT]))
        stream = _stream_of(container, job["jobId"])
        for number in range(1, tries + 1):
            if job.get("_terminated"):
                break
            job.update(status="RUNNING", startedAt=_now_ms())
            job["container"]["logStreamName"] = stream.name
            environment = {
                "PATH": os.defpath,
                "LANG": "en_US.UTF-8",
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join([str(code), *provided_folders()]),
                **variables,
                **_credentials(container.get("jobRoleArn", ""), account, region),
                "AWS_REGION": region,
                "AWS_DEFAULT_REGION": region,
                "AWS_ENDPOINT_URL": self._endpoint_url,
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_BATCH_JOB_ID": job["jobId"],
                "AWS_BATCH_JOB_ATTEMPT": str(number),
            }
            status, reason = self._try(job["jobId"], code, environment, stream, timeout)
            if self._closed.is_set():
                return False
            job["container"]["exitCode"] = status
            job["attempts"].append({"container": {"exitCode": status}, "statusReason": reason})
            job["statusReason"] = reason
            if status == 0:
                return True
            if number < tries and self._closed.wait(RETRY_SECONDS):
                return False
        job["statusReason"] = job.get("_terminated") or job["statusReason"]
        return False

    def _try(
        self,
        job_id: str,
        code: object,
        environment: dict[str, str],
        stream: LogStream,
        timeout: float | None,
    ) -> tuple[int, str]:
        """Run one try; return its status, and Batch's words for how it ended."""
        process = subprocess.Popen(
            [sys.executable, "-s", "-m", "twobuckets.processor.job"],
            cwd=str(code),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with self._lock:
            self._running[job_id] = process
        is_over = threading.Event()

        def end_late() -> None:
            is_over.set()
            process.kill()

        timer = threading.Timer(timeout, end_late) if timeout is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line := line.rstrip("\n"):
                    stream.write(line)
            status = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                del self._running[job_id]
        if is_over.is_set():
            return 137, "Job attempt duration exceeded timeout"
        # A shell's way of writing that a signal ended it, as ECS has it.
        return (128 - status if status < 0 else status), "Essential container in task exited"


def install(children: Children, endpoint_url: str, touch: Callable[[], None]) -> JobRunner:
    """Put jobs that run in the place of the emulator's; `start` it when the state is loaded."""
    runner = JobRunner(children, endpoint_url, touch)
    _submit_for_real(runner)
    _list_by_name()
    _terminate(runner)
    _keep_what_definitions_say()
    _authorize_on_the_queue()
    _add_resource_types(runner)
    return runner


def _submit_for_real(runner: JobRunner) -> None:
    """Gap: SubmitJob notes a job that has succeeded; on AWS it is queued, and runs."""
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import batch

    original = batch._submit_job

    def submit(p: dict[str, Any]) -> Any:
        if _definition_of(p.get("jobDefinition", "")) is None:
            return batch.error_response_json(
                "ClientException", f"JobDefinition {p.get('jobDefinition')} not found", 400
            )
        answer = original(p)
        status, _, body = answer
        if status == 200:
            job = batch._jobs[json.loads(body)["jobId"]]
            del job["startedAt"], job["stoppedAt"]
            job.update(status="SUBMITTED", statusReason="", attempts=[], container={})
            job["jobQueue"] = batch._jq_arn(job["jobQueue"].rpartition("/")[2])
            job["_overrides"] = p.get("containerOverrides") or {}
            runner.run(job, get_account_id(), get_region())
        return answer

    batch._DISPATCH["/v1/submitjob"] = submit


def _list_by_name() -> None:
    """Gap: ListJobs knows no filters, and lists all jobs where no status is given."""
    from ministack.services import batch

    def list_jobs(p: dict[str, Any]) -> Any:
        queue = p.get("jobQueue", "").rpartition("/")[2]
        names = [
            value
            for entry in p.get("filters") or []
            if entry["name"] == "JOB_NAME"
            for value in entry["values"]
        ]
        wanted = p.get("jobStatus", "RUNNING")
        found = [
            {
                name: job.get(name)
                for name in ("jobId", "jobArn", "jobName", "status", "createdAt", "statusReason")
            }
            for job in batch._jobs.values()
            if job["jobQueue"].rpartition("/")[2] == queue
            and (job["jobName"] in names if names else job["status"] == wanted)
        ]
        return batch._json(200, {"jobSummaryList": found})

    batch._DISPATCH["/v1/listjobs"] = list_jobs


def _terminate(runner: JobRunner) -> None:
    """Gap: there is neither TerminateJob nor CancelJob."""
    from ministack.services import batch

    def terminate(p: dict[str, Any]) -> Any:
        job = batch._jobs.get(p.get("jobId", ""))
        if job is not None and job["status"] not in _TERMINAL:
            runner.terminate(job, p.get("reason", "terminated"))
        return batch._json(200, {})

    def cancel(p: dict[str, Any]) -> Any:
        job = batch._jobs.get(p.get("jobId", ""))
        if job is not None and job["status"] in ("SUBMITTED", "PENDING", "RUNNABLE"):
            runner.terminate(job, p.get("reason", "cancelled"))
        return batch._json(200, {})

    batch._DISPATCH["/v1/terminatejob"] = terminate
    batch._DISPATCH["/v1/canceljob"] = cancel


def _keep_what_definitions_say() -> None:
    """Gap: a job definition forgets its time-out and its retries."""
    from ministack.services import batch

    original = batch._register_job_definition

    def register(p: dict[str, Any]) -> Any:
        answer = original(p)
        if answer[0] == 200:
            revision = batch._job_definitions[p["jobDefinitionName"]][-1]
            for name in ("timeout", "retryStrategy", "platformCapabilities"):
                if name in p:
                    revision[name] = p[name]
        return answer

    batch._register_job_definition = register
    batch._DISPATCH["/v1/registerjobdefinition"] = register


def _authorize_on_the_queue() -> None:
    """Gap: SubmitJob is authorised on "*"; on AWS on the job queue and the definition."""
    from ministack.core import iam_actions

    original = iam_actions.extract_resource_arn

    def extract(service: str, method: str, path: str, *rest: Any, **named: Any) -> Any:
        if service == "batch" and path.rstrip("/").lower() == "/v1/submitjob":
            from ministack.services import batch

            body = next((item for item in rest if isinstance(item, bytes)), named.get("body"))
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                return batch._jq_arn(json.loads(body or b"{}")["jobQueue"].rpartition("/")[2])
        return original(service, method, path, *rest, **named)

    iam_actions.extract_resource_arn = extract


def _add_resource_types(runner: JobRunner) -> None:
    """Gap: CloudFormation knows none of the types of AWS Batch."""
    from ministack.services import batch
    from ministack.services.cloudformation import provisioners

    kinds: tuple[tuple[str, str, str, Any], ...] = (
        ("ComputeEnvironment", "computeEnvironmentName", "computeEnvironmentArn",
         batch._create_compute_environment),
        ("JobQueue", "jobQueueName", "jobQueueArn", batch._create_job_queue),
        ("JobDefinition", "jobDefinitionName", "jobDefinitionArn", batch._register_job_definition),
    )  # fmt: skip
    stores = {
        "ComputeEnvironment": batch._compute_envs,
        "JobQueue": batch._job_queues,
        "JobDefinition": batch._job_definitions,
    }
    for kind, name, arn, call in kinds:
        handlers = _handlers(stores[kind], name, arn, call, runner)
        provisioners._RESOURCE_HANDLERS[f"AWS::Batch::{kind}"] = handlers


def _handlers(
    store: Any, name: str, arn: str, call: Callable[[Any], Any], runner: JobRunner
) -> dict[str, Any]:
    from ministack.services import batch

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        asked = _as_in_the_api(properties)
        asked.setdefault(name, f"{stack}-{logical_id}")
        status, _, body = call(asked)
        if status >= 400:
            raise ValueError(body.decode())
        found = json.loads(body)[arn]
        return found, {f"{arn[:1].upper()}{arn[1:]}": found}

    def update(physical_id: str, _: dict[str, Any], new: dict[str, Any], stack: str) -> Any:
        if store is not batch._job_definitions:
            _forget(physical_id)
        return create("", new, stack)

    def delete(physical_id: str, _: object) -> None:
        if store is batch._job_queues:
            # AWS ends the jobs of a queue that is deleted.
            for job in list(batch._jobs.values()):
                if job["jobQueue"] == physical_id and job["status"] not in _TERMINAL:
                    runner.terminate(job, "the job queue was deleted")
        _forget(physical_id)

    def _forget(physical_id: str) -> None:
        if store is batch._job_definitions:
            # Of a definition one revision, and its jobs go on.
            if (revision := _definition_of(physical_id)) is not None:
                revision["status"] = "INACTIVE"
            return
        store.pop(physical_id.rpartition("/")[2], None)

    return {"create": create, "update": update, "delete": delete}


def _as_in_the_api(value: Any) -> Any:
    """Return properties of CloudFormation with the API's names; variables are values, not names."""
    if isinstance(value, dict):
        return {
            # The one name that does not follow from the other's first letter.
            {"MaxvCpus": "maxvCpus"}.get(name, f"{name[:1].lower()}{name[1:]}"): _as_in_the_api(
                item
            )
            if name != "Options"
            else item
            for name, item in value.items()
        }
    return [_as_in_the_api(item) for item in value] if isinstance(value, list) else value


def _jobs_of_all(batch: Any) -> Any:
    """Yield account, region and job for every job there is."""
    for job_id, _ in list(batch._jobs._data.items()):
        account, region, *_rest = job_id
        yield account, region, batch._jobs._data[job_id]


def _definition_of(reference: str) -> Any:
    """Return the revision that a name, a name with a revision or an ARN means, or None."""
    from ministack.services import batch

    name, _, revision = reference.rpartition("/")[2].partition(":")
    revisions = batch._job_definitions.get(name) or []
    if revision:
        return next((r for r in revisions if r["revision"] == int(revision)), None)
    return next((r for r in reversed(revisions) if r["status"] == "ACTIVE"), None)


def _variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("environment") or []}


def _read_artifact(place: str) -> bytes:
    from ministack.services import s3

    bucket, _, key = place.partition("/")
    body: bytes = s3._read_body(bucket, key, s3._buckets[bucket]["objects"][key])
    return body


def _stream_of(container: dict[str, Any], job_id: str) -> LogStream:
    options = (container.get("logConfiguration") or {}).get("options") or {}
    group = log_group_named(options.get("awslogs-group", "/aws/batch/job"))
    return LogStream(group, f"{options.get('awslogs-stream-prefix', 'job')}/default/{job_id}")


def _credentials(role_arn: str, account: str, region: str) -> dict[str, str]:
    from ministack.core import lambda_runtime

    arn = f"arn:aws:lambda:{region}:{account}:function:batch-job"
    config = {"FunctionArn": arn, "FunctionName": "batch-job", "Role": role_arn}
    return dict(lambda_runtime.execution_credentials(config))


def _publish(job: dict[str, Any]) -> None:
    """Send the event of a job's end (AWS Batch user guide, "Batch job state change events")."""
    from ministack.services import eventbridge

    names = ("jobArn", "jobName", "jobId", "jobQueue", "status", "statusReason", "attempts",
             "container")  # fmt: skip
    detail = {name: job.get(name) for name in names}
    entry = {
        "Source": "aws.batch",
        "DetailType": "Batch Job State Change",
        "Detail": json.dumps(detail),
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            process.wait(END_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _now_ms() -> int:
    return int(time.time() * 1000)
