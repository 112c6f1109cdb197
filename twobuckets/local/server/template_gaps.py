"""What a template asks for and the emulator's CloudFormation leaves out, applied here.

Buckets: lifecycle rules, default encryption, ownership controls and tags. Functions: the
dead-letter queue and reserved concurrency. A stack's bucket that is not empty stays, and the
deletion fails, as on AWS. A change set leaves out what its conditions leave out and knows which
properties replace a resource; an update leaves alone, and says nothing of, what does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, tostring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# The properties whose change makes a new resource (AWS CloudFormation template reference, "Update
# requires: Replacement"); of a type that it does not list the emulator takes any property for one.
REPLACING = {
    "AWS::CloudWatch::Alarm": ("AlarmName",),
    "AWS::Lambda::EventInvokeConfig": ("FunctionName", "Qualifier"),
    "AWS::Lambda::Permission": (
        *("Action", "EventSourceToken", "FunctionName", "FunctionUrlAuthType", "Principal"),
        *("PrincipalOrgID", "SourceAccount", "SourceArn"),
    ),
    "AWS::Logs::LogGroup": ("LogGroupName",),
    "AWS::S3::Bucket": ("BucketName",),
    "AWS::S3::BucketPolicy": ("Bucket",),
    "AWS::SQS::QueuePolicy": (),
}

# What S3 replaces as a whole, and CloudFormation therefore writes only when the template's part of
# it changes.
WHOLE = ("NotificationConfiguration", "LifecycleConfiguration", "CorsConfiguration")

# A property of CloudFormation and the element of S3's API that says the same.
RENAMED = {
    "Id": "ID",
    "Rules": "Rule",
    "Transitions": "Transition",
    "NoncurrentVersionTransitions": "NoncurrentVersionTransition",
    "TransitionInDays": "Days",
    "TransitionDate": "Date",
    "Tags": "Tag",
    "ServerSideEncryptionConfiguration": "Rule",
    "ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault",
}


def xml_of(name: str, properties: object) -> bytes:
    """Return CloudFormation properties as a document of S3's API: a list repeats its element."""
    root = Element(name, xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    _fill(root, properties)
    document: bytes = tostring(root, encoding="utf-8")
    return document


def _fill(element: Element, value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            for one in item if isinstance(item, list) else [item]:
                _fill(SubElement(element, RENAMED.get(key, str(key))), one)
    elif isinstance(value, bool):
        element.text = str(value).lower()
    else:
        element.text = str(value)


def lifecycle_xml(configuration: Mapping[str, Any]) -> bytes:
    """Return a `LifecycleConfiguration` as the body of PutBucketLifecycleConfiguration."""
    rules = [_lifecycle_rule(rule) for rule in configuration.get("Rules") or []]
    return xml_of("LifecycleConfiguration", {"Rules": rules})


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    conditions = {
        name: rule[name]
        for name in ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
        if name in rule
    }
    if rule.get("TagFilters"):
        conditions["Tags"] = rule["TagFilters"]
    if len(conditions) > 1 or len(rule.get("TagFilters") or []) > 1:
        conditions = {"And": conditions}
    written = {"Id": rule.get("Id", ""), "Status": rule["Status"], "Filter": conditions}
    expiration = {
        element: rule[name]
        for name, element in (
            ("ExpirationInDays", "Days"),
            ("ExpirationDate", "Date"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if name in rule
    }
    if expiration:
        written["Expiration"] = expiration
    if "NoncurrentVersionExpirationInDays" in rule:
        days = rule["NoncurrentVersionExpirationInDays"]
        written["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    for name in (
        "NoncurrentVersionExpiration",
        "NoncurrentVersionTransitions",
        "Transitions",
        "AbortIncompleteMultipartUpload",
    ):
        if name in rule:
            written[name] = rule[name]
    return written


def encryption_xml(encryption: Mapping[str, Any]) -> bytes:
    """Return a `BucketEncryption` property as the body of PutBucketEncryption."""
    return xml_of("ServerSideEncryptionConfiguration", encryption)


def ownership_xml(controls: Mapping[str, Any]) -> bytes:
    """Return an `OwnershipControls` property as the body of PutBucketOwnershipControls."""
    return xml_of("OwnershipControls", controls)


def tagging_xml(tags: list[Mapping[str, Any]]) -> bytes:
    """Return a `Tags` property as the body of PutBucketTagging."""
    return xml_of("Tagging", {"TagSet": {"Tags": tags}})


def install() -> None:
    """Extend the emulator's provisioners."""
    from ministack.services.cloudformation import provisioners

    s3 = provisioners._s3
    provisioners._S3_BUCKET_CONFIGURATIONS += (
        (
            "LifecycleConfiguration",
            lifecycle_xml,
            _required(s3._put_bucket_lifecycle),
            s3._delete_bucket_lifecycle,
        ),
        (
            "BucketEncryption",
            encryption_xml,
            _required(s3._put_bucket_encryption),
            s3._delete_bucket_encryption,
        ),
        (
            "OwnershipControls",
            ownership_xml,
            _required(s3._put_bucket_ownership_controls),
            s3._delete_bucket_ownership_controls,
        ),
        ("Tags", tagging_xml, _required(s3._put_bucket_tagging), s3._delete_bucket_tagging),
    )
    _leave_out_what_is_conditional()
    handlers = provisioners._RESOURCE_HANDLERS
    handlers["AWS::S3::Bucket"]["delete"] = _delete_empty_bucket
    handlers["AWS::S3::Bucket"]["update"] = _leaving_unchanged(
        handlers["AWS::S3::Bucket"]["update"]
    )
    provisioners._REPLACING_PROPERTIES.update(REPLACING)
    _say_nothing_of_unchanged()
    functions = handlers["AWS::Lambda::Function"]
    for operation in ("create", "update"):
        functions[operation] = _with_limits(functions[operation])


def _leaving_unchanged(update: Callable[..., tuple[str, Any]]) -> Callable[..., tuple[str, Any]]:
    """Keep an update from writing configurations that the template leaves as they are."""

    def update_changed(
        bucket: str, old: dict[str, Any], new: dict[str, Any], stack: str
    ) -> tuple[str, Any]:
        same = {name for name in WHOLE if name in old and old[name] == new.get(name)}
        if old.get("BucketName") != new.get("BucketName"):
            same = set()
        written = {name: value for name, value in new.items() if name not in same}
        was = {name: value for name, value in old.items() if name not in same}
        return update(bucket, was, written, stack)

    return update_changed


def _say_nothing_of_unchanged() -> None:
    """Keep resources that an update does not change out of the stack's events."""
    from ministack.services import cloudformation
    from ministack.services.cloudformation import stacks

    update, add_event = stacks._update_keeping_seed, stacks._add_event
    unchanged: set[tuple[str, str]] = set()

    def update_noting(
        kind: str, physical_id: str, old: object, new: object, stack: str, resource: str, *rest: Any
    ) -> Any:
        if old == new:
            unchanged.add((stack, resource))
        return update(kind, physical_id, old, new, stack, resource, *rest)

    def add_event_of_changed(
        stack_id: str, stack: str, resource: str, kind: str, status: str, *rest: Any, **named: Any
    ) -> None:
        if (stack, resource) not in unchanged or status != "UPDATE_COMPLETE":
            add_event(stack_id, stack, resource, kind, status, *rest, **named)
            return
        unchanged.discard((stack, resource))
        # Nothing has run since the event that says the update began.
        begun = cloudformation._stack_events[stack_id].pop()
        assert begun["LogicalResourceId"] == resource, begun

    stacks._update_keeping_seed = update_noting
    stacks._add_event = add_event_of_changed


def _required(put: Callable[[str, bytes], tuple[int, object, object]]) -> Callable[..., None]:
    """Make a resource fail, as on AWS, when S3 refuses what the template says."""

    def put_or_raise(bucket: str, body: bytes) -> None:
        status, _, answer = put(bucket, body)
        if status >= 400:
            raise ValueError(f"{bucket}: {answer!r}")

    return put_or_raise


def _leave_out_what_is_conditional() -> None:
    """Keep resources whose condition does not hold out of change sets, as AWS does."""
    from ministack.services.cloudformation import changesets

    resolve = changesets._resolve_props_for_diff

    def resolve_made(template: Any, parameters: Any, *of_stack: Any) -> Any:
        resolved = resolve(template, parameters, *of_stack)
        holds = changesets._evaluate_conditions(template, parameters) if template else {}
        made = {
            name: resource
            for name, resource in resolved.get("Resources", {}).items()
            if holds.get(resource.get("Condition"), True)
        }
        return {**resolved, "Resources": made}

    changesets._resolve_props_for_diff = resolve_made


def _delete_empty_bucket(bucket: str, _: object) -> None:
    """Delete a stack's bucket as AWS does: not while anything is in it."""
    from ministack.services import s3

    if bucket in s3._buckets:
        _required(lambda name, _: s3._delete_bucket(name))(bucket, b"")


def _with_limits(provision: Callable[..., tuple[str, Any]]) -> Callable[..., tuple[str, Any]]:
    """Add the dead-letter queue and reserved concurrency to a function's provisioner."""
    from ministack.services import lambda_svc

    def provision_with_limits(*args: Any, **kwargs: Any) -> tuple[str, Any]:
        name, attributes = provision(*args, **kwargs)
        properties = next(arg for arg in reversed(args) if isinstance(arg, dict))
        function = lambda_svc._functions[name]
        reserved = properties.get("ReservedConcurrentExecutions")
        function["concurrency"] = None if reserved is None else int(reserved)
        function["config"]["DeadLetterConfig"] = properties.get("DeadLetterConfig") or {}
        return name, attributes

    return provision_with_limits
