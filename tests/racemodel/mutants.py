"""The processor with one guard taken out: its source, changed in one place, as a package."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import ModuleType

import twobuckets.processor

_SOURCE = Path(twobuckets.processor.__file__).parent
_count = itertools.count(1)


def mutant_of_processor(folder: Path, *changes: tuple[str, str, str]) -> ModuleType:
    """Return the processor with each (module, text, replacement) applied to the one place it has.

    Raises AssertionError if a text is not there exactly once: then the guard has moved.
    """
    name = f"processor_mutant_{next(_count)}"
    package = folder / name
    package.mkdir()
    for path in _SOURCE.glob("*.py"):
        source = path.read_text("utf-8")
        for module, text, replacement in changes:
            if module == path.stem:
                assert source.count(text) == 1, f"{module} has {source.count(text)} x {text!r}"
                source = source.replace(text, replacement)
        source = source.replace("twobuckets.processor", name)
        (package / path.name).write_text(source, "utf-8")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    importlib.import_module(f"{name}.runtime")
    return sys.modules[name]
