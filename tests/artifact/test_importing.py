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
    monkeypatch.setenv("PATH", str(python.parent))
    found = built(tmp_path, text, runtime=f"python{other}", architecture="arm64")
    assert f"there is no python{other} here" in (found.unchecked or "")
    assert f"`uv python install {other}` brings one" in (found.unchecked or "")


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
            python=sys.executable,
            scratch=tmp_path,
            timeout=timedelta(seconds=0.5),
        )
    time.sleep(1)
    assert not mark.exists()


HERE = f"python3.{sys.version_info[1]}"
OTHER = "python3.13" if HERE != "python3.13" else "python3.12"


@pytest.fixture
def only_this_python(monkeypatch, tmp_path):
    """No Python of another version can be found."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def source_with_foreign_code(folder: Path, text: str) -> Path:
    """A folder whose compiled part is for arm64, and no library at all: no machine loads it."""
    (folder / "src" / "fast").mkdir(parents=True)
    (folder / "src" / "processor.py").write_text(text)
    (folder / "src" / "fast" / "__init__.py").write_text("from fast._fast import speed\n")
    (folder / "src" / "fast" / "_fast.cpython-313-aarch64-linux-gnu.so").write_text("no library")
    return folder / "src"


def test_code_compiled_for_another_machine_is_said_to_be_unchecked(tmp_path):
    source = source_with_foreign_code(tmp_path, "import fast\ndef process(file): pass\n")
    found = artifact.build(source, architecture="arm64", runtime=HERE)
    assert found.unchecked is not None
    assert f"needs fast, built for {HERE} on arm64" in found.unchecked


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
        artifact.build(source, architecture="arm64", runtime=HERE)


def test_the_same_code_on_its_own_machine_is_a_failure(tmp_path):
    source = source_with_foreign_code(tmp_path, "import fast\ndef process(file): pass\n")
    with pytest.raises(TwoBucketsError, match="Could not import the processor"):
        artifact.build(source, architecture=artifact.NATIVE)


@pytest.mark.usefixtures("only_this_python")
class TestWithoutThatPython:
    """Where there is no Python of the target's version, the text alone is looked at."""

    def build(self, folder: Path, text: str) -> artifact.Artifact:
        return built(folder, text, runtime=OTHER, architecture="x86_64")

    def test_what_another_version_would_miss_is_no_fault(self, tmp_path):
        # As aiosignal does it, whose marker leaves typing_extensions out for newer versions.
        (tmp_path / "src").mkdir()
        text = (
            "import sys\nif sys.version_info[:2] != (3, {}):\n    import absent_here\n"
            "else:\n    import absent_there\n"
        ).format(OTHER.rpartition(".")[2])
        (tmp_path / "src" / "package.py").write_text(text)
        (tmp_path / "src" / "processor.py").write_text("import package\ndef process(f): pass\n")
        found = artifact.build(tmp_path / "src", runtime=OTHER, architecture="x86_64")
        assert found.unchecked == (
            f"there is no {OTHER} here to import it with (`uv python install"
            f" {OTHER.removeprefix('python')}` brings one)"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("def run(file): pass\n", "the module has run"),
            ("import click\ndef process(file): pass\n", "line 1: .*No module named 'click'"),
            ("import json, click.core\ndef process(file): pass\n", "No module named 'click'"),
            ("from click import echo\ndef process(file): pass\n", "No module named 'click'"),
            ("async def process(file): pass\n", "runs nothing of it"),
            ("def process(file):\n    if file:\n        yield 1\n", "runs nothing of it"),
            ("def process(): pass\n", r"process\(\): it can't be called"),
            ("def process(a, b): pass\n", r"process\(a, b\): it can't be called"),
            ("def process(*, file): pass\n", "it can't be called"),
        ],
    )
    def test_what_no_version_would_take_is_refused(self, tmp_path, text, message):
        with pytest.raises(TwoBucketsError, match=message):
            self.build(tmp_path, text)

    @pytest.mark.parametrize(
        "text",
        [
            "try:\n    import click\nexcept ImportError: pass\ndef process(file): pass\n",
            "if False:\n    import click\ndef process(file): pass\n",
            "def process(file):\n    import click\n",
            "from os import *\n",
            "def process(file, more=1, *rest, key=2, **others):\n    return lambda: (yield)\n",
            "def process(*files): pass\n",
            "import functools\n@functools.cache\ndef process(a, b): pass\n",
            "process = print\n",
            "import boto3, botocore.config, json\ndef process(file): pass\n",
        ],
    )
    def test_what_may_be_right_passes(self, tmp_path, text):
        assert "to import it with" in (self.build(tmp_path, text).unchecked or "")

    def test_a_package_that_a_module_of_the_users_needs_is_named_where_it_is_imported(
        self, tmp_path
    ):
        package = tmp_path / "intake"
        package.mkdir()
        (package / "__init__.py").write_text("from . import steps\nfrom .steps import process\n")
        (package / "steps.py").write_text("import json\nimport click\ndef process(file): pass\n")
        with pytest.raises(TwoBucketsError, match=r"steps\.py, line 2: .*'click'"):
            artifact.build(package, process="intake:process", runtime=OTHER)

    def test_a_module_that_is_not_there_is_told(self, tmp_path):
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "other.py").touch()
        with pytest.raises(TwoBucketsError, match="No module named 'processor'"):
            artifact.build(tmp_path / "src", runtime=OTHER)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="this library has neither")
@pytest.mark.usefixtures("only_this_python")
def test_the_standard_library_is_the_targets(tmp_path):
    text = "import annotationlib\ndef process(file): pass\n"
    with pytest.raises(TwoBucketsError, match="No module named 'annotationlib'"):
        built(tmp_path, text, runtime="python3.13", architecture="arm64")
    assert built(tmp_path, text, runtime="python3.14", architecture="arm64").unchecked
    text = "import cgi\ndef process(file): pass\n"
    with pytest.raises(TwoBucketsError, match="No module named 'cgi'"):
        built(tmp_path, text, runtime="python3.13", architecture="arm64")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python reads it")
@pytest.mark.usefixtures("only_this_python")
def test_syntax_that_only_a_newer_python_knows_is_said_to_be_unread(tmp_path):
    text = "type Name = str\ndef process(file): pass\n"
    found = built(tmp_path, text, runtime="python3.13", architecture="arm64")
    assert f"can't read {tmp_path}/processor.py, line 1: SyntaxError" in (found.unchecked or "")
    with pytest.raises(TwoBucketsError, match="line 1: SyntaxError"):
        built(tmp_path, "def x(:\n", runtime="python3.11", architecture="arm64")


def test_path_files_of_packages_are_read_as_lambda_reads_them(tmp_path):
    (tmp_path / "src" / "vendored").mkdir(parents=True)
    (tmp_path / "src" / "vendored" / "inner.py").touch()
    (tmp_path / "src" / "vendored.pth").write_text("vendored\n")
    (tmp_path / "src" / "processor.py").write_text("import inner\ndef process(file): pass\n")
    found = artifact.build(tmp_path / "src", architecture=artifact.NATIVE)
    assert found.unchecked is None
