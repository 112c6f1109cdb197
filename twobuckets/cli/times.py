"""How instants are written for a person: in UTC with `Z`, or with `--local` in this machine's zone.

JSON has UTC always.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from datetime import UTC
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# Views are functions of records alone; the zone is the one thing that a whole run has in common.
_IS_LOCAL: Final = ContextVar("_IS_LOCAL", default=False)


@contextlib.contextmanager
def local_times(is_local: bool) -> Iterator[None]:
    """Have instants written in this machine's zone for as long as the body takes, or in UTC."""
    token = _IS_LOCAL.set(is_local)
    try:
        yield
    finally:
        _IS_LOCAL.reset(token)


def shown(instant: datetime, *, precision: str = "seconds") -> str:
    """Return an aware instant such as `2026-05-04 13:30:00Z`, or `… 15:30:00+02:00`.

    `precision` is one of `datetime.isoformat`. What is shown can be given to --since.
    """
    # Without a zone it is this machine's as it was at that instant: half a year ago, an hour off.
    if _IS_LOCAL.get():
        return instant.astimezone().isoformat(" ", precision)
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(" ", precision) + "Z"
