"""Requirements to a folder of unpacked wheels for the target's Python and machine.

Whose code runs here: wheels run none. The user's own folders are built, in isolation, and that is
told. Whatever else would have to be built - sdists, archives, repositories - is refused unless it
was asked for.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from twobuckets.artifact.installers import Installer, Lack, Refusal, find_installer
from twobuckets.artifact.lines import Line, LineOrigin, Requirements, read_requirements, redacted
from twobuckets.artifact.locks import is_lock, read_lock
from twobuckets.artifact.wholeness import iter_overwritten, read_owners
from twobuckets.errors import TwoBucketsError, UsageError

if TYPE_CHECKING:
    from twobuckets.artifact.target import Target

BUILD_SDISTS: Final = "--build-sdists"
_MOST_SDISTS = 50
_TOLD = 5
_MISMATCH = "DO NOT MATCH THE HASHES"
_WRITTEN_HERE = re.compile(r" \(from -[rc] [^()]* \(line \d+\)\)")


@dataclass(frozen=True, slots=True)
class Built:
    """A wheel that was built here: what it was built from, and whether that is the user's own."""

    name: str
    version: str
    source: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class Installed:
    """What came of installing: what was built for it, and what to know about the outcome.

    `own_wheels` are the files built from the user's folders; `owners` tells for each path which
    packages brought it.
    """

    built: tuple[Built, ...] = ()
    notes: tuple[str, ...] = ()
    own_wheels: tuple[Path, ...] = ()
    owners: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)


def install(
    requirements: Path, folder: Path, target: Target, *, scratch: Path, build_sdists: bool = False
) -> Installed:
    """Unpack the wheels of a requirements or lock file, and of all these need, into a folder.

    It runs the pip of this Python, or uv where pip is missing, with their own configuration.
    `scratch` is a private folder for what is made on the way.
    Raises UsageError when the file is missing, says what can't be meant, or would run code that
    nobody asked for; and TwoBucketsError naming the requirement that can't be had for the target.
    """
    if not requirements.is_file():
        raise UsageError(
            f"Could not install the requirements: {requirements} does not exist",
            hint="Create it, or take [processor] requirements out of twobuckets.toml.",
        )
    if is_lock(requirements):
        wanted = read_lock(requirements.absolute(), target)
    else:
        wanted = read_requirements(requirements)
    if not build_sdists:
        _refuse_sources(wanted)
    folder.mkdir()
    if not wanted.lines:
        return Installed()
    # Before what does not apply to the target is left out.
    of_lines = list(_iter_patch_level_notes(wanted.lines, target))
    installing = _Installing(requirements, wanted, target, scratch)
    installing.build_lines()
    installing.install(folder, build_sdists=build_sdists)
    if (folder / "twobuckets").exists():
        raise UsageError(
            f"Could not build the processor: {requirements} brings twobuckets itself into it",
            hint="Take that line out: the build adds the runtime that the processor needs.",
        )
    owners = read_owners(folder, {line.name: line.place for line in wanted.lines if line.name})
    notes = (
        *of_lines,
        *_iter_patch_level_notes_of(folder, target),
        *iter_overwritten(owners),
    )
    return Installed(tuple(installing.built), notes, tuple(installing.own_wheels), owners)


def _refuse_sources(wanted: Requirements) -> None:
    """Raise UsageError for what would run code of others to be built."""
    refused = [
        str(line) for line in wanted.lines if line.kind is LineOrigin.SOURCE or line.is_built_with
    ]
    refused += [str(line) for line in wanted.constraints if line.kind is LineOrigin.SOURCE]
    refused += [f"{place}: --no-binary {name}" for name, place in wanted.from_source.items()]
    if not refused:
        return
    more = f" and {len(refused) - _TOLD} more" if len(refused) > _TOLD else ""
    raise UsageError(
        "Could not install the requirements, because to be built these would run their own code on"
        f" this machine: {redacted('; '.join(refused[:_TOLD]), wanted.secrets)}{more}",
        hint=f"Take their wheels instead, or let them with {BUILD_SDISTS}.",
    )


