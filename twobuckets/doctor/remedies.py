"""What `--fix` does: plans actions from findings, and applies them. The only writer of the room.

Rules that every action keeps: configurations that replace everything are read again, merged and
written, so that a foreign rule stays; a staged object is deleted only when the archive is proven,
at that moment, to hold exactly its version, and only that version of it, and nothing older comes to
light under it; an upload is aborted only when its parts are what they were when the plan was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from twobuckets.aws import ClientError, attempt, error_code
from twobuckets.doctor import buckets, function, uploads, wiring
from twobuckets.doctor.facts.function import variables_in
from twobuckets.doctor.facts.lookups import CouldNotLook, Gone
from twobuckets.doctor.staging import is_archived
from twobuckets.errors import TwoBucketsError
from twobuckets.parallel import map_unordered

if TYPE_CHECKING:
    from twobuckets.doctor.findings import Finding
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.staging import StagedObject
    from twobuckets.s3.answers import ListedUpload
    from twobuckets.s3.uploads import IncompleteUpload

Wake = Callable[["StagedObject"], None]
"""Asks the processor, asynchronously, for exactly one staged version. Raises TwoBucketsError."""

RULE_PREFIX: Final = "twobuckets-"
_ABORT_DAYS: Final = 7
_NONCURRENT_DAYS: Final = 30
_ABORT_TRIES: Final = 5
_CONFLICTS: Final = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
_CONFLICT_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
_VERSIONS_LOOKED_AT: Final = 20
_LOOKED_AT: Final = 32
_ENDED: Final = "it was completed or aborted meanwhile"
_GONE: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NoSuchVersion"})
# Waking is no remedy for what the processor, the file or a person has to change first, so these
# are woken only when they are asked for by name.
WOKEN_WHEN_ASKED: Final = frozenset(
    {
        "stuck-failed",
        "stuck-timed-out",
        "stuck-out-of-memory",
        "stuck-rejected",
        "stuck-filtered",
        "stuck-key",
        "stuck-left",
        "stuck-in-progress",
    }
)
_WOKEN_UNASKED: Final = frozenset({"stuck-never-invoked", "stuck-missed", "stuck-throttled"})
WOKEN: Final = _WOKEN_UNASKED | WOKEN_WHEN_ASKED
"""Checks whose remedy is to wake the processor, which then takes its time."""


class _Step(NamedTuple):
    """One thing to do: what it is about, and the function that does it and says what came of it."""

    subject: str
    run: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Action:
    """Something that `--fix` would change, with the finding's check that it is the remedy of.

    `says` is what it does in words, `count` the number of objects or uploads that it is about.
    """

    check: str
    subject: str
    says: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of an action: how many steps were done, left because things changed, or failed.

    `left` and `failed` tell a few subjects with the reason.
    """

    check: str
    subject: str
    says: str
    done: int
    left: tuple[str, ...]
    left_count: int
    failed: tuple[str, ...]
    failed_count: int


@dataclass(frozen=True, slots=True)
class Planned:
    """An action and how it is applied."""

    action: Action
    steps: Callable[[], Iterable[_Step]]


_TOLD: Final = 5


def plan(
    site: Site, findings: Iterable[Finding], asked: frozenset[str], wake: Wake
) -> Iterator[Planned]:
    """Yield what mends the findings, wiring first and waking last. Reads only.

    `asked` are the checks that were asked for by name.
    """
    found = {finding.check: finding for finding in findings if finding.fixable}
    subjects: dict[str, list[str]] = {}
    for finding in findings:
        if finding.fixable:
            subjects.setdefault(finding.check, []).append(finding.subject)
    for check, make in _MENDERS.items():
        for subject in dict.fromkeys(subjects.get(check, ())):
            yield make(site, check, subject)
    if uploads.CHECK.name in found:
        yield from _plan_aborts(site)
    yield from _plan_objects(site, asked, wake)


def apply(planned: Planned) -> Applied:
    """Apply one action and return what came of it; a step that fails does not stop the others.

    Raises AccessError when credentials stop working.
    """
    done, left, failed = 0, [], []
    for subject, reason, error in map_unordered(_run, planned.steps()):
        if error is not None:
            failed.append(f"{subject}: {error}")
        elif reason is not None:
            left.append(f"{subject}: {reason}")
        else:
            done += 1
    action = planned.action
    return Applied(
        check=action.check,
        subject=action.subject,
        says=action.says,
        done=done,
        left=tuple(left[:_TOLD]),
        left_count=len(left),
        failed=tuple(failed[:_TOLD]),
        failed_count=len(failed),
    )


