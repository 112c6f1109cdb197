"""A processor that Lambda could not import is found before it is deployed, with file and line."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from twobuckets import artifact
from twobuckets.artifact.contents import iter_runtime, iter_source, merge
from twobuckets.artifact.importing import require_importable
from twobuckets.artifact.packing import write_zip
from twobuckets.artifact.target import parse_target
from twobuckets.errors import TwoBucketsError


def built(folder: Path, text: str, **options) -> artifact.Artifact:
    (folder / "processor.py").write_text(text)
    options.setdefault("architecture", artifact.NATIVE)
    return artifact.build(folder / "processor.py", **options)


def refused(folder: Path, text: str, **options) -> TwoBucketsError:
    with pytest.raises(TwoBucketsError) as caught:
        built(folder, text, **options)
    assert not list(folder.glob(".twobuckets/*processor*"))
    return caught.value


def test_a_processor_that_uses_the_runtime_and_boto3_passes(tmp_path):
    text = "import boto3\nimport twobuckets.processor\ndef process(file): pass\n"
    assert built(tmp_path, text).unchecked is None


def test_a_syntax_error_names_file_line_and_reason(tmp_path):
    error = refused(tmp_path, "import os\n\ndef process(file:\n    pass\n")
    assert f"{tmp_path}/processor.py, line 3: SyntaxError: '(' was never closed" in error.message


def test_a_missing_function_names_what_is_there(tmp_path):
    error = refused(tmp_path, "import os\ndef run(file): pass\ndef main(): pass\n")
    assert (
        error.message == "Could not find the processor processor:process: the module has run, main"
    )
    assert 'process = "processor:run"' in (error.hint or "")


def test_a_module_without_functions_says_so(tmp_path):
    assert "the module defines no function" in refused(tmp_path, "X = 1\n").message


def test_a_name_that_is_no_function_is_refused(tmp_path):
    error = refused(tmp_path, "process = 'later'\n")
    assert error.message.endswith("processor:process: it is no function, it is a str")


@pytest.mark.parametrize("arguments", ["", "file, bucket", "*, file"])
def test_a_function_that_can_not_take_just_the_file_is_refused(tmp_path, arguments):
    error = refused(tmp_path, f"def process({arguments}): pass\n")
    assert f"processor:process({arguments}): it can't be called with" in error.message


@pytest.mark.parametrize("arguments", ["file", "file, limit=10", "*files", "file, **options"])
def test_a_function_that_takes_the_file_passes(tmp_path, arguments):
    assert built(tmp_path, f"def process({arguments}): pass\n").unchecked is None


@pytest.mark.parametrize(
    "text", ["async def process(file): pass\n", "def process(file):\n    yield file\n"]
)
def test_a_function_that_calling_would_not_run_is_refused(tmp_path, text):
    assert "runs nothing of it" in refused(tmp_path, text).message


def test_a_python_of_the_targets_version_on_path_is_used(tmp_path, monkeypatch):
    other = "3.13" if sys.version_info[:2] != (3, 13) else "3.12"
    python = tmp_path / "bin" / f"python{other}"
    python.parent.mkdir()
    # It says what it is asked for, and imports with this Python.
    answer = f"printf '%s\\n' {python} {other}"
    python.write_text(
        f'#!/bin/sh\n[ "$3" = -c ] && exec {answer}\ntouch {tmp_path}/used\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(python.parent), prepend=":")
    text = "def process(file): pass\n"
    assert built(tmp_path, text, runtime=f"python{other}", architecture="arm64").unchecked is None
    assert (tmp_path / "used").exists()
    python.write_text("#!/bin/sh\necho no such version >&2; exit 127\n")
    found = built(tmp_path, text, runtime=f"python{other}", architecture="arm64")
    assert f"not python{other}" in (found.unchecked or "")


def test_an_error_while_importing_names_the_users_own_line(tmp_path):
    error = refused(tmp_path, "import json\n\nTABLE = json.loads('{')\ndef process(file): pass\n")
    assert f"{tmp_path}/processor.py, line 3: JSONDecodeError: " in error.message


def test_an_error_in_a_packages_second_module_names_that_one(tmp_path):
    package = tmp_path / "intake"
    package.mkdir()
    (package / "__init__.py").write_text("from intake.steps import process\n")
    (package / "steps.py").write_text("def process(file): pass\nprocess.limit = UNKNOWN\n")
    with pytest.raises(TwoBucketsError) as caught:
        artifact.build(package, process="intake:process", architecture=artifact.NATIVE)
    assert f"{package}/steps.py, line 2: NameError: " in caught.value.message


@pytest.mark.parametrize("architecture", [artifact.NATIVE, "arm64", "x86_64"])
def test_a_package_that_is_not_in_the_artifact_is_named(tmp_path, architecture):
    # The developer's environment has it, Lambda has not.
    error = refused(tmp_path, "import click\ndef process(f): pass\n", architecture=architecture)
    assert "line 1: ModuleNotFoundError: No module named 'click'" in error.message
    assert error.hint == "Add the package that has click to requirements.txt."


def test_a_module_that_exits_is_refused(tmp_path):
    assert "SystemExit: 7" in refused(tmp_path, "import sys\nsys.exit(7)\n").message


def test_a_module_that_kills_its_python_is_refused(tmp_path):
    error = refused(tmp_path, "import os\nos._exit(9)\n")
    assert error.message.endswith("processor:process: it ended Python with status 9")


def test_a_module_sees_lambdas_variables_and_nobodys_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("PRIVATE_TOKEN", "secret")
    text = """
