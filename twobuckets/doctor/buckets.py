"""The buckets themselves: there, private, encrypted, versioned, and cleaned up by the right rules.

Rules: S3 user guide, "Security best practices", "Managing your storage lifecycle", "CORS".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from twobuckets.doctor.findings import Check, Finding, Severity, finder
from twobuckets.pipeline import cors, policies
from twobuckets.pipeline.buckets import REQUESTER_PAYS, WITHOUT_VERSIONS, payment_hint
from twobuckets.pipeline.entries import with_filter
from twobuckets.pipeline.lifecycle import (
    aborts_uploads,
    expires_markers,
    expires_versions,
    harm_to_files,
)
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from twobuckets.doctor.site import Site

_BLOCKS: Final = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)
VERSIONS_CHECK: Final = "lifecycle-versions"
_PERHAPS_THE_ONLY_COPIES: Final = (
    " Before a rule does, see that the processor archives every file under its own key: the "
    "noncurrent versions of what it did not are the only copies. So --fix adds the rule only when "
    "this check is named."
)


def _buckets(site: Site) -> tuple[str, ...]:
    """The pipeline's buckets that exist: a missing one is a finding of its own."""
    names = dict.fromkeys((site.staging, site.archive))
    found = tuple(name for name in names if site.buckets.exists(name))
    if not found:
        raise Gone(f"the bucket {site.staging}", "bucket-missing")
    return found


def _role(site: Site, bucket: str) -> str:
    return "staging" if bucket == site.staging else "archive"


