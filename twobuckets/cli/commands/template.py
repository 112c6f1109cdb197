"""`twobuckets template`: the CloudFormation template, for people with tools of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.records import Template, TemplateSummary

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("template")
@click.pass_obj
def template(app: App) -> None:
    """Print the CloudFormation template that `deploy` uses.

    It includes the processor's variables from the settings, if there are any. Its parameters are
    documented in it. To deploy it with other tools, put the zip that `twobuckets build` makes
    into a bucket and name it as ArtifactBucket and ArtifactKey:

    \b
      twobuckets template > pipeline.yaml
    """
    from twobuckets.stack.template import template_text

    text = template_text(app.settings.environment, page=app.settings.page_enabled)
    if app.json:
        app.out.record(Template(text))
        app.finish(TemplateSummary(len(text.encode())))
    else:
        app.out.raw(text)
