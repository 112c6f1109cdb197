"""Runs the AWS CLI commands of remedies with boto3, as the CLI would: names from AWS's models."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from botocore import xform_name

if TYPE_CHECKING:
    from botocore.model import Shape

    from twobuckets.aws.clients import Aws

_GLOBAL = ("--region", "--profile", "--endpoint-url")


def run(command: str, aws: Aws) -> None:
    """Run one command line; an operation or option that AWS has not is a KeyError."""
    words = shlex.split(command.removeprefix("twobuckets local exec "))
    assert words.pop(0) == "aws"
    while words[0] in _GLOBAL:
        del words[:2]
    service, operation = words[:2]
    if (service, operation) == ("s3", "mb"):
        aws.s3.create_bucket(Bucket=words[2].removeprefix("s3://"))
        return
    client = _client(aws, service)
    method = operation.replace("-", "_")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    members = {xform_name(name, "-"): name for name in model.input_shape.members}
    request: dict[str, Any] = {}
    arguments = iter(words[2:])
    for option in arguments:
        if option.startswith("--no-"):
            request[members[option.removeprefix("--no-")]] = False
            continue
        name = members[option.removeprefix("--")]
        shape = model.input_shape.members[name]
        request[name] = True if shape.type_name == "boolean" else _value(next(arguments), shape)
    getattr(client, method)(**request)


def _client(aws: Aws, service: str) -> Any:
    names = {"s3api": "s3", "lambda": "functions"}
    return getattr(aws, names.get(service, service))


def _value(text: str, shape: Shape) -> Any:
    if shape.type_name in ("integer", "long"):
        return int(text)
    if shape.type_name not in ("structure", "map", "list"):
        return text
    if text.startswith(("{", "[")):
        return json.loads(text)
    if shape.type_name == "list" and "=" not in text:
        return [text]
    # The CLI's shorthand: name=value,name=value
    pairs = dict(pair.split("=", 1) for pair in text.split(","))
    return {name: _word(value, shape, name) for name, value in pairs.items()}


def _word(text: str, shape: Shape, name: str) -> Any:
    member = getattr(shape, "members", {}).get(name)
    if member is not None and member.type_name in ("integer", "long"):
        return int(text)
    return {"true": True, "false": False}.get(text, text)
