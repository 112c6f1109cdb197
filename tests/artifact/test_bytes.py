"""Equal input gives an equal artifact, and only what belongs in it is in it."""

from __future__ import annotations

import os
import random
import re
import socket
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twobuckets import artifact
from twobuckets.artifact.contents import Entry, iter_source, merge
from twobuckets.artifact.packing import sha256_of, write_zip
from twobuckets.errors import TwoBucketsError, UsageError

FOLDERS = {"a", "a/b", "z"}
PROCESSOR = "def process(file):\n    return file\n"

LEFT_OUT = re.compile(
    r"\A\.|\.pyc\Z|\.pyo\Z|\.egg-info\Z|\A(__pycache__|__init__\.py|pyvenv\.cfg)\Z"
)
_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
).filter(lambda name: not LEFT_OUT.search(name) and len(name.encode()) < 100)
_files = st.tuples(st.binary(max_size=300), st.booleans())
_trees = st.dictionaries(st.tuples(st.sampled_from(["", "a/", "a/b/", "z/"]), _names), _files)


@settings(max_examples=40)
@given(_trees, st.randoms(use_true_random=False), st.sampled_from([0o000, 0o022, 0o077]))
def test_neither_order_nor_umask_nor_time_changes_the_bytes(tree, shuffled, umask):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first = packed(Path(one), dict(tree), umask=0o022)
        items = list(tree.items())
        shuffled.shuffle(items)
        second = packed(Path(other), dict(items), umask=umask)
        assert first.read_bytes() == second.read_bytes()


@settings(max_examples=40)
@given(_trees)
def test_every_file_comes_out_of_the_zip_as_it_went_in(tree):
    with tempfile.TemporaryDirectory() as folder:
        file = packed(Path(folder), tree, umask=0o022)
        with zipfile.ZipFile(file) as read:
            assert read.testzip() is None
            inside = {
                name: (read.read(name), bool(read.getinfo(name).external_attr >> 16 & stat.S_IXUSR))
                for name in read.namelist()
            }
        given_files = {parent + name: file for (parent, name), file in tree.items()}
        assert inside == {path: file for path, file in given_files.items() if path not in FOLDERS}


@given(st.lists(_names, unique=True), st.randoms(use_true_random=False))
def test_the_order_in_which_a_folder_lists_its_files_does_not_matter(names, shuffled):
    entries = [Entry(name, Path(name), executable=False, size_bytes=1) for name in names]
    listed = shuffled.sample(entries, len(entries))
    assert merge(("test", listed)) == sorted(entries, key=lambda entry: entry.path.encode())


def packed(folder: Path, tree: dict[tuple[str, str], tuple[bytes, bool]], *, umask: int) -> Path:
    before = os.umask(umask)
    try:
        for (parent, name), (content, executable) in tree.items():
            (folder / "source" / parent).mkdir(parents=True, exist_ok=True)
            file = folder / "source" / parent / name
            if parent + name in FOLDERS:
                continue
            file.write_bytes(content)
            if executable:
                file.chmod(file.stat().st_mode | stat.S_IXUSR)
            os.utime(file, (random.randrange(2**31), random.randrange(2**31)))
        (folder / "source").mkdir(exist_ok=True)
    finally:
        os.umask(before)
    out = folder / "out.zip"
    write_zip(merge(("test", iter_source(folder / "source", out=out))), out)
    return out


