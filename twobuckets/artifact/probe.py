"""A program that imports a processor as Lambda would, and writes down how that went.

It runs in a Python of its own (`python -I -S probe.py TASK BESIDE PROCESS REPORT`): TASK is the
unpacked artifact, BESIDE a folder with boto3, PROCESS is `module:function`, REPORT the file that
gets one JSON object. It imports nothing of twobuckets but what is in the artifact, and needs no
newer Python than the oldest Lambda still runs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import signal
import site
import sys
import traceback
from pathlib import Path
from typing import Any

_LONGEST_S = 120
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")


def main(task: str, beside: str, process: str, report: str) -> None:
    """Import the runtime's handler and the user's function and write the report."""
    # Whoever waits for this may have been killed.
    signal.alarm(_LONGEST_S)
    _enter(task, beside, process)
    try:
        result = _examine(process)
    except BaseException as error:  # noqa: BLE001 - SystemExit in the user's module as well
        result = {"problem": "import", **_describe(error, task)}
        result["names"] = _names_in_text(task, process)
    result["python"] = list(sys.version_info[:2])
    Path(report).write_text(json.dumps(result), "utf-8")


def _enter(task: str, beside: str, process: str) -> None:
    """Make this Python look like Lambda's: its variables, its folder, nobody's credentials."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(
        HOME=beside,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_REGION="us-east-1",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_LAMBDA_FUNCTION_NAME="processor",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
        AWS_LAMBDA_FUNCTION_VERSION="$LATEST",
        LAMBDA_TASK_ROOT=task,
        ARCHIVE_BUCKET="archive",
        TWOBUCKETS_PROCESS=process,
        TZ=":UTC",
    )
    os.chdir(task)
    sys.path[:0] = [task, beside]
    sys.dont_write_bytecode = True
    # As Lambda's own bootstrap does, so that `.pth` files of packages work there.
    site.addsitedir(task)


def _examine(process: str) -> dict[str, Any]:
    module_name, _, name = process.partition(":")
    module = importlib.import_module(module_name)
    function = getattr(module, name, None)
    if function is None:
        defined = [
            found
            for found, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module_name
        ]
        return {"problem": "missing", "names": defined}
    if not callable(function):
        return {"problem": "not-callable", "type": type(function).__name__}
    lazy = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        return {"problem": "never-runs"}
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        return {"problem": "signature", "signature": str(inspect.signature(function))}
    except ValueError:
        pass  # Written in C: it has no signature to look at.
    if not callable(getattr(importlib.import_module("twobuckets.processor"), "handler", None)):
        return {"problem": "runtime"}
    return {"problem": None}


def _describe(error: BaseException, task: str) -> dict[str, Any]:
    """Return an error's type and message, and the innermost line of the artifact on its way."""
    root = os.path.realpath(task)
    file, line = None, None
    if isinstance(error, SyntaxError) and error.filename:
        file, line, message = error.filename, error.lineno, error.msg
    else:
        message = str(error)
        for frame in traceback.extract_tb(error.__traceback__):
            if os.path.realpath(frame.filename).startswith(root + os.sep):
                file, line = frame.filename, frame.lineno
    if file is not None:
        file = os.path.relpath(os.path.realpath(file), root)
    return {
        "type": type(error).__name__,
        "message": message,
        "file": file,
        "line": line,
        "is_import": isinstance(error, ImportError),
        "absent": error.name if isinstance(error, ModuleNotFoundError) else None,
    }


def _names_in_text(task: str, process: str) -> list[str] | None:
    """Return the names a module binds, read from its text, or None when that can't be told."""
    base = Path(task, *process.partition(":")[0].split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            try:
                tree = ast.parse(file.read_bytes())
            except SyntaxError:
                return None
            return names_bound(tree.body)
    return None


def names_bound(body: list[ast.stmt]) -> list[str] | None:
    """Return the names that a module's text binds at its top, None when that can't be told."""
    names: list[str] = []
    for node in body:
        for part in ast.walk(node):
            if isinstance(part, ast.alias) and part.name == "*":
                return None
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.append(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.append(part.id)
            elif isinstance(part, ast.alias):
                names.append(part.asname or part.name.partition(".")[0])
    return names


if __name__ == "__main__":
    main(*sys.argv[1:])
