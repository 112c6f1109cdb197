"""The template's policies: actions that IAM knows, on what they act on, and nothing for anybody."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from tests.docs import where_it_holds
from twobuckets.stack.template import template_text


def statements() -> list[tuple[str, dict[str, Any]]]:
    """Return the statements of every policy with the logical id of what it belongs to."""
    from cfnlint.decode import decode_str  # it takes longer to import than the tests to run

    template, _ = decode_str(template_text())
    found = []
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        documents = [p["PolicyDocument"] for p in properties.get("Policies", [])]
        documents += [
            properties[kind]
            for kind in ("PolicyDocument", "AssumeRolePolicyDocument")
            if kind in properties
        ]
        found += [
            (name, where_it_holds(s)) for document in documents for s in document["Statement"]
        ]
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def iam() -> dict[str, Any]:
    """Return what IAM knows: services, their actions, and what kinds of resource each acts on."""
    data = resources.files("cfnlint.data.AdditionalSpecs").joinpath("Policies.json")
    return json.loads(data.read_text("utf-8"))  # type: ignore[no-any-return]


def is_of_kind(resource: Any, kinds: list[str]) -> bool:
    """Tell whether a resource of the template may be of one of these kinds."""
    shown = json.dumps(resource)
    if ":s3:::" not in shown:
        return True
    is_object = "/*" in shown
    return ("object" if is_object else "bucket") in kinds


@pytest.mark.parametrize(("name", "statement"), statements(), ids=lambda v: str(v)[:40])
def test_actions_are_iams_and_act_on_the_statements_resources(name: str, statement: dict[str, Any]):
    known = iam()
    for action in listed(statement["Action"]):
        service, _, verb = action.partition(":")
        assert service in known, action
        if "*" in action:
            assert statement["Effect"] == "Deny", f"{name} allows {action}"
            continue
        assert verb.lower() in known[service]["Actions"], action
        kinds = known[service]["Actions"][verb.lower()].get("Resources", [])
        for resource in listed(statement.get("Resource", [])):
            assert is_of_kind(resource, kinds), f"{action} does not act on {resource}"


@pytest.mark.parametrize(("name", "statement"), statements(), ids=lambda v: str(v)[:40])
def test_nothing_is_allowed_to_anybody_or_on_everything(name: str, statement: dict[str, Any]):
    if statement["Effect"] == "Deny":
        return
    assert statement.get("Principal") != "*"
    if "*" in listed(statement.get("Resource", [])):
        # IAM knows no resource for these, so that there is nothing to name.
        for action in listed(statement["Action"]):
            service, _, verb = action.partition(":")
            assert not iam()[service]["Actions"][verb.lower()].get("Resources"), action
    assert not statement.keys() & {"NotAction", "NotResource", "NotPrincipal"}
