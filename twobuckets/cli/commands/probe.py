"""`twobuckets probe`: a small file of our own, end to end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command
from twobuckets.cli.options import DURATION
from twobuckets.errors import AccessError, TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("probe")
@click.option(
    "--timeout",
    type=DURATION,
    default="2m",
    show_default=True,
    help="How long to wait for it to arrive.",
)
@click.pass_obj
def probe(app: App, timeout: timedelta) -> None:
    """Send a small file of our own end to end, and time each stage of its way.

    It is put into staging, S3 tells the processor, which archives it without calling your
    process(), and then it is deleted from both buckets, version by version. Ends with status 3 when
    it did not arrive.

    A processor that is not ours, or was deployed by an older release, would take it for a file, so
    nothing is sent there.

    \b
      twobuckets probe
      twobuckets probe --timeout 30s --json
    """
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.lookups import CouldNotLook
    from twobuckets.probe.sending import Probe, new_key, require_known

    key = new_key()
    facts = Facts(app.aws, app.pipeline, app.now(), runs_rules=not app.settings.is_local)
    try:
        require_known(facts, key)
    except CouldNotLook as reason:
        needs = reason.permission and f"The identity in use needs {reason.permission}."
        kind = AccessError if reason.permission else TwoBucketsError
        raise kind(f"Could not tell whether a probe is safe: {reason}", hint=needs) from None
    began_at = app.now()
    app.aws.require_s3_keys()
    signed_in = app.now() - began_at
    with app.connect() as sender:
        sent = Probe(facts, sender, key, now=app.now, sleep=app.sleep, signed_in=signed_in)
        try:
            with app.out.waiting("Waiting for the probe to arrive"):
                app.out.stream(sent.run(timeout))
        except KeyboardInterrupt:
            sent.clean_up()
            raise
        summary = sent.clean_up()
    if not summary.arrived:
        app.out.warn(f"It did not arrive within {timeout}: {app.program} doctor says why")
    app.finish(summary, attention=not summary.arrived or summary.kept_because is not None)
