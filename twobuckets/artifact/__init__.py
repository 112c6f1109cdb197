"""Processor source to Lambda zip: the same input gives the same bytes, on any machine.

The way through the room, in which nothing talks to AWS:

starter         a new project, for `init`
target          the Python and the machine that wheels have to be for
pythons         a Python of the target's version on this machine: it alone proves anything
contents        what goes in: the source's files, the wheels', our runtime's
confidential    which of them look as if they held secrets
lines           requirements files to lines that say whose code each would run
locks           lock files of uv, Poetry and PDM, and pylock.toml, to such lines
requirements    lines to unpacked wheels
installers      pip and uv, as far as a build needs them
pip_for_target  pip with another machine's markers, the program that requirements runs
packing         entries to a zip
wholeness       what looks whole and is not: names that hide each other, paths that lead nowhere
image           the image that jobs run in, by docker or podman
importing       the check that the processor can be imported, in a bare Python
probe           the program that importing runs there
reading         what the text alone proves, where no Python of the target's version is at hand
scratch         places for what is made on the way, cleared by the next run after a kill
bytecode        compiled modules beside their text, for cold starts
compile_for_target  the program that bytecode runs in the target's Python
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile, ZipFile

from twobuckets.artifact.bytecode import compile_modules
from twobuckets.artifact.confidential import require_nothing_confidential
from twobuckets.artifact.contents import (
    Entry,
    iter_broker,
    iter_runtime,
    iter_source,
    iter_wheels,
    merge,
)
from twobuckets.artifact.importing import require_importable
from twobuckets.artifact.packing import published, sha256_of, write_zip
from twobuckets.artifact.pythons import find_python, how_to_get
from twobuckets.artifact.requirements import Built, Installed, install
from twobuckets.artifact.scratch import scratch_folder
from twobuckets.artifact.target import NATIVE, Target, native_runtime, parse_target
from twobuckets.artifact.wholeness import iter_dead_paths, require_no_shadows
from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.units import format_bytes

if TYPE_CHECKING:
    from twobuckets.settings import Settings

__all__ = [
    "DIRECT_UPLOAD_LIMIT_BYTES",
    "NATIVE",
    "UNZIPPED_LIMIT_BYTES",
    "Artifact",
    "BrokerArtifact",
    "Content",
    "LastBuilt",
    "PackedFile",
    "build",
    "build_broker",
    "build_configured",
    "find_built",
    "native_runtime",
]

DIRECT_UPLOAD_LIMIT_BYTES = 50 * 1024 * 1024
"""The largest zip that goes to Lambda without S3 (Lambda guide, gettingstarted-limits)."""

UNZIPPED_LIMIT_BYTES = 250 * 1024 * 1024
"""The most that a function's code may have unzipped (Lambda guide, gettingstarted-limits)."""

