"""Buckets that were there before the stack: what a deployment adds to them, and takes back.

Such a bucket is no resource of the stack: CloudFormation would write its configuration as a whole,
and could delete or replace it. The way through: `plan_existing` reads and tells what would be added
beside what is there; `settle` writes it, after the stack, which has the permission that S3 tries;
`plan_release` and `settle` again take back exactly that. Entries are ours by their ids alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from twobuckets.aws import ClientError, Meaning, attempt, meaning
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.pipeline import cors, notifications
from twobuckets.pipeline.buckets import WITHOUT_VERSIONS
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
)
from twobuckets.pipeline.lifecycle import aborts_uploads, harm_to_files
from twobuckets.pipeline.lookups import Unread
from twobuckets.pipeline.stack import existing_buckets
from twobuckets.pipeline.status import glance
from twobuckets.stack.template import arrivals_name, processor_name
from twobuckets.units import counted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from twobuckets.pipeline.buckets import BucketFacts
    from twobuckets.stack.stacks import Stack
    from twobuckets.stack.template import Location

_DOCUMENTS: Final = (CORS, LIFECYCLE, NOTIFICATION)
"""In the order to write them: files are processed from the notification on."""
_TARGETS: Final = dict(notifications.TARGETS)


@dataclass(frozen=True, slots=True)
class ExistingBucket:
    """What happens to a bucket that the stack did not make; nothing where `changes` are none.

    `changes` are what is added, written anew and removed of our own entries, in words, `notices`
    what is to be known of the bucket; `is_released` tells that the pipeline uses it no longer.
    """

    role: str
    bucket: str
    changes: tuple[str, ...]
    notices: tuple[str, ...]
    is_released: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """An existing bucket with the entries that are to be ours in it, and how to write them."""

    shown: ExistingBucket
    owner: str
    stack: str
    ids: frozenset[str]
    wanted: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    was_made: bool = False
    """The stack made the bucket once, and what it wrote there is taken over."""
    comes_first: bool = False
    """S3 is to tell the processor itself before the stack gives up the queue that it tells."""

    def is_ours(self, document: Document, entry: Entry) -> bool:
        """Tell whether an entry that is there is of our making."""
        if document.id_of(entry) in self.ids:
            return True
        return self.was_made and document is NOTIFICATION and self.tells_processor(entry)

    def leads_here(self, target_arn: str) -> bool:
        """Tell whether an ARN is that of the stack's processor, or of its queue of arrivals."""
        is_queue = target_arn.split(":")[2:3] == ["sqs"]
        if is_queue:
            return target_arn.rpartition(":")[2] == arrivals_name(self.stack)
        return notifications.leads_to(target_arn, processor_name(self.stack))

    def tells_processor(self, entry: Entry) -> bool:
        """Tell whether a configuration of the notification is the processor's, for every file."""
        if not notifications.is_about_arrivals(entry):
            return False
        route = notifications.route_of(entry, _TARGETS[entry[KIND]])
        return (
            self.leads_here(route.target_arn)
            and not route.prefix + route.suffix
            and not notifications.missing_events([route])
        )


def plan_existing(
    s3: S3Client,
    facts: BucketFacts,
    stack: Stack | None,
    name: str,
    parameters: Mapping[str, str],
    place: Location,
    *,
    expires_versions: bool,
) -> tuple[Settlement, ...]:
    """Return what deploying the stack `name` with these parameters does to existing buckets.

    Buckets that the pipeline uses no longer come last. `expires_versions` tells whether somebody
    asked for noncurrent versions to expire: there may be others' versions among them. Raises
    TwoBucketsError for a bucket that the stack can't be built around.
    """
    used = existing_buckets(parameters)
    before = existing_buckets(stack.parameters) if stack is not None else {}
    ids = Ids(name)
    settlements = []
    for role, bucket in used.items():
        _require_usable(s3, bucket, name, place)
        was_made = stack is not None and bucket in stack.outputs.values() and role not in before
        wanted = _wanted(role, parameters, ids, place, name, expires_versions=expires_versions)
        drafted = Settlement(
            ExistingBucket(role, bucket, (), (), is_released=False),
            place.account,
            name,
            ids.all | Ids().all if was_made else ids.all,
            wanted,
            was_made,
            comes_first=stack is not None
            and before.get(role) == bucket
            and stack.parameters.get("Trigger") == "queue"
            and parameters["Trigger"] != "queue",
        )
        settlements.append(_planned(s3, drafted, _notices(s3, facts, role, bucket, wanted)))
    settlements += [
        _release(s3, role, bucket, name, place.account)
        for role, bucket in before.items()
        if bucket not in used.values()
    ]
    return tuple(settlements)


