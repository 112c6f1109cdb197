"""What is to be uploaded: paths and folders become files with their keys, one at a time.

Memory does not grow with the number of files: folders are read as the walk goes, in the order in
which the file system gives them.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from twobuckets.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STDIN: Final = "-"
"""The path that means standard input."""
LONGEST_KEY_BYTES: Final = 1024
"""Amazon S3 user guide, "Naming Amazon S3 objects"."""
MOST_OPEN_FOLDERS: Final = 500
"""Deeper trees than this are refused: each level of the walk holds a folder open."""

_KINDS: Final = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class File:
    """A local file and the key it gets. `size_bytes` is what it was when it was found."""

    path: str
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that was not uploaded, why, and what to do next.

    `kept_bytes` of it are in the incomplete upload `upload_id`, from where the same command goes
    on; both are empty when nothing was kept.
    """

    path: str
    key: str
    reason: str
    hint: str | None = None
    kept_bytes: int = 0
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a folder are meant.

    A pattern without `/` is matched against the name of a file or folder at any depth, one with
    `/` against its path from the given folder; `*` and `?` match any characters. A file is meant
    when it matches an `include` (or there is none) and neither it nor a folder above it matches an
    `exclude`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = True
    follow_symlinks: bool = True
    _included: Callable[[str], object] | None = field(init=False, repr=False, compare=False)
    _excluded: Callable[[str], object] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_included", _matcher(self.include))
        object.__setattr__(self, "_excluded", _matcher(self.exclude))

    def skips(self, relative: str) -> bool:
        """Tell whether a file or folder is left out, and with a folder all below it."""
        if not self.hidden and relative.rpartition("/")[2].startswith("."):
            return True
        return self._excluded is not None and bool(self._excluded(relative))

    def takes(self, relative: str) -> bool:
        """Tell whether a file that is not left out is meant."""
        return self._included is None or bool(self._included(relative))


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object] | None:
    if not patterns:
        return None
    whole = [
        # Any depth for a bare name: everything up to the last slash may come before it.
        fnmatch.translate(pattern.strip("/"))
        if "/" in pattern.strip("/")
        else "(?:.*/)?" + fnmatch.translate(pattern.rstrip("/"))
        for pattern in patterns
    ]
    return re.compile("|".join(f"(?:{one})" for one in whole), re.DOTALL).match


def find_files(
    paths: Iterable[str],
    *,
    key: str | None = None,
    prefix: str = "",
    recursive: bool = False,
    selection: Selection | None = None,
) -> Iterator[File | Failed]:
    """Yield the files that paths name, and a failure for everything that can't be uploaded.

    A file's key is `key`, or `prefix` and its name; the key of a file in a folder is `prefix` and
    its path from that folder, with `/`. Raises UsageError before the first file for requests that
    can't be meant: a folder without `recursive`, or `key` with anything but one file.
    """
    roots = list(paths)
    selection = selection or Selection()
    folders = [os.path.isdir(path) for path in roots]
    for path, is_folder in zip(roots, folders, strict=True):
        if is_folder and not recursive:
            raise UsageError(
                f"{path} is a folder", hint="Give --recursive to upload the files in it."
            )
        if is_folder and key is not None:
            raise UsageError(
                f"--key names one object, and {path} is a folder",
                hint="Give --prefix to put the files of a folder below a name.",
            )
        if path == STDIN and key is None:
            raise UsageError(
                "Standard input has no name of its own", hint="Give its object one with --key."
            )
    if key is not None and len(roots) != 1:
        raise UsageError(
            "--key names one object, and there are several files",
            hint="Give --prefix to put several files below a name.",
        )
    return _find_files(roots, folders, key, prefix, selection)


def _find_files(
    roots: list[str], folders: list[bool], key: str | None, prefix: str, selection: Selection
) -> Iterator[File | Failed]:
    taken: dict[str, str] = {}
    earlier: list[str] = []
    for path, is_folder in zip(roots, folders, strict=True):
        if is_folder:
            for found, relative in _walk(path, prefix, selection):
                yield _unless_taken(found, relative, taken, earlier)
            earlier.append(path)
        elif path == STDIN:
            assert key is not None
            yield _with_key(File(STDIN, key, 0))
        else:
            name = os.path.basename(path)
            found = _look_at(path, prefix + name if key is None else key, partial(os.stat, path))
            yield _unless_taken(found, name, taken, earlier)
            taken.setdefault(name, path)


