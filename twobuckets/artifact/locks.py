"""Lock files of uv, Poetry and PDM, and `pylock.toml`, to the lines of a requirements file.

A lock names every package with its version and hashes, for all machines at once; what a target does
not need is left out here, by the markers that the lock has for it.
"""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from twobuckets.artifact.lines import Line, LineOrigin, Requirements, classify
from twobuckets.errors import UsageError

if TYPE_CHECKING:
    from twobuckets.artifact.target import Target

_PYLOCK = re.compile(r"pylock\.([^.]+\.)?toml")
# What installers ask without being told to, so that a mirror in their configuration serves as well.
_DEFAULT_INDEX = re.compile(r"https://pypi\.(org|python\.org)/simple/?")
_Table = Mapping[str, Any]


def is_lock(file: Path) -> bool:
    """Tell whether a file is called as a lock file is."""
    return file.name in _READERS or _PYLOCK.fullmatch(file.name) is not None


def read_lock(file: Path, target: Target) -> Requirements:
    """Return what a lock file has for a target: the project's own code, and all that it needs.

    Groups and extras that are not installed by default are left out. Raises UsageError for a file
    that can't be read as a lock.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        read = _READERS.get(file.name, _read_pylock)
        return read(_Lock(file, table, target))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = f"it is not TOML ({error})"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # Whatever a lock of another version has instead.
        reason = f"it has another form than is known here ({type(error).__name__}: {error})"
    raise UsageError(
        f"Could not read the requirements in {file.name}: {reason}",
        hint="Write a requirements.txt from it with the tool that made it, and name that.",
    )


class _Lock:
    """A lock file under way to lines."""

    def __init__(self, file: Path, table: _Table, target: Target) -> None:
        self.file = file
        self.folder = file.resolve().parent
        self.table = table
        self.wanted = Requirements(is_complete=True)
        self._environment = target.markers()

    def applies(self, marker: str | None, *, extra: str = "", lock: bool = False) -> bool:
        """Tell whether a marker holds for the target."""
        if not marker:
            return True
        try:
            parsed = Marker(marker)
        except InvalidMarker as error:
            raise ValueError(f"{marker!r} is no marker") from error
        if lock:
            names = {"extras": frozenset[str](), "dependency_groups": self._default_groups()}
            return parsed.evaluate({**self._environment, **names}, context="lock_file")
        return parsed.evaluate({**self._environment, "extra": extra})

    def _default_groups(self) -> frozenset[str]:
        return frozenset(self.table.get("default-groups", ()))

    def place(self, name: str) -> str:
        """Return where a package stands, for messages."""
        return f"{self.file.name}, {name}"

    def add_pinned(self, name: str, version: str, hashes: Iterable[str]) -> None:
        """Add a package from an index."""
        options = tuple(f"--hash={one}" for one in dict.fromkeys(hashes))
        line = Line(
            text=f"{name}=={version}",
            place=self.place(name),
            kind=LineOrigin.NAME,
            name=canonicalize_name(name),
            hashes=options,
        )
        self.wanted.lines.append(line)

    def add_located(self, name: str, target: str, hashes: Iterable[str] = ()) -> None:
        """Add a package at a URL, or at a path that may be relative to the lock's folder."""
        if "://" not in target:
            target = Path(self.folder, target).resolve().as_uri()
        line = classify(f"{name} @ {target}", self.place(name), self.folder)
        options = tuple(f"--hash={one}" for one in dict.fromkeys(hashes))
        self.wanted.lines.append(replace(line, hashes=options))

    def add_index(self, url: str) -> None:
        """Add an index that is not the default one."""
        option = f"--extra-index-url {url}"
        if not _DEFAULT_INDEX.fullmatch(url) and option not in self.wanted.options:
            self.wanted.options.append(option)

    def add_project(self) -> None:
        """Add the project that the lock belongs to, if it is a package that can be built."""
        name = self.project.get("project", {}).get("name") or (
            self.project.get("tool", {}).get("poetry", {}).get("name", "project")
        )
        if "build-system" in self.project:
            self.add_located(name, str(self.folder))

    @property
    def project(self) -> _Table:
        """The project's own `pyproject.toml`, empty when there is none."""
        file = self.folder / "pyproject.toml"
        return tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}


def _read_uv(lock: _Lock) -> Requirements:
    packages: list[_Table] = lock.table.get("package", [])
    roots = [
        package
        for package in packages
        if (package["source"].get("editable") or package["source"].get("virtual")) == "."
    ]
    if not roots:
        raise ValueError("it has no package at its own folder")

    def find(wanted: _Table) -> _Table:
        for package in packages:
            if all(package.get(key) == wanted[key] for key in _IDENTITY if key in wanted):
                return package
        raise ValueError(f"it lacks {wanted['name']}")

    taken: dict[int, _Table] = {}
    for package in _closure(
        roots, lambda package, extra: _uv_dependencies(lock, package, extra), find
    ):
        taken[id(package)] = package
    for package in taken.values():
        _add_uv(lock, package)
    return lock.wanted