def test_umask_time_zone_hash_seed_locale_and_folder_leave_the_artifact_the_same(tmp_path):
    digests = set()
    for number, (umask, zone, seed, locale) in enumerate(
        [("022", "UTC", "0", "C"), ("077", "Asia/Tokyo", "42", "C.UTF-8")]
    ):
        project = tmp_path / f"folder {number}"
        (project / "intake").mkdir(parents=True)
        modules = ["__init__.py", "b.py", "a.py", "ä.py"]
        for name in modules if number else reversed(modules):
            (project / "intake" / name).write_text(PROCESSOR)
            os.utime(project / "intake" / name, (number, number))
        program = (
            "import sys; from pathlib import Path; from twobuckets import artifact;"
            "print(artifact.build(Path('intake'), process='intake.a:process',"
            " architecture=artifact.NATIVE).sha256)"
        )
        done = subprocess.run(
            ["sh", "-c", f'umask {umask}; exec "$0" -c "$1"', sys.executable, program],
            cwd=project,
            env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "LC_ALL": locale},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_bytes_are_the_same_on_every_python_that_runs_this_test(tmp_path):
    (tmp_path / "a").write_bytes(b"same " * 1000)
    (tmp_path / "b").write_bytes(b"")
    entries = [
        Entry("folder/a.py", tmp_path / "a", executable=False, size_bytes=5000),
        Entry("tööl", tmp_path / "b", executable=True, size_bytes=0),
    ]
    write_zip(entries, tmp_path / "zip")
    assert (
        sha256_of(tmp_path / "zip")
        == "a17d6fed7566ffe81dd8f709d2bcda767d7c1d4219d2236b09028df9a855004a"
    )


