"""Each thing that can be wrong with a queue: doctor names it, and its remedy, pasted, fixes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.doctor.conftest import run_doctor
from tests.embedded import aws_command
from tests.embedded.test_triggers import Pipeline, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["pipeline"]

FUNCTION = "local-processor"


def set_queue(pipeline: Pipeline, name: str, **attributes: str) -> None:
    attributes_: Any = attributes
    pipeline.aws.sqs.set_queue_attributes(QueueUrl=pipeline.url_of(name), Attributes=attributes_)


def set_mapping(pipeline: Pipeline, name: str, **settings: Any) -> None:
    functions = pipeline.aws.functions
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        if mapping["EventSourceArn"].endswith(f":{name}"):
            functions.update_event_source_mapping(UUID=mapping["UUID"], **settings)


def give_up_at_once(pipeline: Pipeline, name: str) -> None:
    redrive = {"deadLetterTargetArn": pipeline.arn_of("local-failures"), "maxReceiveCount": 1}
    set_queue(pipeline, name, RedrivePolicy=json.dumps(redrive))


def break_and_mend(pipeline: Pipeline, check: str, break_it: Callable[[], None]) -> None:
    """See that doctor names what is broken, and nothing else, and that its remedy fixes it."""
    break_it()
    found = run_doctor("--check", "queues", "--check", "batch-failures-ignored")
    assert found.checks == {check}, found.findings
    for finding in found.findings:
        aws_command.run(finding["remedy"], pipeline.aws)
    assert run_doctor("--check", "queues", "--check", "batch-failures-ignored").checks == set()


def test_what_is_wrong_with_a_queue_is_named_and_mended(pipeline: Pipeline):
    assert pipeline.deploy("queue").exit_code == 0
    assert run_doctor().checks == set()
    name = "local-arrivals"
    for check, break_it in {
        "queue-policy": lambda: set_queue(pipeline, name, Policy=""),
        "queue-visibility": lambda: set_queue(pipeline, name, VisibilityTimeout="5"),
        "queue-one-try": lambda: give_up_at_once(pipeline, name),
        "batch-failures-ignored": lambda: set_mapping(pipeline, name, FunctionResponseTypes=[]),
    }.items():
        break_and_mend(pipeline, check, break_it)

    # What waits is told with its age, and processed once the queue feeds the function again.
    set_mapping(pipeline, name, Enabled=False)
    pipeline.put("waiting.csv", "quick")
    aged = ("--check", "queue-backlog", "--older-than", "1s")
    pipeline.wait_until(lambda: run_doctor(*aged).checks == {"queue-backlog"})
    backlog = run_doctor(*aged).of("queue-backlog")
    assert (backlog["subject"], backlog["count"]) == (name, 1)
    assert f"Queue      {name} · 1 waiting" in pipeline.run("status").output
    aws_command.run(backlog["remedy"], pipeline.aws)
    pipeline.wait_until_processed()
    pipeline.wait_until(pipeline.has_empty_queues)
    assert run_doctor(*aged).checks == set()


def test_what_is_wrong_with_a_queue_that_orders_is_named_and_mended(pipeline: Pipeline):
    assert pipeline.deploy("ordered").exit_code == 0
    assert run_doctor().checks == set()
    name, functions = "local-ordered.fifo", pipeline.aws.functions
    break_and_mend(pipeline, "queue-batch", lambda: set_mapping(pipeline, name, BatchSize=10))

    def reserve() -> None:
        functions.put_function_concurrency(FunctionName=FUNCTION, ReservedConcurrentExecutions=5)

    break_and_mend(pipeline, "queue-starves", reserve)
    functions.delete_function_concurrency(FunctionName=FUNCTION)

    # A processor of ours routes what a second queue brings; one that knows no queue can't.
    pipeline.aws.sqs.create_queue(QueueName="by-hand", Attributes={"VisibilityTimeout": "120"})
    functions.create_event_source_mapping(
        FunctionName=FUNCTION,
        EventSourceArn=pipeline.arn_of("by-hand"),
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    assert run_doctor("--check", "queues").checks == set()
    settings = functions.get_function_configuration(FunctionName=FUNCTION)
    variables = dict(settings["Environment"]["Variables"])
    del variables["TWOBUCKETS_QUEUE_URL"]
    functions.update_function_configuration(
        FunctionName=FUNCTION, Environment={"Variables": variables}
    )
    found = run_doctor("--check", "queue-bypassed")
    assert {finding["subject"] for finding in found.findings} == {
        "by-hand",
        "s3://local-staging-000000000000-us-east-1",
    }
    [remedy] = [f["remedy"] for f in found.findings if f["subject"] == "by-hand"]
    aws_command.run(remedy, pipeline.aws)
    assert len(run_doctor("--check", "queue-bypassed").findings) == 1