def _run(step: _Step) -> tuple[str, str | None, str | None]:
    try:
        return step.subject, step.run(), None
    except TwoBucketsError as error:
        return step.subject, None, error.message
    except (CouldNotLook, Gone) as reason:
        return step.subject, None, str(reason)


# Objects and uploads


def _plan_objects(site: Site, asked: frozenset[str], wake: Wake) -> Iterator[Planned]:
    for group in site.stuck:
        check, objects = group.cause.check, group.objects
        subject = f"s3://{site.staging}"
        if check == "stuck-archived":
            action = Action(
                check, subject, "delete from staging what the archive holds", len(objects)
            )
            yield Planned(action, partial(_delete_steps, site, objects))
        elif check in _WOKEN_UNASKED or (check in WOKEN_WHEN_ASKED and check in asked):
            words = f"wake the processor for each ({group.cause.error or check})"
            action = Action(check, subject, words, len(objects))
            yield Planned(action, partial(_wake_steps, objects, wake))


def _wake_steps(objects: Iterable[StagedObject], wake: Wake) -> Iterator[_Step]:
    for staged in objects:
        yield _Step(staged.key, partial(wake, staged))


def _delete_steps(site: Site, objects: Iterable[StagedObject]) -> Iterator[_Step]:
    for staged in objects:
        yield _Step(staged.key, partial(_delete_archived, site, staged))


def _delete_archived(site: Site, staged: StagedObject) -> str | None:
    """Delete one staged version that the archive provably holds now; else say why not.

    An older version under it must not come to light again as if it were new: a delete marker goes
    on top first, and the bucket's rule for noncurrent versions clears up.
    """
    if not is_archived(site, staged):
        return "the archive no longer holds this version, so it stays"
    with attempt(f"delete s3://{site.staging}/{staged.key}"):
        if staged.version_id is None:
            # Without versions a newer file could lie there by now: S3 compares as it deletes.
            is_deleted = _delete_if_current(site, staged)
            return None if is_deleted else "another object is there now, so it stays"
        if _covers_older(site, staged):
            # What is newer by now covers the older version as well, and gets no marker.
            _delete_if_current(site, staged)
        # S3 compares conditions with the current version only; a version id is exact by itself.
        site.aws.s3.delete_object(Bucket=site.staging, Key=staged.key, VersionId=staged.version_id)
    return None


def _covers_older(site: Site, staged: StagedObject) -> bool:
    """Tell whether a staged version is the current one, and older ones of its key lie under it."""
    newest_first = _iter_versions(site, staged.key)
    top = next(newest_first, None)
    is_current = top is not None and top["IsLatest"] and top["VersionId"] == staged.version_id
    return is_current and next(newest_first, None) is not None