class _Installing:
    """One requirements file on its way into a folder."""

    def __init__(self, file: Path, wanted: Requirements, target: Target, scratch: Path) -> None:
        self._file = file
        self._wanted = wanted
        self._target = target
        self._scratch = scratch / "requirements"
        self._wheels = self._scratch / "wheels"
        self._wheels.mkdir(parents=True)
        self._installer: Installer = find_installer(
            file.resolve().parent, wanted.secrets, self._scratch
        )
        self._has_hashes = "--require-hashes" in wanted.options or any(
            line.hashes for line in wanted.lines
        )
        self.built: list[Built] = []
        self.own_wheels: list[Path] = []

    def build_lines(self) -> None:
        """Build what only a build makes a wheel of, and put the wheels in the lines' place."""
        lines = []
        for line in self._wanted.lines:
            if line.marker and not Marker(line.marker).evaluate(
                {**self._target.markers(), "extra": ""}
            ):
                continue
            is_from_source = line.kind is LineOrigin.NAME and (
                line.name in self._wanted.from_source or ":all:" in self._wanted.from_source
            )
            if line.kind is LineOrigin.FOLDER:
                lines.append(self._as_wheel(line, self._build_folder(line)))
            elif line.kind is LineOrigin.SOURCE or line.is_built_with or is_from_source:
                lines.append(self._as_wheel(line, self._build_source(line)))
            else:
                lines.append(line)
        self._wanted.lines = lines

    def install(self, folder: Path, *, build_sdists: bool) -> None:
        """Install all lines; build what the index has no wheel of, when that was asked for."""
        for _ in range(_MOST_SDISTS):
            failure = self._installer.install(
                self._write("requirements.txt", self._wanted.lines),
                folder,
                self._target,
                with_dependencies=not self._wanted.is_complete,
            )
            if failure is None:
                return
            if not build_sdists or failure.lack is not Lack.ANY_WHEEL:
                raise self._explained(failure)
            self._build_missing(failure)
            shutil.rmtree(folder)
            folder.mkdir()
        raise TwoBucketsError(
            f"Could not install the requirements in {self._file}: more than {_MOST_SDISTS} of them"
            " have no wheel",
            hint="Build their wheels with `pip wheel`, and name the folder with --find-links.",
        )

    def _write(self, name: str, lines: Iterable[Line]) -> Path:
        """Write a file for an installer that nothing can be built from."""
        constraints = self._scratch / "constraints.txt"
        constraints.write_text(
            "".join(f"{_written(line)}\n" for line in self._wanted.constraints), "utf-8"
        )
        written = [*self._wanted.options, f"--find-links {self._wheels}"]
        if self._wanted.constraints:
            written.append(f"--constraint {constraints}")
        file = self._scratch / name
        file.write_text("".join(f"{one}\n" for one in (*written, *map(_written, lines))), "utf-8")
        return file

    def _build_folder(self, line: Line) -> Path:
        before = set(_iter_leftovers(Path(line.target)))
        out = self._new_folder()
        try:
            said = self._installer.build(Path(line.target), out, self._wanted.options)
        finally:
            for left in set(_iter_leftovers(Path(line.target))) - before:
                shutil.rmtree(left, ignore_errors=True)
        return self._taken(line, out, said, is_own=True)

    def _build_source(self, line: Line) -> Path:
        out = self._new_folder()
        single = self._scratch / "single.txt"
        written = [*self._wanted.options, f"--find-links {self._wheels}"]
        if line.kind is LineOrigin.NAME:
            written.append(f"--no-binary {line.name}")
        if line.kind is LineOrigin.NAME and self._wanted.constraints:
            written.append(f"--constraint {self._scratch / 'constraints.txt'}")
        if line.hashes and line.kind is LineOrigin.SOURCE and _is_repository(line):
            raise UsageError(
                f"Could not install the requirements: {line}: a repository has no hash",
                hint="Take the hash out of the line.",
            )
        self._write("all.txt", ())
        single.write_text("\n".join([*written, _written(line)]) + "\n", "utf-8")
        return self._taken(line, out, self._installer.build_source(single, out), is_own=False)

    def _build_missing(self, failure: Refusal) -> None:
        """Build the sdist that an install failed for; the next one finds its wheel."""
        assert failure.requirement is not None
        name = canonicalize_name(Requirement(failure.requirement).name)
        lines = [line for line in self._wanted.lines if line.name == name]
        line = (
            lines[0]
            if lines
            else Line(
                text=failure.requirement,
                place=str(self._file.name),
                kind=LineOrigin.NAME,
                name=name,
            )
        )
        self._wanted.from_source[name] = line.place
        wheel = self._build_source(line)
        option = f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        self._wanted.lines = [
            replace(one, hashes=(*one.hashes, option)) if one.name == name and one.hashes else one
            for one in self._wanted.lines
        ]

    def _new_folder(self) -> Path:
        out = self._scratch / f"built-{len(self.built)}"
        out.mkdir()
        return out

    def _taken(self, line: Line, out: Path, said: str | None, *, is_own: bool) -> Path:
        """Return the wheel that a build made, in the folder of all of them; explain a failure."""
        source = redacted(line.target or line.text, self._wanted.secrets)
        if said is not None:
            raise TwoBucketsError(
                f"Could not build {source} ({line.place}): {_last_words(said)}",
                hint="-v shows all that the build said; `pip wheel` on it alone does the same.",
            )
        (wheel,) = out.glob("*.whl")
        name, version, _, tags = parse_wheel_filename(wheel.name)
        if not self._target.native and not all(
            (tag.abi, tag.platform) == ("none", "any") for tag in tags
        ):
            raise TwoBucketsError(
                f"Could not build {source} ({line.place}): it has compiled parts, and what is"
                f" compiled on this machine is not for {self._target}",
                hint=f"Build its wheel on such a machine, or take one that is there, and name the"
                f" folder that it lies in: --find-links, in {self._file.name}.",
            )
        self.built.append(Built(name, str(version), source, is_own))
        kept = wheel.replace(self._wheels / wheel.name)
        if is_own:
            self.own_wheels.append(kept)
        return kept

    def _as_wheel(self, line: Line, wheel: Path) -> Line:
        name = parse_wheel_filename(wheel.name)[0]
        marker = f" ; {line.marker}" if line.marker else ""
        # Where one line has a hash, an installer asks for one of each.
        option = f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        return replace(
            line,
            kind=LineOrigin.WHEEL,
            name=name,
            target=str(wheel),
            text=f"{name}{line.extras} @ {wheel.resolve().as_uri()}{marker}",
            hashes=(option,) if self._has_hashes else (),
        )

    def _explained(self, failure: Refusal) -> TwoBucketsError:
        """Return what an installer's failure means, and what to do about it."""
        what = f"Could not install the requirements in {self._file}"
        if failure.needs_build is not None:
            return UsageError(
                f"{what}: {failure.needs_build} would have to be built, which runs its own code on"
                " this machine",
                hint="Something that is required names it by its URL; take a wheel of it instead.",
            )
        if failure.requirement is None:
            if failure.is_unreachable:
                return TwoBucketsError(
                    f"{what}: the package index does not answer",
                    hint="Check the network and the index in pip's configuration; -v shows its"
                    " messages.",
                )
            return TwoBucketsError(
                f"{what} for {self._target}: {_last_words(failure.output)}",
                hint="Fix the file; -v shows all that the installer said.",
            )
        name = failure.requirement
        match failure.lack:
            case Lack.ANY_WHEEL:
                return TwoBucketsError(
                    f"{what}: {name} has no wheel for {self._target}, only its source (an sdist)",
                    hint=f"Build its wheel once, with `pip wheel {name} -w wheels`, and add"
                    f" `--find-links ./wheels` to {self._file.name}; or unpack the source and name"
                    f" its folder instead; or let its own code run here: {BUILD_SDISTS}.",
                )
            case Lack.VERSION:
                there = f"; there are {failure.versions}" if failure.versions else ""
                return TwoBucketsError(
                    f"{what}: there is no {name} on the index{there}",
                    hint="Choose a version that there is.",
                )
            case Lack.NAME:
                return TwoBucketsError(
                    f"{what}: there is no package {Requirement(name).name} on the index",
                    hint="Check its name, and the index that it should come from.",
                )
            case _:
                return TwoBucketsError(
                    f"{what}: {name} has no wheel for {self._target}",
                    hint="Choose a version that has one, or change architecture or runtime under"
                    " [processor] in twobuckets.toml.",
                )


