"""The root command: global options, commands that load on use, and errors become exit statuses.

This room asks and shows; what is to be done is decided below it.

commands          the commands, a module each: ask, call a room, show
app               what a command gets: settings, clients, output and time, each made on first use
options           text to values at the edge, and options that commands share
output            the only writer of stdout: for people, for pipes, as JSON
views             how each record looks, a file a room
rows              rows of listings, for which a record each costs too much
times             how instants are written for people
records           the records that commands make themselves: how each ended
keyboard          single keys of whoever sits at the terminal
fleet             the pipelines of several regions, for --all
site              the pipeline as doctor examines it, for the commands that ask doctor
default_pipeline  what `--stack local` deploys by itself
completing        what a shell completes: names that are known here, and keys that S3 is asked for
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from twobuckets import __version__
from twobuckets.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twobuckets.cli.app import App

# Command, and the module of `commands` that holds it, → what `--help` says of it: the list is
# shown without importing any of them.
COMMANDS: Final = {
    "init": "Write twobuckets.toml and a processor.py to start from.",
    "build": "Build the processor's artifact.",
    "template": "Print the CloudFormation template.",
    "deploy": "Create or change the stack.",
    "destroy": "Delete the stack; asks first.",
    "status": "Show the pipeline at a glance.",
    "upload": "Upload files to staging.",
    "presign": "Sign an upload for somebody else.",
    "link": "Make a link to the upload page.",
    "credentials": "Get credentials that can upload one key.",
    "ls": "List objects, or incomplete multipart uploads.",
    "cat": "Write the bytes of a file to standard output.",
    "get": "Write a staged or archived file into a file.",
    "logs": "Show what the processor logged.",
    "trace": "Show the whole life of a file, and what happens next.",
    "probe": "Send a small file end to end, and time its way.",
    "watch": "Watch the pipeline live.",
    "doctor": "Find what is stuck, orphaned or broken, and why.",
    "reprocess": "Get objects processed again.",
    "redrive": "Move dead letters back to where they came from.",
    "local": "Run the embedded AWS on this machine.",
    "help": "Show the manual.",
    "completion": "Print the completion script of a shell.",
}
"""In the order that `--help` shows."""


PROGRAM: Final = "twobuckets"
COMPLETE_VARIABLE: Final = "_TWOBUCKETS_COMPLETE"
"""What a shell sets that wants to complete a line."""


def _set_flag(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    app: App = ctx.find_root().obj
    if value is not None:
        app.flags[str(parameter.name)] = value


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().obj.json |= value


def _set_no_color(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().obj.color &= not value


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().obj.quiet |= value


def _set_local_times(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().obj.local_times |= value


def _set_verbosity(ctx: click.Context, _: click.Parameter, value: int) -> None:
    app: App = ctx.find_root().obj
    app.verbosity = max(app.verbosity, value)


def completes(what: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return what completes a parameter, one of `completing`, which loads when a shell asks."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
        completing = importlib.import_module("twobuckets.cli.completing")
        return getattr(completing, what)(ctx, parameter, incomplete)

    return complete


def global_options() -> list[click.Option]:
    """Return the options that are accepted before and after every command's name."""

    def option(*names: str, **attributes: Any) -> click.Option:
        return click.Option(names, expose_value=False, is_eager=True, **attributes)

    return [
        option(
            "--stack",
            metavar="NAME",
            callback=_set_flag,
            help="The pipeline's stack.",
            shell_complete=completes("stacks"),
        ),
        option(
            "--config",
            metavar="FILE",
            callback=_set_flag,
            help="Use this settings file.",
            shell_complete=completes("files"),
        ),
        option(
            "--profile",
            metavar="NAME",
            callback=_set_flag,
            help="The AWS profile.",
            shell_complete=completes("profiles"),
        ),
        option(
            "--region",
            metavar="REGION",
            callback=_set_flag,
            help="The AWS region.",
            shell_complete=completes("regions"),
        ),
        option(
            "--endpoint-url",
            metavar="URL",
            callback=_set_flag,
            help="Use this endpoint instead of AWS's.",
        ),
        option("--json", is_flag=True, callback=_set_json, help="One JSON object a line."),
        option(
            "-v",
            "--verbose",
            count=True,
            callback=_set_verbosity,
            help="Log what happens; -vv adds AWS calls.",
        ),
        option(
            "-q",
            "--quiet",
            is_flag=True,
            callback=_set_quiet,
            help="Only data and what needs you: no progress, no notes, no line for what went well.",
        ),
        option(
            "--local",
            is_flag=True,
            callback=_set_local_times,
            help="Times in this machine's zone instead of UTC.",
        ),
        option("--no-color", is_flag=True, callback=_set_no_color, help="No colours."),
    ]


