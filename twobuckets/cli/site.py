"""The pipeline as doctor examines it, for the commands that ask doctor.

Rooms don't import each other: what `doctor` knows and `reprocess` does meets here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.staging import StagedObject
    from twobuckets.reprocess.plan import Found


def site_of(
    app: App,
    *,
    older_than: timedelta | None,
    uploads_older_than: timedelta = timedelta(days=1),
) -> Site:
    """Return the pipeline as doctor examines it."""
    from twobuckets.doctor.site import Site

    return Site(
        aws=app.aws,
        settings=app.settings,
        pipeline=app.pipeline,
        now=app.now(),
        connect=app.connect,
        older_than=older_than,
        uploads_older_than=uploads_older_than,
        program=app.program,
        aws_cli=_aws_cli(app),
        sleep=app.sleep,
    )


def iter_stuck(app: App, older_than: timedelta | None) -> Iterator[tuple[Found, str | None]]:
    """Yield what doctor finds stuck in staging, and why it should not be woken, None if it may."""
    from twobuckets.doctor.stuck import examine, iter_findings
    from twobuckets.pipeline.lookups import CouldNotLook, Gone

    site = site_of(app, older_than=older_than)
    try:
        stuck = examine(site)
    except Gone as gone:
        raise NotFoundError(
            f"Could not look for what is stuck: {gone.what} does not exist"
        ) from None
    except CouldNotLook as unseen:
        if unseen.permission is None:
            raise TwoBucketsError(str(unseen)) from None
        needs = f"The identity in use needs {unseen.permission}."
        raise AccessError(str(unseen), hint=needs) from None
    try:
        for finding in iter_findings(site, stuck):
            app.out.note(f"{finding.check}: {finding.count:,}. {finding.detail}")
    except CouldNotLook as unseen:
        # Without the log it is known all the same what is stuck, only not why.
        app.out.warn(str(unseen))
    for staged, reason in stuck.iter_wakeable():
        yield _found_of(staged), reason


def wake_through(app: App, site: Site) -> Callable[[StagedObject], None]:
    """Return what asks the processor for one staged version, as `reprocess` does."""
    from twobuckets.reprocess.waking import ask

    def wake(staged: StagedObject) -> None:
        ask(
            app.aws.functions,
            _found_of(staged),
            function=str(site.pipeline.function),
            bucket=site.staging,
            region=app.aws.region,
            ours=site.function.is_ours,
            now=app.now(),
        )

    return wake


def _found_of(staged: StagedObject) -> Found:
    """Return a staged object that doctor saw as what `reprocess` wakes."""
    from twobuckets.reprocess.plan import Found

    return Found(staged.key, staged.version_id, staged.etag, staged.size_bytes, staged.arrived_at)


def _aws_cli(app: App) -> str:
    """The beginning of an AWS CLI command that means the same account and region.

    The embedded AWS has credentials that only this program knows.
    """
    if app.settings.is_local:
        return "twobuckets local exec aws"
    words = ["aws"]
    for name in ("profile", "region", "endpoint_url"):
        value = app.flags.get(name) or getattr(app.settings, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", shell_word(value, otherwise=name.upper())]
    return " ".join(words)
