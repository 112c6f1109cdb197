"""Nothing that looks like a secret is packed without being meant, and what is packed is listed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.artifact.projects import write_project
from tests.artifact.wheels import write_requirements
from twobuckets.cli import cli

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "processor.py").write_text("def process(file): pass\n")
    (tmp_path / "twobuckets.toml").write_text('[processor]\nsource = "src"\n')
    monkeypatch.chdir(tmp_path)
    return folder


def build(*options: str, include: str | None = None) -> Result:
    if include is not None:
        settings = Path("twobuckets.toml")
        settings.write_text(f'[processor]\nsource = "src"\ninclude = [{include}]\n')
    return CliRunner().invoke(cli, ["build", *options])


def is_own(name: str) -> bool:
    return not name.startswith("twobuckets/") and not name.endswith(".pyc")


def packed() -> set[str]:
    with zipfile.ZipFile(".twobuckets/processor.zip") as read:
        return {name for name in read.namelist() if is_own(name)}


SECRETS = {
    "credentials": "",
    "credentials.json": "",
    "Credentials.CSV": "",
    "sub/secrets.yaml": "",
    "prod.env": "",
    "id_rsa": "",
    "id_ed25519.pub": "",
    "terraform.tfstate": "",
    "terraform.tfstate.backup": "",
    "store.p12": "",
    "store.jks": "",
    "server.key": "",
    "server.pem": KEY,
    "notes.txt": "as agreed:\n" + KEY,
}
HARMLESS = {
    "credentials.py": "",
    "secrets_test.py": f"KEY = '''{KEY}'''",
    "id_numbers.csv": "",
    "ca.pem": CERTIFICATE,
}


def write(source: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)


# A message names ten at most.
@pytest.mark.parametrize("names", [list(SECRETS)[:7], list(SECRETS)[7:]], ids=["names", "contents"])
def test_what_looks_like_a_secret_is_refused_unless_it_is_meant(source, names):
    """All are named at once, and when all but one are meant, the one."""
    write(source, {name: SECRETS[name] for name in names})
    result = build()
    assert result.exit_code == 2
    for name in names:
        assert f"{name} looks like" in result.stderr
    assert not Path(".twobuckets/processor.zip").exists()
    *meant, left = (json.dumps(name) for name in names)
    result = build(include=", ".join(meant))
    assert result.exit_code == 2
    assert result.stderr.count(" looks like ") == 1
    assert f"include = [{left}]" in result.stderr
    result = build(include=", ".join([*meant, left]))
    assert result.exit_code == 0, result.stderr
    assert packed() >= set(names)
    assert "looks like" not in result.stderr


def test_what_may_be_harmless_is_packed_and_told(source):
    write(source, HARMLESS)
    result = build()
    assert result.exit_code == 0, result.stderr
    for name in HARMLESS:
        assert f"Note: {name} of" in result.stderr
    assert "looks like" in result.stderr
    assert packed() >= HARMLESS.keys()
    meant = ", ".join(json.dumps(name) for name in HARMLESS)
    assert "looks like" not in build(include=meant).stderr


def test_hidden_files_stay_out_unless_they_are_meant(source):
    (source / ".env").write_text("TOKEN=1")
    (source / ".aws").mkdir()
    (source / ".aws" / "credentials").write_text("x")
    (source / ".aws" / "config").write_text("x")
    assert build().exit_code == 0
    assert packed() == {"processor.py"}
    assert build(include='".aws/config", ".env"').exit_code == 0
    assert packed() == {"processor.py", ".aws/config", ".env"}


def test_a_link_that_leads_out_of_the_source_is_refused_unless_it_is_meant(source, tmp_path):
    (tmp_path / "home" / "deep").mkdir(parents=True)
    (tmp_path / "home" / "deep" / "a.txt").write_text("x")
    (source / "out").symlink_to(tmp_path / "home")
    (source / "file.txt").symlink_to(tmp_path / "home" / "deep" / "a.txt")
    (source / "inside.py").symlink_to("processor.py")
    result = build()
    assert result.exit_code == 2
    assert "links lead out of" in result.stderr
    assert "file.txt" in result.stderr
    assert "out" in result.stderr
    assert build(include='"out", "*.txt"').exit_code == 0
    assert packed() == {"processor.py", "inside.py", "out/deep/a.txt", "file.txt"}


def test_patterns_are_of_paths_in_the_artifact(source):
    (source / "__init__.py").touch()
    (source / "certs").mkdir()
    (source / "certs" / "server.key").touch()
    (source / "server.key").touch()
    options = ("--process", "src.processor:process")
    assert "src/certs/server.key looks like" in build(*options).stderr
    assert "src/server.key looks like" in build(*options, include='"src/certs"').stderr
    assert build(*options, include='"src/certs", "src/server.key"').exit_code == 0


@pytest.mark.slow
def test_what_the_build_of_an_own_folder_packs_is_looked_at_as_well(source, tmp_path):
    own = write_project(tmp_path / "own", "own", trace=tmp_path / "TRACE")
    backend = own / "backend.py"
    backend.write_text(backend.read_text().replace("['own.py']", "['own.py', 'credentials.json']"))
    (own / "credentials.json").write_text("{}")
    write_requirements(tmp_path, "./own")
    result = build()
    assert result.exit_code == 2
    assert "in own-1.0-py3-none-any.whl, credentials.json looks like credentials" in result.stderr
    assert build(include='"credentials.json"').exit_code == 0
    assert "credentials.json" in packed()


def test_json_and_v_list_every_file_with_its_size_and_where_it_is_from(source):
    (source / "table.csv").write_text("12345")
    lines = build("--json").stdout.splitlines()
    (artifact,) = (one for one in map(json.loads, lines) if one["type"] == "artifact")
    with zipfile.ZipFile(".twobuckets/processor.zip") as read:
        sizes = {one.filename: one.file_size for one in read.infolist()}
    assert {file["path"]: file["size_bytes"] for file in artifact["files"]} == sizes
    origins = {file["path"]: file["origin"] for file in artifact["files"]}
    assert origins["table.csv"] == "source"
    assert origins["twobuckets/processor/__init__.py"] == "runtime"
    listed = build("-v").stdout.splitlines()
    assert any(line.split() == ["5", "B", "table.csv", "source"] for line in listed)
    assert not any("table.csv  source" in line for line in build().stdout.splitlines())
