"""`twobuckets status`: the pipeline at a glance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.records import FleetSummary
from twobuckets.errors import ExitStatus, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.cli.app import App
    from twobuckets.settings import Pipeline


@command("status")
@click.option("--all", "is_all", is_flag=True, help="Every pipeline, a line each, the worst first.")
@click.pass_obj
def status(app: App, is_all: bool) -> None:
    """Show the pipeline at a glance.

    Buckets and their protection, the processor and what wakes it, what is in staging, the outcomes
    of the last hour, and where every setting came from. A part that can't be read says which
    permission is missing, and the rest is shown; the exit status is 5 then, and 4 where a bucket or
    the function does not exist. With -v it
    shows what the last hour's invocations took, and links to AWS's console.

    --all shows every pipeline of the region in use, or of `fleet.regions`.

    \b
      twobuckets --stack intake status
      twobuckets status --all
    """
    if is_all:
        _show_fleet(app)
        return
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


def _show_fleet(app: App) -> None:
    from twobuckets.cli.fleet import ask_each, require_fleet
    from twobuckets.logs.recent import OutcomesStatus, describe_recent
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.fleet import Condition, FleetStatus, describe_in_brief

    def ask(one: App) -> FleetStatus:
        facts = Facts(one.aws, one.pipeline, one.now())

        def count_recent() -> Mapping[str, int] | None:
            recent = describe_recent(facts)
            return recent.counts if isinstance(recent, OutcomesStatus) else None

        return describe_in_brief(facts, one.require_stack(), one.aws.region, count_recent)

    with app.out.waiting("Looking at the pipelines"):
        found = ask_each(require_fleet(app), ask)
    # Of those that do alike the one with the oldest file first.
    found.sort(key=lambda one: (one.rank, one.oldest_at or app.now(), one.region, one.stack))
    app.out.stream(found)
    unread = sum(one.condition in (Condition.UNREAD, Condition.GONE) for one in found)
    app.finish(FleetSummary(len(found), unread))
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
