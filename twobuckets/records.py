"""Records as lines of JSON: the one form in which programs get them, and lists keep them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any, Final

from twobuckets.units import format_instant

_PLAIN_TYPES: Final = frozenset({str, int, float, bool})
_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")


def type_of(record: object) -> str:
    """Return a record's `"type"` in JSON: its `type_name`, or its class's name in kebab case."""
    name = getattr(record, "type_name", None)
    return name if isinstance(name, str) else _WORD_START.sub("-", type(record).__name__).lower()


def json_line(record: Any) -> str:
    """Return a record as one line of JSON, `"type"` first.

    Instants are ISO 8601 in UTC, durations seconds, sizes bytes. Every character outside ASCII is
    escaped, so that any key, even one that is no text, comes back exactly.
    """
    return json.dumps({"type": type_of(record), **_fields_of(record)})


def _fields_of(record: Any) -> dict[str, Any]:
    record_type: Any = type(record)
    return {name: _jsonable(getattr(record, name)) for name in _field_names(record_type)}


@functools.cache
def _field_names(record_type: Any) -> tuple[str, ...]:
    if issubclass(record_type, tuple):
        # Records that come by the hundred thousand are named tuples.
        return tuple(record_type._fields)
    return tuple(field.name for field in dataclasses.fields(record_type))


def _jsonable(value: Any) -> Any:
    # Most values, by the cheapest test.
    if value is None or type(value) in _PLAIN_TYPES:
        return value
    match value:
        case enum.Enum():
            return value.value
        case datetime():
            return format_instant(value)
        case timedelta():
            return value.total_seconds()
        case PurePath():
            return str(value)
        case Mapping():
            return {str(k): _jsonable(v) for k, v in value.items()}
        case tuple() if hasattr(value, "_fields"):
            return _fields_of(value)
        case list() | tuple() | set() | frozenset():
            return [_jsonable(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _fields_of(value)
        case _:
            return value
