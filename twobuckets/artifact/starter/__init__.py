"""A new project: settings and a processor that works, to be changed by whoever starts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twobuckets import settings as settings_
from twobuckets.errors import TwoBucketsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twobuckets.settings import Settings

_FILES = ("twobuckets.toml", "processor.py")
HEAVY_FILES = (*_FILES, "Dockerfile")
"""With the image for files that are too much for Lambda."""
# The stack's name in the settings that stand beside this module.
_STACK = "intake"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file that a new project begins with."""

    path: Path


def start(directory: Path, names: Sequence[str] = _FILES) -> list[WrittenFile]:
    """Write a new project's files into a directory, which is made when it is not there.

    Raises UsageError when one of the files is there already, and TwoBucketsError when the directory
    can't be written; none is written then.
    """
    taken = [directory / name for name in names if (directory / name).is_symlink()]
    taken += [directory / name for name in names if (directory / name).exists()]
    if taken:
        raise _is_there(taken[0])
    written: list[WrittenFile] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            # "x" again: another `init` may have come between.
            with (directory / name).open("x", encoding="utf-8") as file:
                written.append(WrittenFile(directory / name))
                file.write(_text_of(name, directory))
    except OSError as error:
        for done in written:
            done.path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError) and directory.is_dir():
            raise _is_there(Path(error.filename)) from None
        raise TwoBucketsError(
            f"Could not start a project in {directory}: {error.strerror}",
            hint="Choose another folder.",
        ) from None
    return written


def project_or_new(settings: Settings, directory: Path) -> Settings:
    """Return the settings if there is a processor to build, else those of a new project there.

    They are for the embedded AWS. Raises what `start` raises.
    """
    named = settings.origins.get("source", settings_.DEFAULT) != settings_.DEFAULT
    if settings.file is not None and (named or (settings.directory / settings.source).exists()):
        return settings
    if not directory.exists():
        start(directory)
    flags = {"stack": settings_.LOCAL, "config": str(directory / settings_.FILE_NAME)}
    return settings_.load(flags, {}, directory)


def _text_of(name: str, directory: Path) -> str:
    text = Path(__file__).with_name(name).read_text("utf-8")
    if name == "twobuckets.toml":
        text = text.replace(f'"{_STACK}"', f'"{_stack_for(directory)}"', 1)
    return text


def _stack_for(directory: Path) -> str:
    """Return the directory's name as a stack's, or a default when it can't be one."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", directory.resolve().name).strip("-")
    # "local" means the embedded AWS, and bucket names made from the stack's are short.
    fits = re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,30}", name) and name.lower() != "local"
    return name.lower() if fits else _STACK


def _is_there(path: Path) -> UsageError:
    return UsageError(
        f"Could not start a project: {path} is there already, and nothing is overwritten",
        hint="Choose another folder, or move that file away.",
    )
