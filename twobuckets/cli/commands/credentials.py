"""`twobuckets credentials`: the right to upload one key, as temporary credentials."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION
from twobuckets.cli.records import CredentialsSummary
from twobuckets.errors import NotFoundError
from twobuckets.records import json_line
from twobuckets.units import format_instant
from twobuckets.upload.credentials import ScopedCredentials, request_credentials

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("credentials")
@click.argument("key", shell_complete=completes("listed_keys"))
@click.option("--role-arn", metavar="ARN", help="Instead of the stack's upload role.")
@click.option(
    "--expires",
    "lives_for",
    type=DURATION,
    default="1h",
    show_default=True,
    help="From 15m to 12h.",
)
@click.option("--session-name", metavar="NAME", help="What CloudTrail shows.  [default: from KEY]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["env", "json", "credential_process"]),
    default="env",
    show_default=True,
    help="Shell variables, or JSON for programs or for ~/.aws/config.",
)
@click.pass_obj
def credentials(
    app: App,
    key: str,
    role_arn: str | None,
    lives_for: timedelta,
    session_name: str | None,
    form: str,
) -> None:
    """Get credentials that can upload KEY to staging, and nothing else.

    They can send it in one or many parts, list the parts and abort. They are secrets.

    \b
      eval "$(twobuckets credentials in/rows.csv)"
    """
    pipeline = app.pipeline
    role_arn = role_arn or pipeline.upload_role_arn
    if role_arn is None:
        raise NotFoundError(
            "No role to assume is given",
            hint="Give --role-arn, or name upload_role_arn in twobuckets.toml; stacks of twobuckets"
            " have one.",
        )
    scoped = request_credentials(
        app.aws.sts,
        role_arn=role_arn,
        bucket=pipeline.staging,
        key=key,
        lives_for=lives_for,
        region=app.aws.region,
        endpoint_url=app.aws.custom_endpoint_url,
        session_name=session_name,
    )
    if app.json or form == "env":
        app.out.record(scoped)
        app.finish(CredentialsSummary(expires_at=scoped.expires_at))
    elif form == "json":
        app.out.raw(json_line(scoped) + "\n")
    else:
        app.out.raw(_for_credential_process(scoped))


def _for_credential_process(scoped: ScopedCredentials) -> str:
    """Return what the AWS CLI and SDKs read (their guide, "Process credential provider")."""
    found = {
        "Version": 1,
        "AccessKeyId": scoped.access_key_id,
        "SecretAccessKey": scoped.secret_access_key,
        "SessionToken": scoped.session_token,
        "Expiration": format_instant(scoped.expires_at),
    }
    return json.dumps(found) + "\n"
