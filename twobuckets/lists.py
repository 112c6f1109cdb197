"""Files that are written whole or not at all: lists of what failed, and what was read."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.records import json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


@contextlib.contextmanager
def published_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Yield a file that takes its place, whole, when the body ends well.

    Raises UsageError when something is there and may not be replaced, and TwoBucketsError when it
    can't be written; nothing is left behind then.
    """
    import tempfile

    draft: Path | None = None
    try:
        if path.is_dir() or ((path.exists() or path.is_symlink()) and not overwrite):
            raise _is_there(path)
        # Of a link, what it leads to is replaced.
        target = Path(os.path.realpath(path))
        descriptor, name = tempfile.mkstemp(prefix=".twobuckets-", dir=target.parent)
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o666 & ~mask)
        if overwrite:
            draft.replace(target)
        else:
            _link(draft, target)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise TwoBucketsError(f"Could not write {path}: {error.strerror}") from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _link(draft: Path, target: Path) -> None:
    """Give a draft its name. Unlike a rename, this fails when somebody else was quicker."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has hard links (FAT, some network shares): there an empty file of
        # ours holds the place, which is nobody else's to take any more.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            draft.replace(target)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def _is_there(path: Path) -> UsageError:
    return UsageError(
        f"{path} is there already",
        hint="Name a file that is not there, or give --overwrite, which replaces a file.",
    )


class FailureList:
    """Lists failures in a file, a line of JSON each; without a name, nowhere.

    The file changes only when the run has come to its end, whole: until then it may be what the
    run is fed from, in whatever way, and name what was not tried yet. Meanwhile each failure is
    written to `FILE.unfinished`, at once, and stays there however the run ends. What is no regular
    file, such as a pipe, is written to directly.

    Entering raises UsageError when the file can't be written, before anything is done. `warn` is
    told where the failures of a run are that did not come to its end.
    """

    def __init__(self, name: str | None, warn: Callable[[str], None]) -> None:
        self._name = name
        self._warn = warn
        self._stream: TextIO | None = None
        self._target = ""
        self._unfinished: str | None = None
        self._is_empty = True

    def __enter__(self) -> Self:
        if self._name is not None:
            try:
                self._open(self._name)
            except OSError as error:
                raise UsageError(
                    f"Could not write the list of failures {self._name}: {error.strerror}",
                    hint="Name a file in a folder that can be written to: the list grows beside "
                    "the file, and takes its place in the end.",
                ) from None
        return self

    def _open(self, name: str) -> None:
        try:
            # Whether an old list may be replaced is found out now, and not in the end.
            existing = os.open(name, os.O_WRONLY)
        except FileNotFoundError:
            mode = None
        else:
            mode = os.fstat(existing).st_mode
            if not stat.S_ISREG(mode):
                self._stream = os.fdopen(existing, "w", encoding="utf-8", buffering=1)
                return
            os.close(existing)
        # Of a link, what it leads to is replaced.
        self._target = os.path.realpath(name)
        self._stream = _create_beside(self._target)
        self._unfinished = self._stream.name
        if mode is not None:
            os.fchmod(self._stream.fileno(), stat.S_IMODE(mode))

    def add(self, failure: object) -> None:
        """Write a record down for good."""
        if self._stream is None:
            return
        self._is_empty = False
        try:
            self._stream.write(json_line(failure) + "\n")
        except OSError as error:
            raise self._broken(error) from None

    def complete(self) -> None:
        """Put the list in the file's place: the run has come to its end."""
        if self._stream is None or self._unfinished is None:
            return
        try:
            os.fsync(self._stream.fileno())
            os.replace(self._unfinished, self._target)
        except OSError as error:
            raise self._broken(error) from None
        self._unfinished = None

    def _broken(self, error: OSError) -> TwoBucketsError:
        return TwoBucketsError(
            f"Could not write the list of failures {self._name}: {error.strerror}",
            hint="Nothing is lost: the same command, with a place for the list, goes on.",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError):
            # Every line has left the buffer, or it was said that it could not.
            self._stream.close()
        if self._unfinished is None:
            return
        if self._is_empty:
            with contextlib.suppress(OSError):
                os.unlink(self._unfinished)
        else:
            self._warn(
                f"The run did not come to its end, so {self._name} stays as it was; what failed "
                f"until then is listed in {self._unfinished}"
            )


def _create_beside(target: str) -> TextIO:
    """Create the file where a list grows, by a name that no other run has taken."""
    for number in itertools.count(1):
        name = f"{target}.unfinished" + (f".{number}" if number > 1 else "")
        try:
            return open(name, "x", encoding="utf-8", buffering=1)
        except FileExistsError:
            # Left by a run that was killed, perhaps the input of this one, or of one under way.
            continue
    raise AssertionError("itertools.count has no end")
