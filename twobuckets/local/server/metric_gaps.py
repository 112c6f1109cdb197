"""What the emulator's metrics lack: those that a log line brings along, and their absence.

AWS's rules: CloudWatch user guide, "Specification: Embedded metric format" and "Configuring how
CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

_MARK: Final = '"_aws"'
_STATES: Final = {"breaching": "ALARM", "notBreaching": "OK"}


def install() -> None:
    """Fill both gaps. An alarm's own metrics are for `queue_gaps` to tell from others'."""
    _measure_log_lines()
    _treat_missing_data()


def _treat_missing_data() -> None:
    """Gap: an alarm without data stays as it is, whatever it says of missing data."""
    from ministack.services import cloudwatch

    evaluate = cloudwatch._evaluate_alarm

    def evaluate_absence(alarm: dict[str, Any]) -> None:
        evaluate(alarm)
        state = _STATES.get(alarm.get("TreatMissingData", ""))
        old_state = alarm["StateValue"]
        if state is None or state == old_state or _has_data(alarm):
            return
        reason = "no datapoints were received, and missing data is treated as [BREACHING]"
        reason = reason if state == "ALARM" else reason.replace("[", "[NON")
        alarm["StateValue"], alarm["StateReason"] = state, reason
        alarm["StateUpdatedTimestamp"] = int(time.time())
        cloudwatch._record_history(alarm["AlarmName"], old_state, state, reason)
        cloudwatch._dispatch_alarm_actions(alarm, old_state, state, reason)

    cloudwatch._evaluate_alarm = evaluate_absence


def _has_data(alarm: dict[str, Any]) -> bool:
    from ministack.services import cloudwatch

    wanted = {item["Name"]: item["Value"] for item in alarm.get("Dimensions") or []}
    key = alarm.get("Namespace"), alarm.get("MetricName"), cloudwatch._dims_key(wanted)
    since = time.time() - alarm.get("Period", 60) * alarm.get("EvaluationPeriods", 1)
    return any(point["Timestamp"] >= since for point in cloudwatch._metrics.get(key) or ())


def _measure_log_lines() -> None:
    """Gap: embedded metrics in log lines stay text."""
    from ministack.services import cloudwatch_logs

    append = cloudwatch_logs._append_log_events

    def append_and_measure(stream: dict[str, Any], events: list[dict[str, Any]]) -> None:
        append(stream, events)
        for event in events:
            if _MARK in event["message"]:
                _note(stream, event["message"])

    cloudwatch_logs._append_log_events = append_and_measure


def _note(stream: dict[str, Any], line: str) -> None:
    from ministack.core.responses import _request_account_id, _request_region
    from ministack.services import cloudwatch

    try:
        fields = json.loads(line)
        head = fields["_aws"]
        at, directives = head["Timestamp"] / 1000, head["CloudWatchMetrics"]
    except (ValueError, TypeError, KeyError):
        return
    account, region = _place_of(stream)
    tokens = _request_account_id.set(account), _request_region.set(region)
    try:
        for directive in directives:
            for names in directive["Dimensions"]:
                dimensions = {name: str(fields[name]) for name in names}
                for metric in directive["Metrics"]:
                    point = {
                        "Timestamp": at,
                        "Value": float(fields[metric["Name"]]),
                        "Unit": metric.get("Unit", "None"),
                        "Dimensions": dimensions,
                    }
                    place = cloudwatch._dims_key(dimensions)
                    key = directive["Namespace"], metric["Name"], place
                    cloudwatch._metric_bucket(key).append(point)
        cloudwatch._evaluate_all_alarms()
    finally:
        _request_account_id.reset(tokens[0])
        _request_region.reset(tokens[1])


def _place_of(stream: dict[str, Any]) -> tuple[str, str]:
    """Return the account and region of a log stream."""
    from ministack.services import cloudwatch_logs

    for (account, region, _), group in list(cloudwatch_logs._log_groups._data.items()):
        if any(stream is known for known in list(group["streams"].values())):
            return account, region
    raise KeyError("the log stream's group is gone")
