"""A build runs no code of others, and tells whose code it does run."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.artifact.projects import write_project, write_repository, write_sdist
from tests.artifact.wheels import write_requirements, write_wheel
from twobuckets.cli import cli

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A processor and a stranger's code in every form, whose build would make `TRACE`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "processor.py").write_text("def process(file): pass\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "TRACE"


def build(project: Path, *lines: str, options: tuple[str, ...] = ()) -> Result:
    write_requirements(project, *lines)
    return CliRunner().invoke(cli, ["build", *options])


def packed(project: Path) -> set[str]:
    with zipfile.ZipFile(project / ".twobuckets" / "processor.zip") as read:
        return set(read.namelist())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A folder on loopback, as what is fetched."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


Form = Callable[[Path, Path], tuple[str, ...]]


def _archive(folder: Path, trace: Path) -> tuple[str, ...]:
    write_sdist(folder, "stranger", trace=trace)
    return ("./stranger-1.0.tar.gz",)


def _named_archive(folder: Path, trace: Path) -> tuple[str, ...]:
    return (f"stranger @ {write_sdist(folder, 'stranger', trace=trace).as_uri()}",)


def _repository(folder: Path, trace: Path) -> tuple[str, ...]:
    return (f"git+{write_repository(folder / 'repo', 'stranger', trace=trace).as_uri()}",)


def _editable_repository(folder: Path, trace: Path) -> tuple[str, ...]:
    repository = write_repository(folder / "repo", "stranger", trace=trace).as_uri()
    return (f"-e git+{repository}#egg=stranger",)


def _no_binary(folder: Path, trace: Path) -> tuple[str, ...]:
    write_wheel(folder / "wheels", "stranger")
    write_sdist(folder / "wheels", "stranger", trace=trace)
    return ("--no-binary stranger", "stranger")


def _included(folder: Path, trace: Path) -> tuple[str, ...]:
    (folder / "more").mkdir()
    (folder / "more" / "more.txt").write_text("".join(_archive(folder, trace)))
    (folder / "also.txt").write_text("-r more/more.txt\n")
    return ("-r also.txt",)


FORMS = [_archive, _named_archive, _repository, _editable_repository, _no_binary, _included]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_the_users_own_is_not_built(project, trace, form: Form):
    result = build(project, *form(project, trace))
    assert result.exit_code == 2, result.stderr
    assert "would run their own code on this machine" in result.stderr
    assert "--build-sdists" in result.stderr
    assert not trace.exists()
    assert not (project / ".twobuckets" / "processor.zip").exists()


@pytest.mark.parametrize("form", FORMS)
def test_asked_for_it_is_built_and_told(project, trace, form: Form):
    result = build(project, *form(project, trace), options=("--build-sdists",))
    assert result.exit_code == 0, result.stderr
    assert trace.exists()
    assert "stranger.py" in packed(project)
    assert "Built stranger 1.0 from" in result.stderr
    assert "its own code ran on this machine" in result.stderr


def test_an_archive_from_the_network_is_not_even_fetched(project, trace, tmp_path, served):
    write_sdist(tmp_path / "served", "stranger", trace=trace)
    url = f"{served}/stranger-1.0.tar.gz"
    result = build(project, url)
    assert result.exit_code == 2
    assert url in result.stderr
    assert not trace.exists()
    assert build(project, url, options=("--build-sdists",)).exit_code == 0
    assert trace.exists()


def test_a_constraint_that_leads_to_an_archive_is_refused(project, trace):
    archive = write_sdist(project, "stranger", trace=trace)
    (project / "constraints.txt").write_text(f"stranger @ {archive.as_uri()}\n")
    result = build(project, "-c constraints.txt", "stranger")
    assert result.exit_code == 2
    assert "constraints.txt, line 1" in result.stderr
    assert not trace.exists()


@pytest.mark.parametrize("options", [(), ("--build-sdists",)])
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_wheel_names_by_its_url_is_never_built(project, trace, options, is_folder):
    if is_folder:
        where = write_project(project / "theirs", "stranger", trace=trace)
    else:
        where = write_sdist(project, "stranger", trace=trace)
    write_wheel(project / "wheels", "upper", requires=(f"stranger @ {where.as_uri()}",))
    result = build(project, "upper", options=options)
    assert result.exit_code == 2, result.stderr
    assert "would have to be built" in result.stderr
    assert not trace.exists()


def test_a_setting_of_pip_for_sources_is_not_followed(project, trace, monkeypatch):
    write_wheel(project / "wheels", "stranger")
    write_sdist(project / "wheels", "stranger", trace=trace)
    monkeypatch.setenv("PIP_NO_BINARY", "stranger")
    assert build(project, "stranger").exit_code == 0
    assert not trace.exists()


def test_an_sdist_without_a_wheel_is_named_with_what_can_be_done(project, trace):
    write_sdist(project / "wheels", "stranger", trace=trace)
    result = build(project, "stranger")
    assert result.exit_code == 1
    assert "stranger has no wheel for python3.13 on arm64, only its source" in result.stderr
    assert "`pip wheel stranger -w wheels`" in result.stderr
    assert "--build-sdists" in result.stderr
    assert not trace.exists()
    result = build(project, "stranger==1.0", options=("--build-sdists",))
    assert result.exit_code == 0, result.stderr
    assert trace.exists()
    assert "stranger.py" in packed(project)


def test_an_sdist_that_something_requires_is_built_when_asked_for(project, trace):
    write_sdist(project / "wheels", "stranger", trace=trace)
    write_wheel(project / "wheels", "upper", requires=("stranger>=1",))
    assert build(project, "upper").exit_code == 1
    assert not trace.exists()
    assert build(project, "upper", options=("--build-sdists",)).exit_code == 0
    assert {"upper.py", "stranger.py"} <= packed(project)


def test_an_sdist_with_compiled_parts_is_no_way_to_another_machine(project, trace):
    write_sdist(project / "wheels", "stranger", trace=trace, tag="cp311-cp311-linux_x86_64")
    result = build(project, "stranger", options=("--build-sdists",))
    assert result.exit_code == 1
    assert "what is compiled on this machine is not for python3.13 on arm64" in result.stderr


def test_a_setting_allows_what_the_flag_does(project, trace):
    write_sdist(project / "wheels", "stranger", trace=trace)
    (project / "twobuckets.toml").write_text("[processor]\nbuild_sdists = true\n")
    assert build(project, "stranger").exit_code == 0
    (project / "twobuckets.toml").write_text("[processor]\nbuild_sdists = 1.5\n")
    assert build(project, "stranger").exit_code == 2


@pytest.mark.parametrize(
    "line", ["./own", "-e ./own", "-e own/", "own @ {uri}", "{uri}", "-e {uri}", "--editable=./own"]
)
def test_a_folder_of_the_users_is_built_and_told(project, trace, line):
    own = write_project(project / "own", "own", trace=trace)
    before = sorted(own.iterdir())
    result = build(project, line.format(uri=own.as_uri()))
    assert result.exit_code == 0, result.stderr
    assert "own.py" in packed(project)
    assert f"Built own 1.0 from {own}" in result.stderr
    assert "in isolation: your own code ran on this machine" in result.stderr
    assert not any("editable" in name or name.endswith(".pth") for name in packed(project))
    assert sorted(own.iterdir()) == before


def test_a_folders_extras_markers_and_requirements_are_followed(project, trace):
    for name in ("always", "with_extra", "never", "older"):
        write_wheel(project / "wheels", name)
    requires = ("always", "with-extra; extra == 'more'", "never; sys_platform == 'win32'")
    write_project(project / "own", "own", trace=trace, requires=requires)
    write_project(project / "unused", "unused", trace=trace.with_name("UNUSED"))
    result = build(
        project,
        "./own[more] ; python_version >= '3.13'",
        "-e ./unused ; python_version < '3.13'",
    )
    assert result.exit_code == 0, result.stderr
    modules = {name for name in packed(project) if name.count("/") == 0}
    assert modules == {"processor.py", "own.py", "always.py", "with_extra.py"}
    assert not trace.with_name("UNUSED").exists()


def test_hashes_hold_for_what_is_fetched_and_folders_need_none(project, trace):
    wheel = write_wheel(project / "wheels", "lower")
    write_project(project / "own", "own", trace=trace, requires=("lower",))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert build(project, "-e ./own", f"lower==1.0 --hash=sha256:{digest}").exit_code == 0
    assert {"own.py", "lower.py"} <= packed(project)
    result = build(project, "-e ./own", "lower==1.0 \\\n    --hash=sha256:" + "0" * 64)
    assert result.exit_code == 1
    assert "DO NOT MATCH" in result.stderr


def test_a_folder_that_can_not_be_built_is_told_with_its_line(project):
    (project / "own").mkdir()
    (project / "own" / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "nowhere"\n'
    )
    result = build(project, "", "-e ./own")
    assert result.exit_code == 1
    assert f"Could not build {project}/own (requirements.txt, line 4)" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("./gone", "./gone does not exist"),
        ("-r gone.txt", "gone.txt does not exist"),
        ("--frobnicate", "--frobnicate is no option"),
        ("-r https://user:secret@example.com/r.txt", "****@example.com/r.txt is not on this"),
        ("a b", "a b is no requirement"),
    ],
)
def test_a_line_that_can_not_be_meant_is_named(project, line, said):
    result = build(project, line)
    assert result.exit_code == 2
    assert "requirements.txt, line 3" in result.stderr
    assert said in result.stderr
    assert "secret" not in result.stderr


def test_a_name_or_version_that_does_not_exist_is_told_from_a_lack_of_wheels(project):
    write_wheel(project / "wheels", "there")
    write_wheel(project / "wheels", "mac", tag="cp313-cp313-macosx_14_0_arm64")
    assert "there is no package nowhere on the index" in build(project, "nowhere").stderr
    assert "there is no there==9 on the index" in build(project, "there==9").stderr
    assert "mac has no wheel for python3.13 on arm64" in build(project, "mac").stderr
