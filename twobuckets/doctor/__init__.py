"""What is wrong with a pipeline, since when, why, and the command that mends it.

`site` is the pipeline under examination, of which `twobuckets.pipeline` reads the facts; `stack`,
`function`, `wiring`, `buckets`, `uploads` and `stuck` turn facts into findings; `remedies` plans
and applies what `--fix` may mend: objects and uploads itself, settings by `configuration`. Nothing
else writes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.doctor import buckets, function, stack, stuck, uploads, wiring
from twobuckets.doctor.findings import Check, Finding, Severity
from twobuckets.doctor.remedies import FIXABLE
from twobuckets.errors import UsageError
from twobuckets.parallel import begin, map_ordered
from twobuckets.pipeline.lookups import CouldNotLook, Gone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from twobuckets.doctor.findings import Finder
    from twobuckets.doctor.site import Site

# Few calls each: what they find stands while staging and the uploads are still listed.
_QUICK: Final = (*stack.FINDERS, *function.FINDERS, *wiring.FINDERS, *buckets.FINDERS)
_LONG: Final = (stuck.FINDER, uploads.FINDER)
FINDERS: Final = (*_QUICK, *_LONG)

COULD_NOT_LOOK: Final = "could-not-look"
"""The id of the findings that say which checks could not run."""


@dataclass(frozen=True, slots=True)
class CheckListing:
    """One check as `--list-checks` shows it."""

    name: str
    family: str
    fixable: bool
    says: str


@dataclass(frozen=True, slots=True)
class ChecksSummary:
    """The end of a list of checks: how many there are."""

    type_name: ClassVar[str] = "summary"
    checks: int


def list_checks() -> Iterator[CheckListing]:
    """Yield every check by family."""
    seen = set()
    for finder in FINDERS:
        for check in finder.checks:
            if check.name not in seen:
                seen.add(check.name)
                is_fixable = check.name in FIXABLE
                yield CheckListing(check.name, finder.family, is_fixable, check.says)


def select_checks(names: Collection[str]) -> frozenset[str]:
    """Return the ids of the checks that names of checks or families mean; all for no names.

    Raises UsageError for a name that is neither.
    """
    checks = list(list_checks())
    if not names:
        return frozenset(check.name for check in checks)
    selected = set()
    for name in names:
        meant = {check.name for check in checks if name in (check.name, check.family)}
        if not meant:
            import difflib

            known = [c.name for c in checks] + sorted({c.family for c in checks})
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"There is no check {name}",
                hint=f"Did you mean {near[0]}?" if near else "--list-checks shows them all.",
            )
        selected |= meant
    return frozenset(selected)


@dataclass(slots=True)
class _Unseen:
    """What could not be read, and the checks that it blocks."""

    reasons: dict[str, CouldNotLook] = field(default_factory=dict)
    blocked: dict[str, list[str]] = field(default_factory=dict)

    def note(self, reason: CouldNotLook, checks: Sequence[Check]) -> None:
        """Remember that checks could not run for a reason."""
        self.reasons.setdefault(str(reason), reason)
        self.blocked.setdefault(str(reason), []).extend(check.name for check in checks)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding for each thing that could not be read."""
        for text, reason in self.reasons.items():
            checks = ", ".join(dict.fromkeys(self.blocked[text]))
            needs = f" This needs {reason.permission}." if reason.permission else ""
            yield Finding(
                check=COULD_NOT_LOOK,
                severity=Severity.UNKNOWN,
                subject=reason.what,
                detail=f"{text}.{needs} Not checked: {checks}.",
                permission=reason.permission,
            )


def diagnose(site: Site, checks: Collection[str]) -> Iterator[Finding]:
    """Yield the findings of the checks with these ids, as they are found.

    Makes no call that changes anything. What can't be read becomes a finding of severity
    `unknown` at the end. Raises AccessError when no credentials work at all.
    """
    unseen = _Unseen()
    long = [begin(partial(_run, finder, site, checks)) for finder in _LONG]
    quick = map_ordered(lambda finder: _run(finder, site, checks), _QUICK)
    try:
        for finder, (findings, stopped) in zip(
            FINDERS, itertools.chain(quick, (ran() for ran in long)), strict=True
        ):
            yield from findings
            _note(stopped, finder, checks, unseen)
    except BaseException:
        # Whoever stops reading, by Ctrl-C say, does not wait for the end of a listing.
        site.is_stopped = True
        raise
    yield from unseen.findings()


def _wanted(finder: Finder, checks: Collection[str]) -> list[Check]:
    return [check for check in finder.checks if check.name in checks]


def _run(
    finder: Finder, site: Site, checks: Collection[str]
) -> tuple[list[Finding], CouldNotLook | None]:
    findings: list[Finding] = []
    if not _wanted(finder, checks):
        return findings, None
    try:
        for finding in finder(site):
            if finding.check in checks:
                fixable = finding.check in FIXABLE
                # One at a time: what was found is kept when the finder stops half-way.
                findings.append(replace(finding, fixable=fixable))
    except CouldNotLook as stopped:
        return findings, stopped
    return findings, None


def _note(
    stopped: CouldNotLook | None,
    finder: Finder,
    checks: Collection[str],
    unseen: _Unseen,
) -> None:
    """Keep a check that could not run from passing in silence."""
    if isinstance(stopped, Gone) and stopped.found_by in checks:
        return
    if stopped is not None:
        unseen.note(stopped, _wanted(finder, checks))
