"""Our entries in the configurations of a bucket that others write as well.

S3 keeps a bucket's notification, its lifecycle rules and its CORS rules each as one document, and
replaces the whole of it at every write (S3 API reference, PutBucketNotificationConfiguration,
PutBucketLifecycleConfiguration, PutBucketCors). So each is read, merged and written at once, with
every entry of others as it was, and read again: S3 takes no condition on these writes, and somebody
else's write of the same moment can win.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.aws import ClientError, Meaning, attempt, error_code, meaning
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.buckets import LEAST_TRANSITION_SIZE
from twobuckets.pipeline.lifecycle import OUR_RULES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Entry = dict[str, Any]
"""One rule or configuration as S3's API has it; one of a notification has its `KIND` as well."""

Owned = Mapping[str, Any]
"""The bucket of a request and, where it is known, the account that has to own it."""

KIND: Final = "twobuckets-kind"
"""The member of a notification that an entry stands in, such as `QueueConfigurations`."""

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 2.0


class Document(NamedTuple):
    """A bucket's notification, lifecycle or CORS rules: how to read and write its entries.

    `read` returns the entries and what has to be written with them. `named` is what an entry is
    called, `id_name` its member that holds the id; `is_ordered` tells whether the first that fits
    counts.
    """

    named: str
    id_name: str
    is_ordered: bool
    read: Callable[[S3Client, Owned], tuple[list[Entry], dict[str, Any]]]
    write: Callable[[S3Client, Owned, list[Entry], dict[str, Any]], None]

    def id_of(self, entry: Entry) -> str:
        """Return an entry's id, "" where it has none."""
        return str(entry.get(self.id_name) or "")

    def are_same(self, some: Sequence[Entry], others: Sequence[Entry]) -> bool:
        """Tell whether two lists of entries say the same."""
        one, other = [_plain(entry) for entry in some], [_plain(entry) for entry in others]
        if self.is_ordered:
            return one == other
        return sorted(one, key=repr) == sorted(other, key=repr)


class Ids:
    """The ids of our entries: of the stack's on a bucket that it did not make, or of a pair's.

    Two stacks may share a bucket, and each takes back its own.
    """

    def __init__(self, stack: str | None = None) -> None:
        prefix = f"{OUR_RULES}{stack}-" if stack is not None else OUR_RULES
        self.arrivals = f"{prefix}arrivals" if stack is not None else OUR_RULES.rstrip("-")
        self.uploads_end = f"{prefix}abort-incomplete-uploads"
        self.versions_end = f"{prefix}expire-noncurrent-versions"
        self.cors = f"{prefix}uploads"
        self.page = f"{prefix}page"

    @property
    def all(self) -> frozenset[str]:
        """All of them but that of the upload page, which is written apart."""
        return frozenset((self.arrivals, self.uploads_end, self.versions_end, self.cors))


def aborting_rule(rule_id: str, days: int) -> Entry:
    """Return the lifecycle rule that aborts incomplete uploads of the whole bucket."""
    return _rule(rule_id, AbortIncompleteMultipartUpload={"DaysAfterInitiation": days})


def expiring_rule(rule_id: str, days: int) -> Entry:
    """Return the lifecycle rule that expires noncurrent versions of the whole bucket."""
    return _rule(
        rule_id,
        NoncurrentVersionExpiration={"NoncurrentDays": days},
        Expiration={"ExpiredObjectDeleteMarker": True},
    )


def _rule(rule_id: str, **actions: Any) -> Entry:
    return {"ID": rule_id, "Status": "Enabled", "Filter": {"Prefix": ""}, **actions}


def with_filter(rule: Entry) -> Entry:
    """Return a lifecycle rule with its prefix in a filter, which means the same.

    Old rules have the prefix in the filter's stead, and S3 takes no configuration that has rules of
    both forms (S3 API reference, LifecycleRule: Prefix is deprecated).
    """
    if "Prefix" not in rule or "Filter" in rule:
        return rule
    others = {name: value for name, value in rule.items() if name != "Prefix"}
    return others | {"Filter": {"Prefix": rule["Prefix"]}}


def _plain(value: Any) -> Any:
    """Return an entry as it compares: S3 orders lists anew, and leaves out what is empty or not."""
    if isinstance(value, Mapping):
        plain = {name: _plain(value[name]) for name in sorted(value)}
        return {name: item for name, item in plain.items() if item not in ("", {}, [])}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sorted((_plain(item) for item in value), key=repr)
    return value


