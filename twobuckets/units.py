"""Sizes, durations and instants: text to numbers and back. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

LONGEST_DURATION: Final = timedelta(weeks=52_000)
"""A thousand years: what is longer is a slip, and would lead beyond what a datetime can tell."""

# No more digits than anything has bytes.
_SIZE = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?\s*([kmgtp]?)(i?)(b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern}\s*)+", re.IGNORECASE)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_bytes(text: str) -> int:
    """Return the bytes that a size such as `512`, `8MiB`, `8M` or `1.5 GB` names.

    `KiB`, `MiB` and a bare `K`, `M` count in 1,024s; `KB`, `MB` in 1,000s.
    Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 500, 64KiB, 8MiB or 1.5GB")
    whole, fraction, prefix, binary, byte = match.groups(default="")
    if binary and not prefix:
        raise ValueError(f"{text!r} is not a size; write for example 500, 64KiB, 8MiB or 1.5GB")
    base = 1000 if byte and not binary else 1024
    factor: int = base ** _POWERS[prefix.lower()]
    return int(whole + fraction) * factor // int(f"1{'0' * len(fraction)}")


def format_bytes(count: int) -> str:
    """Return bytes in the largest binary unit that keeps the number at one or more."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in _BINARY_UNITS:
        # 1023.95 would show as 1024.0 of its unit.
        if size < 1023.95 or unit == _BINARY_UNITS[-1]:
            return f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 file`, `1,234 files`; `many` where an `s` does not do it.

    The words may go on after the noun: `counted(n, "file is", "files are")`.
    """
    return f"{count:,} {one if count == 1 else many if many is not None else one + 's'}"


class _TooLongError(ValueError):
    """A duration above the longest one."""


def parse_duration(text: str) -> timedelta:
    """Return the duration that `90s`, `15m`, `1h30m`, `2d` or `1w` names; a bare number is seconds.

    Raises ValueError for anything else, and above `LONGEST_DURATION`.
    """
    stripped = text.strip()
    if stripped.isascii() and stripped.isdecimal():
        seconds = float(stripped)
    elif _DURATION.fullmatch(stripped) is not None:
        seconds = sum(
            float(number) * _SECONDS[unit.lower()]
            for number, unit in _DURATION_PART.findall(stripped)
        )
    else:
        raise ValueError(f"{text!r} is not a duration; write for example 90s, 15m, 1h30m or 2d")
    if seconds > LONGEST_DURATION.total_seconds():
        raise _TooLongError(f"{text!r} is a longer duration than a thousand years")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Return a duration in its two largest units, such as `3d 4h`, `12m 5s` or `0.4s`."""
    seconds = duration.total_seconds()
    if seconds < 0:
        return "-" + format_duration(-duration)
    if seconds < 10:
        return f"{seconds:.1f}s" if seconds else "0s"
    whole = int(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, whole = divmod(whole, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def parse_instant(text: str, *, now: datetime, zone: tzinfo | None) -> datetime:
    """Return the instant that ISO 8601 text or a duration before `now` names, aware, in UTC.

    `today`, `yesterday` and a weekday, the last one of its name or today, are where that day began.
    An instant without an offset, and a day, are of `zone`; None is this machine's. An age has its
    unit: a bare number could be a date as well. Raises ValueError for anything else.
    """
    stripped = text.strip()
    day = _parse_day(stripped.lower(), now.astimezone(zone).date())
    if day is not None:
        return datetime.combine(day, time(), zone).astimezone(UTC)
    try:
        if not stripped.isdecimal():
            return now - parse_duration(stripped)
    except _TooLongError:
        raise
    except ValueError:
        pass
    try:
        parsed = datetime.fromisoformat(stripped)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=zone)
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither an instant nor an age; write for example "
            "2026-05-04T13:30:00Z, 2026-05-04, yesterday, monday or 2h"
        ) from None


def _parse_day(text: str, today: date) -> date | None:
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    for weekday, name in enumerate(_WEEKDAYS):
        if text in (name, name[:3]):
            return today - timedelta(days=(today.weekday() - weekday) % 7)
    return None


def format_instant(instant: datetime) -> str:
    """Return an aware instant as ISO 8601 in UTC with milliseconds, such as `…T13:30:00.000Z`."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
