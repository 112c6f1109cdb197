"""Remedies that write configuration of buckets and the function.

S3 and Lambda replace a configuration as a whole, so each is read again, merged and written: what
somebody else put there stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.aws import ClientError, attempt, error_code
from twobuckets.doctor import function
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline import cors, notifications
from twobuckets.pipeline.entries import (
    CORS,
    KIND,
    LIFECYCLE,
    NOTIFICATION,
    Document,
    Entry,
    Ids,
    aborting_rule,
    change,
    expiring_rule,
    without,
)
from twobuckets.pipeline.function import variables_in
from twobuckets.pipeline.redriving import Redriver, count_dead_letters

if TYPE_CHECKING:
    from twobuckets.doctor.site import Site


class SettingChange(NamedTuple):
    """A change of configuration: what it does in words, and the function that makes it.

    `run` raises TwoBucketsError, and CouldNotLook where it can't tell what would be lost.
    """

    says: str
    run: Callable[[], None]


def _notify(site: Site, _subject: str) -> SettingChange:
    function_arn = site.function.arn
    mine = {
        KIND: "LambdaFunctionConfigurations",
        "Id": _ids(site, site.staging).arrivals,
        "LambdaFunctionArn": function_arn,
        "Events": [notifications.CREATED],
    }

    def with_arrivals(present: list[Entry]) -> list[Entry]:
        # Ours as well, which was not there when the facts were read.
        routes = site.facts.routes_to_function()
        completed = _complete(present, {function_arn, *(route.target_arn for route in routes)})
        return [*present, mine] if completed is None else completed

    says = f"notify {function_arn} of every new object; filters and other configurations stay"
    return SettingChange(says, lambda: _change(site, site.staging, NOTIFICATION, with_arrivals))


def _complete(present: list[Entry], targets: Collection[str]) -> list[Entry] | None:
    """Return the configurations with those to `targets` telling of every arrival; None without one.

    Their filters stay: what they leave out may be meant. S3 takes no two configurations that tell
    of one event for keys that both filters admit (S3 user guide, "Configuring event notifications
    using object key name filtering"), so beside others only what is missing is added, and once.
    """
    members = dict(notifications.TARGETS)
    entries = [dict(entry) for entry in present]
    arrivals = [
        (entry, notifications.route_of(entry, members[entry[KIND]]))
        for entry in filter(notifications.is_about_arrivals, entries)
    ]
    ours = [pair for pair in arrivals if pair[1].target_arn in targets]
    missing = notifications.missing_events(route for _, route in ours)
    if not ours:
        return None
    if not missing:
        return entries
    completed: list[notifications.Route] = []
    # The widest filter first, for what the others admit is in it.
    for entry, route in sorted(ours, key=lambda pair: len(pair[1].prefix + pair[1].suffix)):
        if any(route.overlaps(other) for other in completed):
            continue
        events = entry["Events"]
        if any(route.overlaps(other) for _, other in arrivals if other is not route):
            entry["Events"] = [*events, *missing]
        else:
            others = [event for event in events if "ObjectCreated" not in event]
            entry["Events"] = [*others, notifications.CREATED]
        completed.append(route)
    return entries


def _let_s3_call(site: Site, _subject: str) -> SettingChange:
    account = site.function.home.account
    source_arn = f"arn:{site.facts.partition}:s3:::{site.staging}"
    digest = hashlib.sha256(f"{source_arn} {account}".encode()).hexdigest()[:8]

    def run() -> None:
        request: dict[str, Any] = {
            "FunctionName": site.function.name,
            "StatementId": f"twobuckets-{site.staging.replace('.', '-')}-{digest}",
            "Action": "lambda:InvokeFunction",
            "Principal": "s3.amazonaws.com",
            "SourceArn": source_arn,
            "SourceAccount": account,
        }
        if site.function.qualifier is not None:
            request["Qualifier"] = site.function.qualifier
        with attempt(f"let S3 call {site.function.name}"):
            try:
                site.aws.functions.add_permission(**request)
            except ClientError as error:
                # The id is made from what the statement says: somebody was faster.
                if error_code(error) != "ResourceConflictException":
                    raise

    return SettingChange(f"let S3 call it for s3://{site.staging}", run)


def _clear_uploads(site: Site, subject: str) -> SettingChange:
    bucket, days = subject.removeprefix("s3://"), site.settings.abort_incomplete_uploads_days
    rule = aborting_rule(_ids(site, bucket).uploads_end, days)
    return _add_rule(site, bucket, f"abort incomplete uploads after {_days(days)}", rule)


def _expire_versions(site: Site, subject: str) -> SettingChange:
    bucket, days = subject.removeprefix("s3://"), site.settings.noncurrent_version_days
    rule = expiring_rule(_ids(site, bucket).versions_end, days)
    return _add_rule(site, bucket, f"expire noncurrent versions after {_days(days)}", rule)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count:,} days"


def _add_rule(site: Site, bucket: str, says: str, rule: Entry) -> SettingChange:
    def with_rule(present: list[Entry]) -> list[Entry]:
        return [*without(LIFECYCLE, present, {rule["ID"]}), rule]

    says = f"{says}; other rules stay"
    return SettingChange(says, lambda: _change(site, bucket, LIFECYCLE, with_rule))


def _allow_origins(site: Site, _subject: str) -> SettingChange:
    origins = site.settings.cors_origins
    mine = cors.rule_for(origins, _ids(site, site.staging).cors)

    def with_mine(present: list[Entry]) -> list[Entry]:
        return [mine, *without(CORS, present, {mine["ID"]})]

    says = f"let pages from {', '.join(origins)} upload; other rules stay"
    return SettingChange(says, lambda: _change(site, site.staging, CORS, with_mine))


def _expose_etag(site: Site, _subject: str) -> SettingChange:
    def with_etag(rule: Entry) -> Entry:
        if not cors.hides_etag(rule):
            return rule
        return rule | {"ExposeHeaders": [*rule.get("ExposeHeaders", []), "ETag"]}

    return SettingChange(
        "expose ETag where PUT is allowed",
        lambda: _change(site, site.staging, CORS, lambda rules: [with_etag(r) for r in rules]),
    )


def _ids(site: Site, bucket: str) -> Ids:
    """Return the ids of our entries there; on a bucket that the stack did not make, the stack's."""
    return Ids(site.pipeline.stack if bucket in site.stack.existing_buckets() else None)


def _change(
    site: Site, bucket: str, document: Document, edit: Callable[[list[Entry]], list[Entry]]
) -> None:
    change(site.aws.s3, bucket, document, edit, sleep=site.sleep)


def _name_archive(site: Site, _subject: str) -> SettingChange:
    def run() -> None:
        with attempt(f"write the environment of {site.function.name}"):
            functions = site.aws.functions
            current = functions.get_function_configuration(FunctionName=site.function.name)
            variables = dict(variables_in(current))
            for name in function.archive_variables(variables, is_ours=site.function.is_ours):
                variables[name] = site.archive
            # The revision keeps somebody else's change of the same moment; emulators have none.
            revision: Any = {k: v for k, v in current.items() if k == "RevisionId"}
            functions.update_function_configuration(
                FunctionName=site.function.name, Environment={"Variables": variables}, **revision
            )

    return SettingChange(f"name {site.archive} as the archive bucket; other variables stay", run)


def _switch_on(site: Site, _subject: str) -> SettingChange:
    def run() -> None:
        with attempt(f"take the reserved concurrency of {site.function.name} away"):
            site.aws.functions.delete_function_concurrency(FunctionName=site.function.name)

    return SettingChange("switch the function on: take its reserved concurrency of 0 away", run)


def _redrive(site: Site, subject: str) -> SettingChange:
    def run() -> None:
        redriver = Redriver(site.facts, site.sleep)
        left = sum(done.left for done in redriver.redrive(count_dead_letters(site.facts, subject)))
        if left:
            raise TwoBucketsError(f"{left:,} are none of the function's, and stay")

    return SettingChange("move the messages back to where they came from", run)


CHANGES: Final[dict[str, Callable[[Site, str], SettingChange]]] = {
    "environment-archive": _name_archive,
    "concurrency-zero": _switch_on,
    "permission-missing": _let_s3_call,
    "notification-missing": _notify,
    "notification-events": _notify,
    "lifecycle-uploads": _clear_uploads,
    "lifecycle-versions": _expire_versions,
    "cors-missing": _allow_origins,
    "cors-etag": _expose_etag,
    "failure-queue": _redrive,
}
"""What fixes a finding, given its subject, by the finding's check, in the order to apply it.

S3 tries the permission when a notification is written.
"""
