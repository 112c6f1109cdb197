"""Lock files of four kinds, in the forms that their tools write, ask for the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.artifact.projects import write_project
from tests.artifact.wheels import write_wheel
from twobuckets import artifact
from twobuckets.artifact.lines import LineOrigin
from twobuckets.artifact.locks import is_lock, read_lock
from twobuckets.artifact.target import parse_target
from twobuckets.errors import TwoBucketsError, UsageError

TARGET = parse_target("python3.13", "arm64")
# The project "own" needs upper with its extra, and something for each of two other machines; its
# development group needs more.
UV = """
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "dev-only"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://host/dev_only-1.0-py3-none-any.whl", hash = "sha256:00" }]

[[package]]
name = "lower"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
sdist = { url = "https://host/lower-1.0.tar.gz", hash = "sha256:aa" }
wheels = [{ url = "https://host/lower-1.0-py3-none-any.whl", hash = "sha256:LOWER" }]

[[package]]
name = "old-python"
version = "1.0"
source = { registry = "https://pypi.org/simple" }

[[package]]
name = "own"
version = "1.0"
source = { editable = "." }
dependencies = [
    { name = "upper", extra = ["more"] },
    { name = "old-python", marker = "python_full_version < '3.12'" },
    { name = "windows", marker = "sys_platform == 'win32'" },
]

[package.dev-dependencies]
dev = [{ name = "dev-only" }]

[[package]]
name = "through-extra"
version = "1.0"
source = { registry = "https://private.example.com/simple" }
wheels = [{ url = "https://host/through_extra-1.0-py3-none-any.whl", hash = "sha256:THROUGH" }]

[[package]]
name = "upper"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "lower" }]
wheels = [{ url = "https://host/upper-1.0-py3-none-any.whl", hash = "sha256:UPPER" }]

[package.optional-dependencies]
more = [{ name = "through-extra" }]

[[package]]
name = "windows"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
"""

_POETRY_PACKAGE = """
[[package]]
name = "{name}"
version = "1.0"
optional = false
python-versions = ">=3.8"
{told}files = [{{file = "{file}-1.0-py3-none-any.whl", hash = "sha256:{hash}"}}]
{rest}"""


_PRIVATE_SOURCE = """
[package.source]
type = "legacy"
url = "https://private.example.com/simple"
reference = "private"
"""
_UPPER_NEEDS = """
[package.dependencies]
lower = ">=1"
through_extra = {version = ">=1", optional = true, markers = "extra == \\"more\\""}

[package.extras]
more = ["through-extra (>=1)"]
"""


def poetry(*, groups: bool) -> str:
    """Return a lock of Poetry 2 with groups, or of Poetry 1 without."""
    packages = [
        ("dev-only", "dev", "", "00", ""),
        ("lower", "main", "", "LOWER", ""),
        ("old-python", "main", 'python_version < \\"3.12\\"', "00", ""),
        ("windows", "main", 'sys_platform == \\"win32\\"', "00", ""),
        (
            "through-extra",
            "main",
            "",
            "THROUGH",
            _PRIVATE_SOURCE,
        ),
        (
            "upper",
            "main",
            "",
            "UPPER",
            _UPPER_NEEDS,
        ),
    ]
    text = ""
    for name, group, marker, digest, rest in packages:
        told = f'groups = ["{group}"]\n' if groups else ""
        told += f'markers = "{marker}"\n' if groups and marker else ""
        text += _POETRY_PACKAGE.format(
            name=name, told=told, file=name.replace("-", "_"), hash=digest, rest=rest
        )
    return text + f'\n[metadata]\nlock-version = "{"2.1" if groups else "2.0"}"\n'


def pdm(*, groups: bool) -> str:
    """Return a lock of PDM with what `inherit_metadata` tells, or without."""
    text = '[metadata]\ngroups = ["default", "dev"]\nlock_version = "4.5.0"\n'
    for name, group, marker, digest, rest in (
        ("dev-only", "dev", "", "00", ""),
        ("lower", "default", "", "LOWER", ""),
        ("old-python", "default", 'python_version < \\"3.12\\"', "00", ""),
        ("windows", "default", 'sys_platform == \\"win32\\"', "00", ""),
        ("through-extra", "default", "", "THROUGH", ""),
        ("upper", "default", "", "UPPER", 'dependencies = ["lower>=1"]\n'),
        (
            "upper",
            "default",
            "",
            "UPPER",
            'extras = ["more"]\ndependencies = ["through-extra>=1", "upper==1.0"]\n',
        ),
    ):
        text += f'\n[[package]]\nname = "{name}"\nversion = "1.0"\n'
        text += f'groups = ["{group}"]\n' if groups else ""
        text += f'marker = "{marker}"\n' if groups and marker else ""
        file = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
        text += f'{rest}files = [{{file = "{file}", hash = "sha256:{digest}"}}]\n'
    return text


PYLOCK = """
lock-version = "1.0"
created-by = "somebody"
default-groups = ["main"]
dependency-groups = ["main", "dev"]

