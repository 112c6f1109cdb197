"""`twobuckets status`: the pipeline at a glance."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.settings import Pipeline

_RECENT = timedelta(hours=1)


@command("status")
@click.pass_obj
def status(app: App) -> None:
    """Show the pipeline at a glance.

    Buckets and their protection, the processor and what wakes it, what is in staging, the outcomes
    of the last hour, and where every setting came from. What can't be read says which permission
    is missing, and the rest is shown; the exit status is 5 then.

    \b
      twobuckets --stack intake status
    """
    from twobuckets.pipeline.status import StatusSummary, count_unread

    pipeline = _require_pipeline(app)
    unread = 0
    for record in _iter_parts(app, pipeline):
        unread += count_unread(record)
        app.out.record(record)
    app.finish(StatusSummary(unread))
    if unread:
        click.get_current_context().exit(AccessError.exit_code)


def _require_pipeline(app: App) -> Pipeline:
    """Show the stack, if one is meant, and return the pipeline."""
    from twobuckets.errors import NotFoundError
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

    aws = app.aws
    reads: list[Callable[[], object]] = [
        partial(describe.describe_bucket, aws.s3, "staging", pipeline.staging),
        partial(describe.describe_staging, aws.s3, pipeline.staging, now=app.now()),
        partial(describe.describe_bucket, aws.s3, "archive", pipeline.archive),
    ]
    if pipeline.function is not None:
        built = find_built(app.settings)
        reads += [
            partial(
                describe.describe_function, aws.functions, pipeline.function, built_sha256=built
            ),
            partial(
                describe.describe_wiring,
                aws.s3,
                aws.functions,
                aws.sts,
                pipeline.staging,
                pipeline.function,
            ),
        ]
    if pipeline.log_group is not None:
        reads.append(partial(_read_outcomes, app, pipeline.log_group))
    if pipeline.failure_queue_url is not None:
        reads.append(partial(describe.describe_failure_queue, aws.sqs, pipeline.failure_queue_url))
    done = dict(map_unordered(lambda part: (part[0], part[1]()), enumerate(reads)))
    yield from (done[number] for number in sorted(done))
    yield describe.describe_settings(app.settings, pipeline)


def _read_outcomes(app: App, log_group: str) -> object:
    """Return the outcomes of the last hour; of a processor that is not ours, its failures."""
    from twobuckets.logs.events import iter_events
    from twobuckets.logs.lines import (
        OUTCOME_OR_FAILURE_PATTERN,
        FailedInvocation,
        Outcome,
        iter_entries,
    )
    from twobuckets.pipeline.status import count_outcomes

    now = app.now()
    events = iter_events(
        app.aws.logs, log_group, start_at=now - _RECENT, pattern=OUTCOME_OR_FAILURE_PATTERN
    )
    outcomes = (
        (entry.logged_at, entry.outcome if isinstance(entry, Outcome) else "failed")
        for entry in iter_entries(events)
        if isinstance(entry, Outcome | FailedInvocation)
    )
    return count_outcomes(log_group, outcomes, since=now - _RECENT, now=now)
