"""Requirements files to lines that say, before anything is installed, whose code each would run."""

from __future__ import annotations

import argparse
import enum
import os
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from twobuckets.errors import TwoBucketsError, UsageError

# As pip has it (pip documentation, "Requirements File Format").
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTIONS_OF_A_LINE = re.compile(r"\s+(?=--?[A-Za-z])")
_EDITABLE = re.compile(r"(-e|--editable)(\s+|=)")
_VCS = re.compile(r"(git|hg|svn|bzr)\+|git://")
_NAMED = re.compile(r"[\w.-]+\s*(\[[^\[\]]*\])?\s*@")
_EXTRAS = re.compile(r"(.+?)(\[[^\[\]]*\])", re.DOTALL)
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BUILD_OPTIONS = ("global_option", "build_option", "install_option", "config_settings")
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")


class LineOrigin(enum.Enum):
    """What a requirement is, which decides whose code runs to install it."""

    NAME = "name"
    """A name on an index: as a wheel it runs nothing."""
    WHEEL = "wheel"
    """A wheel in a file or at a URL, which runs nothing."""
    FOLDER = "folder"
    """A folder of this machine, which is built: the user's own code."""
    SOURCE = "source"
    """An archive, or a repository: building it runs whatever it brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One requirement and where it stands.

    `text` is the requirement as an installer reads it and `place` names its file and line;
    `target` is the path or URL of what is no name, `extras` is `[a,b]` or empty. `hashes` are pip's
    options. `is_built_with` tells whether the line has options for a build.
    """

    text: str
    place: str
    kind: LineOrigin
    name: str | None = None
    target: str = ""
    extras: str = ""
    marker: str | None = None
    hashes: tuple[str, ...] = ()
    is_built_with: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {redacted(self.text)}"


@dataclass(slots=True)
class Requirements:
    """What a source of requirements asks for.

    `options` are an installer's lines about indexes, `from_source` the names that `--no-binary`
    asks for with the place that does (`:all:` stands for every one). `is_complete` tells that the
    lines name everything that is needed, as those of a lock file do. `secrets` are values that must
    never be shown.
    """

    lines: list[Line] = field(default_factory=list)
    constraints: list[Line] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    from_source: dict[str, str] = field(default_factory=dict)
    is_complete: bool = False
    secrets: set[str] = field(default_factory=set)