# Hidden, so that a build of the whole folder does not pack the build before it.
_DEFAULT_OUT = Path(".twobuckets", "processor.zip")
_BROKER_OUT = Path(".twobuckets", "broker.zip")
_PROCESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Content:
    """One file or folder at the artifact's top level and the bytes it takes unzipped."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One file in the artifact; `origin` is source, requirements, runtime or bytecode."""

    path: str
    size_bytes: int
    origin: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A zip that Lambda can run.

    `sha256` is lower-case hex over the zip's bytes; `contents` is what takes the room, largest
    first; `unchecked` says what could not be checked on this machine, None when all was. `built`
    are the wheels that were built for it, by running their code on this machine; `notes` say what
    may not be as it looks; `files` is all that goes in, in the order of the zip. `bytecode` is the
    full version of the Python that compiled the modules, or `without_bytecode` says why none did.
    """

    path: Path
    sha256: str
    runtime: str
    architecture: str
    zipped_bytes: int
    unzipped_bytes: int
    contents: tuple[Content, ...]
    unchecked: str | None
    bytecode: str | None = None
    without_bytecode: str | None = None
    built: tuple[Built, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[PackedFile, ...] = ()

    def notices(self) -> Iterator[str]:
        """Yield what a person should know beside the sizes, in sentences."""
        for wheel in self.built:
            whose = "your own code" if wheel.is_own else "its own code"
            yield (
                f"Built {wheel.name} {wheel.version} from {wheel.source}, in isolation: {whose} ran"
                " on this machine."
            )
        yield from (f"Note: {note}." for note in self.notes)
        if self.unchecked is not None:
            yield f"Not fully checked: {self.unchecked}."
        if self.without_bytecode is not None:
            yield (
                f"Without bytecode, so that each cold start compiles the modules anew:"
                f" {self.without_bytecode}."
            )


def build(
    source: Path,
    *,
    process: str = "processor:process",
    requirements: Path | None = None,
    runtime: str = "python3.13",
    architecture: str = "arm64",
    out: Path | None = None,
    build_sdists: bool = False,
    include: Sequence[str] = (),
) -> Artifact:
    """Build the artifact of a processor and check that it can be imported.

    `source` is a module, a package or a folder of modules; `process` is `module:function` in it.
    Requirements, a file in pip's format or a lock file, are unpacked from wheels for the runtime
    and architecture; the user's own folders among them are built in isolation, and sdists, archives
    and repositories with `build_sdists` only. The architecture `NATIVE` is this machine with this
    Python, for the embedded AWS. `out`, by default `.twobuckets/processor.zip` beside the source,
    is replaced only by an artifact that passed.

    The bytes depend on the paths, bytes and owner's x bit of the source, on the wheels that the
    requirements resolve to (pin them to have the same tomorrow) and on the version of twobuckets.
    They don't depend on umask, time, time zone, locale, hash seed, order in folders, or version of
    zlib; nor on the Python that runs this, but for the bytecode: it is of a Python of the target's
    version, and there is none where no such Python is at hand.

    `include` are patterns of paths in the artifact that are meant though they look like secrets,
    are hidden, or are links that lead out of the source's folder.

    Raises UsageError for a source, requirement file or name that can't be meant, or for what looks
    like a secret in the source, and TwoBucketsError when the processor can't be imported, a
    requirement has no wheel, the artifact is over Lambda's limit or the disk is full; nothing is
    left behind then.
    """
    target = parse_target(runtime, architecture)
    _require_process_in(source, process)
    out = out or source.resolve().parent / _DEFAULT_OUT
    if out.parent.name == _DEFAULT_OUT.parent.name:
        _keep_out_of_git(out.parent)
    python = find_python(target)
    with scratch_folder() as scratch, published(out) as draft:
        own = list(iter_source(source, out=out, include=include))
        notes = require_nothing_confidential(own, of=str(source), include=include)
        wheels = scratch / "wheels"
        installed = Installed()
        if requirements is not None:
            installed = install(
                requirements, wheels, target, scratch=scratch, build_sdists=build_sdists
            )
        entries = merge(
            ("the twobuckets runtime", iter_runtime()),
            (str(source), own),
            (str(requirements), iter_wheels(wheels) if requirements is not None else ()),
        )
        require_no_shadows(entries, installed.owners)
        notes += iter_dead_paths(entries, installed.owners)
        notes += _require_own_wheels_harmless(entries, installed, include)
        unzipped_bytes = _require_within_limit(entries)
        compiled = _compiled(entries, python, target, scratch)
        entries, unzipped_bytes = compiled.entries, unzipped_bytes + compiled.size_bytes
        write_zip(entries, draft)
        unchecked = require_importable(
            draft, entries, process=process, target=target, python=python, scratch=scratch
        )
        sha256, zipped_bytes = sha256_of(draft), draft.stat().st_size
    return Artifact(
        path=out,
        sha256=sha256,
        runtime=target.runtime,
        architecture=architecture,
        zipped_bytes=zipped_bytes,
        unzipped_bytes=unzipped_bytes,
        contents=_contents(entries),
        unchecked=unchecked,
        bytecode=compiled.python_version,
        without_bytecode=compiled.lack,
        built=installed.built,
        notes=(*installed.notes, *notes),
        files=tuple(PackedFile(entry.path, entry.size_bytes, entry.origin) for entry in entries),
    )


@dataclass(frozen=True, slots=True)
class BrokerArtifact:
    """The zip of the upload page's broker; `sha256` is lower-case hex over its bytes."""

    path: Path
    sha256: str


def build_broker(settings: Settings) -> BrokerArtifact:
    """Build the artifact of the broker, which is the same for everybody with this version.

    It goes beside the processor's. Raises TwoBucketsError when it can't be written.
    """
    out = settings.directory / _BROKER_OUT
    _keep_out_of_git(out.parent)
    with published(out) as draft:
        write_zip(merge(("twobuckets", iter_broker())), draft)
        return BrokerArtifact(out, sha256_of(draft))


def build_configured(settings: Settings, *, out: Path | None = None) -> Artifact:
    """Build the artifact that settings describe, for the embedded AWS when the stack is there.

    Without a setting for them, requirements are those of a `requirements.txt` beside the settings'
    file, if there is one. Raises what `build` raises.
    """
    requirements = settings.directory / (settings.requirements or "requirements.txt")
    named = settings.requirements is not None
    return build(
        settings.directory / settings.source,
        process=settings.process,
        requirements=requirements if named or requirements.exists() else None,
        runtime=settings.runtime,
        architecture=NATIVE if settings.is_local else settings.architecture,
        out=out or settings.directory / _DEFAULT_OUT,
        build_sdists=settings.build_sdists,
        include=settings.include,
    )


