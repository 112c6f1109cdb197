"""FilterLogEvents as AWS documents it: pages with a token, and the patterns that we send.

Replaces the emulator's, which cuts at `limit` in silence, takes every JSON pattern as "all events"
and does not know `?term`. Patterns beyond those of ours are still the emulator's.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import re
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LARGEST_PAGE = 10_000
# CloudWatch Logs user guide, "Filter pattern syntax".
_JSON_EQUALS = re.compile(r'\{\s*\$\.(\w+)\s*=\s*(?:"([^"]*)"|(-?\d+))\s*\}')
_ANY_OF = re.compile(r'\?(?:"([^"]*)"|(\S+))')

Position = tuple[int, int, int]
"""Timestamp and time of ingestion of the last event of a page, and how many such were returned."""


def install() -> None:
    """Put our FilterLogEvents in the place of the emulator's."""
    from ministack.services import cloudwatch_logs

    cloudwatch_logs._filter_log_events = filter_log_events


def filter_log_events(request: Mapping[str, Any]) -> Any:
    """Answer one request in the emulator's form."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import cloudwatch_logs as service

    group = service._resolve_log_group_name(request)
    if group not in service._log_groups:
        return error_response_json(
            "ResourceNotFoundException", "The specified log group does not exist.", 400
        )
    try:
        position = parse_token(request.get("nextToken"))
    except ValueError:
        return error_response_json(
            "InvalidParameterException", "The specified nextToken is invalid.", 400
        )
    matches = compile_pattern(request.get("filterPattern", ""), service._compile_filter_pattern)
    limit = min(request.get("limit", LARGEST_PAGE), LARGEST_PAGE)
    streams = _histories(service, service._log_groups[group]["streams"], request)
    page: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"events": page, "searchedLogStreams": []}
    for event, here in _from_position(_merged(streams, request, position), position):
        if not matches(event["message"]):
            continue
        page.append(event)
        if len(page) >= limit:
            answer["nextToken"] = format_token(here)
            break
    return json_response(answer)


def _histories(
    service: Any, streams: Mapping[str, Any], request: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    names = request.get("logStreamNames") or list(streams)
    prefix = request.get("logStreamNamePrefix") or ""
    with service._log_events_lock:
        return {
            name: list(streams[name]["events"])
            for name in names
            if name in streams and name.startswith(prefix)
        }


def _merged(
    streams: Mapping[str, list[dict[str, Any]]], request: Mapping[str, Any], after: Position
) -> Iterator[dict[str, Any]]:
    """Yield the events of the time range, in order of timestamp and time of ingestion."""
    start = max(request.get("startTime", 0), after[0])
    end = request.get("endTime", 2**63)

    def in_range(name: str, history: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        first = bisect_left(history, start, key=_timestamp)
        last = bisect_right(history, end, key=_timestamp)
        ordered = sorted(history[first:last], key=_order)
        return ({**event, "logStreamName": name} for event in ordered)

    return heapq.merge(*(in_range(*item) for item in streams.items()), key=_order)


def _from_position(
    events: Iterator[dict[str, Any]], after: Position
) -> Iterator[tuple[dict[str, Any], Position]]:
    """Yield what comes after a position, each with its own."""
    same, count = (-1, -1), 0
    for event in events:
        order = _order(event)
        count = count + 1 if order == same else 1
        same = order
        if (*order, count) > after:
            yield event, (*order, count)


def _timestamp(event: Mapping[str, Any]) -> int:
    timestamp: int = event["timestamp"]
    return timestamp


def _order(event: Mapping[str, Any]) -> tuple[int, int]:
    return event["timestamp"], event.get("ingestionTime", 0)


def format_token(position: Position) -> str:
    """Return a position as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def parse_token(token: str | None) -> Position:
    """Return the position that a token names, the beginning if there is none. Raises ValueError."""
    if not token:
        return (0, 0, 0)
    try:
        timestamp, ingested, count = json.loads(base64.urlsafe_b64decode(token))
        return int(timestamp), int(ingested), int(count)
    except (binascii.Error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"no token: {token}") from error


def compile_pattern(
    pattern: str, otherwise: Callable[[str], Callable[[str], bool]]
) -> Callable[[str], bool]:
    """Return the test that a filter pattern stands for; `otherwise` compiles the ones not ours."""
    pattern = pattern.strip()
    if equals := _JSON_EQUALS.fullmatch(pattern):
        name, text, number = equals.groups()
        return lambda message: _field(message, name) == (int(number) if number else text)
    if re.fullmatch(rf"(?:{_ANY_OF.pattern}\s*)+", pattern):
        terms = [quoted or plain for quoted, plain in _ANY_OF.findall(pattern)]
        return lambda message: any(term in message for term in terms)
    return otherwise(pattern)


def _field(message: str, name: str) -> object:
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return fields.get(name) if isinstance(fields, dict) else None
