"""What goes into an artifact: the files of the source, of the wheels and of our own runtime."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import twobuckets
from twobuckets.errors import TwoBucketsError, UsageError

# Written by installers: they differ between pip and uv, and name this machine's paths.
_INSTALLER_RECORDS = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
)

_TOLD = 10
_RENAME = "Rename the one that is yours, or take the requirement out."


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to pack: where it goes in the zip and where its bytes are.

    `origin` is `source`, `requirements`, `runtime` or `bytecode`.
    """

    path: str
    file: Path
    executable: bool
    size_bytes: int
    origin: str = "source"


def iter_source(source: Path, *, out: Path, include: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the user's own files: a module, a package under its name, or a folder's contents.

    A folder is a package when it has an `__init__.py`. Left out are hidden files (`.git`, `.env`),
    byte code, `*.egg-info`, virtual environments and the artifact itself. Links are followed, so
    that a linked file and a copy of it give the same artifact. What matches a pattern of `include`,
    which holds paths in the artifact, is taken though it is hidden or a link out of the folder.
    Raises UsageError when there is nothing at `source`, a name or file type can't be packed, or
    links lead out of the folder.
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
        inside = f"{source.resolve().name}/" if package else ""
        leading_out: list[str] = []
        yield from _walk(source, inside, _private(source, inside, out, include, leading_out))
        if leading_out:
            more = f" and {len(leading_out) - _TOLD} more" if len(leading_out) > _TOLD else ""
            names = ", ".join(f'"{path}"' for path in leading_out[:_TOLD])
            raise UsageError(
                f"Could not pack the processor: links lead out of {source}:"
                f" {', '.join(leading_out[:_TOLD])}{more}",
                hint="Put copies there instead, or say that they are meant, under [processor] in"
                f" twobuckets.toml: include = [{names}]",
            )
    else:
        raise UsageError(
            f"Could not build the processor: {source} does not exist",
            hint="`twobuckets init` writes one; [processor] source in twobuckets.toml names one.",
        )


def iter_runtime() -> Iterator[Entry]:
    """Yield the files of `twobuckets.processor`, which is all of twobuckets that Lambda needs."""
    root = Path(twobuckets.__file__).parent
    yield _entry(root / "__init__.py", "twobuckets/__init__.py", "runtime")
    yield from _walk(root / "processor", "twobuckets/processor/", _byte_code, "runtime")


def iter_broker() -> Iterator[Entry]:
    """Yield all that the upload page's broker is: its own room, the page, and how to sign."""
    root = Path(twobuckets.__file__).parent
    for name in ("__init__.py", "sigv4.py"):
        yield _entry(root / name, f"twobuckets/{name}", "runtime")
    for room in ("broker", "page"):
        yield from _walk(root / room, f"twobuckets/{room}/", _byte_code, "runtime")


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

    yield from _walk(folder, "", skip, "requirements")


def is_included(path: str, include: Sequence[str]) -> bool:
    """Tell whether a path, or a folder above it, matches one of the patterns."""
    above = [path, *(str(parent) for parent in PurePosixPath(path).parents[:-1])]
    return any(fnmatchcase(one, pattern) for one in above for pattern in include)


def merge(*origins: tuple[str, Iterable[Entry]]) -> list[Entry]:
    """Return all entries in the order of their paths' bytes.

    Each origin is a name for messages and its entries. The same file from two of them is packed
    once: a package can be the source and a requirement.
    Raises TwoBucketsError when two origins bring the same path with different content.
    """
    found: dict[str, tuple[str, Entry]] = {}
    for origin, entries in origins:
        for entry in entries:
            if entry.path in found:
                if _is_same(found[entry.path][1], entry):
                    continue
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
    origin: str = "source",
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
            yield from _walk(
                Path(item.path), f"{inside}{item.name}/", skip, origin, (*above, identity)
            )
        else:
            yield _entry(Path(item.path), inside + item.name, origin)


def _entry(file: Path, path: str, origin: str = "source") -> Entry:
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
    return Entry(path, file, bool(status.st_mode & stat.S_IXUSR), status.st_size, origin)


def _is_same(one: Entry, other: Entry) -> bool:
    return one.size_bytes == other.size_bytes and filecmp.cmp(one.file, other.file, shallow=False)


def _byte_code(item: os.DirEntry[str]) -> bool:
    return item.name == "__pycache__" or item.name.endswith((".pyc", ".pyo"))


def _private(
    source: Path, inside: str, out: Path, include: Sequence[str], leading_out: list[str]
) -> Callable[[os.DirEntry[str]], bool]:
    """Return what tells the files to leave out; links that lead out are noted on the way."""
    root = source.resolve()

    def skip(item: os.DirEntry[str]) -> bool:
        within = Path(item.path).relative_to(source)
        path = inside + within.as_posix()
        # A folder is looked into for what is meant of that which lies deeper in it.
        is_meant = is_included(path, include) or any(one.startswith(f"{path}/") for one in include)
        is_link = item.is_symlink() and Path(item.path).exists()
        if is_link and not is_meant and not Path(item.path).resolve().is_relative_to(root):
            leading_out.append(path)
            return True
        is_hidden = any(part.startswith(".") for part in within.parts)
        return (
            _byte_code(item)
            or (is_hidden and not is_meant)
            or item.name.endswith(".egg-info")
            or Path(item.path, "pyvenv.cfg").exists()
            or Path(item.path) == out
            or (out.exists() and Path(item.path).exists() and os.path.samefile(item.path, out))
        )

    return skip