_IDENTITY: Final = ("name", "version", "source")


def _uv_dependencies(lock: _Lock, package: _Table, extra: str) -> Iterable[_Table]:
    listed = (
        package.get("optional-dependencies", {}).get(extra, ())
        if extra
        else package.get("dependencies", ())
    )
    return [one for one in listed if lock.applies(one.get("marker"))]


def _closure(
    roots: Iterable[_Table],
    dependencies: Callable[[_Table, str], Iterable[_Table]],
    find: Callable[[_Table], _Table],
) -> Iterable[_Table]:
    """Yield the roots and all that these need, each package once for each of its extras."""
    waiting = deque((root, "") for root in roots)
    seen: set[tuple[int, str]] = set()
    while waiting:
        package, extra = waiting.popleft()
        if (id(package), extra) in seen:
            continue
        seen.add((id(package), extra))
        yield package
        for needed in dependencies(package, extra):
            found = find(needed)
            waiting.append((found, ""))
            waiting.extend((found, name) for name in needed.get("extra", ()))


def _add_uv(lock: _Lock, package: _Table) -> None:
    name, source = package["name"], package["source"]
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
    hashes = [file["hash"] for file in files if file.get("hash")]
    if "registry" in source:
        if "://" in source["registry"]:
            lock.add_index(source["registry"])
        else:
            lock.wanted.options.append(f"--find-links {lock.folder / source['registry']}")
        lock.add_pinned(name, package["version"], hashes)
    elif "git" in source:
        lock.add_located(name, f"git+{source['git'].replace('?rev=', '@').partition('?')[0]}")
    elif "virtual" not in source:
        target = next(
            source[kind] for kind in ("editable", "directory", "path", "url") if kind in source
        )
        lock.add_located(name, target, hashes)


def _read_poetry(lock: _Lock) -> Requirements:
    packages: list[_Table] = lock.table.get("package", [])
    if packages and all("groups" in package for package in packages):
        taken = [
            package
            for package in packages
            if "main" in package["groups"]
            and not package.get("optional")
            and lock.applies(_poetry_marker(package))
        ]
    else:
        taken = _poetry_needed(lock, packages)
    if lock.project.get("tool", {}).get("poetry", {}).get("package-mode", True):
        lock.add_project()
    for package in taken:
        _add_poetry(lock, package)
    return lock.wanted


def _poetry_marker(package: _Table) -> str | None:
    # A text for all groups, or one for each.
    markers = package.get("markers")
    return markers.get("main") if isinstance(markers, dict) else markers


def _poetry_needed(lock: _Lock, packages: list[_Table]) -> list[_Table]:
    """Return what the main group needs, for locks of Poetry 1 that don't tell the groups."""
    by_name: dict[str, list[_Table]] = {}
    for package in packages:
        by_name.setdefault(canonicalize_name(package["name"]), []).append(package)

    def needed(dependencies: Iterable[_Table]) -> Iterable[_Table]:
        for one in dependencies:
            found = by_name.get(canonicalize_name(one["name"]), [])
            yield from ({**one, "package": package} for package in found)

    def of(package: _Table, extra: str) -> Iterable[_Table]:
        if package is root:
            return needed(_poetry_roots(lock))
        listed = list(_poetry_dependencies(lock, package.get("dependencies", {})))
        if extra:
            wanted = [
                Requirement(text).name if " @ " not in text else text.partition(" @ ")[0]
                for text in package.get("extras", {}).get(extra, ())
            ]
            names = {canonicalize_name(text) for text in wanted}
            optional = _poetry_dependencies(lock, package.get("dependencies", {}), optional=True)
            listed += [one for one in optional if canonicalize_name(one["name"]) in names]
        return needed(listed)

    root: _Table = {"name": ""}
    found = _closure([root], of, lambda one: one["package"])
    return list({id(package): package for package in found if package is not root}.values())


def _poetry_roots(lock: _Lock) -> Iterable[_Table]:
    poetry = lock.project.get("tool", {}).get("poetry", {})
    for text in lock.project.get("project", {}).get("dependencies", ()):
        requirement = Requirement(text)
        if lock.applies(str(requirement.marker) if requirement.marker else None):
            yield {"name": requirement.name, "extra": sorted(requirement.extras)}
    yield from _poetry_dependencies(lock, poetry.get("dependencies", {}))


def _poetry_dependencies(
    lock: _Lock, dependencies: Mapping[str, Any], *, optional: bool = False
) -> Iterable[_Table]:
    for name, said in dependencies.items():
        if name.lower() == "python":
            continue
        for one in said if isinstance(said, list) else [said]:
            table = one if isinstance(one, dict) else {}
            marker = table.get("markers")
            # The marker of an optional dependency names its extra, which was asked for.
            if optional and marker and "extra" in marker:
                marker = None
            if bool(table.get("optional")) == optional and lock.applies(marker):
                yield {"name": name, "extra": table.get("extras", ())}


