"""The walk: which files are meant, which keys they get, and what is said of the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from twobuckets.errors import UsageError
from twobuckets.upload.content_type import guess_content_type
from twobuckets.upload.files import Failed, File, Listed, Selection, find_files

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def keys_in(folder: Path, selection: Selection | None = None, prefix: str = "") -> list[str]:
    found = find_files([str(folder)], recursive=True, selection=selection, prefix=prefix)
    return sorted(file.key for file in found if isinstance(file, File))


def failure_of(found: object) -> Failed:
    assert isinstance(found, Failed)
    return found


def test_keys_are_paths_from_the_folder_behind_the_prefix(tmp_path: Path):
    make(tmp_path, "a", "b/c d", "b/+%20ü", ".hidden/x")
    assert keys_in(tmp_path, prefix="p") == ["p.hidden/x", "pa", "pb/+%20ü", "pb/c d"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(include=("*.csv",)), ["a.csv", "d/b.csv"]),
        (Selection(exclude=("*.csv",)), [".git/x", "d/c.txt", "tmp/e"]),
        (Selection(exclude=(".git", "tmp")), ["a.csv", "d/b.csv", "d/c.txt"]),
        (Selection(exclude=("d/*.csv",)), [".git/x", "a.csv", "d/c.txt", "tmp/e"]),
        (Selection(include=("d/*",)), ["d/b.csv", "d/c.txt"]),
        (Selection(include=("*.csv",), exclude=("d/",)), ["a.csv"]),
        (Selection(hidden=False), ["a.csv", "d/b.csv", "d/c.txt", "tmp/e"]),
    ],
)
def test_patterns_choose_files_and_prune_folders(
    tmp_path: Path, selection: Selection, expected: list[str]
):
    make(tmp_path, "a.csv", "d/b.csv", "d/c.txt", "tmp/e", ".git/x")
    assert keys_in(tmp_path, selection) == expected


def test_links_count_as_what_they_lead_to_unless_told_otherwise(tmp_path: Path):
    make(tmp_path, "real/x")
    (tmp_path / "file").symlink_to("real/x")
    (tmp_path / "folder").symlink_to("real")
    assert keys_in(tmp_path) == ["file", "folder/x", "real/x"]
    assert keys_in(tmp_path, Selection(follow_symlinks=False)) == ["real/x"]


def test_a_loop_of_links_is_found_and_said(tmp_path: Path):
    make(tmp_path, "d/x")
    (tmp_path / "d" / "again").symlink_to("..")
    found = list(find_files([str(tmp_path)], recursive=True))
    assert [file.key for file in found if isinstance(file, File)] == ["d/x"]
    [failed] = [file for file in found if isinstance(file, Failed)]
    assert "leads back" in failed.reason


def test_what_is_no_file_is_named_for_what_it_is(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("missing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = {
            os.path.basename(file.path): failure_of(file).reason
            for file in find_files([str(tmp_path)], recursive=True)
        }
    assert "named pipe" in found["pipe"]
    assert "socket" in found["socket"]
    assert "leads nowhere" in found["nowhere"]
    [device] = find_files(["/dev/null"])
    assert "a device" in failure_of(device).reason
    [missing] = find_files([str(tmp_path / "missing")])
    assert "no such file" in failure_of(missing).reason


def test_names_that_look_the_same_are_told_and_both_go(tmp_path: Path):
    composed, decomposed = "caf\u00e9.csv", "cafe\u0301.csv"
    below = "n\u0303"
    for name in (composed, decomposed, "cafe.csv", f"{below}/a", "o\u0308nly.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "\u00f1").mkdir()
    twins: list[tuple[str, str]] = []
    found = find_files(
        [str(tmp_path)], recursive=True, on_twins=lambda path, twin: twins.append((path, twin))
    )
    keys = {file.key for file in found if isinstance(file, File)}
    assert keys == {composed, decomposed, "cafe.csv", f"{below}/a", "o\u0308nly.csv"}
    assert sorted(twins) == sorted(
        [
            (str(tmp_path / decomposed), str(tmp_path / composed)),
            (str(tmp_path / below), str(tmp_path / "\u00f1")),
        ]
    )


def test_a_name_of_two_forms_that_are_one_file_has_no_twin(tmp_path: Path):
    # As a file system that takes both forms for one name shows it.
    (tmp_path / "cafe\u0301.csv").write_text("x")
    (tmp_path / "caf\u00e9.csv").hardlink_to(tmp_path / "cafe\u0301.csv")
    twins: list[str] = []
    list(find_files([str(tmp_path)], recursive=True, on_twins=lambda path, _: twins.append(path)))
    assert twins == []


def test_a_name_that_is_not_utf_8_fails_alone(tmp_path: Path):
    (tmp_path / "good").write_text("x")
    (tmp_path / os.fsdecode(b"bad\xff")).write_text("x")
    found = list(find_files([str(tmp_path)], recursive=True))
    assert [file.key for file in found if isinstance(file, File)] == ["good"]
    [failed] = [file for file in found if isinstance(file, Failed)]
    assert "not UTF-8" in failed.reason
    [named] = find_files([str(tmp_path / os.fsdecode(b"bad\xff"))], key="good name")
    assert isinstance(named, File)


def test_a_key_has_at_most_1024_bytes(tmp_path: Path):
    make(tmp_path, "ü")
    [fits] = find_files([str(tmp_path / "ü")], prefix="x" * 1022)
    assert isinstance(fits, File)
    [failed] = find_files([str(tmp_path / "ü")], prefix="x" * 1023)
    assert "1,025 bytes" in failure_of(failed).reason


def test_two_files_of_one_key_in_one_command_do_not_replace_each_other(tmp_path: Path):
    make(tmp_path, "a/x", "b/x", "b/y", "c/x")
    roots = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c" / "x")]
    found = list(find_files(roots, recursive=True))
    assert sorted(file.key for file in found if isinstance(file, File)) == ["x", "y"]
    failures = [file for file in found if isinstance(file, Failed)]
    assert len(failures) == 2
    assert all("same key" in failed.reason for failed in failures)


def test_a_file_and_what_only_looks_as_if_it_had_its_key_both_go(tmp_path: Path):
    make(tmp_path, "a/x/inner", "a/y.tmp", "b/x", "y.tmp")
    roots = [str(tmp_path / name) for name in ("a", "b", "y.tmp")]
    selection = Selection(exclude=("*.tmp",))
    found = list(find_files(roots, recursive=True, selection=selection))
    assert sorted(file.key for file in found) == ["x", "x/inner", "y.tmp"]
    assert all(isinstance(file, File) for file in found)


def test_a_file_of_a_list_has_no_key_that_another_one_has(tmp_path: Path):
    make(tmp_path, "a/x", "b/x", "c/x", "d/y", "e/z", "f/z")
    listed = [
        Listed(str(tmp_path / "b" / "x")),
        Listed(str(tmp_path / "missing" / "y")),
        Listed(str(tmp_path / "d" / "y")),
        Listed(str(tmp_path / "e" / "z"), "in/x"),
        Listed(str(tmp_path / "f" / "z")),
        Listed(str(tmp_path / "c" / "x"), "in/z"),
    ]
    [x, *others] = find_files(
        [str(tmp_path / "a")], recursive=True, prefix="in/", listed=iter(listed)
    )
    assert x == File(str(tmp_path / "a" / "x"), "in/x", 3)
    reasons = [found.reason if isinstance(found, Failed) else found.key for found in others]
    assert reasons == [
        f"{tmp_path / 'a' / 'x'} has the same key in this command",
        "there is no such file",
        "in/y",
        f"{tmp_path / 'a' / 'x'} has the same key in this command",
        "in/z",
        "another file of the list has the same key in this command",
    ]


def test_requests_that_cannot_be_meant_are_refused_before_the_first_file(tmp_path: Path):
    make(tmp_path, "a", "b")
    for paths, wishes in (
        ([tmp_path], {}),
        ([tmp_path], {"key": "k", "recursive": True}),
        ([tmp_path / "a", tmp_path / "b"], {"key": "k"}),
        (["-"], {}),
    ):
        with pytest.raises(UsageError):
            find_files([str(path) for path in paths], **wishes)


@pytest.mark.usefixtures("bound_by_permissions")
def test_a_folder_without_permission_fails_alone(tmp_path: Path):
    make(tmp_path, "closed/x", "open/y")
    (tmp_path / "closed").chmod(0)
    found = list(find_files([str(tmp_path)], recursive=True))
    (tmp_path / "closed").chmod(0o700)
    assert [file.key for file in found if isinstance(file, File)] == ["open/y"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path):
    for number in range(20_000):
        if number % 5_000 == 0:
            (tmp_path / str(number)).mkdir()
        (tmp_path / str(number // 5_000 * 5_000) / f"some file with a name {number}").touch()
    script = (
        "import resource, sys\n"
        "from twobuckets.upload.files import find_files\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(1 for _ in find_files([sys.argv[1]], recursive=True))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, grown_kib = map(int, ran.stdout.split())
    assert count == 20_000
    assert grown_kib < 3072


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a/rows.CSV", "text/csv"),
        ("rows.csv.gz", "application/gzip"),
        ("x.tar.bz2", "application/x-bzip2"),
        ("notes.md", "text/markdown"),
        ("t.parquet", "application/vnd.apache.parquet"),
        ("no-ending", "application/octet-stream"),
        ("dir.d/no-ending", "application/octet-stream"),
        ("odd.zzz", "application/octet-stream"),
        ("C:\\x.png", "image/png"),
        ("data:text/html,x.png", "image/png"),
    ],
)
def test_the_content_type_follows_the_end_of_the_name(name: str, content_type: str):
    assert guess_content_type(name) == content_type