def plan_release(s3: S3Client, stack: Stack) -> tuple[Settlement, ...]:
    """Return what is taken back from the stack's existing buckets when it is destroyed."""
    # arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID
    account = stack.stack_id.split(":")[4]
    return tuple(
        _release(s3, role, bucket, stack.name, account)
        for role, bucket in existing_buckets(stack.parameters).items()
    )


def settle(s3: S3Client, planned: Settlement, *, sleep: Callable[[float], None]) -> None:
    """Write what was planned beside what is there now, and see that it stands.

    Raises TwoBucketsError when somebody else's entry, added since, forbids ours.
    """
    for document in _DOCUMENTS:
        change(
            s3,
            planned.shown.bucket,
            document,
            lambda present, document=document: _merged(planned, document, present),  # type: ignore[misc]
            owner=planned.owner,
            sleep=sleep,
        )


def _wanted(
    role: str,
    parameters: Mapping[str, str],
    ids: Ids,
    place: Location,
    stack: str,
    *,
    expires_versions: bool,
) -> dict[str, tuple[Entry, ...]]:
    """Return the entries that a bucket is to have of ours, by the name of their document."""
    rules = [aborting_rule(ids.uploads_end, int(parameters["AbortIncompleteUploadDays"]))]
    if expires_versions:
        rules.append(expiring_rule(ids.versions_end, int(parameters["NoncurrentVersionDays"])))
    wanted: dict[str, tuple[Entry, ...]] = {LIFECYCLE.named: tuple(rules)}
    if role != "staging":
        return wanted
    kind, service, name = (
        ("QueueConfigurations", "sqs", arrivals_name(stack))
        if parameters["Trigger"] == "queue"
        else ("LambdaFunctionConfigurations", "lambda", f"function:{processor_name(stack)}")
    )
    arrivals = {
        KIND: kind,
        "Id": ids.arrivals,
        _TARGETS[kind]: f"arn:{place.partition}:{service}:{place.region}:{place.account}:{name}",
        "Events": [notifications.CREATED],
    }
    origins = [origin for origin in parameters["CorsOrigins"].split(",") if origin]
    return wanted | {
        NOTIFICATION.named: (arrivals,),
        CORS.named: (cors.rule_for(origins, ids.cors),) if origins else (),
    }


def _planned(s3: S3Client, drafted: Settlement, notices: Iterable[str]) -> Settlement:
    """Return a settlement that says what it changes."""
    changes: list[str] = []
    for document in _DOCUMENTS:
        present = _read(s3, document, drafted.shown.bucket, drafted.owner)
        before = [entry for entry in present if drafted.is_ours(document, entry)]
        changes += _differences(document, before, _ours(drafted, document, present))
    shown = replace(drafted.shown, changes=tuple(changes), notices=tuple(notices))
    return replace(drafted, shown=shown)


def _release(s3: S3Client, role: str, bucket: str, stack: str, owner: str) -> Settlement:
    shown = ExistingBucket(role, bucket, (), (), is_released=True)
    ids = Ids(stack)
    drafted = Settlement(shown, owner, stack, ids.all | {ids.page})
    try:
        notices = [
            f"{_named(NOTIFICATION, entry)} tells {_target(entry)}, which goes; this stack did not "
            "make it, so it stays."
            for entry in _read(s3, NOTIFICATION, bucket, owner)
            if not drafted.is_ours(NOTIFICATION, entry) and drafted.leads_here(_target(entry))
        ]
        return _planned(s3, drafted, notices)
    except NotFoundError:
        return replace(drafted, shown=replace(shown, notices=("It does not exist any more.",)))