@dataclass(frozen=True, slots=True)
class LastBuilt:
    """The artifact that was last built; `sha256` is lower-case hex.

    `is_current` tells whether it holds the processor, and our runtime, as they are now.
    """

    sha256: str
    is_current: bool


def find_built(settings: Settings) -> LastBuilt | None:
    """Return the artifact that `build_configured` wrote last, if there is one."""
    path = settings.directory / _DEFAULT_OUT
    if not path.is_file():
        return None
    return LastBuilt(sha256_of(path), _is_current(path, settings.directory / settings.source))


def _is_current(artifact: Path, source: Path) -> bool:
    try:
        with ZipFile(artifact) as packed:
            return all(
                packed.read(entry.path) == entry.file.read_bytes()
                for entry in (*iter_runtime(), *iter_source(source, out=artifact))
            )
    except (KeyError, OSError, BadZipFile, TwoBucketsError):
        # A file that is new, or a source that is gone, is not what was built.
        return False


def _require_process_in(source: Path, process: str) -> None:
    if _PROCESS.fullmatch(process) is None:
        raise UsageError(
            f"Could not build the processor: {process!r} names no function",
            hint='Write module:function, as in [processor] process = "processor:process"',
        )
    module = process.partition(":")[0]
    if source.is_file() and source.stem != module:
        raise UsageError(
            f"Could not build the processor: {process} is not in {source}, which is the module"
            f" {source.stem}",
            hint=f'Write [processor] process = "{source.stem}:{process.partition(":")[2]}"',
        )


def _keep_out_of_git(folder: Path) -> None:
    # Where this can't be written, the artifact can't either, and that is said with its reason.
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / ".gitignore").write_text("*\n", "utf-8")


def _require_own_wheels_harmless(
    entries: Iterable[Entry], installed: Installed, include: Sequence[str]
) -> list[str]:
    """Look into the wheels of the user's folders as into the source."""
    notes = []
    for wheel in installed.own_wheels:
        with zipfile.ZipFile(wheel) as read:
            names = set(read.namelist())
        of_wheel = [e for e in entries if e.origin == "requirements" and e.path in names]
        notes += require_nothing_confidential(of_wheel, of=wheel.name, include=include)
    return notes


class _Compiled(NamedTuple):
    entries: list[Entry]
    size_bytes: int = 0
    python_version: str | None = None
    lack: str | None = None


def _compiled(entries: list[Entry], python: str | None, target: Target, scratch: Path) -> _Compiled:
    """Return the entries with bytecode beside the modules where it can be had and fits."""
    if python is None:
        lack = f"there is no {target.runtime} here ({how_to_get(target)})"
        return _Compiled(entries, lack=lack)
    bytecode = compile_modules(entries, python, scratch)
    if bytecode is None:
        return _Compiled(entries, lack=f"{python} could not compile them")
    size_bytes = sum(entry.size_bytes for entry in bytecode.entries)
    if sum(entry.size_bytes for entry in entries) + size_bytes > UNZIPPED_LIMIT_BYTES:
        lack = f"its {format_bytes(size_bytes)} would be too much for Lambda"
        return _Compiled(entries, lack=lack)
    together = sorted((*entries, *bytecode.entries), key=lambda entry: entry.path.encode())
    return _Compiled(together, size_bytes, bytecode.python_version)


def _contents(entries: Sequence[Entry]) -> tuple[Content, ...]:
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[entry.path.partition("/")[0]] += entry.size_bytes
    # Ties by name: a report is to be as repeatable as the bytes.
    return tuple(
        Content(path, size) for path, size in sorted(sizes.items(), key=lambda c: (-c[1], c[0]))
    )


def _require_within_limit(entries: Sequence[Entry]) -> int:
    contents = _contents(entries)
    unzipped_bytes = sum(content.size_bytes for content in contents)
    if unzipped_bytes > UNZIPPED_LIMIT_BYTES:
        largest = ", ".join(f"{c.path} {format_bytes(c.size_bytes)}" for c in contents[:5])
        raise TwoBucketsError(
            f"Could not build the processor: it has {format_bytes(unzipped_bytes)} unzipped and"
            f" Lambda takes {format_bytes(UNZIPPED_LIMIT_BYTES)}; the largest parts are {largest}",
            hint="Take out what the processor does not need; boto3 is in Lambda already.",
        )
    return unzipped_bytes
