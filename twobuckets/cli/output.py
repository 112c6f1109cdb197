"""Records to the terminal, to plain lines or to JSON lines: the only writer of stdout.

Data goes to stdout; questions, progress, notes and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Final, TextIO

import click

from twobuckets.records import json_line
from twobuckets.text import is_hidden, visible, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn

    from twobuckets.errors import TwoBucketsError

NOTHING_CHANGED: Final = "Nothing was changed."
"""What a command says that ends at its question."""
FEW: Final = 10
"""So many have a line each on a terminal; more are counted."""

# A pipe holds as much on Linux; more at once makes nothing faster.
_BULK_CHARACTERS = 64 * 1024
_PAGE_COLUMNS = 100


class Output:
    """Shows records, notes and errors the way this run was asked to."""

    def __init__(
        self,
        *,
        json: bool = False,
        color: bool = True,
        quiet: bool = False,
        verbose: bool = False,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self._verbose = verbose
        self._color = color
        self._held: list[str] | None = None
        self._held_characters = 0
        self._live: Progress | None = None

    @cached_property
    def is_terminal(self) -> bool:
        """Tell whether a person reads stdout as it comes."""
        return not self.json and sys.stdout.isatty()

    @cached_property
    def _counts_instead(self) -> bool:
        return self.is_terminal and self.shows_progress and not self._verbose

    @property
    def can_ask(self) -> bool:
        """Tell whether a question would reach a person who can answer it."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def shows_progress(self) -> bool:
        """Tell whether live progress has a place to be seen."""
        if self.json or self.quiet or not sys.stderr.isatty():
            return False
        # Behind a pipe somebody else may write to the same terminal, into the line that is drawn.
        return not _is_pipe(sys.stdout)

    def record(self, record: object, *, went_well: bool = False, many: bool = False) -> None:
        """Show one record.

        What went well is left out with --quiet. One of `many` of the kind is left out as well
        where live progress counts them, unless -v asks for each. JSON has all.
        """
        if went_well and not self.json and (self.quiet or (many and self._counts_instead)):
            return
        if self.json:
            self._write(json_line(record) + "\n")
            return
        from twobuckets.cli.views import human, plain

        if self.is_terminal:
            view = human(record)
            if view is not None:
                self._print(sys.stdout, view)
            return
        text = plain(record)
        if text is not None:
            self._write(_harmless(text) + "\n")

    def page(self, record: object) -> None:
        """Show one record in the pager of whoever reads at a terminal, as `record` does elsewhere.

        Lines are no longer than is good to read, however wide the terminal is.
        """
        if not self.is_terminal or not sys.stdin.isatty():
            self.record(record)
            return
        from rich.theme import Theme

        from twobuckets.cli.views import human

        console = self._console(sys.stdout)
        # rich's own words in backquotes are on black, whatever colour the terminal has.
        with console.use_theme(Theme({"markdown.code": "bold cyan"})), console.capture() as shown:
            console.print(human(record), width=min(console.width, _PAGE_COLUMNS))
        # As Git does: colours, and no waiting at the end of what fits on the screen.
        os.environ.setdefault("LESS", "-FRX")
        click.echo_via_pager(shown.get(), color=self._color or None)

    def stream(self, records: Iterable[object]) -> None:
        """Show records as they come."""
        for record in records:
            self.record(record)

    def raw(self, text: str) -> None:
        """Write text that is itself the result, such as a template, exactly as it is."""
        self._write(text)

    def raw_bytes(self, data: bytes) -> None:
        """Write bytes that are themselves the result, for a pipe."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def lines(self, text: str) -> None:
        """Write lines made elsewhere: rows of a listing, for which a record each costs too much.

        With `json` they have to be lines of JSON.
        """
        self._write(text if self.json else _harmless(text))

    @contextlib.contextmanager
    def bulk(self) -> Iterator[None]:
        """Write what the body shows in large pieces: a listing may have millions of lines.

        On a terminal everything is shown at once all the same.
        """
        self._held = None if self.is_terminal else []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self._write("".join(held))

    def _write(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
            self._held_characters += len(text)
            if self._held_characters < _BULK_CHARACTERS:
                return
            text = "".join(self._held)
            self._held.clear()
            self._held_characters = 0
        sys.stdout.write(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell the person something beside the data, on stderr."""
        if self.quiet:
            return
        self._message("note", text, "dim")

    def warn(self, text: str) -> None:
        """Warn of something that does not stop the command, on stderr."""
        self._message("warning", text, "yellow")

    def error(self, error: TwoBucketsError) -> None:
        """Show why the command failed and what to do next, on stderr."""
        if self.json:
            line = {
                "type": "error",
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            sys.stderr.write(json.dumps(line) + "\n")
            return
        self._message("error", error.message, "bold red", label="Error: ")
        if error.hint is not None:
            self._message("hint", error.hint, "", label="  ")

    def ask(self, question: str) -> str:
        """Return the person's answer to a question put on stderr."""
        try:
            sys.stderr.write(visible(question))
            sys.stderr.flush()
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            # Ctrl-D is no answer; like Ctrl-C it ends the command.
            sys.stderr.write("\n")
            self.note(NOTHING_CHANGED)
            raise KeyboardInterrupt
        return line.rstrip("\n")

    @contextlib.contextmanager
    def progress(
        self, *columns: ProgressColumn | str, transient: bool = True
    ) -> Iterator[Progress]:
        """Yield a live progress display on stderr; one that draws nothing where nobody sees it."""
        from rich.progress import Progress

        progress = Progress(
            *columns,
            console=self._console(sys.stderr),
            transient=transient,
            disable=not self.shows_progress,
            # rich would send what is written to stdout to this console, which is stderr: a pipe
            # would get nothing. `_print` keeps lines and display apart instead.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        around = self._live
        self._live = progress if self.shows_progress else None
        try:
            with progress:
                yield progress
        finally:
            self._live = around

    @contextlib.contextmanager
    def screen(self) -> Iterator[Callable[[object], None]]:
        """Have the whole terminal for as long as the body takes; yield what fills it anew."""
        from rich.live import Live

        from twobuckets.cli.views import human

        with Live(
            console=self._console(sys.stdout),
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        ) as live:

            def show(record: object) -> None:
                view = human(record)
                assert view is not None
                live.update(view, refresh=True)

            yield show

    @contextlib.contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        """Show on stderr what is being done for as long as the body takes."""
        if not self.shows_progress:
            # Without loading what draws.
            yield
            return
        with self.progress("{task.description}…") as progress:
            progress.add_task(doing, total=None)
            yield

    def _message(self, kind: str, text: str, style: str, label: str = "") -> None:
        if self.json:
            sys.stderr.write(json.dumps({"type": kind, "message": text}) + "\n")
            return
        shown = label + visible(text)
        if sys.stderr.isatty():
            # Lines that go on below their beginning look like other messages.
            import shutil

            width = max(40, shutil.get_terminal_size().columns - 1)
            shown = wrapped(visible(text), width, "  ", label)
        if self._live is not None or (style and self._color and sys.stderr.isatty()):
            from rich.text import Text

            self._print(sys.stderr, Text(shown, style=style))
        else:
            sys.stderr.write(shown + "\n")
        sys.stderr.flush()

    def _print(self, stream: TextIO, view: RenderableType) -> None:
        from rich.text import Text

        if isinstance(view, Text):
            # Same length, so that styles stay where they were.
            view.plain = _harmless(view.plain)
        # A line on the terminal that shows live progress goes above it, by the console that draws
        # it; stdout and stderr are the same place then.
        above = self._live is not None and stream.isatty()
        console = self._live.console if self._live and above else self._console(stream)
        console.print(view, soft_wrap=isinstance(view, Text), highlight=False)

    def _console(self, stream: TextIO) -> Console:
        from rich.console import Console

        return Console(
            file=stream, no_color=not self._color, markup=False, emoji=False, highlight=False
        )


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _harmless(text: str) -> str:
    """Return text of the same length in which only line ends and tabs act on a terminal.

    The last guard: views show remote text with `visible`, which says what the character was.
    """
    # What is printable in Python's sense hides nothing; asking for a whole text costs little.
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join("\ufffd" if is_hidden(c) and c not in "\n\t" else c for c in text)