def _read(s3: S3Client, document: Document, bucket: str, owner: str) -> list[Entry]:
    with attempt(f"read the {document.named}s of the bucket {bucket}"):
        return document.read(s3, {"Bucket": bucket, "ExpectedBucketOwner": owner})[0]


def _merged(planned: Settlement, document: Document, present: list[Entry]) -> list[Entry]:
    """Return a document's entries with ours as wanted and all others as they are."""
    others = [entry for entry in present if not planned.is_ours(document, entry)]
    ours = _ours(planned, document, present)
    # Of CORS rules the first that fits counts (S3 API reference, CORSConfiguration).
    return [*ours, *others] if document.is_ordered else [*others, *ours]


def _ours(planned: Settlement, document: Document, present: list[Entry]) -> list[Entry]:
    """Return our entries that a document needs beside those of others.

    Raises TwoBucketsError for an entry that tells somebody of what ours would tell of: S3 takes no
    two for one event and key (S3 user guide, "Configuring event notifications using object key name
    filtering").
    """
    ours = list(planned.wanted.get(document.named, ()))
    others = [entry for entry in present if not planned.is_ours(document, entry)]
    if document is LIFECYCLE and aborts_uploads(others):
        return [rule for rule in ours if "AbortIncompleteMultipartUpload" not in rule]
    if document is not NOTIFICATION or not ours:
        return ours
    arrivals = list(filter(notifications.is_about_arrivals, others))
    if any(map(planned.tells_processor, arrivals)):
        return []
    for entry in arrivals:
        raise _conflict(planned, entry)
    return ours


def _conflict(planned: Settlement, entry: Entry) -> TwoBucketsError:
    route = notifications.route_of(entry, _TARGETS[entry[KIND]])
    parts = (("that begin with", route.prefix), ("that end with", route.suffix))
    keys = " and ".join(f"{words} {part!r}" for words, part in parts if part)
    return TwoBucketsError(
        f"Could not build the stack around the bucket {planned.shown.bucket}: "
        f"{_named(NOTIFICATION, entry)} tells {route.target_arn} of {', '.join(route.events)}"
        + (f" for keys {keys}" if keys else "")
        + ", and S3 tells only one of an event and a key. Nothing was changed in the bucket",
        hint="Remove it: the stack's own tells the processor of every new file."
        if planned.leads_here(route.target_arn)
        else "Turn on EventBridge for the bucket, which S3 tells beside anybody else, and give the "
        "other one its events by a rule there; or let files for the pipeline arrive in a bucket of "
        "their own.",
    )


def _target(entry: Entry) -> str:
    return str(entry.get(_TARGETS.get(entry[KIND], ""), ""))


def _named(document: Document, entry: Entry) -> str:
    entry_id = document.id_of(entry)
    return f"the {document.named} {entry_id}" if entry_id else f"a {document.named} without an id"


def _differences(document: Document, before: list[Entry], after: list[Entry]) -> list[str]:
    """Return in words what makes our entries of a document others; none where nothing does."""
    there = {document.id_of(entry): entry for entry in before}
    wanted = {document.id_of(entry) for entry in after}
    changes = [
        f"{'changes' if document.id_of(entry) in there else 'adds'} {_named(document, entry)}: "
        + _says(entry)
        for entry in after
        if not document.are_same([there.get(document.id_of(entry), {})], [entry])
    ]
    gone = [entry for entry_id, entry in there.items() if entry_id not in wanted]
    return changes + [f"removes {_named(document, entry)}" for entry in gone]


