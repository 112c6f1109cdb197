"""What lifecycle rules of a bucket apply to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


OUR_RULES: Final = "twobuckets-"
"""What the ids of our lifecycle and CORS rules begin with, the template's among them."""


def covers_everything(rule: Mapping[str, Any]) -> bool:
    """Tell whether an enabled lifecycle rule applies to every key of its bucket."""
    if rule.get("Status") != "Enabled":
        return False
    return not rule.get("Prefix") and not any(rule.get("Filter", {}).values())


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
