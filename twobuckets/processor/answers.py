"""What an invocation returns where its sender reads the answer: SQS, Pipes and Batch Operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twobuckets.processor import contract
from twobuckets.processor.events import Ignored, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twobuckets.processor.contract import Outcome
    from twobuckets.processor.events import BatchInvocation, Record

    Settled = tuple[Record, Outcome | None]
    """A record and its outcome, which only an arrival has."""

# S3 Batch Operations writes it into its report, one line an object.
_REPORTED_CHARACTERS = 1_000


def batch_item_failures(settled: Iterable[Settled]) -> dict[str, Any]:
    """Return which messages come back: those with a record that failed or can't be read.

    Lambda developer guide, "Implementing partial batch responses"; Pipes take the same.
    """
    failed = dict.fromkeys(
        record.item_id
        for record, outcome in settled
        if isinstance(record, Unreadable)
        or (outcome is not None and outcome.outcome == contract.FAILED)
    )
    return {"batchItemFailures": [{"itemIdentifier": item_id} for item_id in failed]}


def task_results(job: BatchInvocation, settled: Sequence[Settled]) -> dict[str, Any]:
    """Return one result a task (S3 user guide, "Invoke AWS Lambda function")."""
    results = []
    for record, outcome in settled:
        code, text = _result(record, outcome)
        results.append(
            {
                "taskId": record.item_id,
                "resultCode": code,
                "resultString": text[:_REPORTED_CHARACTERS],
            }
        )
    return {
        "invocationSchemaVersion": job.schema_version,
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": job.invocation_id,
        "results": results,
    }


def _result(record: Record, outcome: Outcome | None) -> tuple[str, str]:
    if isinstance(record, Unreadable):
        return "PermanentFailure", record.reason
    if isinstance(record, Ignored):
        return "Succeeded", "ignored"
    if outcome is None:
        return "Succeeded", "put into order: it is processed when its key's turn comes"
    said = outcome.reason or ""
    if outcome.error is not None:
        said = f"{outcome.error.type}: {outcome.error.message}"
    text = f"{outcome.outcome}: {said}" if said else outcome.outcome
    if outcome.outcome == contract.FAILED:
        return "TemporaryFailure", text
    if outcome.outcome in (contract.REJECTED, contract.MISSING):
        return "PermanentFailure", text
    return "Succeeded", text
