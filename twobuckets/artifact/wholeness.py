"""Artifacts that look whole and are not: names that hide each other, paths that lead nowhere."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.artifact.contents import Entry

_DIST_INFO = re.compile(r"(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info")


def read_owners(folder: Path, places: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Return which installed packages brought each file, as they are called and with its hash.

    `places` is where a package's line stands, by the package's canonical name. Source of the hashes
    and of who brought what: the RECORD files (Python packaging specifications).
    """
    owners: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        match = _DIST_INFO.fullmatch(record.parent.name)
        if match is None:
            continue
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        place = f" ({places[name]})" if name in places else ""
        owner = f"{name} {match['version']}{place}"
        with record.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines):
                if row and ".dist-info/" not in row[0] and not row[0].startswith(("..", "/")):
                    owners[row[0]].append((owner, row[1] if len(row) > 1 else ""))
    return dict(owners)


def iter_overwritten(owners: Mapping[str, list[tuple[str, str]]]) -> Iterator[str]:
    """Yield what to tell of packages that bring the same file with different content."""
    pairs: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, brought in owners.items():
        if len({digest for _, digest in brought}) > 1:
            pairs[tuple(owner for owner, _ in brought)].append(path)
    for names, paths in pairs.items():
        more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
        yield f"{' and '.join(names)} both bring {paths[0]}{more}, and one overwrote the other"


def require_no_shadows(
    entries: Iterable[Entry], owners: Mapping[str, list[tuple[str, str]]]
) -> None:
    """Raise TwoBucketsError when the user's code and a requirement have the same import name.

    Python imports one of the two: a package before a compiled module before a module. Folders
    without `__init__.py` on both sides are one namespace, and are fine.
    """
    forms: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    regular: set[tuple[str, str]] = set()
    for entry in entries:
        top, slash, rest = entry.path.partition("/")
        name = top if slash else _module_name(top)
        if name.isidentifier():
            forms[name][entry.origin].append(entry)
            if rest.startswith("__init__.") or not slash:
                regular.add((name, entry.origin))
    for name, by_origin in forms.items():
        origins = sorted(by_origin)
        if len(origins) < 2 or not any((name, origin) in regular for origin in origins):
            continue
        ours = "source" if "source" in origins else origins[0]
        (theirs, *_) = (origin for origin in origins if origin != ours)
        brought = by_origin[theirs][0].path
        owner = owners[brought][0][0] if brought in owners else "the twobuckets runtime"
        raise TwoBucketsError(
            f"Could not pack the processor: {by_origin[ours][0].path} of yours and {brought} of"
            f" {owner} have the same import name, {name}, and Python would import only one of them",
            hint="Rename the one that is yours, or take the requirement out.",
        )


def iter_dead_paths(
    entries: Iterable[Entry], owners: Mapping[str, list[tuple[str, str]]]
) -> Iterator[str]:
    """Yield what to tell of `.pth` files whose paths are not in the artifact.

    Lambda's runtime reads `.pth` files at the artifact's top as site-packages' are read (the
    Python runtime interface client adds its folder as a site directory). One that leads elsewhere,
    as an editable install's does, leads nowhere there.
    """
    entries = list(entries)
    folders = {
        "/".join(parts[:depth])
        for entry in entries
        for parts in [entry.path.split("/")]
        for depth in range(1, len(parts) + 1)
    }
    for entry in entries:
        if "/" in entry.path or not entry.path.endswith(".pth"):
            continue
        for line in entry.file.read_text("utf-8", "replace").splitlines():
            path = line.strip()
            if not path or path.startswith(("#", "import ", "import\t")):
                continue
            if path.rstrip("/").removeprefix("./") not in folders:
                of = f" of {owners[entry.path][0][0]}" if entry.path in owners else ""
                yield f"{entry.path}{of} leads to {path}, which is not in the artifact"


def _module_name(file: str) -> str:
    """Return the import name of a file at the top, empty for what can't be imported."""
    stem, _, suffixes = file.partition(".")
    return stem if suffixes in ("py", "pyc") or suffixes.split(".")[-1] == "so" else ""