def _iter_versions(site: Site, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the versions of exactly this staged key, newest first, delete markers left out."""
    pages = site.aws.s3.get_paginator("list_object_versions").paginate(
        Bucket=site.staging, Prefix=key, PaginationConfig={"PageSize": _VERSIONS_LOOKED_AT}
    )
    for page in pages:
        yield from (version for version in page.get("Versions", ()) if version["Key"] == key)
        # The key itself comes before all that begin with it.
        if page.get("NextKeyMarker") != key:
            return


def _delete_if_current(site: Site, staged: StagedObject) -> bool:
    """Delete what is current under a key if it has the object's ETag; tell whether it had.

    S3 answers 409 to conditions while other requests for the key are under way, and asks for
    another try (S3 user guide, "How to perform conditional deletes").
    """
    for pause in (*_CONFLICT_PAUSES, None):
        try:
            site.aws.s3.delete_object(
                Bucket=site.staging, Key=staged.key, IfMatch=f'"{staged.etag}"'
            )
            break
        except ClientError as error:
            code = error_code(error)
            if code in ("PreconditionFailed", "412", *_GONE):
                return False
            if pause is None or code not in _CONFLICTS:
                raise
        site.sleep(pause)
    return True


def _plan_aborts(site: Site) -> Iterator[Planned]:
    for bucket in dict.fromkeys((site.staging, site.archive)):
        if not site.buckets.exists(bucket):
            continue
        orphaned = list(uploads.iter_orphaned(site, bucket))
        if orphaned:
            says = "abort incomplete uploads whose parts do not change meanwhile"
            action = Action(uploads.CHECK.name, f"s3://{bucket}", says, len(orphaned))
            yield Planned(action, partial(_abort_steps, site, bucket, orphaned))


def _abort_steps(site: Site, bucket: str, orphaned: Iterable[ListedUpload]) -> Iterator[_Step]:
    """Yield an abort for each upload, looking at the parts of a few at a time just before it."""
    rest = iter(orphaned)
    with site.connect() as sender:
        while batch := list(islice(rest, _LOOKED_AT)):
            try:
                held = uploads.read_held(sender, bucket, batch)
            except CouldNotLook as reason:
                yield from (_Step(upload.key, partial(_raise, reason)) for upload in batch)
                continue
            for upload, now in zip(batch, held, strict=True):
                yield _Step(upload.key, partial(_abort, site, bucket, now))


def _raise(reason: CouldNotLook) -> NoReturn:
    raise reason


def _abort(site: Site, bucket: str, upload: IncompleteUpload | None) -> str | None:
    """Abort one upload unless somebody still sends parts; else say why not."""
    if upload is None:
        return _ENDED
    if upload.newest_part_at is not None and (
        site.now - upload.newest_part_at < site.uploads_older_than
    ):
        return "a part came lately, so somebody still uploads it"
    request: dict[str, Any] = {"Bucket": bucket, "Key": upload.key, "UploadId": upload.upload_id}
    is_aborted = False
    for _ in range(_ABORT_TRIES):
        with attempt(f"abort the upload of s3://{bucket}/{upload.key}"):
            try:
                site.aws.s3.abort_multipart_upload(**request)
                is_aborted = True
                # A part that was under way may land after the abort (S3 API, AbortMultipartUpload).
                if not site.aws.s3.list_parts(**request, MaxParts=1).get("Parts"):
                    return None
            except ClientError as error:
                if error_code(error) in _GONE:
                    return None if is_aborted else _ENDED
                raise
    return "parts kept coming after the abort"


# Configuration


def _put_back_notification(site: Site, check: str, subject: str) -> Planned:
    function_arn = wiring.function_arn(site)

    def run() -> str | None:
        with attempt(f"write the notification of {site.staging}"):
            s3 = site.aws.s3
            current: dict[str, Any] = dict(
                s3.get_bucket_notification_configuration(Bucket=site.staging)
            )
            current.pop("ResponseMetadata", None)
            if not _widen(current, wiring.targets_of_function(site)):
                mine = {"Id": "twobuckets", "LambdaFunctionArn": function_arn}
                current.setdefault("LambdaFunctionConfigurations", []).append(
                    mine | {"Events": [wiring.CREATED]}
                )
            s3.put_bucket_notification_configuration(
                Bucket=site.staging,
                NotificationConfiguration=current,  # type: ignore[arg-type]
            )
        return None

    words = f"notify {function_arn} of every new object; filters and other configurations stay"
    return _once(check, subject, words, run)


def _widen(notification: dict[str, Any], targets: frozenset[str]) -> bool:
    """Make the configurations that lead to `targets` tell of every arrival; False if none does.

    Their filters stay: what they leave out may be meant.
    """
    found = False
    for kind, target in wiring.TARGETS:
        for configuration in notification.get(kind, []):
            if configuration[target] in targets and wiring.is_about_arrivals(configuration):
                others = [e for e in configuration["Events"] if "ObjectCreated" not in e]
                configuration["Events"] = [*others, wiring.CREATED]
                found = True
    return found


def _let_s3_call(site: Site, check: str, subject: str) -> Planned:
    partition, account = str(site.function.configuration()["FunctionArn"]).split(":")[1:5:3]

    def run() -> str | None:
        request: dict[str, Any] = {
            "FunctionName": site.function.name,
            "StatementId": f"twobuckets-{site.staging}".replace(".", "-")[:100],
            "Action": "lambda:InvokeFunction",
            "Principal": "s3.amazonaws.com",
            "SourceArn": f"arn:{partition}:s3:::{site.staging}",
            "SourceAccount": account,
        }
        if site.function.qualifier is not None:
            request["Qualifier"] = site.function.qualifier
        with attempt(f"let S3 call {site.function.name}"):
            try:
                site.aws.functions.add_permission(**request)
            except ClientError as error:
                if error_code(error) != "ResourceConflictException":
                    raise
        return None

    return _once(check, subject, f"let S3 call it for s3://{site.staging}", run)


def _add_lifecycle(site: Site, check: str, subject: str) -> Planned:
    bucket = subject.removeprefix("s3://")
    if check == "lifecycle-uploads":
        name, words = (
            "abort-incomplete-uploads",
            f"abort incomplete uploads after {_ABORT_DAYS} days",
        )
        part: dict[str, Any] = {
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_DAYS}
        }
    else:
        name = "expire-noncurrent-versions"
        words = f"expire noncurrent versions after {_NONCURRENT_DAYS} days"
        part = {
            "NoncurrentVersionExpiration": {"NoncurrentDays": _NONCURRENT_DAYS},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
    rule: Any = {"ID": RULE_PREFIX + name, "Status": "Enabled", "Filter": {"Prefix": ""}, **part}

    def run() -> str | None:
        with attempt(f"write the lifecycle rules of {bucket}"):
            s3 = site.aws.s3
            try:
                rules: list[Any] = list(
                    s3.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", [])
                )
            except ClientError as error:
                if error_code(error) != "NoSuchLifecycleConfiguration":
                    raise
                rules = []
            rules = [*(r for r in rules if r.get("ID") != rule["ID"]), rule]
            s3.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": rules}
            )
        return None

    return _once(check, subject, f"{words}; other rules stay", run)


def _mend_cors(site: Site, check: str, subject: str) -> Planned:
    origins = list(site.cors_origins)

    def run() -> str | None:
        with attempt(f"write the CORS rules of {site.staging}"):
            s3 = site.aws.s3
            try:
                rules: list[Any] = list(s3.get_bucket_cors(Bucket=site.staging)["CORSRules"])
            except ClientError as error:
                if error_code(error) != "NoSuchCORSConfiguration":
                    raise
                rules = []
            if check == "cors-missing":
                mine = {
                    "ID": f"{RULE_PREFIX}uploads",
                    "AllowedOrigins": origins,
                    "AllowedMethods": ["PUT", "POST"],
                    "AllowedHeaders": ["*"],
                    "ExposeHeaders": ["ETag", "x-amz-version-id", "x-amz-request-id"],
                    "MaxAgeSeconds": 3600,
                }
                rules = [mine, *(rule for rule in rules if rule.get("ID") != mine["ID"])]
            else:
                rules = [_with_etag(rule) for rule in rules]
            s3.put_bucket_cors(Bucket=site.staging, CORSConfiguration={"CORSRules": rules})
        return None

    words = (
        f"let pages from {', '.join(origins)} upload; other rules stay"
        if check == "cors-missing"
        else "expose ETag where PUT is allowed"
    )
    return _once(check, subject, words, run)


def _with_etag(rule: dict[str, Any]) -> dict[str, Any]:
    if "PUT" not in rule.get("AllowedMethods", []) or buckets.exposes_etag(rule):
        return rule
    return rule | {"ExposeHeaders": [*rule.get("ExposeHeaders", []), "ETag"]}


def _mend_environment(site: Site, check: str, subject: str) -> Planned:
    def run() -> str | None:
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
        return None

    words = f"name {site.archive} as the archive bucket; other variables stay"
    return _once(check, subject, words, run)


def _once(check: str, subject: str, words: str, run: Callable[[], str | None]) -> Planned:
    return Planned(Action(check, subject, words), lambda: [_Step(subject, run)])


# In the order in which they are applied: S3 tries the permission when a notification is written.
_MENDERS: Final[dict[str, Callable[[Site, str, str], Planned]]] = {
    "environment-archive": _mend_environment,
    "permission-missing": _let_s3_call,
    "notification-missing": _put_back_notification,
    "notification-events": _put_back_notification,
    "lifecycle-uploads": _add_lifecycle,
    "lifecycle-versions": _add_lifecycle,
    "cors-missing": _mend_cors,
    "cors-etag": _mend_cors,
}