class Command(click.Command):
    """A command that accepts the global options among its own."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += global_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command the way the global options ask for, wherever they stood."""
        from twobuckets.cli.times import local_times

        app: App = ctx.find_root().obj
        app.configure_logging()
        with local_times(app.local_times):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options only: the global ones are in the root's help."""
        own = self.params
        self.params = [p for p in own if p.expose_value]
        try:
            super().format_options(ctx, formatter)
        finally:
            self.params = own

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say which page of the manual tells more, and where the global options are described."""
        from twobuckets.manual import topic_of

        super().format_epilog(ctx, formatter)
        program, name, *_ = ctx.command_path.split()
        formatter.write_paragraph()
        if topic := topic_of(name):
            formatter.write_text(f"Manual: `{program} help {topic}`.")
        formatter.write_text(f"Global options (--stack, --json, ...): see `{program} --help`.")


class Group(Command, click.Group):
    """A group whose commands are ours."""

    command_class = Command


class Root(click.Group):
    """Loads commands on use and turns every error into a message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"twobuckets.cli.commands.{cmd_name}")
        return getattr(module, cmd_name)  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command's name, suggesting the nearest one for a mistyped name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete commands from their table, importing none, and options."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=says)
            for name, says in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from their table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Click would make status 1 of it, which means that something failed.
            _forget_stdout()
            ctx.exit(128 + signal.SIGPIPE)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the program and exit with its status."""
        from twobuckets.cli.app import App

        if COMPLETE_VARIABLE in os.environ:
            # Tells click of our shells.
            importlib.import_module("twobuckets.cli.completing")
        arguments = list(sys.argv[1:] if args is None else args)
        app = App()
        try:
            status = super().main(
                arguments,
                prog_name or PROGRAM,
                complete_var or COMPLETE_VARIABLE,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                obj=app,
                **extra,
            )
            sys.stdout.flush()
        except click.UsageError as error:
            _show_usage_error(error, as_json="--json" in arguments)
            sys.exit(ExitStatus.USAGE)
        except BrokenPipeError:
            _forget_stdout()
            sys.exit(128 + signal.SIGPIPE)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(ExitStatus.INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the one place where errors become statuses
            sys.exit(_show_error(app, error))
        sys.exit(status if isinstance(status, int) else 0)


def _forget_stdout() -> None:
    """Let what is still to be written go nowhere: the reader has seen enough, as in `… | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage_error(error: click.UsageError, *, as_json: bool) -> None:
    if as_json:
        line = {
            "type": "error",
            "message": error.format_message(),
            "hint": None,
            "exit_code": ExitStatus.USAGE,
        }
        sys.stderr.write(json.dumps(line) + "\n")
    else:
        error.show()


def _show_error(app: App, error: Exception) -> int:
    """Show what the user caused in words and let a bug keep its traceback."""
    from twobuckets.errors import DeniedError, TwoBucketsError

    if type(error).__module__.split(".")[0] in ("boto3", "botocore"):
        from twobuckets.aws import explain

        error = explain(error, "finish the command")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        # What is left in the buffer could not be written at the end either.
        _forget_stdout()
        error = TwoBucketsError(f"Could not write what there is to say: {error.strerror}")
    if isinstance(error, DeniedError):
        error = app.explain_denial(error)
    if isinstance(error, TwoBucketsError):
        app.out.error(error)
        return error.exit_code
    import traceback

    traceback.print_exception(error)
    sys.stderr.write("This is a bug in twobuckets; please report it with the lines above.\n")
    return ExitStatus.FAILED


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="twobuckets")
def cli() -> None:
    """Run two buckets and a Lambda: set up, upload, inspect, heal, reprocess."""


cli.params += global_options()


def main() -> NoReturn:
    """Run the program: the console script's entry."""
    if os.name != "posix":
        sys.stderr.write(
            "Error: twobuckets runs on Linux and macOS only.\n"
            "  On Windows, use it in the Windows Subsystem for Linux (WSL).\n"
        )
        sys.exit(ExitStatus.FAILED)
    # Records come by the hundred thousand and form no cycles; to look for some every 700 of them
    # takes an eighth of the time.
    gc.set_threshold(50_000, 20, 100)
    cli.main()


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command of ours: `@command("upload")`."""
    return click.command(name, cls=Command, **attributes)