@finder("buckets", Check("bucket-missing", "A bucket of the pipeline does not exist."))
def find_missing_buckets(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket that does not exist."""
    for bucket in (site.staging, site.archive):
        if not site.buckets.exists(bucket):
            yield Finding(
                check="bucket-missing",
                severity=Severity.PROBLEM,
                subject=f"s3://{bucket}",
                detail=f"The {_role(site, bucket)} bucket does not exist.",
                remedy=f"{site.aws_cli} s3 mb {shell_word('s3://' + bucket)}",
            )


@finder("buckets", Check("requester-pays", "A bucket wants whoever asks to pay, and refuses."))
def find_requester_pays(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket of another account that S3 gives only to who pays for it."""
    for bucket in dict.fromkeys((site.staging, site.archive)):
        try:
            site.buckets.exists(bucket)
        except CouldNotLook:
            # A bucket that gives an answer does not want to be paid for it.
            if not site.buckets.refuses_until_paid(bucket):
                raise
        else:
            continue
        yield Finding(
            check="requester-pays",
            severity=Severity.PROBLEM,
            subject=f"s3://{bucket}",
            detail=f"S3 refuses everything in the {_role(site, bucket)} bucket: {REQUESTER_PAYS}. "
            f"{payment_hint(bucket)}",
        )


@finder("buckets", Check("public-access-block", "A bucket does not block public access."))
def find_open_blocks(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket whose public access block is not fully on."""
    for bucket in _buckets(site):
        block = site.buckets.public_access_block(bucket)
        off = [name for name in _BLOCKS if not block.get(name)]
        if off:
            yield Finding(
                check="public-access-block",
                severity=Severity.PROBLEM,
                subject=f"s3://{bucket}",
                detail=f"The {_role(site, bucket)} bucket does not block public access fully: "
                f"{', '.join(off)} off. One policy or ACL by mistake opens the files to anybody.",
                remedy=_block_public_access(site, bucket),
            )


def _block_public_access(site: Site, bucket: str) -> str:
    switches = ",".join(f"{name}=true" for name in _BLOCKS)
    return (
        f"{site.aws_cli} s3api put-public-access-block --bucket {shell_word(bucket)} "
        f"--public-access-block-configuration {switches}"
    )


@finder("buckets", Check("public-bucket", "Anybody can read or write a bucket."))
def find_public_buckets(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket that a policy or an ACL opens to anybody now."""
    for bucket in _buckets(site):
        block = site.buckets.public_access_block(bucket)
        if not block.get("RestrictPublicBuckets"):
            yield from _public_policy(site, bucket)
        if not block.get("IgnorePublicAcls"):
            yield from _public_acl(site, bucket)


def _public_policy(site: Site, bucket: str) -> Iterator[Finding]:
    public = [s for s in site.buckets.policy(bucket) if policies.is_public(s)]
    if site.buckets.policy_is_public(bucket) or public:
        yield Finding(
            check="public-bucket",
            severity=Severity.PROBLEM,
            subject=f"s3://{bucket}",
            detail=f"The policy of the {_role(site, bucket)} bucket opens it to anybody: "
            + (", ".join(json.dumps(s.get("Action")) for s in public) or "S3 calls it public")
            + ".",
            remedy=_block_public_access(site, bucket),
        )


def _public_acl(site: Site, bucket: str) -> Iterator[Finding]:
    public = [
        grant["Permission"]
        for grant in site.buckets.grants(bucket)
        if grant.get("Grantee", {}).get("URI") in policies.EVERYBODY_GROUPS
    ]
    if public:
        yield Finding(
            check="public-bucket",
            severity=Severity.PROBLEM,
            subject=f"s3://{bucket}",
            detail=f"The ACL of the {_role(site, bucket)} bucket grants {', '.join(public)} to "
            "anybody.",
            # Another ACL in its place would take the other grants away as well.
            remedy=_block_public_access(site, bucket),
        )


@finder("buckets", Check("tls", "A bucket accepts requests without TLS."))
def find_plain_http(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket that serves plain HTTP; none where S3 has no TLS at all."""
    if not site.has_tls:
        return
    for bucket in _buckets(site):
        if not any(policies.refuses_plain_http(s) for s in site.buckets.policy(bucket)):
            yield Finding(
                check="tls",
                severity=Severity.NOTICE,
                subject=f"s3://{bucket}",
                detail=f"No statement of the {_role(site, bucket)} bucket's policy refuses "
                'requests without TLS (Deny, aws:SecureTransport "false").',
                remedy=f"{site.aws_cli} s3api get-bucket-policy --bucket {shell_word(bucket)}"
                if site.buckets.policy(bucket)
                else _refuse_plain_http(site, bucket),
            )


def _refuse_plain_http(site: Site, bucket: str) -> str:
    policy = json.dumps(policies.tls_only(f"arn:{site.facts.partition}:s3:::{bucket}"))
    return (
        f"{site.aws_cli} s3api put-bucket-policy --bucket {shell_word(bucket)} "
        f"--policy {shell_word(policy)}"
    )


@finder("buckets", Check("encryption", "A bucket has no default encryption."))
def find_plain_storage(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket without default encryption."""
    for bucket in _buckets(site):
        if not site.buckets.encryption(bucket):
            rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
            yield Finding(
                check="encryption",
                severity=Severity.NOTICE,
                subject=f"s3://{bucket}",
                detail=f"The {_role(site, bucket)} bucket has no default encryption.",
                remedy=f"{site.aws_cli} s3api put-bucket-encryption --bucket {shell_word(bucket)} "
                f"--server-side-encryption-configuration {shell_word(json.dumps(rule))}",
            )


@finder("buckets", Check("versioning", "A bucket keeps no versions."))
def find_unversioned(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket in which an overwritten object is gone."""
    for bucket in _buckets(site):
        status = site.buckets.versioning(bucket)
        if status != "Enabled":
            role = _role(site, bucket)
            yield Finding(
                check="versioning",
                severity=Severity.NOTICE,
                subject=f"s3://{bucket}",
                detail=f"The {role} bucket's versioning is {status.lower() or 'off'}: "
                f"{WITHOUT_VERSIONS[role]}.",
                remedy=f"{site.aws_cli} s3api put-bucket-versioning --bucket {shell_word(bucket)} "
                "--versioning-configuration Status=Enabled",
            )


@finder("buckets", Check("mfa-delete", "What is archived can't be deleted from staging."))
def find_mfa_delete(site: Site) -> Iterator[Finding]:
    """Yield a finding for a staging bucket that wants MFA for every delete of a version."""
    if site.buckets.exists(site.staging) and site.buckets.has_mfa_delete(site.staging):
        yield Finding(
            check="mfa-delete",
            severity=Severity.PROBLEM,
            subject=f"s3://{site.staging}",
            detail="The staging bucket has MFA Delete: the processor archives files and can't "
            "delete them from staging, where all of them stay. Only the root user of the account "
            "that owns the bucket can switch it off, with its device: aws s3api "
            "put-bucket-versioning --versioning-configuration Status=Enabled,MFADelete=Disabled.",
        )


@finder(
    "buckets",
    Check("lifecycle-uploads", "No rule clears a bucket's incomplete multipart uploads."),
)
def find_uncleared_uploads(site: Site) -> Iterator[Finding]:
    """Yield a finding for each bucket whose incomplete uploads are kept, and paid for, forever."""
    for bucket in _buckets(site):
        if not aborts_uploads(site.buckets.lifecycle(bucket)):
            yield Finding(
                check="lifecycle-uploads",
                severity=Severity.NOTICE,
                subject=f"s3://{bucket}",
                detail=f"No lifecycle rule aborts incomplete multipart uploads in the "
                f"{_role(site, bucket)} bucket: their parts are invisible in listings and are "
                "paid for forever.",
                remedy=site.fix_command("lifecycle-uploads"),
            )


@finder(
    "buckets",
    Check(VERSIONS_CHECK, "Old versions in staging are kept forever."),
)
def find_kept_versions(site: Site) -> Iterator[Finding]:
    """Yield a finding when staging keeps what was deleted from it forever."""
    if not site.buckets.exists(site.staging) or site.buckets.versioning(site.staging) == "":
        return
    rules = site.buckets.lifecycle(site.staging)
    if not expires_versions(rules):
        yield Finding(
            check=VERSIONS_CHECK,
            severity=Severity.NOTICE,
            subject=f"s3://{site.staging}",
            detail="Staging keeps versions and no lifecycle rule expires the noncurrent ones: a "
            "file that is replaced or deleted without its version id is stored forever."
            + _before_a_rule(site),
            remedy=site.fix_command(VERSIONS_CHECK),
        )


@finder(
    "buckets",
    Check("lifecycle-markers", "Delete markers of archived files are kept in staging forever."),
)
def find_kept_markers(site: Site) -> Iterator[Finding]:
    """Yield a finding when no rule clears the markers that our processor leaves in staging.

    Where the stack's own bucket expires no versions either, the remedy for that does both. In one
    that has versions of others they may be meant to stay, and markers can go nevertheless.
    """
    if not site.buckets.exists(site.staging) or site.buckets.versioning(site.staging) == "":
        return
    rules = site.buckets.lifecycle(site.staging)
    if expires_markers(rules) or not site.function.is_ours:
        return
    if site.owns_staging and not expires_versions(rules):
        return
    clearing = {
        "ID": "expire-delete-markers",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    yield Finding(
        check="lifecycle-markers",
        severity=Severity.NOTICE,
        subject=f"s3://{site.staging}",
        detail="The processor leaves a delete marker where a file was archived, and no lifecycle "
        "rule clears the markers under which nothing is left: one for each key stays forever, and "
        "every listing of staging has to pass them. The remedy adds a rule.",
        remedy=None if any(map(_has_date, rules)) else _write_rules(site, [*rules, clearing]),
    )


def _before_a_rule(site: Site) -> str:
    if site.owns_staging:
        return ""
    if not site.is_deployed_by_us:
        return _PERHAPS_THE_ONLY_COPIES
    return (
        " The bucket was there before the stack, and versions of others may be among them. So "
        "--fix adds the rule only when this check is named."
    )


@finder(
    "buckets",
    Check("lifecycle-loses-files", "A lifecycle rule deletes or freezes files in staging."),
)
def find_losing_rules(site: Site) -> Iterator[Finding]:
    """Yield a finding for each rule that takes current objects out of staging unprocessed."""
    if not site.buckets.exists(site.staging):
        return
    rules = site.buckets.lifecycle(site.staging)
    for rule in rules:
        harm = harm_to_files(rule)
        if harm is None:
            continue
        name = rule.get("ID", "without a name")
        yield Finding(
            check="lifecycle-loses-files",
            severity=Severity.PROBLEM,
            subject=f"s3://{site.staging}",
            detail=f"The lifecycle rule {name} {harm}. The remedy switches the rule off.",
            remedy=_without_rule(site, rules, rule),
        )


def _without_rule(
    site: Site, rules: Sequence[dict[str, Any]], losing: dict[str, Any]
) -> str | None:
    if _has_date(losing):
        # The rule is a person's to rewrite.
        return None
    off = [rule | {"Status": "Disabled"} if rule is losing else rule for rule in rules]
    return _write_rules(site, off)


def _has_date(rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule has a date, which is no JSON as the CLI reads it."""
    return any(
        "Date" in part for part in (rule.get("Expiration", {}), *rule.get("Transitions", []))
    )


def _write_rules(site: Site, rules: Sequence[dict[str, Any]]) -> str:
    written = json.dumps({"Rules": [with_filter(rule) for rule in rules]}, default=str)
    least = site.buckets.least_transition_size(site.staging)
    return (
        f"{site.aws_cli} s3api put-bucket-lifecycle-configuration "
        f"--bucket {shell_word(site.staging)} --lifecycle-configuration {shell_word(written)}"
        + (f" --transition-default-minimum-object-size {least}" if least else "")
    )


@finder(
    "buckets",
    Check("cors-missing", "Browsers on the configured origins can't upload."),
    Check("cors-etag", "Browsers can't read the ETag that a multipart upload needs."),
)
def find_cors(site: Site) -> Iterator[Finding]:
    """Yield a finding for origins that may not upload, and for an ETag that is not exposed."""
    if not site.buckets.exists(site.staging):
        return
    rules = site.buckets.cors(site.staging)
    missing = {o: cors.missing_methods(rules, o) for o in site.settings.cors_origins}
    missing = {origin: methods for origin, methods in missing.items() if methods}
    if missing:
        methods = [m for m in cors.METHODS if any(m in lacking for lacking in missing.values())]
        # Without the others an upload works, and can't be gone on with or aborted.
        is_broken = bool({"PUT", "POST"} & set(methods))
        yield Finding(
            check="cors-missing",
            severity=Severity.PROBLEM if is_broken else Severity.NOTICE,
            subject=f"s3://{site.staging}",
            detail=f"No CORS rule lets pages from {', '.join(missing)} send {', '.join(methods)} "
            "with the headers that are signed: they can't "
            + ("upload." if is_broken else "go on with an upload in parts, or abort it."),
            remedy=site.fix_command("cors-missing"),
        )
    if any(map(cors.hides_etag, rules)):
        yield Finding(
            check="cors-etag",
            severity=Severity.NOTICE,
            subject=f"s3://{site.staging}",
            detail="A CORS rule allows PUT without exposing ETag: a browser can't complete a "
            "multipart upload.",
            remedy=site.fix_command("cors-etag"),
        )


@finder("buckets", Check("cors-page", "The stack's upload page can't upload."))
def find_shut_page(site: Site) -> Iterator[Finding]:
    """Yield a finding where staging takes nothing from the stack's own upload page."""
    origins = site.page_origins(site.stack.outputs())
    if not origins or not site.buckets.exists(site.staging):
        return
    rules = site.buckets.cors(site.staging)
    shut = [origin for origin in origins if cors.missing_methods(rules, origin)]
    if shut:
        yield Finding(
            check="cors-page",
            severity=Severity.PROBLEM,
            subject=f"s3://{site.staging}",
            detail=f"No CORS rule lets the upload page on {', '.join(shut)} send files, go on with"
            " them or abort them: links open it, and nothing comes through.",
            remedy=f"{site.program} deploy",
        )


FINDERS: Final = (
    find_missing_buckets,
    find_requester_pays,
    find_public_buckets,
    find_open_blocks,
    find_plain_http,
    find_plain_storage,
    find_unversioned,
    find_mfa_delete,
    find_uncleared_uploads,
    find_kept_versions,
    find_kept_markers,
    find_losing_rules,
    find_cors,
    find_shut_page,
)
