"""What a run of doctor adds up to: counts, the age of what lies in staging, the exit status."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.doctor.findings import Finding, Severity
from twobuckets.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# The last class is everything older.
AGE_LIMITS: Final = (
    ("under 5m", timedelta(minutes=5)),
    ("5m to 1h", timedelta(hours=1)),
    ("1h to 6h", timedelta(hours=6)),
    ("6h to 1d", timedelta(days=1)),
    ("1d to 7d", timedelta(days=7)),
    ("over 7d", timedelta.max),
)
_LIMITS: Final = [limit for _, limit in AGE_LIMITS]
_ORDER: Final = (Severity.PROBLEM, Severity.NOTICE, Severity.INFO)


@dataclass(slots=True)
class StagedTotals:
    """What lies in staging: objects by age class, bytes, and how many of them are stuck.

    An object is stuck from the age `stuck_after` on, or once it failed for good.

    Objects of more than `readable_bytes` are `too_large` to be read within the function's time-out;
    `too_large_stuck` of them are stuck, and `largest` is the key of the largest.
    """

    readable_bytes: float = inf
    stuck_after: timedelta | None = None
    count: int = 0
    size_bytes: int = 0
    stuck: int = 0
    stuck_bytes: int = 0
    ages: dict[str, int] = field(default_factory=dict)
    too_large: int = 0
    too_large_stuck: int = 0
    largest: str = ""
    largest_bytes: int = 0

    def add(self, key: str, age: timedelta, size_bytes: int, *, is_stuck: bool) -> None:
        """Count one object."""
        if size_bytes > self.readable_bytes:
            self.too_large += 1
            self.too_large_stuck += is_stuck
            if size_bytes > self.largest_bytes:
                self.largest, self.largest_bytes = key, size_bytes
        label = AGE_LIMITS[bisect_right(_LIMITS, age)][0]
        self.ages[label] = self.ages.get(label, 0) + 1
        self.count += 1
        self.size_bytes += size_bytes
        if is_stuck:
            self.call_stuck(size_bytes)

    def call_under_way(self, size_bytes: int) -> None:
        """Call an object not stuck that is by its age: something works on it."""
        self.stuck -= 1
        self.stuck_bytes -= size_bytes

    def call_stuck(self, size_bytes: int) -> None:
        """Count an object as stuck, by its age or because it failed for good."""
        self.stuck += 1
        self.stuck_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class DoctorSummary:
    """The end of a run: findings by severity and what lies in staging.

    `problems`, `notices` and `unknown` are what is left once `fixed` others were fixed. What
    follows tells of the moment when staging was listed, before anything was fixed, and is None
    when it was not. An object is stuck from the age `stuck_after` on, or once it failed for good.
    `ages` maps a class of age to a number of objects, the youngest first; `causes` the check of a
    finding to the number of stuck objects that it explains, the most first. `checks` are those
    that were asked for by name, none of them for all.
    """

    type_name: ClassVar[str] = "summary"
    findings: int
    problems: int
    notices: int
    unknown: int
    exit_code: int
    staged: int | None
    staged_bytes: int | None
    stuck: int | None
    stuck_bytes: int | None
    ages: Mapping[str, int] | None
    causes: Mapping[str, int] | None
    stuck_after: timedelta | None = None
    checks: tuple[str, ...] = ()
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class FleetFindings:
    """What doctor found at one pipeline of several; `worst` is the first finding of the worst kind.

    `command` shows all of them. `error` is why nothing was found out, null where it was.
    """

    stack: str
    region: str
    problems: int
    notices: int
    unknown: int
    stuck: int | None
    worst: str | None
    command: str
    error: str | None = None


class Tally:
    """Counts findings and says how the run ends."""

    def __init__(self, fail_on: Severity, checks: Collection[str] = ()) -> None:
        self._failing = _ORDER[: _ORDER.index(fail_on) + 1]
        self._checks = tuple(checks)
        self._counts = dict.fromkeys(Severity, 0)
        self._causes: Counter[str] = Counter()
        self._fixed = 0

    def add(self, finding: Finding) -> None:
        """Count one finding."""
        self._counts[finding.severity] += 1
        # What a job works on is not stuck.
        if finding.objects and finding.severity is not Severity.INFO:
            self._causes[finding.check] += finding.count

    def fix(self, finding: Finding) -> None:
        """Count a finding, added before, as fixed: it asks for nothing any more."""
        self._counts[finding.severity] -= 1
        self._fixed += 1

    @property
    def exit_code(self) -> ExitStatus:
        """3 for findings that matter; 5 when there are none but not everything was looked at."""
        if any(self._counts[severity] for severity in self._failing):
            return ExitStatus.ATTENTION
        return ExitStatus.ACCESS if self._counts[Severity.UNKNOWN] else ExitStatus.DONE

    def summary(self, staged: StagedTotals | None) -> DoctorSummary:
        """Return what the run adds up to."""
        seen = staged is not None
        listed = staged if staged is not None else StagedTotals()
        ages = {label: listed.ages[label] for label, _ in AGE_LIMITS if label in listed.ages}
        return DoctorSummary(
            findings=sum(self._counts.values()) + self._fixed,
            problems=self._counts[Severity.PROBLEM],
            notices=self._counts[Severity.NOTICE],
            unknown=self._counts[Severity.UNKNOWN],
            exit_code=self.exit_code,
            staged=listed.count if seen else None,
            staged_bytes=listed.size_bytes if seen else None,
            stuck=listed.stuck if seen else None,
            stuck_bytes=listed.stuck_bytes if seen else None,
            ages=ages if seen else None,
            causes=dict(self._causes.most_common()) if seen else None,
            stuck_after=listed.stuck_after,
            checks=self._checks,
            fixed=self._fixed,
        )


def find_worst(findings: Iterable[Finding]) -> str | None:
    """Return what the first finding of the worst severity says, None without findings."""
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
    return f"{ordered[0].check}: {ordered[0].detail}" if ordered else None
