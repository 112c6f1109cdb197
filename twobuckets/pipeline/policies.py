"""What statements of resource policies say; it reads what IAM's policy grammar allows."""

from __future__ import annotations

import fnmatch
import json
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EVERYBODY_GROUPS = frozenset(
    {
        "http://acs.amazonaws.com/groups/global/AllUsers",
        "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    }
)


def statements_of(policy: str | None) -> list[Mapping[str, Any]]:
    """Return a policy document's statements, which JSON may give as one object or a list."""
    statements = json.loads(policy or "{}").get("Statement", [])
    return statements if isinstance(statements, list) else [statements]


def is_for_everybody(statement: Mapping[str, Any]) -> bool:
    """Tell whether a statement's principal is anybody at all."""
    principal = statement.get("Principal")
    return principal == "*" or (
        isinstance(principal, dict) and "*" in _listed(principal.get("AWS"))
    )


def is_public(statement: Mapping[str, Any]) -> bool:
    """Tell whether a statement allows something to anybody, with no condition."""
    return (
        statement.get("Effect") == "Allow"
        and is_for_everybody(statement)
        and not statement.get("Condition")
    )


def refuses_plain_http(statement: Mapping[str, Any]) -> bool:
    """Tell whether a statement denies everybody every S3 action without TLS."""
    refused = any(
        key.lower() == "aws:securetransport" and "false" in [v.lower() for v in values]
        for _, key, values in conditions_of(statement)
    )
    return (
        statement.get("Effect") == "Deny"
        and is_for_everybody(statement)
        and bool({"s3:*", "*"} & set(_listed(statement.get("Action"))))
        and refused
    )


def tls_only(bucket_arn: str) -> dict[str, Any]:
    """Return a bucket policy that refuses requests without TLS, and says nothing else."""
    statement = {
        "Sid": "RefuseRequestsWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket_arn, f"{bucket_arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def covers(statement: Mapping[str, Any], service: str, action: str) -> bool:
    """Tell whether a statement is about a service's principal and an action."""
    principal = statement.get("Principal")
    services = _listed(principal.get("Service")) if isinstance(principal, dict) else []
    return (is_for_everybody(statement) or service in services) and any(
        fnmatch.fnmatchcase(action.lower(), pattern.lower())
        for pattern in _listed(statement.get("Action"))
    )


class Permission(Enum):
    """What a function's or queue's policy says when S3 wants to call it for a bucket."""

    ALLOWED = "allowed"
    DENIED = "denied"
    ELSEWHERE = "allowed for another bucket or account only"
    MISSING = "missing"


INVOKE = "lambda:InvokeFunction"


def admits(statements: Iterable[Mapping[str, Any]], service: str) -> bool:
    """Tell whether statements of a function's policy let a service call it, for some source."""
    return any(s.get("Effect") == "Allow" and covers(s, service, INVOKE) for s in statements)


def permission_of_s3(
    statements: Iterable[Mapping[str, Any]],
    *,
    bucket_arn: str,
    accounts: set[str],
    action: str = INVOKE,
) -> Permission:
    """Return what a policy says of S3's call for a bucket in one of `accounts`."""
    about = [s for s in statements if covers(s, "s3.amazonaws.com", action)]
    effects = {s.get("Effect") for s in about if meets(s, source_arn=bucket_arn, accounts=accounts)}
    if "Deny" in effects:
        return Permission.DENIED
    if "Allow" in effects:
        return Permission.ALLOWED
    return Permission.ELSEWHERE if about else Permission.MISSING


def conditions_of(statement: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each condition as operator, key and values."""
    for operator, keys in (statement.get("Condition") or {}).items():
        for key, values in keys.items():
            yield operator, key, [str(value) for value in _listed(values)]


def meets(statement: Mapping[str, Any], *, source_arn: str, accounts: set[str]) -> bool:
    """Tell whether a request from a source in one of `accounts` meets the statement's conditions.

    Conditions on other keys than the source's count as met: what they ask can't be told from here.
    """
    for operator, key, values in conditions_of(statement):
        if key.lower() == "aws:sourcearn":
            exact = operator in ("StringEquals", "ArnEquals") and not any("*" in v for v in values)
            met = source_arn in values if exact else _any_match(source_arn, values)
        elif key.lower() == "aws:sourceaccount":
            met = any(_any_match(account, values) for account in accounts)
        else:
            met = True
        if not met:
            return False
    return True


def _any_match(text: str, patterns: list[str]) -> bool:
    # In IAM only * and ? are special; fnmatch also knows sets in brackets.
    return any(fnmatch.fnmatchcase(text, pattern.replace("[", "[[]")) for pattern in patterns)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
