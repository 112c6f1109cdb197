"""Requirements come as wheels for Lambda's Python and machine, the same from pip and from uv."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import packaging
import pytest

from tests.artifact.wheels import write_requirements, write_wheel
from twobuckets import artifact
from twobuckets.errors import TwoBucketsError, UsageError

PROCESSOR = "def process(file): pass\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    return tmp_path


def built(project: Path, *lines: str, **options) -> artifact.Artifact:
    requirements = write_requirements(project, *lines)
    return artifact.build(project / "processor.py", requirements=requirements, **options)


def names_in(found: artifact.Artifact) -> set[str]:
    with zipfile.ZipFile(found.path) as read:
        names = {name for name in read.namelist() if not name.endswith(".pyc")}
    return {name for name in names if not name.startswith("twobuckets/")}


@pytest.mark.slow
def test_a_requirement_and_what_it_needs_are_unpacked_beside_the_processor(project):
    write_wheel(project / "wheels", "upper", requires=("lower>=1",), script=True)
    write_wheel(project / "wheels", "lower")
    assert names_in(built(project, "upper==1.0")) == {
        "processor.py",
        "upper.py",
        "upper-1.0.dist-info/METADATA",
        "upper-1.0.dist-info/WHEEL",
        "upper-1.0.dist-info/entry_points.txt",
        "lower.py",
        "lower-1.0.dist-info/METADATA",
        "lower-1.0.dist-info/WHEEL",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "architecture", "taken"),
    [("python3.13", "arm64", "2_34_aarch64"), ("python3.11", "x86_64", "2_26_x86_64")],
)
def test_the_newest_wheel_that_the_runtimes_machine_and_glibc_can_load_is_taken(
    project, runtime, architecture, taken
):
    python = runtime.removeprefix("python").replace(".", "")
    for machine in ("aarch64", "x86_64"):
        for version, glibc in enumerate(["2_17", "2_26", "2_34", "2_35"]):
            write_wheel(
                project / "wheels",
                "fast",
                version=f"{version}.0",
                tag=f"cp{python}-cp{python}-manylinux_{glibc}_{machine}",
                files={f"fast/{glibc}_{machine}.txt": ""},
            )
    found = built(project, "fast", runtime=runtime, architecture=architecture)
    assert {name for name in names_in(found) if name.startswith("fast/")} == {f"fast/{taken}.txt"}


def test_markers_are_decided_by_lambdas_python_and_machine_and_not_by_this_one(project):
    for name in ("for_target", "for_here", "for_arm", "for_mac"):
        write_wheel(project / "wheels", name)
    here = f"3.{sys.version_info[1]}"
    runtime = "python3.13" if here != "3.13" else "python3.12"
    write_wheel(
        project / "wheels",
        "chooser",
        requires=(
            f'for-target; python_version == "{runtime.removeprefix("python")}"',
            f'for-here; python_version == "{here}"',
            'for-arm; platform_machine == "aarch64"',
            'for-mac; sys_platform == "darwin"',
        ),
    )
    found = names_in(built(project, "chooser", runtime=runtime, architecture="arm64"))
    modules = {name for name in found if name.startswith("for_") and "dist-info" not in name}
    assert modules == {"for_target.py", "for_arm.py"}


@pytest.mark.slow
def test_a_requirement_without_a_wheel_is_named(project):
    write_wheel(project / "wheels", "good")
    write_wheel(project / "wheels", "fast", tag="cp313-cp313-macosx_14_0_arm64")
    with pytest.raises(TwoBucketsError) as caught:
        built(project, "good", "fast==1.0")
    assert caught.value.message == (
        f"Could not install the requirements in {project}/requirements.txt: fast==1.0 has no wheel"
        " for python3.13 on arm64"
    )
    assert not list(project.glob(".twobuckets/*processor*"))


@pytest.mark.slow
def test_a_line_that_is_no_requirement_is_shown(project):
    with pytest.raises(TwoBucketsError, match=r"Could not install.*=\?=nonsense"):
        built(project, "=?=nonsense")


def test_a_requirements_file_that_is_not_there_is_a_usage_error(project):
    with pytest.raises(UsageError, match="does not exist"):
        artifact.build(project / "processor.py", requirements=project / "requirements.txt")


def test_an_empty_requirements_file_adds_nothing(project):
    (project / "requirements.txt").touch()
    found = artifact.build(project / "processor.py", requirements=project / "requirements.txt")
    assert names_in(found) == {"processor.py"}


@pytest.mark.slow
def test_twobuckets_among_the_requirements_is_refused(project):
    write_wheel(project / "wheels", "twobuckets", files={"twobuckets/__init__.py": ""})
    with pytest.raises(UsageError, match="brings twobuckets itself"):
        built(project, "twobuckets")


@pytest.mark.slow
def test_a_module_of_the_users_that_a_requirement_also_brings_is_refused(project):
    write_wheel(project / "wheels", "other", files={"processor.py": ""})
    with pytest.raises(TwoBucketsError, match=r"processor\.py comes from .* and from"):
        built(project, "other")


@pytest.mark.slow
def test_a_python_without_pip_builds_the_same_bytes_with_uv(project):
    write_wheel(project / "wheels", "upper", requires=("lower",), script=True)
    write_wheel(project / "wheels", "lower")
    with_pip = built(project, "upper").sha256
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / "bare"], check=True)
    program = (
        "import importlib.util; from pathlib import Path; from twobuckets import artifact\n"
        "assert importlib.util.find_spec('pip') is None\n"
        "print(artifact.build(Path('processor.py'), requirements=Path('requirements.txt')).sha256)"
    )
    (project / "beside").mkdir()
    (project / "beside" / "packaging").symlink_to(Path(packaging.__file__).parent)
    # The development extras bring uv, beside this Python.
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    done = subprocess.run(
        [project / "bare" / "bin" / "python", "-c", program],
        cwd=project,
        env={
            **os.environ,
            "PYTHONPATH": f"{Path(artifact.__file__).parents[2]}:{project}/beside",
            "PATH": path,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == with_pip