import boto3, os
assert "AWS_PROFILE" not in os.environ and "PRIVATE_TOKEN" not in os.environ
assert os.environ["AWS_REGION"] and os.environ["TWOBUCKETS_PROCESS"] == "processor:process"
assert boto3.Session().get_credentials() is None
def process(file): pass
"""
    assert built(tmp_path, text).unchecked is None


def test_a_module_that_never_ends_is_stopped_with_all_it_started(tmp_path):
    mark = tmp_path / "alive"
    (tmp_path / "processor.py").write_text(
        "import subprocess, time\n"
        f"subprocess.Popen(['sh', '-c', 'sleep 1; touch {mark}'])\n"
        "time.sleep(60)\n"
    )
    out = tmp_path / "processor.zip"
    source = iter_source(tmp_path / "processor.py", out=out)
    entries = merge(("runtime", iter_runtime()), ("source", source))
    write_zip(entries, out)
    with pytest.raises(TwoBucketsError, match=r"took longer than 0\.5 s"):
        require_importable(
            out,
            entries,
            process="processor:process",
            target=parse_target("python3.13", artifact.NATIVE),
            scratch=tmp_path,
            timeout=timedelta(seconds=0.5),
        )
    time.sleep(1)
    assert not mark.exists()


def source_with_foreign_code(folder: Path, text: str) -> Path:
    """A folder whose compiled part is for arm64, and no library at all: no machine loads it."""
    (folder / "src" / "fast").mkdir(parents=True)
    (folder / "src" / "processor.py").write_text(text)
    (folder / "src" / "fast" / "__init__.py").write_text("from fast._fast import speed\n")
    (folder / "src" / "fast" / "_fast.cpython-313-aarch64-linux-gnu.so").write_text("no library")
    return folder / "src"


def test_code_compiled_for_another_machine_is_said_to_be_unchecked(tmp_path):
    source = source_with_foreign_code(tmp_path, "import fast\ndef process(file): pass\n")
    found = artifact.build(source, architecture="arm64")
    assert found.unchecked is not None
    assert "needs fast, built for python3.13 on arm64" in found.unchecked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import fast\ndef run(file): pass\n", "Could not find the processor"),
        ("import fsat\nimport fast\ndef process(file): pass\n", "No module named 'fsat'"),
        ("import fast\ndef process(file) pass\n", "line 2: SyntaxError"),
        ("print(UNKNOWN)\nimport fast\ndef process(file): pass\n", "line 1: NameError"),
    ],
)
def test_what_is_wrong_on_any_machine_is_found_beside_foreign_code(tmp_path, text, message):
    source = source_with_foreign_code(tmp_path, text)
    with pytest.raises(TwoBucketsError, match=message):
        artifact.build(source, architecture="arm64")


def test_the_same_code_on_its_own_machine_is_a_failure(tmp_path):
    source = source_with_foreign_code(tmp_path, "import fast\ndef process(file): pass\n")
    with pytest.raises(TwoBucketsError, match="Could not import the processor"):
        artifact.build(source, architecture=artifact.NATIVE)