def test_an_artifact_holds_the_module_and_the_runtime_and_nothing_else(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    (tmp_path / "notes.txt").write_text("not code")
    built = artifact.build(tmp_path / "processor.py", architecture=artifact.NATIVE)
    with zipfile.ZipFile(built.path) as read:
        names = {name for name in read.namelist() if not name.endswith(".pyc")}
    runtime = {name for name in names if name.startswith("twobuckets/processor/")}
    assert runtime
    assert names - runtime == {"processor.py", "twobuckets/__init__.py"}
    assert built.sha256 == sha256_of(built.path)
    assert built.zipped_bytes == built.path.stat().st_size
    assert built.unzipped_bytes == sum(content.size_bytes for content in built.contents)
    contents = {content.path for content in built.contents}
    assert contents == {"processor.py", "twobuckets", "__pycache__"}


def test_a_package_keeps_its_name_and_a_folder_of_modules_is_unpacked_at_the_top(tmp_path):
    for folder in ("intake", "src"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "processor.py").write_text(PROCESSOR)
        (tmp_path / folder / "sub" / "table.csv").write_text("1")
    (tmp_path / "intake" / "__init__.py").touch()
    assert source_paths(tmp_path / "intake") == [
        "intake/__init__.py",
        "intake/processor.py",
        "intake/sub/table.csv",
    ]
    assert source_paths(tmp_path / "src") == ["processor.py", "sub/table.csv"]


def test_hidden_files_byte_code_environments_and_older_artifacts_stay_out(tmp_path):
    for path in (
        ".env",
        ".git/config",
        "__pycache__/processor.cpython-311.pyc",
        "sub/old.pyc",
        "intake.egg-info/PKG-INFO",
        "environment/pyvenv.cfg",
        "environment/lib/big.py",
        "built.zip",
        "processor.py",
        "sub/kept.py",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).touch()
    found = merge(("test", iter_source(tmp_path, out=tmp_path / "built.zip")))
    assert [entry.path for entry in found] == ["processor.py", "sub/kept.py"]


def test_links_are_packed_as_what_they_lead_to(tmp_path):
    (tmp_path / "src" / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "shared" / "deep" / "a.py").write_text("1")
    (tmp_path / "src" / "folder").symlink_to(tmp_path / "src" / "shared")
    (tmp_path / "src" / "file.py").symlink_to("shared/deep/a.py")
    assert source_paths(tmp_path / "src") == ["file.py", "folder/deep/a.py", "shared/deep/a.py"]


def test_a_link_to_a_folder_above_itself_is_refused(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="a link to a folder that contains it"):
        source_paths(tmp_path)


def test_what_can_not_be_packed_is_refused_by_name(tmp_path):
    (tmp_path / "nowhere.py").symlink_to("gone")
    with pytest.raises(UsageError, match=r"nowhere\.py is a link that leads nowhere"):
        source_paths(tmp_path)
    (tmp_path / "nowhere.py").unlink()

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is neither a file nor a folder"):
        source_paths(tmp_path)
    (tmp_path / "pipe").unlink()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(UsageError, match="socket is neither a file nor a folder"):
            source_paths(tmp_path)
    (tmp_path / "socket").unlink()

    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py")).touch()
    with pytest.raises(UsageError, match="is not UTF-8"):
        source_paths(tmp_path)


def test_a_module_that_would_hide_the_runtime_is_refused(tmp_path):
    (tmp_path / "twobuckets").mkdir()
    (tmp_path / "twobuckets" / "__init__.py").touch()
    (tmp_path / "processor.py").write_text(PROCESSOR)
    with pytest.raises(TwoBucketsError, match="comes from the twobuckets runtime and from"):
        artifact.build(tmp_path)


def test_a_source_that_is_not_there_or_not_python_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        artifact.build(tmp_path / "processor.py")
    (tmp_path / "processor.txt").touch()
    with pytest.raises(UsageError, match=r"neither a \.py file nor a folder"):
        artifact.build(tmp_path / "processor.txt", process="processor:process")


def test_a_name_that_the_source_can_not_have_is_a_usage_error(tmp_path):
    (tmp_path / "intake.py").write_text(PROCESSOR)
    with pytest.raises(UsageError, match="which is the module intake") as caught:
        artifact.build(tmp_path / "intake.py", process="processor:process")
    assert 'process = "intake:process"' in (caught.value.hint or "")
    for process in ("process", "a b:process", "intake:", "intake:a.b", "../x:process"):
        with pytest.raises(UsageError, match="names no function"):
            artifact.build(tmp_path / "intake.py", process=process)


def test_a_runtime_or_architecture_that_lambda_has_not_is_a_usage_error(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    with pytest.raises(UsageError, match="it is not a Python runtime"):
        artifact.build(tmp_path / "processor.py", runtime="nodejs22.x")
    with pytest.raises(UsageError, match="architecture 'riscv'"):
        artifact.build(tmp_path / "processor.py", architecture="riscv")


def test_an_artifact_over_lambdas_limit_is_refused_and_its_largest_part_named(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "processor.py").write_text(PROCESSOR)
    with (tmp_path / "src" / "model.bin").open("wb") as sparse:
        sparse.truncate(artifact.UNZIPPED_LIMIT_BYTES)
    with pytest.raises(TwoBucketsError, match=r"the largest parts are model\.bin 250\.0 MiB"):
        artifact.build(tmp_path / "src")
    assert not list(tmp_path.glob(".twobuckets/*processor*"))


def test_a_build_that_fails_keeps_the_artifact_before_it_and_leaves_nothing_else(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    out = tmp_path / "out" / "processor.zip"
    artifact.build(tmp_path / "processor.py", architecture=artifact.NATIVE, out=out)
    before = out.read_bytes()
    (tmp_path / "processor.py").write_text("def other(file): pass\n")
    with pytest.raises(TwoBucketsError, match="Could not find the processor"):
        artifact.build(tmp_path / "processor.py", architecture=artifact.NATIVE, out=out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_a_disk_that_is_full_is_said_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR + "#" * 100_000)
    program = (
        "from pathlib import Path; from twobuckets import artifact, errors\n"
        "try: artifact.build(Path('processor.py'), out=Path('out/a.zip'))\n"
        "except errors.TwoBucketsError as error: print(error.message, '|', error.hint)\n"
    )
    # The limit on a file's size stands for the disk: writing fails in the middle of the zip.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 32; exec "$0" -c "$1"', sys.executable, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Could not write the artifact out/a.zip: ")
    assert "Make room on the disk" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_can_not_be_written_is_said(tmp_path):
    (tmp_path / "processor.py").write_text(PROCESSOR)
    (tmp_path / "taken").touch()
    with pytest.raises(TwoBucketsError, match="Could not write") as caught:
        artifact.build(tmp_path / "processor.py", out=tmp_path / "taken" / "processor.zip")
    assert caught.value.hint == "Choose another place with --out."


def source_paths(source: Path) -> list[str]:
    out = source.parent / "nothing.zip"
    return [entry.path for entry in merge(("test", iter_source(source, out=out)))]