def _unless_taken(
    found: File | Failed, relative: str, taken: dict[str, str], earlier: list[str]
) -> File | Failed:
    """Refuse a file whose key another path of the same command has: one would replace the other."""
    if isinstance(found, Failed):
        return found
    # Looked up in the folders rather than remembered, so that memory does not grow.
    other = taken.get(relative) or next(
        (os.path.join(f, relative) for f in earlier if os.path.lexists(os.path.join(f, relative))),
        None,
    )
    if other is None:
        return found
    return Failed(
        found.path,
        found.key,
        f"{other} has the same key in this command",
        hint="Upload them one after the other, or below different --prefix.",
    )


def _walk(root: str, prefix: str, selection: Selection) -> Iterator[tuple[File | Failed, str]]:
    """Yield what a folder holds with its path from there; a loop of links is a failure."""
    open_folders: list[tuple[Iterator[os.DirEntry[str]], str, tuple[int, int]]] = []

    def enter(path: str, relative: str) -> Failed | None:
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if any(identity == above for _, _, above in open_folders):
                return Failed(path, "", "this link leads back to a folder above it")
            if len(open_folders) >= MOST_OPEN_FOLDERS:
                return Failed(path, "", f"folders are nested more than {MOST_OPEN_FOLDERS} deep")
            open_folders.append((os.scandir(path), relative, identity))
        except OSError as error:
            return Failed(path, "", f"the folder could not be read: {error.strerror}")
        return None

    failure = enter(root, "")
    if failure is not None:
        yield failure, ""
    while open_folders:
        entries, above, _ = open_folders[-1]
        try:
            entry = next(entries, None)
        except OSError as error:
            yield Failed(root, "", f"the folder could not be read: {error.strerror}"), above
            entry = None
        if entry is None:
            open_folders.pop()
            continue
        relative = above + entry.name
        if selection.skips(relative) or (not selection.follow_symlinks and entry.is_symlink()):
            continue
        if _is_folder(entry):
            failure = enter(entry.path, relative + "/")
            if failure is not None:
                yield failure, relative
        elif selection.takes(relative):
            yield _look_at(entry.path, prefix + relative, entry.stat), relative


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _look_at(path: str, key: str, look: Callable[[], os.stat_result]) -> File | Failed:
    try:
        status = look()
    except OSError as error:
        return Failed(path, key, why_unreadable(error, path))
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no file")
        return Failed(
            path,
            key,
            f"it is {kind}; only regular files can be uploaded",
            hint=f"To upload what it gives: cat it into `twobuckets upload {STDIN} --key …`.",
        )
    return _with_key(File(path, key, status.st_size))


def _with_key(file: File) -> File | Failed:
    try:
        encoded = file.key.encode("utf-8")
    except UnicodeEncodeError:
        return Failed(
            file.path,
            file.key,
            "its name is not UTF-8, and S3's keys are",
            hint="Rename it, or give its object a name with --key.",
        )
    if not encoded:
        return Failed(file.path, file.key, "its key would be empty")
    if len(encoded) > LONGEST_KEY_BYTES:
        return Failed(
            file.path,
            file.key,
            f"its key has {len(encoded):,} bytes, and S3 allows {LONGEST_KEY_BYTES:,}",
            hint="Shorten the path, the name or --prefix.",
        )
    return file


def why_unreadable(error: OSError, path: str) -> str:
    """Return in words why a file can't be read."""
    match error.errno:
        case errno.ENOENT if os.path.islink(path):
            return "it is a link that leads nowhere"
        case errno.ENOENT:
            return "there is no such file"
        case errno.EACCES | errno.EPERM:
            return "permission denied"
        case errno.ELOOP:
            return "its links lead in a circle"
        case _:
            return f"it can't be read: {error.strerror or error}"
