"""A program that runs pip as if on another machine, and lets it run nobody's code.

`pip install --platform --python-version` chooses wheels for another machine but decides lines such
as `tomli; python_version < "3.11"` by the Python that runs pip, so that an artifact would miss what
it needs or carry what it does not. This program replaces the one function that pip asks, when pip
still has it; the tests notice when it does not.

`--only-binary :all:` holds for what pip finds on an index, not for folders, archives and
repositories, which the metadata of any wheel can name. Building needs a second process, and so does
fetching a repository: where that is to be refused, this program refuses to start one.

Its first argument is a JSON object of markers or null, which means that pip may start what it
likes; the rest are pip's.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from contextlib import suppress
from typing import Any, Final

REFUSED: Final = "twobuckets lets pip start no other program"
"""What the error of a refused start says."""

# pip asks them about this machine for its user agent, for the C library, and for passwords.
_HARMLESS: Final = frozenset(
    {"getconf", "keyring", "ldconfig", "lsb_release", "rustc", "sw_vers", "uname"}
)


class RefusedError(Exception):
    """pip was about to start a program that it was not to start."""


def main() -> None:
    """Run pip with the markers in the first argument."""
    target = json.loads(sys.argv.pop(1))
    if target is not None:
        sys.addaudithook(_refuse_programs)
        with suppress(ImportError, AttributeError):
            markers: Any = importlib.import_module("pip._vendor.packaging.markers")
            here = markers.default_environment
            markers.default_environment = lambda: {**here(), **target}
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def _refuse_programs(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        executable = os.path.basename(os.fsdecode(arguments[0] or arguments[1][0]))
        if executable not in _HARMLESS and not executable.startswith("ld-"):
            raise RefusedError(f"{REFUSED}: {executable}")
    elif event in ("os.system", "os.exec", "os.posix_spawn"):
        raise RefusedError(f"{REFUSED}: {event}")


if __name__ == "__main__":
    main()
