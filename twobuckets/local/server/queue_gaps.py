"""What the emulator's queues lack beside SQS's own API, one function a gap.

AWS's rules: Lambda developer guide, "Using Lambda with Amazon SQS"; SQS developer guide, "Available
CloudWatch metrics for Amazon SQS"; Service Authorization Reference, "Actions, resources, and
condition keys for Amazon SQS".
"""

from __future__ import annotations

import threading
import time
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# AWS measures once a minute; here nobody waits for the minute's end, and its value is overwritten.
MEASURE_SECONDS = 2.0
_PERIOD_SECONDS = 60.0
_KEPT_SECONDS = 3 * 3600.0


def install(touch: Callable[[], None]) -> Callable[[], None]:
    """Fill each of the gaps; what is returned starts measuring, once the state is loaded.

    `touch` hears of messages that a function's event sources took or deleted.
    """
    _feed_functions_group_by_group(touch)
    _ask_for_the_action_of_one_message()
    _compare_an_alarm_with_its_own_queue()

    def start() -> None:
        threading.Thread(target=_keep_measuring, name="measure-queues", daemon=True).start()

    return start


def _feed_functions_group_by_group(touch: Callable[[], None]) -> None:
    """Gap: of a FIFO queue one batch at a time is processed, whatever groups are in the others.

    The queue itself gives no message of a group that has one out, so several batches are in order.
    What a mapping takes and deletes is no request either, so nobody saved the queue's state.
    """
    from ministack.services import lambda_svc

    limit, run = lambda_svc._sqs_esm_concurrency, lambda_svc._run_sqs_batch

    def limit_by_groups(source: Any, function: Any, config: Any, _queue: Any = None) -> int:
        most: int = limit(source, function, config, None)
        return most

    def run_and_save(*batch: Any) -> None:
        try:
            run(*batch)
        finally:
            touch()

    lambda_svc._sqs_esm_concurrency = limit_by_groups
    lambda_svc._run_sqs_batch = run_and_save


def _ask_for_the_action_of_one_message() -> None:
    """Gap: calls about a batch are authorized as actions that IAM doesn't have."""
    from ministack.core import iam_actions

    extract = iam_actions.extract_iam_action

    def extract_of_one(service: str, *request: Any, **named: Any) -> str | None:
        action: str | None = extract(service, *request, **named)
        return action.removesuffix("Batch") if action and service == "sqs" else action

    iam_actions.extract_iam_action = extract_of_one


def _compare_an_alarm_with_its_own_queue() -> None:
    """Gap: an alarm is evaluated with the metric's values of every queue or function there is."""
    from ministack.services import cloudwatch

    evaluate = cloudwatch._evaluate_alarm

    def evaluate_own(alarm: dict[str, Any]) -> None:
        wanted = cloudwatch._dims_key(
            {item["Name"]: item["Value"] for item in alarm.get("Dimensions") or []}
        )
        metrics = {key: points for key, points in cloudwatch._metrics.items() if key[2] == wanted}
        # The same function over these metrics alone; a global would be seen by other threads.
        FunctionType(evaluate.__code__, {**vars(cloudwatch), "_metrics": metrics})(alarm)

    cloudwatch._evaluate_alarm = evaluate_own


def _keep_measuring() -> None:
    while True:
        time.sleep(MEASURE_SECONDS)
        measure()


def measure() -> None:
    """Gap: queues have no metrics, so that no alarm on them leaves INSUFFICIENT_DATA."""
    from ministack.core.responses import _request_account_id, _request_region
    from ministack.services import cloudwatch, sqs

    places = {key[:2] for key in list(sqs._queues._data)}
    for account, region in places:
        tokens = _request_account_id.set(account), _request_region.set(region)
        try:
            now = time.time()
            for queue in list(sqs._queues.values()):
                for name, value in _measured(queue, now).items():
                    _note(name, value, queue["name"], now)
            cloudwatch._evaluate_all_alarms()
        finally:
            _request_account_id.reset(tokens[0])
            _request_region.reset(tokens[1])


def _measured(queue: dict[str, Any], now: float) -> dict[str, float]:
    from ministack.services import sqs

    with sqs._queues_lock:
        sqs._refresh_counts(queue)
        oldest = min((message["sent_at"] for message in queue["messages"]), default=now)
    counted = queue["attributes"]
    return {
        "ApproximateNumberOfMessagesVisible": float(counted["ApproximateNumberOfMessages"]),
        "ApproximateNumberOfMessagesNotVisible": float(
            counted["ApproximateNumberOfMessagesNotVisible"]
        ),
        "ApproximateAgeOfOldestMessage": now - oldest,
    }


def _note(metric: str, value: float, queue_name: str, now: float) -> None:
    from ministack.services import cloudwatch

    dimensions = {"QueueName": queue_name}
    points = cloudwatch._metric_bucket(("AWS/SQS", metric, cloudwatch._dims_key(dimensions)))
    minute = now - now % _PERIOD_SECONDS
    while points and points[0]["Timestamp"] < now - _KEPT_SECONDS:
        del points[0]
    if points and points[-1]["Timestamp"] == minute:
        points[-1]["Value"] = value
    else:
        unit = "Seconds" if "Age" in metric else "Count"
        points.append({"Timestamp": minute, "Value": value, "Unit": unit, "Dimensions": dimensions})