def _add_poetry(lock: _Lock, package: _Table) -> None:
    source = package.get("source", {})
    hashes = [file["hash"] for file in package.get("files", ())]
    match source.get("type"):
        case None:
            lock.add_pinned(package["name"], package["version"], hashes)
        case "legacy":
            lock.add_index(source["url"])
            lock.add_pinned(package["name"], package["version"], hashes)
        case "git":
            reference = source.get("resolved_reference") or source.get("reference")
            lock.add_located(package["name"], f"git+{source['url']}@{reference}")
        case "url":
            lock.add_located(package["name"], source["url"], hashes)
        case _:
            # A file or directory; the hashes of files that the lock has are of what it was then.
            lock.add_located(package["name"], source["url"], hashes)


def _read_pdm(lock: _Lock) -> Requirements:
    if lock.project.get("tool", {}).get("pdm", {}).get("distribution", True):
        lock.add_project()
    packages: list[_Table] = lock.table.get("package", [])
    by_name: dict[str, list[_Table]] = {}
    for package in packages:
        by_name.setdefault(canonicalize_name(package["name"]), []).append(package)
    if packages and all("groups" in package for package in packages):
        taken = [
            package
            for package in packages
            if "default" in package["groups"] and lock.applies(package.get("marker"))
        ]
    else:
        roots = lock.project.get("project", {}).get("dependencies", ())

        def needed(texts: Iterable[str]) -> Iterable[_Table]:
            for text in texts:
                one = Requirement(text)
                if not lock.applies(str(one.marker) if one.marker else None):
                    continue
                for package in by_name.get(canonicalize_name(one.name), []):
                    # PDM has a package with extras as a second package of the same name.
                    if not package.get("extras") or set(package["extras"]) <= one.extras:
                        yield {"package": package}

        root: _Table = {"name": "", "dependencies": roots}
        found = _closure(
            [root],
            lambda package, _: needed(package.get("dependencies", ())),
            lambda one: one["package"],
        )
        taken = [package for package in found if package is not root]
    done: set[str] = set()
    for package in taken:
        name = canonicalize_name(package["name"])
        if name in done:
            continue
        done.add(name)
        hashes = [
            file["hash"]
            for one in by_name[name]
            if one["version"] == package["version"]
            for file in one.get("files", ())
        ]
        if "git" in package:
            lock.add_located(name, f"git+{package['git']}@{package['revision']}")
        elif "path" in package:
            lock.add_located(name, package["path"])
        elif "url" in package:
            lock.add_located(name, package["url"], hashes)
        else:
            lock.add_pinned(name, package["version"], hashes)
    return lock.wanted


def _read_pylock(lock: _Lock) -> Requirements:
    version = lock.table["lock-version"]
    if not str(version).startswith("1."):
        raise ValueError(f"lock-version {version}")
    for package in lock.table.get("packages", []):
        if lock.applies(package.get("marker"), lock=True):
            _add_pylock(lock, package)
    return lock.wanted


def _add_pylock(lock: _Lock, package: _Table) -> None:
    """Add a package of a `pylock.toml` (PEP 751)."""
    name = package["name"]
    if "directory" in package:
        folder = Path(package["directory"]["path"], package["directory"].get("subdirectory", ""))
        lock.add_located(name, str(folder))
    elif "vcs" in package:
        vcs = package["vcs"]
        where = vcs.get("url") or (lock.folder / vcs["path"]).as_uri()
        lock.add_located(name, f"{vcs['type']}+{where}@{vcs['commit-id']}")
    elif "archive" in package:
        archive = package["archive"]
        where = archive.get("url") or archive["path"]
        lock.add_located(name, where, _pylock_hashes(archive))
    elif "version" in package:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        if "index" in package:
            lock.add_index(package["index"])
        for wheel in files:
            if "url" not in wheel:
                folder = Path(lock.folder, wheel["path"]).parent
                option = f"--find-links {folder}"
                if option not in lock.wanted.options:
                    lock.wanted.options.append(option)
        hashes = [one for file in files for one in _pylock_hashes(file)]
        lock.add_pinned(name, package["version"], hashes)
    else:
        # Without a version it can only be a wheel, named as one.
        (wheel,) = package["wheels"]
        where = wheel.get("url") or wheel["path"]
        lock.add_located(name, where, _pylock_hashes(wheel))


def _pylock_hashes(file: _Table) -> list[str]:
    return [f"{name}:{value}" for name, value in file.get("hashes", {}).items()]


_READERS: Final[Mapping[str, Callable[[_Lock], Requirements]]] = {
    "uv.lock": _read_uv,
    "poetry.lock": _read_poetry,
    "pdm.lock": _read_pdm,
}
