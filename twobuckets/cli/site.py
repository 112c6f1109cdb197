"""The pipeline as doctor examines it, for the commands that ask doctor.

Rooms don't import each other: what `doctor` knows and `reprocess` does meets here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from twobuckets.errors import NotFoundError
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.doctor.site import Site
    from twobuckets.pipeline.versions import Version
    from twobuckets.reprocess.choice import Choice


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
        page_origins=app.page_origins,
    )


def iter_stuck(app: App, choice: Choice) -> Iterator[tuple[Version, str | None]]:
    """Yield what doctor finds stuck in staging, and why it should not be woken, None if it may."""
    from twobuckets.doctor.grouping import examine
    from twobuckets.doctor.stuck import iter_findings
    from twobuckets.pipeline.lookups import CouldNotLook, Gone

    site = site_of(app, older_than=choice.older_than)
    try:
        stuck = examine(site)
    except Gone as gone:
        raise NotFoundError(
            f"Could not look for what is stuck: {gone.what} does not exist"
        ) from None
    except CouldNotLook as unseen:
        raise unseen.explained from None
    try:
        for finding in iter_findings(site, stuck):
            app.out.note(f"{finding.check}: {finding.count:,}. {finding.detail}")
    except CouldNotLook as unseen:
        # Without the log it is known all the same what is stuck, only not why.
        app.out.warn(str(unseen))
    yield from stuck.iter_wakeable(kinds=choice.outcome, errors=choice.error)


def wake_through(app: App, site: Site) -> Callable[[Version], None]:
    """Return what asks the processor for one staged version, as `reprocess` does."""
    from twobuckets.pipeline.waking import Waker

    def wake(staged: Version) -> None:
        waker = Waker(
            functions=app.aws.functions,
            function=str(site.pipeline.function),
            bucket=site.staging,
            region=app.aws.region,
            ours=site.function.is_ours,
        )
        waker.ask(
            staged.key,
            version_id=staged.version_id,
            etag=staged.etag,
            size_bytes=staged.size_bytes,
            now=app.now(),
        )

    return wake


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
