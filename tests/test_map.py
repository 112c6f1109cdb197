"""The map, in the docstrings of the package and its rooms: all that it names is there, and named.

Whoever adds a module says in its room's docstring what it is for; whoever adds a room, in the
package's.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import twobuckets
from twobuckets.cli import COMMANDS

PACKAGE = Path(twobuckets.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
# Rooms whose modules follow from tables in the code (COMMANDS and FILES), or are not ours.
UNIFORM = ("cli/commands", "cli/views", "artifact/starter")

# A row of a room's table: names at the beginning of the line, two spaces, what they are for.
ROW = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*) {2,}\S", re.MULTILINE)
# A place on the map: `s3/operations.py`, `cli/commands/`, `errors.py`.
PLACE = re.compile(r"(?<![\w./<-])((?:\w+/)+(?:\w+\.\w+)?|\w+\.py|tests/\w+)(?![\w/-])")


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def docstring_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def modules_in(room: Path) -> dict[str, Path]:
    """Return the modules and rooms directly in a room, by name."""
    modules = {p.stem: p for p in room.glob("*.py") if not p.stem.startswith("__")}
    return modules | {p.name: p for p in room.iterdir() if (p / "__init__.py").exists()}


@pytest.mark.parametrize("room", ROOMS, ids=place_of)
def test_a_rooms_docstring_says_what_each_of_its_modules_is_for(room: Path):
    if place_of(room) in UNIFORM:
        return
    text = docstring_of(room / "__init__.py")
    rows = {name for names in ROW.findall(text) for name in names.split(", ")}
    modules = modules_in(room)
    missing = modules.keys() - rows - set(re.findall(r"`(\w+)`", text))
    assert not missing, (
        f"twobuckets/{place_of(room)}/__init__.py does not say what these are for: "
        + "; ".join(f"{name} ({first_line(modules[name])})" for name in sorted(missing))
    )
    gone = rows - modules.keys()
    assert not gone, f"twobuckets/{place_of(room)}/__init__.py names what is gone: {sorted(gone)}"


def first_line(path: Path) -> str:
    file = path / "__init__.py" if path.is_dir() else path
    return docstring_of(file).partition("\n")[0]


MAP = docstring_of(PACKAGE / "__init__.py")


@pytest.mark.parametrize("place", sorted(set(PLACE.findall(MAP))))
def test_what_the_map_names_is_there(place: str):
    roots = (PACKAGE, PACKAGE.parent)
    assert any((root / place).exists() for root in roots), f"twobuckets/__init__.py names {place}"


def test_the_map_names_every_room_and_every_module_beside_them():
    named = set(PLACE.findall(MAP))
    here = {f"{place_of(room)}/" for room in ROOMS}
    here |= {p.name for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")}
    missing = here - named
    assert not missing, f"twobuckets/__init__.py does not name {sorted(missing)}"


def test_the_map_names_no_class_or_function_that_is_gone():
    text = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    defined = set(re.findall(r"^\s*(?:class|def) (\w+)", text.replace(MAP, ""), re.MULTILINE))
    defined |= {"twobuckets", *COMMANDS}
    gone = {name for name in re.findall(r"`(\w+)[\w.]*`", MAP) if name not in defined}
    assert not gone, f"twobuckets/__init__.py names {sorted(gone)}"
