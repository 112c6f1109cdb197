"""What a command gets: settings, clients, output and time, each made on first use."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from twobuckets import settings as settings_
from twobuckets.cli.output import NOTHING_CHANGED, Output
from twobuckets.errors import DeniedError, ExitStatus, NotFoundError, UsageError
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.aws.clients import Aws
    from twobuckets.aws.s3_access import S3Keys
    from twobuckets.links.page import PageOfStack
    from twobuckets.prices import Prices
    from twobuckets.s3.engine import Endpoint, Keys, Sender, SigV4Signer
    from twobuckets.settings import Pipeline, Settings


_YES: Final = ("y", "yes")
_NO: Final = ("", "n", "no")


class _SessionCredentials:
    """The session's credentials as the S3 hot path wants them."""

    def __init__(self, keys: S3Keys) -> None:
        from twobuckets.s3.engine import Keys

        self._keys = keys
        self._as_keys = Keys._make

    def keys(self) -> Keys:
        """Return the keys to sign with now."""
        return self._as_keys(self._keys.current())

    def refresh(self) -> bool:
        """Tell whether the keys changed since they were refused: botocore renews them itself."""
        before = self._keys.current()
        return self._keys.renewed() != before


@dataclass
class App:
    """One run of the program; `click.pass_obj` hands it to commands."""

    flags: dict[str, str | None] = field(default_factory=dict)
    json: bool = False
    color: bool = True
    verbosity: int = 0
    quiet: bool = False
    local_times: bool = False

    @cached_property
    def out(self) -> Output:
        """Where everything is shown."""
        return Output(
            json=self.json,
            color=self.color and not os.environ.get("NO_COLOR"),
            quiet=self.quiet,
            verbose=self.verbosity > 0,
        )

    @cached_property
    def settings(self) -> Settings:
        """What flags, environment and file say. Raises UsageError."""
        return settings_.load(self.flags, self.environ, Path.cwd())

    @property
    def program(self) -> str:
        """The beginning of a command to paste that means the same pipeline."""
        words = ["twobuckets"]
        for name in ("stack", "config", "profile", "region", "endpoint_url"):
            value = self.flags.get(name)
            if value is not None:
                words += [f"--{name.replace('_', '-')}", shell_word(value, otherwise=name.upper())]
        return " ".join(words)

    @property
    def environ(self) -> Mapping[str, str]:
        """The process's environment."""
        return os.environ

    @cached_property
    def aws(self) -> Aws:
        """The clients, for the account or for the embedded AWS."""
        from twobuckets.aws.clients import Aws

        settings = self.settings
        if settings.is_local:
            return self._local_aws()
        return Aws(
            region=settings.region,
            profile=settings.profile,
            endpoint_url=settings.endpoint_url,
            environ=self.environ,
        )

    def _local_aws(self) -> Aws:
        """Return the clients of the embedded AWS, started when it does not run yet."""
        from twobuckets import local
        from twobuckets.aws.clients import Aws, FixedIdentity

        for name in ("profile", "region", "endpoint_url"):
            origin = self.settings.origins.get(name, "")
            if origin.startswith("flag "):
                raise UsageError(
                    f"The embedded AWS has a place and credentials of its own; {origin} leads "
                    "elsewhere",
                    hint="Leave it out, or leave out --stack local.",
                )
        server, is_new = local.ensure_running(self.local_state, environ=self.environ)
        if is_new:
            self.out.note(f"Started the embedded AWS at {server.endpoint_url}")
        return Aws(
            identity=FixedIdentity(
                endpoint_url=server.endpoint_url,
                region=server.region,
                access_key_id=server.access_key,
                secret_access_key=server.secret_key,
            )
        )

    @property
    def local_state(self) -> Path:
        """Where the embedded AWS keeps what it holds."""
        return settings_.local_state(self.environ)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline that is meant. Raises NotFoundError when there is none of that name."""
        settings = self.settings
        if settings.stack is None or (settings.names_pair and not settings.is_local):
            return settings.pipeline({})
        if settings.is_local:
            from twobuckets.cli import default_pipeline

            outputs = default_pipeline.require_outputs(
                self.aws, settings, self.local_state, self.out, sleep=self.sleep
            )
            return settings.pipeline(outputs)
        from twobuckets.stack.outputs import require_outputs

        return settings.pipeline(require_outputs(self.aws.cloudformation, settings.stack))

    def known_pipeline(self) -> Pipeline:
        """The pipeline that is meant, starting and deploying nothing. Raises NotFoundError."""
        from twobuckets import local
        from twobuckets.stack.outputs import require_outputs

        settings = self.settings
        if not settings.is_local:
            return self.pipeline
        if not local.find_status(self.local_state).running:
            raise NotFoundError("The embedded AWS does not run")
        return settings.pipeline(require_outputs(self.aws.cloudformation, settings_.LOCAL))

    def explain_denial(self, error: DeniedError) -> DeniedError:
        """Return a denial with the one reason that no policy shows, where it is the reason."""
        from twobuckets.pipeline.buckets import REQUESTER_PAYS, payment_hint, refuses_until_paid

        # What has not been looked for so far is not to blame, and may not even be there.
        pipeline: Pipeline | None = vars(self).get("pipeline")
        buckets = () if pipeline is None else (pipeline.staging, pipeline.archive)
        for bucket in buckets:
            if refuses_until_paid(self.aws.s3, bucket):
                why = f"That is because of s3://{bucket}: {REQUESTER_PAYS}."
                return DeniedError(error.message, hint=f"{why} {payment_hint(bucket)}")
        return error

    def page_origins(self, outputs: Mapping[str, str]) -> tuple[str, ...]:
        """Return the origins that the upload page of a stack has, none when it has no page."""
        from twobuckets import local

        url = outputs.get("PageUrl")
        if url is None:
            return ()
        server = local.find_running(self.local_state) if self.settings.is_local else None
        return (url.rstrip("/"),) if server is None else server.page_origins

    def upload_page(self) -> PageOfStack:
        """Return the stack's upload page. Raises NotFoundError when it has none."""
        from dataclasses import replace

        from twobuckets import local
        from twobuckets.links.page import require_page
        from twobuckets.stack.outputs import require_outputs

        stack = self.require_stack()
        page = require_page(stack, require_outputs(self.aws.cloudformation, stack))
        server = local.find_running(self.local_state) if self.settings.is_local else None
        return page if server is None else replace(page, url=server.page_url(page.url))

    def require_stack(self) -> str:
        """Return the stack that is meant. Raises UsageError when none is named."""
        if self.settings.stack is None:
            raise UsageError(
                "No stack is given",
                hint="Give --stack NAME (--stack local needs no AWS account), set "
                "TWOBUCKETS_STACK, or name it in twobuckets.toml.",
            )
        return self.settings.stack

    @property
    def prices(self) -> Prices:
        """What storage and requests cost, as far as an estimate can know."""
        return self.settings.prices

    def connect(self, **limits: Any) -> Sender:
        """Return a sender for S3's hot loops; `limits` are those of Sender."""
        from twobuckets.s3 import engine

        keys = self.aws.require_s3_keys()
        return engine.connect(self._s3_endpoint, _SessionCredentials(keys), **limits)

    def signer(self, keys: S3Keys, *, path_style: bool = False) -> SigV4Signer:
        """Return what signs requests for somebody else to send.

        With `path_style`, all buckets of a region have one origin.
        """
        from dataclasses import replace

        from twobuckets.s3.engine import SigV4Signer

        def clock() -> float:
            return self.now().timestamp()

        endpoint = self._s3_endpoint
        if path_style:
            endpoint = replace(endpoint, path_style=True)
        return SigV4Signer(endpoint, _SessionCredentials(keys), clock=clock)

    @cached_property
    def _s3_endpoint(self) -> Endpoint:
        from twobuckets.s3.engine import parse_endpoint

        address = self.aws.s3_address
        try:
            return parse_endpoint(
                address.url,
                region=address.region,
                path_style=address.path_style,
                ca_bundle=address.ca_bundle,
                proxy=address.proxy,
                hashes_payload=address.hashes_payload,
            )
        except ValueError as error:
            # Ours was looked at; AWS's own variables and files name endpoints as well.
            raise UsageError(
                f"Could not use {address.url} for S3: {error}",
                hint="See AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile's endpoint_url.",
            ) from None

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Return to go on: `--yes` says so, or the person at the terminal.

        Raises click.Abort when the person says no, and UsageError when nobody is there to ask.
        """
        if yes:
            return
        if not self.out.can_ask:
            raise UsageError(
                f"{question} Nobody is at a terminal to answer",
                hint="Give --yes to go on without being asked, or --dry-run to see the plan only.",
            )
        while (answer := self.out.ask(f"{question} [y/N] ").strip().lower()) not in _YES:
            if answer in _NO:
                self.decline()
            self.out.note("Answer y for yes or n for no.")

    def decline(self) -> NoReturn:
        """End the command because the person does not want it, like Ctrl-C at the question."""
        self.out.note(NOTHING_CHANGED)
        raise click.Abort

    def finish(self, summary: object | None = None, *, attention: bool = False) -> None:
        """End the command: show its summary and exit 3 when something needs a person."""
        if summary is not None:
            self.out.record(summary, went_well=not attention)
        if attention:
            click.get_current_context().exit(ExitStatus.ATTENTION)

    def configure_logging(self) -> None:
        """Send our log records to stderr from -v on, botocore's from -vv on."""
        if self.verbosity == 0:
            return
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("twobuckets").setLevel(logging.DEBUG)
        if self.verbosity > 1:
            # botocore's DEBUG prints signatures and authorization headers; INFO does not.
            logging.getLogger("botocore").setLevel(logging.INFO)
