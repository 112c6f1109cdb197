"""The stack that the pipeline came from. Rules: CloudFormation user guide, "Stack status codes"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.pipeline.entries import Ids
from twobuckets.text import shell_word
from twobuckets.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twobuckets.doctor.site import Site


@finder("stack", Check("stack-missing", "The stack does not exist."))
def find_missing_stack(site: Site) -> Iterator[Finding]:
    """Yield a finding when a stack is named and does not exist."""
    if site.pipeline.stack is not None and site.stack.description() is None:
        yield Finding(
            check="stack-missing",
            severity=Severity.PROBLEM,
            subject=site.pipeline.stack,
            detail="There is no stack of this name in this account and region.",
            remedy=f"{site.program} deploy",
        )


@finder("stack", Check("stack-state", "The stack is in a failed or unfinished state."))
def find_stack_state(site: Site) -> Iterator[Finding]:
    """Yield a finding when the stack's last operation failed or goes on."""
    stack = site.stack.description()
    if stack is None:
        return
    status = str(stack["StackStatus"])
    if status.endswith("_COMPLETE") and status != "ROLLBACK_COMPLETE":
        # UPDATE_ROLLBACK_COMPLETE too: the stack is what it was before the failed update.
        return
    busy = status.endswith("_IN_PROGRESS")
    yield Finding(
        check="stack-state",
        severity=Severity.NOTICE if busy else Severity.PROBLEM,
        subject=str(stack["StackName"]),
        detail=f"The stack is {status}"
        + (f": {stack['StackStatusReason']}" if stack.get("StackStatusReason") else "")
        + ("; what doctor finds may change until the operation is over." if busy else "."),
        remedy=f"{site.aws_cli} cloudformation describe-stack-events "
        f"--stack-name {shell_word(str(stack['StackName']))}",
    )


@finder("stack", Check("stack-drift", "Resources were changed behind CloudFormation's back."))
def find_drift(site: Site) -> Iterator[Finding]:
    """Yield a finding for what CloudFormation found drifted when it last compared."""
    stack = site.stack.description()
    if stack is None or stack.get("DriftInformation", {}).get("StackDriftStatus") != "DRIFTED":
        return
    checked_at = stack["DriftInformation"].get("LastCheckTimestamp", site.now)
    rule_id = Ids(str(stack["StackName"])).page
    drifts = [d for d in site.stack.drifted_resources() if not _is_page_rule(d, rule_id)]
    if not drifts and _has_page(stack):
        return
    named = [f"{d['LogicalResourceId']} ({d['StackResourceDriftStatus'].lower()})" for d in drifts]
    yield Finding(
        check="stack-drift",
        severity=Severity.NOTICE,
        subject=str(stack["StackName"]),
        detail=f"CloudFormation compared {format_duration(site.now - checked_at)} ago and found "
        f"changes made outside the stack: {', '.join(named) or 'not named'}.",
        remedy=f"{site.aws_cli} cloudformation detect-stack-drift "
        f"--stack-name {shell_word(str(stack['StackName']))}",
        count=max(1, len(named)),
    )


def _has_page(stack: Mapping[str, Any]) -> bool:
    return any(output["OutputKey"] == "PageUrl" for output in stack.get("Outputs", []))


def _is_page_rule(drift: Mapping[str, Any], rule_id: str) -> bool:
    """Tell whether all that a resource drifted by is the rule that `deploy` writes for the page."""
    differences = drift.get("PropertyDifferences", [])
    return bool(differences) and all(
        difference["DifferenceType"] == "ADD"
        and difference["PropertyPath"].startswith("/CorsConfiguration/CorsRules/")
        and rule_id in difference["ActualValue"]
        for difference in differences
    )


FINDERS: Final = (find_missing_stack, find_stack_state, find_drift)
