"""`twobuckets status`: the pipeline at a glance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.errors import ExitStatus, NotFoundError

if TYPE_CHECKING:
    from twobuckets.cli.app import App
    from twobuckets.settings import Pipeline


@command("status")
@click.pass_obj
def status(app: App) -> None:
    """Show the pipeline at a glance.

    Buckets and their protection, the processor and what wakes it, what is in staging, the outcomes
    of the last hour, and where every setting came from. A part that can't be read says which
    permission is missing, and the rest is shown; the exit status is 5 then, and 4 where a bucket or
    the function does not exist. With -v it
    shows what the last hour's invocations took, and links to AWS's console.

    \b
      twobuckets --stack intake status
    """
    from twobuckets.artifact import find_built
    from twobuckets.logs.recent import describe_recent
    from twobuckets.logs.use import describe_use
    from twobuckets.pipeline.console import links_of
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.status import PartMissing, StatusSummary, count_unread, iter_parts

    pipeline = _require_pipeline(app)
    facts = Facts(app.aws, pipeline, app.now(), runs_rules=not app.settings.is_local)
    built = find_built(app.settings) if pipeline.function is not None else None
    unread = missing = 0
    for record in iter_parts(
        facts,
        app.settings,
        built_sha256=built.sha256 if built is not None else None,
        is_built_current=built is None or built.is_current,
        describe_recent=partial(describe_recent, facts),
    ):
        unread += count_unread(record)
        missing += isinstance(record, PartMissing)
        app.out.record(record)
    if app.verbosity and (use := describe_use(facts)) is not None:
        unread += count_unread(use)
        app.out.record(use)
    if (app.json or app.verbosity) and app.aws.custom_endpoint_url is None:
        app.out.record(links_of(pipeline, app.aws.region))
    app.finish(StatusSummary(unread, missing))
    if missing:
        click.get_current_context().exit(ExitStatus.NOT_FOUND)
    if unread:
        click.get_current_context().exit(ExitStatus.ACCESS)


def _require_pipeline(app: App) -> Pipeline:
    """Show the stack, if one is meant, and return the pipeline."""
    from twobuckets.pipeline.status import StackStatus
    from twobuckets.stack.outputs import not_deployed
    from twobuckets.stack.plan import require_deployable
    from twobuckets.stack.stacks import find_stack

    settings = app.settings
    if settings.stack is None or (settings.names_pair and not settings.is_local):
        return app.pipeline
    cloudformation = app.aws.cloudformation
    stack = find_stack(cloudformation, settings.stack)
    if stack is not None:
        changed_at = stack.changed_at or stack.created_at
        app.out.record(StackStatus(stack.name, stack.status, stack.status_reason, changed_at))
    try:
        return settings.pipeline(stack.outputs if stack is not None else {})
    except NotFoundError:
        # A stack on its way, or one that never came up, says so itself.
        if require_deployable(cloudformation, settings.stack) is not None:
            raise
        raise not_deployed(settings.stack) from None
