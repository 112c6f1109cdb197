"""Modules come compiled for the target's Python, to the same bytes whatever machine does it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from twobuckets import artifact
from twobuckets.artifact import bytecode, compile_for_target
from twobuckets.artifact.contents import Entry, iter_source, merge

OTHER = "python3.13" if sys.version_info[:2] != (3, 13) else "python3.12"
PROCESSOR = """
'''What it says.'''
import json
LIMITS = {"small": (1, 2.5, "a b"), "large": frozenset({"x y", "z"})}
class Table:
    '''Rows.'''
    def rows(self, first: int = 300) -> list[str]:
        def inner(value): return [value[1:3], first, "inner name"]
        return [str(one) for one in inner("abcd")] + [f"{self!r:>{first}}"]
async def later(*, name="name"):
    yield name in {"one", "two", "three"}
def process(file):
    return Table().rows
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "processor.py").write_text(PROCESSOR)
    (tmp_path / "src" / "template.py").write_text("print '{{ old }}'\n")
    return tmp_path / "src"


def built(project: Path, **options) -> artifact.Artifact:
    options.setdefault("architecture", artifact.NATIVE)
    return artifact.build(project, **options)


def test_every_module_that_is_one_has_bytecode_that_needs_no_check(project):
    found = built(project)
    version = ".".join(map(str, sys.version_info[:3]))
    assert (found.bytecode, found.without_bytecode) == (version, None)
    modules = {f.path for f in found.files if f.path.endswith(".py")} - {"template.py"}
    compiled = {f.path for f in found.files if f.origin == "bytecode"}
    assert compiled == {importlib.util.cache_from_source(path) for path in modules}
    with zipfile.ZipFile(found.path) as packed:
        raw = packed.read(importlib.util.cache_from_source("processor.py"))
        assert packed.testzip() is None
    assert raw[:4] == importlib.util.MAGIC_NUMBER
    # By its hash, unchecked (PEP 552).
    assert raw[4:8] == b"\x01\0\0\0"
    assert raw[8:16] == importlib.util.source_hash(PROCESSOR.encode())


def test_python_takes_the_bytecode_and_not_the_text(project, tmp_path):
    found = built(project)
    with zipfile.ZipFile(found.path) as packed:
        packed.extractall(tmp_path / "task")
    (tmp_path / "task" / "processor.py").write_text("raise RuntimeError('compiled anew')\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import processor as p;"
        "print(p.__doc__, p.process.__code__.co_filename, p.Table().rows(1)[0],"
        " p.LIMITS['large'] == {'x y', 'z'})"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, tmp_path / "task"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"What it says. {tmp_path}/task/processor.py bc True\n"


def compiled_with(folder: Path, modules: dict[str, Path], before: str, seed: str) -> list[bytes]:
    """Compile modules in a Python that has done something else before."""
    folder.mkdir()
    (folder / "list.json").write_text(json.dumps([(p, str(f)) for p, f in modules.items()]))
    program = f"import runpy, sys; {before};runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    subprocess.run(
        [
            *(sys.executable, "-c", program, compile_for_target.__file__),
            *(folder / "list.json", folder),
        ],
        env={"PYTHONHASHSEED": seed, "PATH": os.defpath},
        capture_output=True,
        check=True,
    )
    return [(folder / f"{number}.pyc").read_bytes() for number in range(len(modules))]


def test_what_else_a_python_holds_in_memory_changes_no_byte(project, tmp_path):
    library = Path(os.__file__).parent
    modules = {
        name: library / name
        for name in ("argparse.py", "inspect.py", "asyncio/events.py", "ftplib.py", "ast.py")
    } | {"processor.py": project / "processor.py"}
    alone = compiled_with(tmp_path / "1", modules, "pass", "1")
    others = "import argparse, asyncio, ast, decimal, email, ftplib, inspect, unittest"
    backwards = dict(reversed(modules.items()))
    after = compiled_with(tmp_path / "2", backwards, f"{others}; {PROCESSOR!r}", "2")
    assert alone == after[::-1]


def test_several_processes_compile_the_same_as_one(project, tmp_path, monkeypatch):
    for number in range(7):
        (project / f"m{number}.py").write_text(f"VALUE = {number}\n")
    entries = merge(("test", iter_source(project, out=tmp_path / "out.zip")))

    def content(folder: str) -> dict[str, bytes]:
        (tmp_path / folder).mkdir()
        found = bytecode.compile_modules(entries, sys.executable, tmp_path / folder)
        assert found is not None
        return {entry.path: entry.file.read_bytes() for entry in found.entries}

    one = content("one")
    monkeypatch.setattr(bytecode, "_LEAST_A_PROCESS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert content("several") == one
    assert len(one) == 8


def test_without_a_python_of_that_version_there_is_none_and_that_is_said(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = built(project, runtime=OTHER, architecture="arm64")
    assert found.bytecode is None
    assert not any(file.path.endswith(".pyc") for file in found.files)
    assert f"there is no {OTHER} here" in (found.without_bytecode or "")
    assert any(notice.startswith("Without bytecode") for notice in found.notices())


def test_a_python_that_can_not_compile_leaves_the_text_alone(project, tmp_path):
    entries = [Entry("processor.py", project / "processor.py", executable=False, size_bytes=1)]
    (tmp_path / "scratch").mkdir()
    assert bytecode.compile_modules(entries, "/bin/false", tmp_path / "scratch") is None


def test_where_bytecode_would_be_too_much_for_lambda_it_is_left_out(project):
    size_bytes = sum(file.size_bytes for file in built(project).files if file.origin != "bytecode")
    with (project / "model.bin").open("wb") as sparse:
        sparse.truncate(artifact.UNZIPPED_LIMIT_BYTES - size_bytes - 100)
    found = built(project)
    assert found.bytecode is None
    assert "too much for Lambda" in (found.without_bytecode or "")
    assert found.unzipped_bytes == artifact.UNZIPPED_LIMIT_BYTES - 100
