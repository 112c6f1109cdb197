"""What the emulator's CloudFormation leaves out of what a template asks for, one function a gap."""

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
    "AWS::Lambda::EventSourceMapping": (
        *("EventSourceArn", "StartingPosition", "StartingPositionTimestamp"),
        "SelfManagedEventSource",
    ),
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
    """Fill each of the gaps."""
    _apply_bucket_configurations()
    _keep_buckets_that_hold_objects()
    _leave_unchanged_configurations_alone()
    _know_what_replaces_a_resource()
    _apply_function_limits()
    _keep_limits_of_event_sources_as_numbers()
    _omit_resources_of_unmet_conditions()
    _omit_events_of_unchanged_resources()


def _apply_bucket_configurations() -> None:
    """Gap: lifecycle rules, encryption, ownership controls and tags of buckets are dropped."""
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


def _keep_buckets_that_hold_objects() -> None:
    """Gap: deleting a stack deletes its buckets with all they hold; on AWS the deletion fails."""
    from ministack.services import s3
    from ministack.services.cloudformation import provisioners

    def delete(bucket: str, _: object) -> None:
        if bucket in s3._buckets:
            _required(lambda name, _: s3._delete_bucket(name))(bucket, b"")

    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]["delete"] = delete


def _leave_unchanged_configurations_alone() -> None:
    """Gap: every update of a bucket writes all its configurations again, over what others wrote."""
    from ministack.services.cloudformation import provisioners

    buckets = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]
    update = buckets["update"]

    def update_changed(
        bucket: str, old: dict[str, Any], new: dict[str, Any], stack: str
    ) -> tuple[str, Any]:
        same = {name for name in WHOLE if name in old and old[name] == new.get(name)}
        if old.get("BucketName") != new.get("BucketName"):
            same = set()
        written = {name: value for name, value in new.items() if name not in same}
        was = {name: value for name, value in old.items() if name not in same}
        answer: tuple[str, Any] = update(bucket, was, written, stack)
        return answer

    buckets["update"] = update_changed


def _know_what_replaces_a_resource() -> None:
    """Gap: of a type that is not in its list the emulator takes any property for replacing."""
    from ministack.services.cloudformation import provisioners

    provisioners._REPLACING_PROPERTIES.update(REPLACING)


def _apply_function_limits() -> None:
    """Gap: the dead-letter queue and reserved concurrency of functions are dropped."""
    from ministack.services import lambda_svc
    from ministack.services.cloudformation import provisioners

    def limited(provision: Callable[..., tuple[str, Any]]) -> Callable[..., tuple[str, Any]]:
        def provision_with_limits(*args: Any, **kwargs: Any) -> tuple[str, Any]:
            name, attributes = provision(*args, **kwargs)
            properties = next(arg for arg in reversed(args) if isinstance(arg, dict))
            function = lambda_svc._functions[name]
            reserved = properties.get("ReservedConcurrentExecutions")
            function["concurrency"] = None if reserved is None else int(reserved)
            function["config"]["DeadLetterConfig"] = properties.get("DeadLetterConfig") or {}
            return name, attributes

        return provision_with_limits

    functions = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    for operation in ("create", "update"):
        functions[operation] = limited(functions[operation])


def _keep_limits_of_event_sources_as_numbers() -> None:
    """Gap: a limit that comes from a parameter stays text, with which nothing is compared."""
    from ministack.services import lambda_svc
    from ministack.services.cloudformation import provisioners

    def counted(provision: Callable[..., tuple[str, Any]]) -> Callable[..., tuple[str, Any]]:
        def provision_and_count(*args: Any, **kwargs: Any) -> tuple[str, Any]:
            uuid, attributes = provision(*args, **kwargs)
            scaling = lambda_svc._esms[uuid].get("ScalingConfig") or {}
            if "MaximumConcurrency" in scaling:
                scaling = {**scaling, "MaximumConcurrency": int(scaling["MaximumConcurrency"])}
            lambda_svc._esms[uuid]["ScalingConfig"] = scaling
            return uuid, attributes

        return provision_and_count

    sources = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]
    for operation in ("create", "update"):
        sources[operation] = counted(sources[operation])


def _omit_events_of_unchanged_resources() -> None:
    """Gap: an update tells of every resource; AWS tells of those that it changes."""
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

    def add_event_if_changed(
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
    stacks._add_event = add_event_if_changed


def _required(put: Callable[[str, bytes], tuple[int, object, object]]) -> Callable[..., None]:
    """Make a resource fail, as on AWS, when S3 refuses what the template says."""

    def put_or_raise(bucket: str, body: bytes) -> None:
        status, _, answer = put(bucket, body)
        if status >= 400:
            raise ValueError(f"{bucket}: {answer!r}")

    return put_or_raise


def _omit_resources_of_unmet_conditions() -> None:
    """Gap: change sets list resources whose condition does not hold."""
    from ministack.services.cloudformation import changesets

    resolve = changesets._resolve_props_for_diff

    def resolve_wanted(template: Any, parameters: Any, *of_stack: Any) -> Any:
        resolved = resolve(template, parameters, *of_stack)
        holds = changesets._evaluate_conditions(template, parameters) if template else {}
        wanted = {
            name: resource
            for name, resource in resolved.get("Resources", {}).items()
            if holds.get(resource.get("Condition"), True)
        }
        return {**resolved, "Resources": wanted}

    changesets._resolve_props_for_diff = resolve_wanted