def _says(entry: Entry) -> str:
    if KIND in entry:
        return f"tells {_target(entry)} of every new file"
    if "AllowedOrigins" in entry:
        return f"pages from {', '.join(entry['AllowedOrigins'])} may upload"
    if "AbortIncompleteMultipartUpload" in entry:
        days = entry["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        return f"aborts everybody's incomplete uploads after {counted(days, 'day')}"
    days = entry["NoncurrentVersionExpiration"]["NoncurrentDays"]
    return f"DELETES everybody's versions that were noncurrent for {counted(days, 'day')}"


def _require_usable(s3: S3Client, bucket: str, stack: str, place: Location) -> None:
    """Raise TwoBucketsError for a bucket that is not there, not the account's, or elsewhere."""
    failed = f"Could not build the stack {stack} around the bucket {bucket}: "
    try:
        head = s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=place.account)
    except ClientError as error:
        if meaning(error) is Meaning.MISSING:
            raise NotFoundError(
                failed + "there is no such bucket",
                hint="Leave it out of deploy.existing_buckets to have it made.",
            ) from None
        if meaning(error) is Meaning.DENIED:
            raise AccessError(
                failed + "access denied",
                hint=f"It has to belong to the account {place.account}, and the identity in use "
                "needs s3:ListBucket on it.",
            ) from None
        if meaning(error) is not Meaning.MISPLACED:
            with attempt(f"look at the bucket {bucket}"):
                raise
        headers: Any = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region", "another region")
    else:
        region = head.get("BucketRegion") or place.region
    if region != place.region:
        raise TwoBucketsError(
            f"{failed}it is in {region}, and the stack in {place.region}",
            hint="S3 tells functions of its own region only, and copies between regions are paid "
            "by the byte: deploy with --region, or name another bucket.",
        )


def _notices(
    s3: S3Client,
    facts: BucketFacts,
    role: str,
    bucket: str,
    wanted: Mapping[str, tuple[Entry, ...]],
) -> list[str]:
    """Return what is to be known of a bucket before a pipeline is built around it."""
    notices = []
    versioning = glance(lambda: facts.versioning(bucket))
    encryption = glance(lambda: facts.encryption(bucket))
    notices += [
        f"The {role} bucket's {what} could not be read: {unread.reason}"
        + (f"; it needs {unread.action}." if unread.action else ".")
        for what, unread in (("versioning", versioning), ("encryption", encryption))
        if isinstance(unread, Unread)
    ]
    if isinstance(versioning, str) and versioning != "Enabled":
        state = versioning.lower() or "off"
        notices.append(
            f"The {role} bucket's versioning is {state}: {WITHOUT_VERSIONS[role]}. Turn it on "
            f"with: aws s3api put-bucket-versioning --bucket {bucket} "
            "--versioning-configuration Status=Enabled"
        )
    elif len(wanted[LIFECYCLE.named]) == 1:
        notices.append(
            f"No rule of the stack expires noncurrent versions in the {role} bucket, where others' "
            "may be: deploy.noncurrent_version_days, written in the settings, adds one."
        )
    rules = glance(lambda: facts.lifecycle(bucket)) if role == "staging" else ()
    notices += [
        f"The lifecycle rule {rule.get('ID', 'without a name')} {harm}."
        for rule in (() if isinstance(rules, Unread) else rules)
        if (harm := harm_to_files(rule))
    ]
    keys = [
        str(key)
        for rule in (encryption if not isinstance(encryption, Unread) else ())
        if (key := rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID"))
    ]
    if keys:
        notices.append(
            f"The {role} bucket encrypts with {', '.join(keys)}: the processor's role may not use "
            "that key by itself; give it a policy that does by processor.policies."
        )
    if role == "staging":
        with attempt(f"look whether the bucket {bucket} holds files"):
            if s3.list_objects_v2(Bucket=bucket, MaxKeys=1).get("Contents"):
                notices.append(
                    "There are files in the staging bucket: the processor is told of new ones "
                    "only. `status` counts them as waiting, `doctor` as stuck, and `doctor --fix` "
                    "has them processed and archived."
                )
    return notices
