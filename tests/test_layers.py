"""The house's rules: who may import whom, and where the outside world is touched."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import twobuckets

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(twobuckets.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Rooms by level, the highest first; a room imports from lower levels only.
LEVELS = (
    {"__main__"},
    {"cli"},
    {
        "stack",
        "links",
        "upload",
        "doctor",
        "reprocess",
        "artifact",
        "local",
        "trace",
        "probe",
        "watch",
    },
    # What became of a file is asked by most rooms, and told by the log alone.
    {"logs"},
    # The noun: what a pipeline's buckets, objects and function are and say means the same to all.
    {"pipeline"},
    {"s3", "settings", "parallel", "lists", "database"},
    # What AWS's error codes mean is asked by whoever talks to it.
    {"aws"},
    # It runs in Lambda, and shares with whoever mints links what a link is.
    {"records", "broker"},
    {"units", "text", "errors", "prices", "manual", "page", "sigv4"},
    {"processor"},
)
# Top-level packages that only these places import (a prefix of the dotted module's name).
ONLY_IN = {
    "click": ("cli",),
    "rich": ("cli.output", "cli.views"),
    "boto3": ("aws.clients", "processor"),
    "botocore": ("aws", "processor"),
    "ministack": ("local.server",),
}
# Rooms within a room that the rest enters by their door only.
DOORS = ("s3.engine",)
# Public classes that share a name on purpose, and why. At most three.
HOMONYMS = {
    "Outcome": "the line that the processor writes, and what the log gives back of it",
    "Settings": "the tool's, and of them the few that the function has in its environment",
    "File": "what process() gets, and a local file: the word on either side of an upload",
}
# Calls and names that only these places use.
USED_ONLY_IN = {
    "print": ("processor", "broker"),
    "sys.exit": ("cli", "local.server", "processor.__main__", "processor.job"),
    "os.environ": (
        "cli",
        "settings",
        "processor",
        "broker",
        "local.server",
        "artifact.probe",
        "artifact.installers",
    ),
    "datetime.now": ("cli", "processor", "local.server"),
}


def name_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    return name.partition(".")[0]


def level_of(room: str) -> int:
    return next(i for i, rooms in enumerate(LEVELS) if room in rooms)


def is_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def imports_of(module: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports at run time."""
    tree = ast.parse(module.read_text("utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            if node.module == "twobuckets":
                yield from (f"twobuckets.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_point_down(module: Path):
    name = name_of(module)
    if not name:
        assert list(imports_of(module)) == []
        return
    room = room_of(name)
    for imported in imports_of(module):
        if not imported.startswith("twobuckets."):
            continue
        other = room_of(imported.removeprefix("twobuckets."))
        if other in (room, "__version__"):
            continue
        assert room != "processor", f"{name} imports {imported}, and runs without it"
        assert level_of(other) > level_of(room), f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_the_outside_world_is_touched_in_its_own_place_only(module: Path):
    name = name_of(module)
    for imported in imports_of(module):
        top = imported.partition(".")[0]
        if top in ONLY_IN:
            assert is_in(name, ONLY_IN[top]), f"{name} imports {imported}"
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        used = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else None
        if used in USED_ONLY_IN:
            assert is_in(name, USED_ONLY_IN[used]), f"{name} uses {used}"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_room_with_a_door_is_entered_by_it(module: Path):
    name = name_of(module)
    for imported in imports_of(module):
        for door in DOORS:
            if not is_in(name, (door,)):
                inside = imported.startswith(f"twobuckets.{door}.")
                assert not inside, f"{name} imports {imported}, not twobuckets.{door}"


def dotted(module: Path) -> str:
    name = name_of(module)
    return f"twobuckets.{name}" if name else "twobuckets"


def needs_of(module: Path) -> set[str]:
    """Return our modules that one names, in whatever block: under TYPE_CHECKING as well."""
    ours = {dotted(other) for other in MODULES}
    named: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                named.add(full if full in ours else str(node.module))
    return (named & ours) - {dotted(module)}


def circles_in(needs: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules each of which leads to all others of its group."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for name in needs[left.pop()] - seen:
                seen.add(name)
                left.append(name)
        return seen

    reached = {name: reach(name) for name in needs}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in needs
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def test_a_circle_is_seen_as_one():
    needs = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str]()}
    assert circles_in(needs) == [["a", "b", "c"]]


def test_no_modules_import_each_other_in_a_circle():
    assert circles_in({dotted(module): needs_of(module) for module in MODULES}) == []


def test_no_two_public_classes_share_a_name():
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.parse(module.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(dotted(module))
    shared = {name: where for name, where in homes.items() if len(where) > 1}
    assert len(HOMONYMS) <= 3
    assert {n: w for n, w in shared.items() if n not in HOMONYMS} == {}
    gone = HOMONYMS.keys() - shared.keys()
    assert not gone, f"take them out of the list: {', '.join(sorted(gone))}"
