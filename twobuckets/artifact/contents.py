"""What goes into an artifact: the files of the source, of the wheels and of our own runtime."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import twobuckets
from twobuckets.errors import TwoBucketsError, UsageError

# Written by installers: they differ between pip and uv, and name this machine's paths.
_INSTALLER_RECORDS = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
)

_RENAME = "Rename the one that is yours, or take the requirement out."


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to pack: where it goes in the zip and where its bytes are."""

    path: str
    file: Path
    executable: bool
    size_bytes: int


def iter_source(source: Path, *, out: Path) -> Iterator[Entry]:
    """Yield the user's own files: a module, a package under its name, or a folder's contents.

    A folder is a package when it has an `__init__.py`. Left out are hidden files (`.git`, `.env`),
    byte code, `*.egg-info`, virtual environments and the artifact itself. Links are followed, so
    that a linked file and a copy of it give the same artifact.
    Raises UsageError when there is nothing at `source` or a name or file type can't be packed.
    """
    if source.is_file():
        if source.suffix != ".py":
            raise UsageError(
                f"Could not build the processor: {source} is neither a .py file nor a folder",
                hint='Name it in twobuckets.toml: [processor] source = "processor.py"',
            )
        yield _entry(source, source.name)
    elif source.is_dir():
        package = (source / "__init__.py").exists()
        yield from _walk(source, f"{source.resolve().name}/" if package else "", _private(out))
    else:
        raise UsageError(
            f"Could not build the processor: {source} does not exist",
            hint="`twobuckets init` writes one; [processor] source in twobuckets.toml names one.",
        )


def iter_runtime() -> Iterator[Entry]:
    """Yield the files of `twobuckets.processor`, which is all of twobuckets that Lambda needs."""
    root = Path(twobuckets.__file__).parent
    yield _entry(root / "__init__.py", "twobuckets/__init__.py")
    yield from _walk(root / "processor", "twobuckets/processor/", _byte_code)


def iter_wheels(folder: Path) -> Iterator[Entry]:
    """Yield what the wheels installed in a folder need at run time, without installers' traces.

    Command line scripts are left out: they start with the path of this machine's Python.
    """

    def skip(item: os.DirEntry[str]) -> bool:
        at_top = os.path.samefile(os.path.dirname(item.path), folder)
        if at_top and item.name in ("bin", ".lock"):
            return True
        record = item.name in _INSTALLER_RECORDS and ".dist-info" in item.path
        return record or _byte_code(item)

    yield from _walk(folder, "", skip)


def merge(*origins: tuple[str, Iterable[Entry]]) -> list[Entry]:
    """Return all entries in the order of their paths' bytes.

    Each origin is a name for messages and its entries.
    Raises TwoBucketsError when two origins bring the same path.
    """
    found: dict[str, tuple[str, Entry]] = {}
    for origin, entries in origins:
        for entry in entries:
            if entry.path in found:
                raise TwoBucketsError(
                    f"Could not pack the processor: {entry.path} comes from {found[entry.path][0]}"
                    f" and from {origin}",
                    hint=_RENAME,
                )
            found[entry.path] = (origin, entry)
    for path, (origin, _) in found.items():
        for parent in PurePosixPath(path).parents:
            if str(parent) in found:
                raise TwoBucketsError(
                    f"Could not pack the processor: {parent} is a file of"
                    f" {found[str(parent)][0]} and a folder of {origin}",
                    hint=_RENAME,
                )
    return [entry for _, (_, entry) in sorted(found.items(), key=lambda item: item[0].encode())]


def _walk(
    folder: Path,
    inside: str,
    skip: Callable[[os.DirEntry[str]], bool],
    above: tuple[tuple[int, int], ...] = (),
) -> Iterator[Entry]:
    here = folder.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        raise UsageError(
            f"Could not pack the processor: {folder} is a link to a folder that contains it",
            hint="Remove the link.",
        )
    try:
        with os.scandir(folder) as items:
            kept = [item for item in items if not skip(item)]
    except PermissionError as error:
        raise TwoBucketsError(
            f"Could not pack the processor: folder {folder} can't be read ({error.strerror})",
            hint="Change its permissions.",
        ) from error
    for item in kept:
        if Path(item.path).is_dir():
            yield from _walk(Path(item.path), f"{inside}{item.name}/", skip, (*above, identity))
        else:
            yield _entry(Path(item.path), inside + item.name)


def _entry(file: Path, path: str) -> Entry:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"Could not pack the processor: the name of {file} is not UTF-8", hint="Rename it."
        ) from error
    try:
        status = file.stat()
    except OSError as error:
        link = "is a link that leads nowhere" if file.is_symlink() else error.strerror
        raise UsageError(
            f"Could not pack the processor: {file} {link}", hint="Fix or remove it."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"Could not pack the processor: {file} is neither a file nor a folder",
            hint="Move it out of the processor's folder.",
        )
    return Entry(path, file, bool(status.st_mode & stat.S_IXUSR), status.st_size)


def _byte_code(item: os.DirEntry[str]) -> bool:
    return item.name == "__pycache__" or item.name.endswith((".pyc", ".pyo"))


def _private(out: Path) -> Callable[[os.DirEntry[str]], bool]:
    def skip(item: os.DirEntry[str]) -> bool:
        return (
            _byte_code(item)
            or item.name.startswith(".")
            or item.name.endswith(".egg-info")
            or Path(item.path, "pyvenv.cfg").exists()
            or Path(item.path) == out
            or (out.exists() and Path(item.path).exists() and os.path.samefile(item.path, out))
        )

    return skip