def change(
    s3: S3Client,
    bucket: str,
    document: Document,
    edit: Callable[[list[Entry]], list[Entry]],
    *,
    owner: str | None = None,
    sleep: Callable[[float], None],
) -> None:
    """Write a document as `edit` has its entries, and look that it stands there.

    `edit` gets what is there at that moment and may be called again: it returns equal entries where
    nothing is to be changed, and raises what forbids the change. Raises TwoBucketsError when
    somebody else's writes keep winning, and what `attempt` raises.
    """
    owned = {"Bucket": bucket} | ({"ExpectedBucketOwner": owner} if owner is not None else {})
    with attempt(f"write the {document.named}s of the bucket {bucket}"):
        for number in range(_TRIES + 1):
            present, rest = document.read(s3, owned)
            wanted = edit(present)
            if document.are_same(present, wanted):
                return
            if number == _TRIES:
                break
            try:
                document.write(s3, owned, wanted, rest)
            except ClientError as error:
                # A permission that was given a moment ago may not be known everywhere yet.
                if error_code(error) != "InvalidArgument" or number == _TRIES - 1:
                    raise
                sleep(_PAUSE_SECONDS)
    raise TwoBucketsError(
        f"Could not write the {document.named}s of the bucket {bucket}: they are not what was "
        f"written {_TRIES} times",
        hint="Somebody else writes them at the same time. Find out who, and run it again.",
    )


def without(document: Document, present: Sequence[Entry], ids: Collection[str]) -> list[Entry]:
    """Return the entries whose id is none of these."""
    return [entry for entry in present if document.id_of(entry) not in ids]


def _read_lifecycle(s3: S3Client, owned: Owned) -> tuple[list[Entry], dict[str, Any]]:
    found = _configured(s3.get_bucket_lifecycle_configuration, owned)
    # Written without it, S3 falls back to its own least size for transitions.
    rest = {name: value for name, value in found.items() if name == LEAST_TRANSITION_SIZE}
    return [with_filter(rule) for rule in found.get("Rules", [])], rest


def _write_lifecycle(s3: S3Client, owned: Owned, rules: list[Entry], rest: dict[str, Any]) -> None:
    if not rules:
        s3.delete_bucket_lifecycle(**owned)
        return
    written: Any = {"Rules": rules}
    s3.put_bucket_lifecycle_configuration(**owned, LifecycleConfiguration=written, **rest)


def _read_cors(s3: S3Client, owned: Owned) -> tuple[list[Entry], dict[str, Any]]:
    return list(_configured(s3.get_bucket_cors, owned).get("CORSRules", [])), {}


def _write_cors(s3: S3Client, owned: Owned, rules: list[Entry], _rest: dict[str, Any]) -> None:
    if not rules:
        s3.delete_bucket_cors(**owned)
        return
    written: Any = {"CORSRules": rules}
    s3.put_bucket_cors(**owned, CORSConfiguration=written)


def _read_notification(s3: S3Client, owned: Owned) -> tuple[list[Entry], dict[str, Any]]:
    found = _configured(s3.get_bucket_notification_configuration, owned)
    found.pop("ResponseMetadata", None)
    lists = {kind: entries for kind, entries in found.items() if isinstance(entries, list)}
    rest = {kind: value for kind, value in found.items() if kind not in lists}
    return [{KIND: kind, **entry} for kind, some in lists.items() for entry in some], rest


def _write_notification(
    s3: S3Client, owned: Owned, entries: list[Entry], rest: dict[str, Any]
) -> None:
    written: Any = dict(rest)
    for entry in entries:
        members = {name: value for name, value in entry.items() if name != KIND}
        written.setdefault(entry[KIND], []).append(members)
    s3.put_bucket_notification_configuration(**owned, NotificationConfiguration=written)


def _configured(call: Any, owned: Owned) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(call(**owned))
    except ClientError as error:
        if meaning(error) is not Meaning.NOT_CONFIGURED:
            raise
        return {}
    return found


NOTIFICATION: Final = Document("notification", "Id", False, _read_notification, _write_notification)
LIFECYCLE: Final = Document("lifecycle rule", "ID", False, _read_lifecycle, _write_lifecycle)
CORS: Final = Document("CORS rule", "ID", True, _read_cors, _write_cors)