[[packages]]
name = "own"
directory = { path = ".", editable = true }

[[packages]]
name = "dev-only"
version = "1.0"
marker = "'dev' in dependency_groups"
wheels = [{ url = "https://host/dev_only-1.0-py3-none-any.whl", hashes = { sha256 = "00" } }]

[[packages]]
name = "lower"
version = "1.0"
marker = "'main' in dependency_groups"
index = "https://pypi.org/simple"
sdist = { url = "https://host/lower-1.0.tar.gz", hashes = { sha256 = "aa" } }
wheels = [{ url = "https://host/lower-1.0-py3-none-any.whl", hashes = { sha256 = "LOWER" } }]

[[packages]]
name = "old-python"
version = "1.0"
marker = "python_full_version < '3.12'"
wheels = [{ url = "https://host/old_python-1.0-py3-none-any.whl", hashes = { sha256 = "00" } }]

[[packages]]
name = "through-extra"
version = "1.0"
index = "https://private.example.com/simple"
wheels = [{ url = "https://host/through_extra-1.0-py3-none-any.whl", hashes.sha256 = "THROUGH" }]

[[packages]]
name = "upper"
version = "1.0"
wheels = [{ url = "https://host/upper-1.0-py3-none-any.whl", hashes = { sha256 = "UPPER" } }]
"""
LOCKS = {
    "uv": ("uv.lock", UV),
    "poetry 2": ("poetry.lock", poetry(groups=True)),
    "poetry 1": ("poetry.lock", poetry(groups=False)),
    "pdm": ("pdm.lock", pdm(groups=True)),
    "pdm without groups": ("pdm.lock", pdm(groups=False)),
    "pylock": ("pylock.toml", PYLOCK),
    "pylock of a name": ("pylock.prod.toml", PYLOCK),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, with wheels of all that it needs and nothing of the rest."""
    folder = write_project(tmp_path / "project", "own", trace=tmp_path / "TRACE")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text() + '[project]\nname = "own"\nversion = "1.0"\ndependencies = ['
        '"upper[more]>=1", "old-python; python_version < \'3.12\'",'
        " \"windows; sys_platform == 'win32'\"]\n"
    )
    (folder / "processor.py").write_text("def process(file): pass\n")
    for name in ("upper", "lower", "through_extra"):
        write_wheel(folder / "wheels", name)
    return folder


def write_lock(project: Path, kind: str) -> Path:
    name, text = LOCKS[kind]
    for mark, package in (("UPPER", "upper"), ("LOWER", "lower"), ("THROUGH", "through_extra")):
        wheel = project / "wheels" / f"{package}-1.0-py3-none-any.whl"
        text = text.replace(f'"sha256:{mark}"', f'"sha256:{digest_of(wheel)}"')
        text = text.replace(f'"{mark}"', f'"{digest_of(wheel)}"')
    (project / name).write_text(text)
    return project / name


