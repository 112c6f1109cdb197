"""`twobuckets status`: the pipeline at a glance."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.errors import AccessError, ExitStatus, NotFoundError, TwoBucketsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.pipeline.facts import Facts
    from twobuckets.settings import Pipeline

_RECENT = timedelta(hours=1)


@command("status")
@click.pass_obj
def status(app: App) -> None:
    """Show the pipeline at a glance.

    Buckets and their protection, the processor and what wakes it, what is in staging, the outcomes
    of the last hour, and where every setting came from. What can't be read says which permission
    is missing, and the rest is shown; the exit status is 5 then, and 4 where a bucket or the
    function does not exist. With -v it links to AWS's console.

    \b
      twobuckets --stack intake status
    """
    from twobuckets.pipeline.console import links_of
    from twobuckets.pipeline.status import PartMissing, StatusSummary, count_unread

    pipeline = _require_pipeline(app)
    unread = missing = 0
    for record in _iter_parts(app, pipeline):
        unread += count_unread(record)
        missing += isinstance(record, PartMissing)
        app.out.record(record)
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


def _iter_parts(app: App, pipeline: Pipeline) -> Iterator[object]:
    """Yield the parts in the order they are shown, all of them read at the same time."""
    from twobuckets.artifact import find_built
    from twobuckets.parallel import map_unordered
    from twobuckets.pipeline import status as describe
    from twobuckets.pipeline.facts import Facts

    facts = Facts(app.aws, pipeline, app.now(), runs_rules=not app.settings.is_local)
    reads: list[Callable[[], object | None]] = [
        partial(describe.describe_bucket, facts, "staging", pipeline.staging),
        partial(describe.describe_staging, facts),
        partial(describe.describe_bucket, facts, "archive", pipeline.archive),
    ]
    if pipeline.function is not None:
        built = find_built(app.settings)
        reads += [
            partial(
                describe.describe_function,
                facts,
                built_sha256=built.sha256 if built is not None else None,
                is_built_current=built is None or built.is_current,
            ),
            partial(describe.describe_wiring, facts),
        ]
    if pipeline.log_group is not None:
        reads.append(partial(_read_outcomes, app, facts, pipeline.log_group))
    if pipeline.failure_queue_url is not None:
        reads.append(partial(describe.describe_failure_queue, facts, pipeline.failure_queue_url))
    done = dict(map_unordered(lambda part: (part[0], part[1]()), enumerate(reads)))
    yield from (part for number in sorted(done) if (part := done[number]) is not None)
    yield describe.describe_settings(app.settings, pipeline)


def _read_outcomes(app: App, facts: Facts, log_group: str) -> object | None:
    """Return what became of the last hour's files; None of a function that does not exist."""
    from twobuckets.logs.recent import read_recent
    from twobuckets.pipeline.lookups import CouldNotLook, Gone
    from twobuckets.pipeline.status import PartUnread

    is_ours = True
    try:
        is_ours = facts.function.is_ours
    except Gone:
        return None
    except CouldNotLook:
        # Outcome lines are looked for then: whatever else is there says too little.
        pass
    since = facts.now - _RECENT
    try:
        return read_recent(app.aws.logs, log_group, since=since, now=facts.now, is_ours=is_ours)
    except AccessError:
        return PartUnread("Last hour", "access denied", "logs:FilterLogEvents")
    except TwoBucketsError as error:
        reason = error.message.removeprefix(f"Could not read the log group {log_group}: ")
        return PartUnread("Last hour", reason, None)
