"""What `--fix` does about findings: plans all of it first, and says what was mended in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twobuckets.doctor import remedies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twobuckets.doctor.findings import Finding
    from twobuckets.doctor.remedies import Applied, PlannedFix, Wake
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.stuck import Stuck


@dataclass(frozen=True, slots=True)
class Fixes:
    """What would be done, and the checks whose remedy is applied only when they are named."""

    planned: tuple[PlannedFix, ...]
    only_by_name: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mended:
    """The checks of which nothing is left, and for how many objects the processor was woken."""

    checks: frozenset[str]
    woken: int


def plan_fixes(
    site: Site,
    findings: Sequence[Finding],
    stuck: Stuck | None,
    asked: frozenset[str],
    wake: Wake,
) -> Fixes:
    """Return what to do about findings; `asked` are the checks, or families, that were named."""
    planned = tuple(remedies.plan(site, findings, stuck, asked, wake))
    fixable = {finding.check for finding in findings if finding.fixable}
    unasked = {check for check in fixable - asked if remedies.needs_asking(site, check)}
    return Fixes(planned, tuple(sorted(unasked)))


def mended_by(applied: Sequence[Applied]) -> Mended:
    """Return what applied remedies add up to."""
    woken = sum(one.done for one in applied if one.check in remedies.WOKEN)
    incomplete = {one.check for one in applied if one.failed_count or one.left_count}
    return Mended(frozenset(one.check for one in applied) - incomplete, woken)
