"""What `--fix` does about findings: plans all of it first, and says what was fixed in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twobuckets.doctor import remedies
from twobuckets.doctor.stuck import WOKEN
from twobuckets.pipeline.lookups import CouldNotLook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twobuckets.doctor.findings import Finding
    from twobuckets.doctor.remedies import Applied, PlannedFix, Wake
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.stuck import Stuck


@dataclass(frozen=True, slots=True)
class Fixes:
    """What would be done, and the checks whose remedy is applied only when they are named.

    `first` is what keeps the processor from working once it is woken, None where nothing does or
    where it is fixed with the rest.
    """

    planned: tuple[PlannedFix, ...]
    only_by_name: tuple[str, ...]
    first: Finding | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
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
    """Return what to do about findings; `asked` are the checks, or families, that were named.

    Raises AccessError or TwoBucketsError when what was found can't be looked at once more.
    """
    try:
        planned = tuple(remedies.plan(site, findings, stuck, asked, wake))
    except CouldNotLook as reason:
        raise reason.explained from reason
    fixable = {finding.check for finding in findings if finding.fixable}
    unasked = {check for check in fixable - asked if remedies.needs_asking(site, check)}
    checks = {fix.action.check for fix in planned}
    first = stuck.first if stuck is not None and stuck.groups else None
    is_first_left = first is not None and first.check not in checks
    return Fixes(planned, tuple(sorted(unasked)), first if is_first_left else None)


def fixed_by(applied: Sequence[Applied]) -> Fixed:
    """Return what applied remedies add up to."""
    woken = sum(one.done for one in applied if one.check in WOKEN)
    incomplete = {one.check for one in applied if one.failed_count or one.left_count}
    return Fixed(frozenset(one.check for one in applied) - incomplete, woken)