def _written(line: Line) -> str:
    text = line.text
    if line.kind is LineOrigin.WHEEL and "://" not in text:
        # A path starts from another folder than the file that is written now.
        marker = f" ; {line.marker}" if line.marker else ""
        text = f"{line.name}{line.extras} @ {Path(line.target).resolve().as_uri()}{marker}"
    elif line.kind is LineOrigin.SOURCE and not _is_repository(line) and "://" not in text:
        text = Path(line.target).resolve().as_uri()
    return " ".join([text, *line.hashes])


def _is_repository(line: Line) -> bool:
    return "+" in line.target.partition("://")[0] or line.target.startswith("git://")


def _iter_leftovers(folder: Path) -> Iterable[Path]:
    """Yield what setuptools leaves in a project's folder whatever it is told."""
    yield from folder.glob("*.egg-info")
    yield from folder.glob("src/*.egg-info")


def _last_words(output: str) -> str:
    # The file is one of ours, which nobody can look at afterwards.
    output = _WRITTEN_HERE.sub("", output)
    said = [line.strip() for line in output.splitlines() if line.strip()]
    for number, line in enumerate(said):
        if _MISMATCH in line:
            return " ".join(said[number:])
    noise = ("WARNING", "[notice]", "note:", "hint:", "╰─>", "[end of output]")
    errors = [line for line in said if not line.startswith(noise)] or said
    return " ".join(errors[-4:]) or "the installer gave no reason"


