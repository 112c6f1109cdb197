"""Remedies that write configuration of buckets and the function.

S3 and Lambda replace a configuration as a whole, so each is read again, merged and written: what
somebody else put there stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning
from twobuckets.doctor import buckets, function
from twobuckets.pipeline import cors, notifications
from twobuckets.pipeline.buckets import LEAST_TRANSITION_SIZE
from twobuckets.pipeline.function import variables_in
from twobuckets.pipeline.lifecycle import OUR_RULES

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

    def run() -> None:
        with attempt(f"write the notification of {site.staging}"):
            s3 = site.aws.s3
            current: dict[str, Any] = dict(
                s3.get_bucket_notification_configuration(Bucket=site.staging)
            )
            current.pop("ResponseMetadata", None)
            if not _complete(
                current, frozenset(route.target_arn for route in site.facts.routes_to_function())
            ):
                mine = {"Id": "twobuckets", "LambdaFunctionArn": function_arn}
                current.setdefault("LambdaFunctionConfigurations", []).append(
                    mine | {"Events": [notifications.CREATED]}
                )
            s3.put_bucket_notification_configuration(
                Bucket=site.staging,
                NotificationConfiguration=current,  # type: ignore[arg-type]
            )

    says = f"notify {function_arn} of every new object; filters and other configurations stay"
    return SettingChange(says, run)


def _complete(notification: dict[str, Any], targets: Collection[str]) -> bool:
    """Make the configurations that lead to `targets` tell of every arrival; False if none does.

    Their filters stay: what they leave out may be meant. S3 takes no two configurations that tell
    of one event for keys that both filters admit (S3 user guide, "Configuring event notifications
    using object key name filtering"), so beside others only what is missing is added, and once.
    """
    arrivals = [
        (configuration, notifications.route_of(configuration, target))
        for kind, target in notifications.TARGETS
        for configuration in filter(notifications.is_about_arrivals, notification.get(kind, []))
    ]
    ours = [pair for pair in arrivals if pair[1].target_arn in targets]
    missing = notifications.missing_events(route for _, route in ours)
    if not missing:
        return bool(ours)
    completed: list[notifications.Route] = []
    # The widest filter first, for what the others admit is in it.
    for configuration, route in sorted(ours, key=lambda pair: len(pair[1].prefix + pair[1].suffix)):
        if any(route.overlaps(other) for other in completed):
            continue
        events = configuration["Events"]
        if any(route.overlaps(other) for _, other in arrivals if other is not route):
            configuration["Events"] = [*events, *missing]
        else:
            others = [event for event in events if "ObjectCreated" not in event]
            configuration["Events"] = [*others, notifications.CREATED]
        completed.append(route)
    return bool(ours)


def _let_s3_call(site: Site, _subject: str) -> SettingChange:
    account = str(site.function.configuration()["FunctionArn"]).split(":")[4]
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
    days = site.settings.abort_incomplete_uploads_days
    part = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days}}
    return _add_rule(
        site,
        subject,
        f"abort incomplete uploads after {_days(days)}",
        {"ID": f"{OUR_RULES}abort-incomplete-uploads", **part},
    )


def _expire_versions(site: Site, subject: str) -> SettingChange:
    days = site.settings.noncurrent_version_days
    part = {
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return _add_rule(
        site,
        subject,
        f"expire noncurrent versions after {_days(days)}",
        {"ID": f"{OUR_RULES}expire-noncurrent-versions", **part},
    )


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count:,} days"


def _add_rule(site: Site, subject: str, says: str, part: dict[str, Any]) -> SettingChange:
    bucket = subject.removeprefix("s3://")
    rule: dict[str, Any] = {"Status": "Enabled", "Filter": {"Prefix": ""}, **part}

    def run() -> None:
        with attempt(f"write the lifecycle rules of {bucket}"):
            s3 = site.aws.s3
            current: Any = {}
            try:
                current = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
            except ClientError as error:
                if meaning(error) is not Meaning.NOT_CONFIGURED:
                    raise
            others = [r for r in current.get("Rules", []) if r.get("ID") != rule["ID"]]
            rules: Any = [*map(buckets.with_filter, others), rule]
            # Written without it, S3 falls back to its own least size for transitions.
            least = {k: v for k, v in current.items() if k == LEAST_TRANSITION_SIZE}
            s3.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": rules}, **least
            )

    return SettingChange(f"{says}; other rules stay", run)


def _allow_origins(site: Site, _subject: str) -> SettingChange:
    origins = site.settings.cors_origins
    mine = cors.rule_for(origins)

    def with_mine(rules: list[Any]) -> list[Any]:
        return [mine, *(rule for rule in rules if rule.get("ID") != mine["ID"])]

    says = f"let pages from {', '.join(origins)} upload; other rules stay"
    return SettingChange(says, lambda: _rewrite_cors(site, with_mine))


def _expose_etag(site: Site, _subject: str) -> SettingChange:
    def with_etag(rule: dict[str, Any]) -> dict[str, Any]:
        if not cors.hides_etag(rule):
            return rule
        return rule | {"ExposeHeaders": [*rule.get("ExposeHeaders", []), "ETag"]}

    return SettingChange(
        "expose ETag where PUT is allowed",
        lambda: _rewrite_cors(site, lambda rules: [with_etag(rule) for rule in rules]),
    )


def _rewrite_cors(site: Site, change: Callable[[list[Any]], list[Any]]) -> None:
    with attempt(f"write the CORS rules of {site.staging}"):
        s3 = site.aws.s3
        rules: list[Any] = []
        try:
            rules = list(s3.get_bucket_cors(Bucket=site.staging)["CORSRules"])
        except ClientError as error:
            if meaning(error) is not Meaning.NOT_CONFIGURED:
                raise
        s3.put_bucket_cors(Bucket=site.staging, CORSConfiguration={"CORSRules": change(rules)})


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
}
"""What fixes a finding, given its subject, by the finding's check, in the order to apply it.

S3 tries the permission when a notification is written.
"""
