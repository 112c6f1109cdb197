"""What lifecycle rules of a bucket apply to, and when they clear an incomplete upload."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


OUR_RULES: Final = "twobuckets-"
"""What the ids of our lifecycle and CORS rules begin with, the template's among them."""

_FROZEN: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def covers_everything(rule: Mapping[str, Any]) -> bool:
    """Tell whether an enabled lifecycle rule applies to every key of its bucket."""
    if rule.get("Status") != "Enabled":
        return False
    return not rule.get("Prefix") and not any(rule.get("Filter", {}).values())


def aborts_uploads(rules: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether lifecycle rules abort every incomplete multipart upload some day."""
    return any(covers_everything(r) and r.get("AbortIncompleteMultipartUpload") for r in rules)


def expires_versions(rules: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether lifecycle rules remove every noncurrent version some day."""
    return any(covers_everything(r) and r.get("NoncurrentVersionExpiration") for r in rules)


def expires_markers(rules: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether lifecycle rules remove every delete marker under which no version is left.

    A rule that expires objects by days does it as well (S3 user guide, "Lifecycle configuration
    elements", ExpiredObjectDeleteMarker).
    """
    return any(
        covers_everything(r)
        and (
            r.get("Expiration", {}).get("ExpiredObjectDeleteMarker")
            or "Days" in r.get("Expiration", {})
        )
        for r in rules
    )


def harm_to_files(rule: Mapping[str, Any]) -> str | None:
    """Return what a rule of the staging bucket does to files that wait there; None for nothing."""
    if rule.get("Status") != "Enabled":
        return None
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        when = f"after {expiration['Days']} days" if "Days" in expiration else "on a date"
        return f"deletes files {when}, whether they were processed or not"
    if _FROZEN & {t.get("StorageClass") for t in rule.get("Transitions", [])}:
        return "moves files to Glacier, where the processor can't read them"
    return None


def days_until(rules: Iterable[Mapping[str, Any]], action: str, unit: str) -> int | None:
    """Return the fewest days after which a rule for the whole bucket does something, if any does.

    `action` and `unit` are S3's names, such as `NoncurrentVersionExpiration` and `NoncurrentDays`.
    """
    found = [
        int(rule[action][unit])
        for rule in rules
        if covers_everything(rule) and unit in rule.get(action, {})
    ]
    return min(found, default=None)


class Clearing(enum.StrEnum):
    """What is known of the end of an incomplete multipart upload that nobody completes."""

    BY_RULE = "rule"
    """A lifecycle rule aborts it."""
    NONE = "none"
    """No lifecycle rule aborts it: its parts stay, and are paid, until somebody does."""
    UNKNOWN = "unknown"
    """S3 names no rule, and the bucket's rules could not be read."""
    NOT_HERE = "not-here"
    """The embedded AWS keeps lifecycle rules and runs none of them."""


class UploadEnd(NamedTuple):
    """How an incomplete upload ends, and the instant where a rule ends it."""

    clearing: Clearing
    at: datetime | None = None


def end_of_upload(
    key: str,
    initiated_at: datetime,
    *,
    told_at: datetime | None,
    rules: Iterable[Mapping[str, Any]] | None,
    runs_rules: bool,
) -> UploadEnd:
    """Return how an incomplete upload of a key ends.

    `told_at` is what S3 says in its answers about the upload. That it says nothing does not mean
    that there is no rule: then the bucket's `rules` tell, None of them where they could not be
    read. `runs_rules` is false of an S3 that runs none. A rule's time is the next midnight in UTC
    after its days are over (S3 user guide, "Lifecycle configuration elements").
    """
    if not runs_rules:
        return UploadEnd(Clearing.NOT_HERE)
    if told_at is not None:
        return UploadEnd(Clearing.BY_RULE, told_at)
    if rules is None:
        return UploadEnd(Clearing.UNKNOWN)
    days = [
        int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
        for rule in rules
        if rule.get("Status") == "Enabled"
        and "DaysAfterInitiation" in rule.get("AbortIncompleteMultipartUpload", {})
        and key.startswith(_prefix_of(rule))
    ]
    if not days:
        return UploadEnd(Clearing.NONE)
    return UploadEnd(Clearing.BY_RULE, _midnight_after(initiated_at, min(days)))


def end_of_noncurrent(
    rules: Iterable[Mapping[str, Any]], key: str, noncurrent_at: datetime
) -> datetime | None:
    """Return when rules remove a version of a key that is noncurrent since an instant, if any do.

    Rules that choose by tags or sizes, or keep a number of versions, are left out.
    """
    days = [
        int(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        for rule in rules
        if rule.get("Status") == "Enabled"
        and rule.get("NoncurrentVersionExpiration", {}).keys() == {"NoncurrentDays"}
        and not (rule.get("Filter") or {}).keys() - {"Prefix"}
        and key.startswith(_prefix_of(rule))
    ]
    return _midnight_after(noncurrent_at, min(days)) if days else None


def _midnight_after(instant: datetime, days: int) -> datetime:
    over_at = instant.astimezone(UTC) + timedelta(days=days)
    midnight = over_at.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=midnight != over_at)


def _prefix_of(rule: Mapping[str, Any]) -> str:
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or {}
    return str(rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or "")
