"""What is wrong with a pipeline, since when, why, and the command that fixes it.

Facts are read in `twobuckets.pipeline`. Modules of checks turn them into findings; nothing but
`remedies` writes.

site           the pipeline under examination: its facts, and the ages from which they are findings
findings       what a finding is, and how bad
stack          checks of the stack that the pipeline came from
function       checks of the processor: its state, settings and role, and where its failures go
wiring         checks of the way from staging to the processor
queues         checks of the queues on that way
buckets        checks of the buckets: private, encrypted, versioned, cleaned up by the right rules
uploads        checks of incomplete multipart uploads
stuck          checks of objects that stay in staging, a finding for each cause
grouping       which objects stay there, grouped by why: the order of the questions
unlogged       why, for those of which the log says nothing
staging        what lies there since when, and which of it is proven to be archived
causes         why objects are stuck, as far as the processor's log tells
fixing         `--fix`: plans all of it first, and says what was fixed in the end
remedies       actions from findings, and their application
configuration  remedies that write configuration of buckets and the function
summary        what a run adds up to
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.doctor import buckets, function, queues, stack, stuck, uploads, wiring
from twobuckets.doctor.findings import Check, Finder, Finding, Severity
from twobuckets.doctor.grouping import examine
from twobuckets.doctor.remedies import FIXABLE
from twobuckets.errors import UsageError
from twobuckets.parallel import begin, map_ordered
from twobuckets.pipeline.console import link_of_subject
from twobuckets.pipeline.lookups import CouldNotLook, Gone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from twobuckets.doctor.site import Site

# Few calls each: what they find stands while staging and the uploads are still listed.
QUICK: Final = (
    *stack.FINDERS,
    *function.FINDERS,
    *wiring.FINDERS,
    *queues.FINDERS,
    *buckets.FINDERS,
)
_FAMILIES: Final = (
    *((finder.family, finder.checks) for finder in QUICK),
    ("stuck", stuck.CHECKS),
    (uploads.FINDER.family, uploads.FINDER.checks),
)

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
    for family, checks in _FAMILIES:
        for check in checks:
            if check.name not in seen:
                seen.add(check.name)
                yield CheckListing(check.name, family, check.name in FIXABLE, check.says)


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


class Diagnosis:
    """One examination of a pipeline by the checks with these ids.

    `stuck` is what lies in staging and why, None where it was not looked at.
    """

    def __init__(self, site: Site, checks: Collection[str]) -> None:
        self.stuck: stuck.Stuck | None = None
        self._site = site
        self._checks = checks
        self._unseen = _Unseen()

    def findings(self) -> Iterator[Finding]:
        """Yield the findings as they are found.

        Makes no call that changes anything. What can't be read becomes a finding of severity
        `unknown` at the end. Raises AccessError when no credentials work at all.
        """
        finders = (
            *QUICK,
            Finder(self._look_into_staging, "stuck", stuck.CHECKS),
            uploads.FINDER,
        )
        quick, long = finders[: len(QUICK)], finders[len(QUICK) :]
        begun = [begin(partial(self._run, finder)) for finder in long]
        ran = itertools.chain(map_ordered(self._run, quick), (ends() for ends in begun))
        try:
            for finder, (findings, stopped) in zip(finders, ran, strict=True):
                yield from findings
                self._note(stopped, finder)
        except BaseException:
            # Whoever stops reading, by Ctrl-C say, does not wait for the end of a listing.
            self._site.is_stopped = True
            raise
        yield from self._unseen.findings()

    def _look_into_staging(self, site: Site) -> Iterator[Finding]:
        self.stuck = examine(site)
        yield from stuck.iter_findings(site, self.stuck)

    def _wanted(self, finder: Finder) -> list[Check]:
        return [check for check in finder.checks if check.name in self._checks]

    def _run(self, finder: Finder) -> tuple[list[Finding], CouldNotLook | None]:
        findings: list[Finding] = []
        if not self._wanted(finder):
            return findings, None
        try:
            for finding in finder(self._site):
                if finding.check in self._checks:
                    # One at a time: what was found is kept when the finder stops half-way.
                    fixable, url = finding.check in FIXABLE, self._console_url(finding.subject)
                    findings.append(replace(finding, fixable=fixable, console_url=url))
        except CouldNotLook as stopped:
            return findings, stopped
        return findings, None

    def _console_url(self, subject: str) -> str | None:
        site = self._site
        if site.aws.custom_endpoint_url is not None:
            return None
        return link_of_subject(subject, site.pipeline, site.aws.region)

    def _note(self, stopped: CouldNotLook | None, finder: Finder) -> None:
        """Keep a check that could not run from passing in silence."""
        if isinstance(stopped, Gone) and stopped.found_by in self._checks:
            return
        if stopped is not None:
            self._unseen.note(stopped, self._wanted(finder))
