"""A program that compiles modules as the Python that runs it would, to the same bytes everywhere.

It runs in a Python of the target's version (`python -I -S compile_for_target.py LIST FOLDER`): LIST
is a JSON array of pairs, a module's path in the artifact and the file that holds its text; FOLDER
gets `N.pyc` for the Nth of them, and `compiled.json` with the version and each one's path. What
can't be compiled is left out: packages carry text that is for other versions, and templates that
are no modules.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import sys
import warnings
from pathlib import Path
from types import CodeType
from typing import Any, Final

# PEP 552: a pyc that is valid by the hash of its source, which nobody checks: the two are one zip.
_UNCHECKED_HASH: Final = (0b01).to_bytes(4, "little")
_ROOT: Final = "/var/task/"


def main(listed: str, folder: str) -> None:
    """Compile the modules and write down which ones."""
    warnings.simplefilter("ignore")
    done: dict[int, str] = {}
    for number, (path, file) in enumerate(json.loads(Path(listed).read_text("utf-8"))):
        source = Path(file).read_bytes()
        try:
            code = compile(source, _ROOT + path, "exec", dont_inherit=True, optimize=0)
            packed = _packed(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        content = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH
        content += importlib.util.source_hash(source) + packed
        Path(folder, f"{number}.pyc").write_bytes(content)
        done[number] = importlib.util.cache_from_source(path, optimization="")
    version = ".".join(map(str, sys.version_info[:3]))
    answer = json.dumps({"version": version, "compiled": done})
    Path(folder, "compiled.json").write_text(answer, "utf-8")


def _packed(code: CodeType) -> bytes:
    """Return a code object in marshal's form, the same whatever else this Python has in memory.

    marshal writes down which texts are interned, and which objects have a second reference, and so
    whether something is used elsewhere in the process. Here all are, and all have.
    """
    held: list[Any] = []
    code = _interned(code)
    _hold(code, held)
    return marshal.dumps(code)


def _interned(value: Any) -> Any:
    """Return a constant whose texts are interned."""
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, tuple | frozenset):
        return type(value)(_interned(part) for part in value)
    if isinstance(value, slice):
        return slice(*_interned((value.start, value.stop, value.step)))
    if isinstance(value, CodeType):
        return value.replace(
            co_consts=_interned(value.co_consts),
            co_name=sys.intern(value.co_name),
            co_qualname=sys.intern(value.co_qualname),
            co_filename=sys.intern(value.co_filename),
        )
    return value


def _hold(value: Any, held: list[Any]) -> None:
    """Keep a second reference to whatever marshal meets in a constant."""
    held.append(value)
    if isinstance(value, CodeType):
        # Its variables one by one: the tuple of all of them can't be had.
        parts: tuple[Any, ...] = (value.co_consts, value.co_names, value.co_filename)
        parts += (value.co_name, value.co_qualname, value.co_linetable, value.co_exceptiontable)
        for part in (*parts, *value.co_varnames, *value.co_cellvars, *value.co_freevars):
            _hold(part, held)
    elif isinstance(value, tuple | frozenset):
        for part in value:
            _hold(part, held)
    elif isinstance(value, slice):
        _hold((value.start, value.stop, value.step), held)


if __name__ == "__main__":
    main(*sys.argv[1:])
