"""A program that runs pip with the environment markers of another machine.

`pip install --platform --python-version` chooses wheels for another machine but decides lines such
as `tomli; python_version < "3.11"` by the Python that runs pip, so that an artifact would miss what
it needs or carry what it does not. This program replaces the one function that pip asks, when pip
still has it; the tests notice when it does not.

Its first argument is a JSON object of markers, the rest are pip's.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from contextlib import suppress
from typing import Any


def main() -> None:
    """Run pip with the markers in the first argument."""
    target = json.loads(sys.argv.pop(1))
    with suppress(ImportError, AttributeError):
        markers: Any = importlib.import_module("pip._vendor.packaging.markers")
        here = markers.default_environment
        markers.default_environment = lambda: {**here(), **target}
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
