"""What doctor reports: findings, how bad each is, and the command that fixes it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from twobuckets.doctor.site import Site


class Severity(enum.StrEnum):
    """How much a finding matters, the worst first."""

    PROBLEM = "problem"
    """Files are stuck, lost or exposed, or will be."""
    NOTICE = "notice"
    """Works today; costs money, hides failures or will break."""
    UNKNOWN = "unknown"
    """The check could not run: neither a finding nor a pass."""
    INFO = "info"
    """A fact that asks for nothing, beside other findings often their explanation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that doctor found.

    `check` is the stable id. `subject` is what it is about, such as `s3://bucket`; `detail` says
    what is wrong and why in one or more sentences. `remedy` is a command to paste, None where a
    person has to decide. Findings about objects count them: `count`, `size_bytes`, the arrival of
    the oldest, a few keys as examples, and of stuck objects all keys, as `reprocess --from-file`
    reads them. `error` is what the objects of one finding have in common.
    `permission` is the IAM action that an unknown finding lacks.
    """

    check: str
    severity: Severity
    subject: str
    detail: str
    remedy: str | None = None
    fixable: bool = False
    """Whether `--fix` fixes it: told by `remedies`, whatever finds it."""
    count: int = 1
    size_bytes: int | None = None
    cost_month_usd: float | None = None
    oldest_at: datetime | None = None
    examples: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    error: str | None = None
    permission: str | None = None
    console_url: str | None = None
    """Where AWS's console shows the subject; None on other endpoints, and where it has no page."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that doctor looks for: `name` is the id of its findings, `says` their meaning."""

    name: str
    says: str


class Finder:
    """A function that yields findings of one or several checks from what it reads of a site."""

    __slots__ = ("_find", "checks", "family")

    def __init__(self, find: Find, family: str, checks: tuple[Check, ...]) -> None:
        self._find = find
        self.family = family
        self.checks = checks

    def __call__(self, site: Site) -> Iterator[Finding]:
        """Yield the findings, of declared checks only. Raises CouldNotLook."""
        declared = {check.name for check in self.checks}
        for finding in self._find(site):
            # `--check` would not run the finder for others.
            assert finding.check in declared, finding.check
            yield finding


if TYPE_CHECKING:
    from collections.abc import Callable

    Find = Callable[[Site], Iterator[Finding]]


def finder(family: str, *checks: Check) -> Callable[[Find], Finder]:
    """Make a function of a site the finder of these checks."""
    return lambda find: Finder(find, family, checks)