def redacted(text: str, secrets: Collection[str] = ()) -> str:
    """Return a text without the user names and passwords of URLs, and without these secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "****")
    return _USERINFO.sub("****@", text)


def read_requirements(file: Path) -> Requirements:
    """Return what a requirements file in pip's format asks for, with all that it includes.

    Paths of requirements start from the file's folder, paths of included files from the file that
    includes them, as pip has it. Raises UsageError naming file and line.
    """
    wanted = Requirements()
    try:
        _Reader(wanted, file.resolve().parent).read(file.resolve(), file.name, is_constraint=False)
    except UsageError as error:
        raise UsageError(redacted(error.message, wanted.secrets), hint=error.hint) from None
    return wanted


def classify(text: str, place: str, base: Path) -> Line:
    """Return a requirement as a line; relative paths start from `base`.

    Raises UsageError naming the place when the text is no requirement.
    """
    bare, _, marker = (part.strip() for part in text.partition("; " if "://" in text else ";"))
    is_url = "://" in bare and _NAMED.match(bare) is None
    extras = ""
    if not is_url and (match := _EXTRAS.fullmatch(bare)) is not None:
        bare, extras = match[1].strip(), match[2]
    # A file's name alone could be a package's.
    if is_url or (_NAMED.match(bare) is None and _looks_like_path(bare, base)):
        line = Line(
            text=text,
            place=place,
            kind=LineOrigin.NAME,
            extras=extras,
            marker=_require_marker(marker, text, place),
        )
        return _located(line, bare, base)
    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise _not_a_requirement(text, place, str(error)) from None
    line = Line(
        text=text,
        place=place,
        kind=LineOrigin.NAME,
        name=canonicalize_name(parsed.name),
        extras=f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else "",
        marker=str(parsed.marker) if parsed.marker is not None else None,
    )
    return line if parsed.url is None else _located(line, parsed.url, base)


def _located(line: Line, target: str, base: Path) -> Line:
    """Return a line with its kind, from where its target is and what it is called."""
    if _VCS.match(target):
        return replace(line, kind=LineOrigin.SOURCE, target=target)
    parts = urlsplit(target)
    if parts.scheme in ("http", "https"):
        kind = LineOrigin.WHEEL if parts.path.endswith(".whl") else LineOrigin.SOURCE
        name = line.name or _name_in(parts.path)
        return replace(line, kind=kind, target=target, name=name)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else base / target
    if path.is_dir():
        return replace(line, kind=LineOrigin.FOLDER, target=str(path))
    if not path.exists():
        raise UsageError(
            f"Could not install the requirements: {line.place}: {redacted(target)} does not exist",
            hint="Correct the path: it starts from the folder of the first requirements file.",
        )
    kind = LineOrigin.WHEEL if path.suffix == ".whl" else LineOrigin.SOURCE
    return replace(line, kind=kind, target=str(path), name=line.name or _name_in(path.name))


def _name_in(path: str) -> str | None:
    try:
        return parse_wheel_filename(unquote(path.rpartition("/")[2]))[0]
    except InvalidWheelFilename:
        return None


def _looks_like_path(text: str, base: Path) -> bool:
    return (
        os.sep in text
        or text.startswith(".")
        or (text.lower().endswith((".whl", *_ARCHIVES)) and (base / text).is_file())
    )


def _require_marker(marker: str, text: str, place: str) -> str | None:
    try:
        return str(Marker(marker)) if marker else None
    except InvalidMarker as error:
        raise _not_a_requirement(text, place, str(error)) from None


def _not_a_requirement(text: str, place: str, reason: str) -> UsageError:
    return UsageError(
        f"Could not install the requirements: {place}: {redacted(text)} is no requirement"
        f" ({reason.partition(chr(10))[0]})",
        hint="Correct the line.",
    )


class _OptionParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _option_parser() -> _OptionParser:
    parser = _OptionParser(add_help=False, allow_abbrev=False)
    for names in (
        ("-r", "--requirement"),
        ("-c", "--constraint"),
        ("-i", "--index-url", "--pypi-url"),
        ("--extra-index-url",),
        ("-f", "--find-links"),
        ("--no-binary",),
        ("--only-binary",),
        ("--trusted-host",),
        ("--use-feature",),
        ("--hash",),
        ("--global-option",),
        ("--build-option",),
        ("--install-option",),
        ("-C", "--config-settings"),
    ):
        parser.add_argument(*names, action="append", default=[])
    for name in ("--no-index", "--pre", "--prefer-binary", "--require-hashes"):
        parser.add_argument(name, action="store_true")
    return parser


class _Reader:
    """Reads files into what is wanted; `base` is where the paths of requirements start from."""

    def __init__(self, wanted: Requirements, base: Path) -> None:
        self._wanted = wanted
        self._base = base
        self._options = _option_parser()
        self._read: set[tuple[Path, bool]] = set()

    def read(self, file: Path, name: str, *, is_constraint: bool) -> None:
        """Read a file that messages call `name`."""
        if (file, is_constraint) in self._read:
            return
        self._read.add((file, is_constraint))
        for number, raw in _iter_logical_lines(file, name):
            text = self._expanded(raw)
            place = f"{name}, line {number}"
            if (editable := _EDITABLE.match(text)) is not None:
                # With a marker behind it as uv writes it; pip reads none there.
                self._take(text[editable.end() :], place, is_constraint=is_constraint)
            elif text.startswith("-"):
                self._take_options(text, place, file, is_constraint=is_constraint)
            else:
                self._take(text, place, is_constraint=is_constraint)

    def _expanded(self, text: str) -> str:
        for variable in _VARIABLE.findall(text):
            value = os.path.expandvars(variable)
            if value != variable and value:
                self._wanted.secrets.add(value)
                text = text.replace(variable, value)
        return text

    def _take(self, text: str, place: str, *, is_constraint: bool) -> None:
        # As pip has it, the options of a requirement begin at the first word that looks like one.
        parts = _OPTIONS_OF_A_LINE.split(text, maxsplit=1)
        line = classify(parts[0], place, self._base)
        if len(parts) > 1:
            options = self._parse(parts[1], place)
            line = replace(
                line,
                hashes=tuple(f"--hash={one}" for one in options.hash),
                is_built_with=any(getattr(options, name) for name in _BUILD_OPTIONS),
            )
        (self._wanted.constraints if is_constraint else self._wanted.lines).append(line)

    def _take_options(self, text: str, place: str, file: Path, *, is_constraint: bool) -> None:
        options = self._parse(text, place)
        for kind, names in (("-r", options.requirement), ("-c", options.constraint)):
            for included in names:
                self._include(included, place, file, is_constraint=is_constraint or kind == "-c")
        for name in (part for value in options.no_binary for part in value.split(",")):
            if name == ":none:":
                self._wanted.from_source.clear()
            else:
                key = name if name == ":all:" else canonicalize_name(name)
                self._wanted.from_source[key] = place
        # Of options that repeat, pip takes each; of --index-url, the last.
        said = [("--index-url", url) for url in options.index_url]
        said += [("--extra-index-url", url) for url in options.extra_index_url]
        said += [("--find-links", self._located(link, file)) for link in options.find_links]
        said += [("--trusted-host", host) for host in options.trusted_host]
        self._wanted.options += [f"{name} {value}" for name, value in said]
        self._wanted.options += [
            f"--{name.replace('_', '-')}"
            for name in ("no_index", "pre", "prefer_binary", "require_hashes")
            if getattr(options, name)
        ]

    def _parse(self, text: str, place: str) -> argparse.Namespace:
        try:
            found, rest = self._options.parse_known_args(shlex.split(text))
            if not rest:
                return found
            reason = f"{rest[0]} is no option of a requirements file"
        except ValueError as error:
            reason = str(error)
        raise UsageError(
            f"Could not install the requirements: {place}: {redacted(reason)}",
            hint="Correct the line.",
        )

    def _include(self, included: str, place: str, file: Path, *, is_constraint: bool) -> None:
        if "://" in included:
            raise UsageError(
                f"Could not install the requirements: {place}: {redacted(included)} is not on this"
                " machine",
                hint="Put a copy beside the file and include that.",
            )
        path = file.parent / included
        if not path.is_file():
            raise UsageError(
                f"Could not install the requirements: {place}: {path} does not exist",
                hint="Correct the path: it starts from the folder of the file that it stands in.",
            )
        name = os.path.relpath(path, self._base)
        self.read(path.resolve(), name, is_constraint=is_constraint)

    def _located(self, link: str, file: Path) -> str:
        if "://" in link:
            return link
        beside = file.parent / link
        return str(beside if beside.exists() else self._base / link)


def _iter_logical_lines(file: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yield each line with the number that it begins at, continued lines joined, comments gone."""
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise TwoBucketsError(
            f"Could not read the requirements in {name}: {error.strerror}",
            hint="Change its permissions.",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Could not read the requirements in {name}: not UTF-8 text, at byte {error.start}",
            hint="Save it as UTF-8.",
        ) from None
    begun, parts = 0, []
    for number, raw in enumerate(text.splitlines(), 1):
        begun = begun or number
        is_comment = raw.lstrip().startswith("#")
        if raw.endswith("\\") and not is_comment:
            parts.append(raw[:-1])
            continue
        # A comment ends a continued line, and is no part of it.
        parts.append("" if is_comment else raw)
        joined = _COMMENT.sub("", " ".join(parts)).strip()
        if joined:
            yield begun, joined
        begun, parts = 0, []
    if joined := _COMMENT.sub("", " ".join(parts)).strip():
        yield begun, joined
