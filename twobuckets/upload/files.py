"""What is to be uploaded: paths and folders become files with their keys, one at a time.

Memory does not grow with the number of files: folders are read as the walk goes, in the order in
which the file system gives them.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal

from twobuckets.errors import UsageError
from twobuckets.s3.keys import find_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STDIN: Final = "-"
"""The path that means standard input."""
MOST_OPEN_FOLDERS: Final = 500
"""Deeper trees than this are refused: each level of the walk holds a folder open."""

_CHANGED: Final = "it changed while it was being uploaded, so nothing was stored"
_CHANGED_HINT: Final = "Upload it again once nothing writes to it."
_NOT_WHAT_WAS_SENT: Final = "S3 says that it stored something other than what was sent"
_NOT_WHAT_WAS_SENT_HINT: Final = "Look at the object before anything relies on it; upload it again."
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


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that a list names; `key` is None where it has the key that its name gives it."""

    path: str
    key: str | None = None


def find_files(
    paths: Iterable[str],
    *,
    key: str | None = None,
    prefix: str = "",
    recursive: bool = False,
    selection: Selection | None = None,
    listed: Iterable[Listed] = (),
    on_twins: Callable[[str, str], None] | None = None,
) -> Iterator[File | Failed]:
    """Yield the files that paths and a list name, and a failure for all that can't be uploaded.

    A file's key is `key`, or `prefix` and its name; the key of a file in a folder is `prefix` and
    its path from that folder, with `/`. No two files of one call get the same key. `listed` is
    read as the files are taken, and what it names fails one by one. `on_twins` is told of two paths
    in a folder that differ only in how Unicode composes their letters: they become two keys that
    look the same. Raises UsageError before the first file for requests that can't be meant: a
    folder without `recursive`, or `key` with anything but one file.
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
    return _find_files(zip(roots, folders, strict=True), key, prefix, selection, listed, on_twins)


def _find_files(
    roots: Iterable[tuple[str, bool]],
    key: str | None,
    prefix: str,
    selection: Selection,
    listed: Iterable[Listed],
    on_twins: Callable[[str, str], None] | None,
) -> Iterator[File | Failed]:
    taken = _Taken(prefix, selection)
    for path, is_folder in roots:
        if is_folder:
            for found in _walk(path, prefix, selection, on_twins):
                yield taken.refuse(found)
            taken.folders.append(path)
        else:
            found = taken.refuse(_find_one(path, key, prefix))
            if isinstance(found, File):
                taken.named[found.key] = path
            yield found
    for entry in listed:
        found = taken.refuse(_find_listed(entry, prefix))
        yield taken.list(found) if isinstance(found, File) else found


def _find_one(path: str, key: str | None, prefix: str) -> File | Failed:
    if path == STDIN:
        assert key is not None
        return _with_key(File(STDIN, key, 0))
    key = prefix + os.path.basename(path) if key is None else key
    return _look_at(path, key, partial(os.stat, path))


def _find_listed(entry: Listed, prefix: str) -> File | Failed:
    if entry.path == STDIN:
        return Failed(
            STDIN,
            entry.key or "",
            "it is standard input, which a list can't give",
            hint=f"Send it again: … | twobuckets upload {STDIN} --key KEY.",
        )
    if os.path.isdir(entry.path):
        return Failed(
            entry.path,
            "",
            "it is a folder, and a list names files",
            hint="Give the folder itself to `twobuckets upload`, with --recursive.",
        )
    return _find_one(entry.path, entry.key, prefix)


class _Taken:
    """Which keys the files of one call have: one of two with the same key would replace the other.

    The files of folders are looked up there rather than remembered, so that memory does not grow
    with them; for each file of a list 16 bytes are.
    """

    def __init__(self, prefix: str, selection: Selection) -> None:
        self.named: dict[str, str] = {}
        self.folders: list[str] = []
        self._prefix = prefix
        self._selection = selection
        self._listed: set[bytes] = set()

    def refuse(self, found: File | Failed) -> File | Failed:
        """Return what was found, or a failure if a path of the command line has its key."""
        if isinstance(found, Failed):
            return found
        other = self.named.get(found.key) or self._find_in_folders(found.key)
        return found if other is None else _with_the_same_key(found, other)

    def list(self, file: File) -> File | Failed:
        """Return a file of a list, or a failure if one before it has its key."""
        mark = hashlib.blake2b(file.key.encode(), digest_size=16).digest()
        if mark in self._listed:
            return _with_the_same_key(file, "another file of the list")
        self._listed.add(mark)
        return file

    def _find_in_folders(self, key: str) -> str | None:
        if not self.folders or not key.startswith(self._prefix):
            return None
        relative = key[len(self._prefix) :]
        return next(
            (
                os.path.join(folder, relative)
                for folder in self.folders
                if _leads_to(folder, relative, self._selection)
            ),
            None,
        )


def _leads_to(folder: str, relative: str, selection: Selection) -> bool:
    """Tell whether the walk of a folder comes to a file of that path from there."""
    path = os.path.join(folder, relative)
    if not os.path.lexists(path) or os.path.isdir(path):
        return False
    steps = relative.split("/")
    if any(step in ("", ".", "..") for step in steps):
        return False
    for step in accumulate(steps, "{}/{}".format):
        is_link = not selection.follow_symlinks and os.path.islink(os.path.join(folder, step))
        if is_link or selection.skips(step):
            return False
    return selection.takes(relative)


def _with_the_same_key(file: File, other: str) -> Failed:
    return Failed(
        file.path,
        file.key,
        f"{other} has the same key in this command",
        hint="Upload them one after the other, or below different --prefix.",
    )


def _walk(
    root: str,
    prefix: str,
    selection: Selection,
    on_twins: Callable[[str, str], None] | None,
) -> Iterator[File | Failed]:
    """Yield what a folder holds; a loop of links is a failure."""
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
        yield failure
    while open_folders:
        entries, above, _ = open_folders[-1]
        try:
            entry = next(entries, None)
        except OSError as error:
            yield Failed(root, "", f"the folder could not be read: {error.strerror}")
            entry = None
        if entry is None:
            open_folders.pop()
            continue
        relative = above + entry.name
        if selection.skips(relative) or (not selection.follow_symlinks and entry.is_symlink()):
            continue
        if on_twins is not None and (twin := _find_twin(entry)) is not None:
            on_twins(entry.path, twin)
        if _is_folder(entry):
            failure = enter(entry.path, relative + "/")
            if failure is not None:
                yield failure
        elif selection.takes(relative):
            yield _look_at(entry.path, prefix + relative, entry.stat)


def _find_twin(entry: os.DirEntry[str]) -> str | None:
    """Return the path beside an entry whose name is the same in Unicode's composed form.

    Only an entry that is not in that form looks for one, so each pair is found once, and names are
    looked up there rather than remembered. A file system that takes both forms for one name, as
    macOS's do, has one file there.
    """
    if entry.name.isascii() or unicodedata.is_normalized("NFC", entry.name):
        return None
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    for form in forms:
        other = unicodedata.normalize(form, entry.name)
        if other == entry.name:
            continue
        path = os.path.join(os.path.dirname(entry.path), other)
        try:
            if not os.path.samestat(os.lstat(path), entry.stat(follow_symlinks=False)):
                return path
        except (OSError, ValueError):
            continue
    return None


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
    except ValueError:
        # Only a list can hold such a path.
        return Failed(path, key, "no file can have this name")
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
    fault = find_fault(file.key)
    if fault is None:
        return file
    return Failed(
        file.path,
        file.key,
        f"no object can have its key: {fault}",
        hint="Rename it, or name its object with --key.",
    )


def changed(file: File) -> Failed:
    """Return that a file was not uploaded because something wrote to it meanwhile."""
    return Failed(file.path, file.key, _CHANGED, _CHANGED_HINT)


def differs(file: File) -> Failed:
    """Return that S3 says it stored something other than the file."""
    return Failed(file.path, file.key, _NOT_WHAT_WAS_SENT, _NOT_WHAT_WAS_SENT_HINT)


def existing(file: File) -> Failed:
    """Return that a file was not uploaded because its key is taken."""
    return Failed(
        file.path,
        file.key,
        "the key is in staging already and has not been processed",
        "Wait until it is processed, use another key, or leave out --no-overwrite.",
    )


def open_file(path: str) -> int:
    """Open a file for reading, never waiting for the other end of a pipe. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


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
