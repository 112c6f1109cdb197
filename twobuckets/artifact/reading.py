"""What a processor's text alone proves, where no Python of the target's version can import it.

An import by another version proves nothing: what a marker left out for the target, this one may
need. The text tells what every version agrees on, and whatever is doubtful passes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from twobuckets.artifact.probe import names_bound
from twobuckets.errors import TwoBucketsError

if TYPE_CHECKING:
    from twobuckets.artifact.contents import Entry
    from twobuckets.artifact.target import Target

BESIDE: Final = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""boto3 and all it needs, as they lie in Lambda's runtime folder."""

# The standard library's modules by the version that brought or removed them ("What's New in
# Python"), as far as the oldest Python that runs this does not have them, or has them still.
_ADDED: Final[Mapping[tuple[int, int], frozenset[str]]] = {
    (3, 14): frozenset({"annotationlib", "compression"}),
}
_REMOVED: Final[Mapping[tuple[int, int], frozenset[str]]] = {
    (3, 12): frozenset({"asynchat", "asyncore", "distutils", "imp", "smtpd"}),
    (3, 13): frozenset(
        {
            *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap"),
            *("msilib", "nis", "nntplib", "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau"),
            *("telnetlib", "uu", "xdrlib"),
        }
    ),
}
_NEWEST_KNOWN: Final = max(_ADDED)


def require_plausible(entries: Sequence[Entry], *, process: str, target: Target) -> str | None:
    """Look for what is wrong with a processor in whatever way Python reads it.

    Returns what could not even be read, None when all of the user's modules could.
    Raises TwoBucketsError for a module, a function or a package at a module's top level that is
    not there, and for a function that can't be called with the file.
    """
    by_path = {entry.path: entry for entry in entries}
    start, _, name = process.partition(":")
    if _find(start, by_path) is None:
        tops = {_top(entry.path) for entry in entries}
        if start.partition(".")[0] in tops:
            # Compiled, or made by what the package does when it is imported.
            return None
        raise TwoBucketsError(
            f"Could not import the processor {process}: No module named {start!r}",
            hint="Name the module under [processor] process in twobuckets.toml.",
        )
    unread: str | None = None
    waiting, seen = [start], set[str]()
    while waiting:
        module = waiting.pop()
        entry = _find(module, by_path)
        if module in seen or entry is None or entry.origin != "source":
            continue
        seen.add(module)
        try:
            tree = ast.parse(entry.file.read_bytes())
        except (SyntaxError, ValueError) as error:
            unread = unread or _unreadable(entry, error, process=process, target=target)
            continue
        if module == start:
            _require_function(tree, name, process)
        is_package = entry.path.endswith("/__init__.py")
        for line, imported in _iter_imports(tree, module, is_package=is_package):
            _require_there(imported, entry, line, by_path, process=process, target=target)
            waiting.append(imported)
    return unread


def missing_function(process: str, names: Sequence[str]) -> TwoBucketsError:
    """Return the error for a module that lacks the function, with what it has instead."""
    module, _, name = process.partition(":")
    there = f"the module has {', '.join(names)}" if names else "the module defines no function"
    return TwoBucketsError(
        f"Could not find the processor {process}: {there}",
        hint=f"Define {name}(file), or name the function in twobuckets.toml:"
        f' [processor] process = "{module}:{names[0] if names else "function"}"',
    )


def never_runs(process: str) -> TwoBucketsError:
    """Return the error for a function that calling does not run."""
    return TwoBucketsError(
        f"Could not use the processor {process}: it is a generator or coroutine, and calling it"
        " runs nothing of it",
        hint="Make it a plain function: no async, no yield.",
    )


def wrong_signature(process: str, signature: str) -> TwoBucketsError:
    """Return the error for a function that does not take just the file."""
    return TwoBucketsError(
        f"Could not use the processor {process}{signature}: it can't be called with the file alone",
        hint="Let it take exactly one argument without default: def process(file)",
    )


def _find(module: str, by_path: Mapping[str, Entry]) -> Entry | None:
    path = module.replace(".", "/")
    return by_path.get(f"{path}/__init__.py") or by_path.get(f"{path}.py")


def _top(path: str) -> str:
    return path.partition("/")[0].partition(".")[0]


def _unreadable(
    entry: Entry, error: SyntaxError | ValueError, *, process: str, target: Target
) -> str:
    line = getattr(error, "lineno", None)
    said = f"{entry.file}, line {line}: {type(error).__name__}: {getattr(error, 'msg', error)}"
    if sys.version_info[:2] >= target.python:
        # What a newer Python can't read, an older one can't either.
        raise TwoBucketsError(
            f"Could not import the processor {process}: {said}",
            hint="Fix that line; Lambda would fail in the same way.",
        )
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} can't read {said}"


def _require_function(tree: ast.Module, name: str, process: str) -> None:
    names = names_bound(tree.body)
    if names is None:
        return
    if name not in names:
        raise missing_function(
            process,
            [
                node.name
                for node in tree.body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            ],
        )
    bound = [node for node in tree.body if name in (names_bound([node]) or ())]
    if len(bound) != 1:
        return
    (node,) = bound
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
        if isinstance(node, ast.AsyncFunctionDef) or _yields(node):
            raise never_runs(process)
        given, least = len(node.args.posonlyargs) + len(node.args.args), len(node.args.defaults)
        takes_one = (given or node.args.vararg) and given - least <= 1
        if not takes_one or any(default is None for default in node.args.kw_defaults):
            raise wrong_signature(process, f"({ast.unparse(node.args)})")


def _yields(function: ast.FunctionDef) -> bool:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def _iter_imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each module that is imported whatever happens.

    What stands in a `try`, an `if` or a function may never be.
    """
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*kept, *([base] if base else [])])
            if base:
                yield node.lineno, base
                # Names may be modules; those that are not are found nowhere, and are no matter.
                if node.level:
                    yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _require_there(
    module: str,
    entry: Entry,
    line: int,
    by_path: Collection[str],
    *,
    process: str,
    target: Target,
) -> None:
    top = module.partition(".")[0]
    if any(_top(path) == top for path in by_path) or top in BESIDE or _in_library(top, target):
        return
    raise TwoBucketsError(
        f"Could not import the processor {process}: {entry.file}, line {line}:"
        f" ModuleNotFoundError: No module named {top!r}",
        hint=f"Add the package that has {top} to requirements.txt.",
    )


def _in_library(top: str, target: Target) -> bool:
    """Tell whether the target's standard library may have a module."""
    for since, names in _REMOVED.items():
        if top in names and target.python >= since:
            return False
    for since, names in _ADDED.items():
        if top in names:
            return target.python >= since
    return top in sys.stdlib_module_names or target.python > _NEWEST_KNOWN