def _iter_patch_level_notes(lines: Iterable[Line], target: Target) -> Iterable[str]:
    """Yield what depends on the patch level of Python, which Lambda chooses and changes."""
    for line in lines:
        if line.marker and _depends_on_patch(line.marker, target):
            yield _patch_note(f"{line.place}: {line.name or line.text}", line.marker, target)


def _iter_patch_level_notes_of(folder: Path, target: Target) -> Iterator[str]:
    """Yield the same for what the installed packages require."""
    for metadata in sorted(folder.glob("*.dist-info/METADATA")):
        for text in metadata.read_text("utf-8", "replace").splitlines():
            if not text:
                break
            if not text.startswith("Requires-Dist:") or "full_version" not in text:
                continue
            try:
                requirement = Requirement(text.partition(":")[2].strip())
            except InvalidRequirement:
                continue
            marker = str(requirement.marker)
            if requirement.marker is not None and _depends_on_patch(marker, target):
                by = metadata.parent.name.removesuffix(".dist-info")
                yield _patch_note(f"{by} requires {requirement.name}", marker, target)


def _depends_on_patch(marker: str, target: Target) -> bool:
    if target.native:
        return False
    parsed = Marker(marker)
    first = parsed.evaluate({**target.markers(patch=0), "extra": ""})
    return first != parsed.evaluate({**target.markers(), "extra": ""})


def _patch_note(what: str, marker: str, target: Target) -> str:
    taken = Marker(marker).evaluate({**target.markers(), "extra": ""})
    return (
        f"{what}, if {marker}: this depends on the patch level, of which Lambda has the newest, so"
        f" it was {'taken' if taken else 'left out'}"
    )