def digest_of(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", LOCKS)
def test_every_kind_of_lock_asks_for_the_same(project, kind):
    lock = write_lock(project, kind)
    assert is_lock(lock)
    wanted = read_lock(lock, TARGET)
    assert wanted.is_complete
    named = {line.name: line for line in wanted.lines}
    assert named.keys() == {"own", "upper", "lower", "through-extra"}
    assert len(wanted.lines) == 4
    assert named["own"].kind is LineOrigin.FOLDER
    assert Path(named["own"].target) == project
    assert named["upper"].text == "upper==1.0"
    upper = digest_of(project / "wheels" / "upper-1.0-py3-none-any.whl")
    assert f"--hash=sha256:{upper}" in named["upper"].hashes
    private = [] if "pdm" in kind else ["--extra-index-url https://private.example.com/simple"]
    assert wanted.options == private


@pytest.mark.parametrize("kind", LOCKS)
def test_what_a_lock_leaves_out_for_one_target_another_gets(project, kind):
    lock = write_lock(project, kind)
    names = {line.name for line in read_lock(lock, parse_target("python3.11", "arm64")).lines}
    assert names == {"own", "upper", "lower", "through-extra", "old-python"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uv", "poetry 2", "pdm", "pylock"])
def test_a_lock_is_built_with_the_projects_own_code(project, kind, monkeypatch):
    lock = write_lock(project, kind)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(project / "wheels"))
    found = artifact.build(project / "processor.py", requirements=lock)
    modules = {file.path for file in found.files if file.path.endswith(".py")}
    assert {"own.py", "upper.py", "lower.py", "through_extra.py"} <= modules
    assert [wheel.name for wheel in found.built] == ["own"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uv", "poetry 1", "pdm", "pylock"])
def test_a_wheel_that_is_not_the_one_locked_is_refused(project, kind, monkeypatch):
    lock = write_lock(project, kind)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(project / "wheels"))
    write_wheel(project / "wheels", "lower", files={"lower.py": "EVIL = 1\n"})
    with pytest.raises(TwoBucketsError, match="DO NOT MATCH"):
        artifact.build(project / "processor.py", requirements=lock)


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ('{ git = "https://example.com/x.git?rev=main#0123" }', LineOrigin.SOURCE),
        ('{ url = "https://example.com/x-1.0.tar.gz" }', LineOrigin.SOURCE),
        ('{ url = "https://example.com/x-1.0-py3-none-any.whl" }', LineOrigin.WHEEL),
        ('{ path = "wheels/upper-1.0-py3-none-any.whl" }', LineOrigin.WHEEL),
        ('{ directory = "wheels" }', LineOrigin.FOLDER),
    ],
)
def test_where_a_locked_package_comes_from_decides_whether_it_is_built(project, source, origin):
    (project / "uv.lock").write_text(
        '[[package]]\nname = "own"\nsource = { virtual = "." }\ndependencies = [{ name = "x" }]\n'
        f'\n[[package]]\nname = "x"\nversion = "1.0"\nsource = {source}\n'
    )
    (line,) = read_lock(project / "uv.lock", TARGET).lines
    assert line.kind is origin
    if origin is LineOrigin.SOURCE:
        with pytest.raises(UsageError, match=r"uv\.lock, x: .* would run|would run"):
            artifact.build(project / "processor.py", requirements=project / "uv.lock")


def test_a_project_that_is_no_package_is_not_built(project):
    lock = write_lock(project, "poetry 2")
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "[tool.poetry]\npackage-mode = false\n")
    assert "own" not in {line.name for line in read_lock(lock, TARGET).lines}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.lock", "= nonsense"),
        ("uv.lock", ""),
        ("uv.lock", '[[package]]\nname = "x"\n'),
        ("pylock.toml", 'lock-version = "2.0"\n'),
        ("poetry.lock", '[[package]]\nname = 1\ngroups = ["main"]\n'),
    ],
)
def test_a_lock_that_can_not_be_read_is_told(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"Could not read the requirements in {name}"):
        read_lock(tmp_path / name, TARGET)
