"""An artifact that looks whole and is not is told, by line and name."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.artifact.projects import write_project
from tests.artifact.wheels import write_requirements, write_wheel
from twobuckets import artifact
from twobuckets.errors import TwoBucketsError

pytestmark = pytest.mark.slow
PROCESSOR = "def process(file): pass\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "processor.py").write_text(PROCESSOR)
    return tmp_path / "src"


def built(source: Path, *lines: str, **options) -> artifact.Artifact:
    requirements = write_requirements(source.parent, *lines)
    options.setdefault("architecture", artifact.NATIVE)
    return artifact.build(source, requirements=requirements, **options)


@pytest.mark.parametrize("ours", ["x.py", "x/__init__.py", "x/y.py", "x.cpython-313-darwin.so"])
@pytest.mark.parametrize("theirs", ["x/__init__.py", "x.py", "x.abi3.so"])
def test_a_module_of_the_users_beside_a_package_of_the_same_name_is_refused(source, ours, theirs):
    (source / ours).parent.mkdir(exist_ok=True)
    (source / ours).write_text("MINE = 1\n")
    write_wheel(source.parent / "wheels", "theirs", files={theirs: "THEIRS = 1\n"})
    with pytest.raises(TwoBucketsError) as caught:
        built(source, "theirs")
    if ours == theirs:
        assert f"{ours} comes from" in caught.value.message
    else:
        assert f"{ours} of yours and {theirs} of theirs 1.0 (requirements.txt, line 3)" in str(
            caught.value
        )
        assert "same import name, x" in caught.value.message


def test_parts_of_one_namespace_are_fine(source):
    (source / "company").mkdir()
    (source / "company" / "mine.py").touch()
    write_wheel(source.parent / "wheels", "theirs", files={"company/theirs.py": ""})
    paths = {file.path for file in built(source, "theirs").files}
    assert {"company/mine.py", "company/theirs.py"} <= paths


def test_the_same_package_as_source_and_as_requirement_is_packed_once(tmp_path):
    own = write_project(tmp_path, "own", trace=tmp_path / "TRACE")
    (own / "own.py").write_text(PROCESSOR)
    requirements = write_requirements(own, "-e .")
    found = artifact.build(
        own / "own.py",
        process="own:process",
        requirements=requirements,
        architecture=artifact.NATIVE,
    )
    assert [file.origin for file in found.files if file.path == "own.py"] == ["source"]


def test_packages_that_overwrite_each_other_are_told(source):
    for name, content in (("one", "1"), ("two", "2"), ("three", "1")):
        write_recorded_wheel(source.parent / "wheels", name, {"shared/a.py": content})
    notes = built(source, "one", "two").notes
    (note,) = notes
    assert note == (
        "one 1.0 (requirements.txt, line 3) and two 1.0 (requirements.txt, line 4) both bring"
        " shared/a.py, and one overwrote the other"
    )
    assert built(source, "one", "three").notes == ()


def write_recorded_wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    """Write a wheel whose RECORD has the hashes that installers copy."""
    wheel = write_wheel(folder, name, files=files)
    with zipfile.ZipFile(wheel) as read:
        members = {one: read.read(one) for one in read.namelist() if not one.endswith("RECORD")}
    record = ""
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(content)}\n"
    members[f"{name}-1.0.dist-info/RECORD"] = record.encode()
    with zipfile.ZipFile(wheel, "w") as written:
        for path, content in members.items():
            written.writestr(path, content)


def test_a_path_file_that_leads_out_of_the_artifact_is_told(source):
    files = {
        "theirs.pth": "# comment\nimport sys\n./theirs/inner\n/home/me/lib\n",
        "theirs/inner/a.py": "",
    }
    write_wheel(source.parent / "wheels", "theirs", files=files)
    (note,) = built(source, "theirs").notes
    assert note == (
        "theirs.pth of theirs 1.0 (requirements.txt, line 3) leads to /home/me/lib, which is not in"
        " the artifact"
    )


def test_markers_on_the_patch_level_are_decided_for_the_newest_and_told(source):
    for name in ("newer", "older", "minor", "needed"):
        write_wheel(source.parent / "wheels", name)
    write_wheel(
        source.parent / "wheels",
        "upper",
        requires=('needed; python_full_version >= "3.13.4"', 'older; python_version < "3.13"'),
    )
    found = built(
        source,
        'newer; python_full_version >= "3.13.1"',
        'older; python_full_version < "3.13.2"',
        'minor; python_full_version >= "3.13"',
        "upper",
        runtime="python3.13",
        architecture="arm64",
    )
    modules = {file.path for file in found.files if file.origin == "requirements"}
    assert {"newer.py", "minor.py", "needed.py"} <= modules
    assert "older.py" not in modules
    assert [note.partition(", if")[0] for note in found.notes] == [
        "requirements.txt, line 3: newer",
        "requirements.txt, line 4: older",
        "upper-1.0 requires needed",
    ]
    assert found.notes[0].endswith("so it was taken")
    assert found.notes[1].endswith("so it was left out")
