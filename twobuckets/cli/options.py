"""Parameter types that turn text into values at the edge, and options that commands share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from twobuckets import units
from twobuckets.cli import completes

if TYPE_CHECKING:
    from collections.abc import Callable


class _Parsed(click.ParamType[Any]):
    """Turns an option's text into a value with one of the functions of `units`."""

    def __init__(self, name: str, parse: Callable[[str], Any], value_type: type) -> None:
        self.name = name
        self._parse = parse
        self._value_type = value_type

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or fail with the parser's own words."""
        if isinstance(value, self._value_type):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Instant(datetime):
    """An instant that knows in which words it was asked for, such as "2h"."""

    said: str = ""


def _parse_instant(text: str) -> Instant:
    # Times are read as they are shown; global options are parsed before the others.
    app = click.get_current_context().find_root().obj
    zone = None if app is not None and app.local_times else UTC
    parsed = units.parse_instant(text, now=datetime.now(UTC), zone=zone)
    instant = Instant.fromisoformat(parsed.isoformat())
    instant.said = text
    return instant


SIZE: Final = _Parsed("size", units.parse_bytes, int)
DURATION: Final = _Parsed("duration", units.parse_duration, timedelta)
INSTANT: Final = _Parsed("instant", _parse_instant, datetime)


def _parse_bucket(text: str) -> str:
    from twobuckets.settings import parse_bucket

    try:
        return parse_bucket(text)
    except ValueError as error:
        raise ValueError(f"{text!r} must be {error}") from None


# Of no type that click hands over: each is looked at.
BUCKET: Final = _Parsed("name", _parse_bucket, tuple)


def _parse_range(text: str) -> Any:
    from twobuckets.pipeline.reading import parse_range

    return parse_range(text)


RANGE: Final = _Parsed("range", _parse_range, tuple)

place_option: Final = click.option(
    "--in",
    "place",
    type=click.Choice(["staging", "archive"]),
    help="Look only there.  [default: staging, then the archive]",
)
version_option: Final = click.option(
    "--version-id", metavar="ID", help="This version.  [default: the current one]"
)
yes_option: Final = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option: Final = click.option(
    "--dry-run", is_flag=True, help="Show the plan and change nothing."
)
failed_to_option: Final = click.option(
    "--failed-to",
    metavar="FILE",
    help="Write what failed to FILE, for --from-file.",
    shell_complete=completes("files"),
)
