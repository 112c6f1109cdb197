"""Indexes, their passwords, constraints, and what pip itself reads in a requirements file."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.artifact.wheels import write_wheel
from twobuckets.artifact.lines import LineOrigin, read_requirements, redacted
from twobuckets.cli import cli

TOKEN = "t0p-s3cret-t0ken"


@pytest.fixture
def private_index(tmp_path: Path) -> Iterator[str]:
    """An index on loopback that asks for a password, with the wheels in `wheels/`."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    allowed = "Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != allowed:
                self.send_response(401)
                self.end_headers()
                return
            name = self.path.strip("/").split("/")[-1]
            files = sorted(wheels.glob(f"{name.replace('-', '_')}-*"))
            if self.path.startswith("/simple/") and files:
                body = "".join(f'<a href="/files/{file.name}">{file.name}</a>' for file in files)
                self._answer(body.encode(), "text/html")
            elif self.path.startswith("/files/") and (wheels / name).is_file():
                self._answer((wheels / name).read_bytes(), "application/octet-stream")
            else:
                self.send_response(404)
                self.end_headers()

        def _answer(self, body: bytes, content_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "processor.py").write_text("def process(file): pass\n")
    # An index of this machine's own must not answer in the private one's place.
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def build(*lines: str, options: tuple[str, ...] = ()) -> Result:
    Path("requirements.txt").write_text("\n".join(lines) + "\n")
    return CliRunner().invoke(cli, ["build", "--json", *options])


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--index-url", "--no-index\n--find-links"])
def test_a_private_index_serves_and_its_password_is_never_shown(
    project, private_index, monkeypatch, option, caplog
):
    write_wheel(project / "wheels", "mine")
    monkeypatch.setenv("INDEX_TOKEN", TOKEN)
    index = f"{private_index}/mine/" if "links" in option else private_index
    lines = (f"{option} http://user:${{INDEX_TOKEN}}@{index}", "mine")
    result = build(*lines, options=("-vv",))
    assert result.exit_code == 0, result.stderr
    assert TOKEN not in result.output
    assert TOKEN not in caplog.text


@pytest.mark.slow
def test_what_goes_wrong_shows_no_password_either(project, private_index, caplog):
    write_wheel(project / "wheels", "mine", tag="cp313-cp313-macosx_14_0_arm64")
    for line in (
        "mine",
        "nowhere",
        "=?=nonsense",
        "mine @ http://user:pass-w0rd@127.0.0.1:9/x.zip",
    ):
        result = build(f"-i http://user:{TOKEN}@{private_index}", line, options=("-vv",))
        assert result.exit_code in (1, 2)
        assert TOKEN not in result.output
        assert TOKEN not in caplog.text
        assert "pass-w0rd" not in result.output


@pytest.mark.slow
def test_constraints_hold_for_what_is_required_and_are_no_requirements(project):
    for version in ("1.0", "2.0"):
        write_wheel(project / "wheels", "lower", version=version)
        write_wheel(project / "wheels", "unused", version=version)
    write_wheel(project / "wheels", "upper", requires=("lower",))
    (project / "deep").mkdir()
    (project / "deep" / "constraints.txt").write_text("lower<2\nunused==1.0\n")
    result = build("--no-index", "-f wheels", "-c deep/constraints.txt", "upper")
    assert result.exit_code == 0, result.stderr
    assert '"lower-1.0.dist-info"' in result.stdout
    assert "unused" not in result.stdout


def test_a_requirements_file_is_read_as_pip_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVATE_HOST", "pypi.example.com")
    for folder in ("own", "sub/links", "links"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "local-1.0-py3-none-any.whl").touch()
    (tmp_path / "sub" / "more.txt").write_text("-f links\nincluded==1\n./own\n")
    (tmp_path / "requirements.txt").write_text(
        "\ufeff# comment\n"
        "one==1.0  # why\n"
        "two[a, b]>=1 ; python_version < '3.14' \\\n"
        "  --hash=sha256:00 \\\n"
        "  --hash sha256:11\n"
        "\n"
        "three @ https://example.com/three-1.0-py3-none-any.whl#sha256=22\n"
        "--extra-index-url=https://${PRIVATE_HOST}/simple --pre\n"
        "-r sub/more.txt\n"
        "local-1.0-py3-none-any.whl\n"
        "-e ./own[x] ; sys_platform == 'linux'\n",
        "utf-8",
    )
    wanted = read_requirements(tmp_path / "requirements.txt")
    told = [(line.name, line.kind, line.place) for line in wanted.lines]
    assert told == [
        ("one", LineOrigin.NAME, "requirements.txt, line 2"),
        ("two", LineOrigin.NAME, "requirements.txt, line 3"),
        ("three", LineOrigin.WHEEL, "requirements.txt, line 7"),
        ("included", LineOrigin.NAME, "sub/more.txt, line 2"),
        (None, LineOrigin.FOLDER, "sub/more.txt, line 3"),
        ("local", LineOrigin.WHEEL, "requirements.txt, line 10"),
        (None, LineOrigin.FOLDER, "requirements.txt, line 11"),
    ]
    two = wanted.lines[1]
    assert two.hashes == ("--hash=sha256:00", "--hash=sha256:11")
    assert (two.extras, two.marker) == ("[a,b]", 'python_version < "3.14"')
    assert (wanted.lines[6].extras, wanted.lines[6].marker) == ("[x]", 'sys_platform == "linux"')
    # Paths of requirements start from the first file's folder, those of links from their file's.
    assert wanted.lines[4].target == str(tmp_path / "own")
    assert wanted.options == [
        "--extra-index-url https://pypi.example.com/simple",
        "--pre",
        f"--find-links {tmp_path}/sub/links",
    ]
    assert wanted.secrets == {"pypi.example.com"}


@pytest.mark.parametrize("line", ["{url}/stranger-1.0.tar.gz", "./{url}", "a b {url}"])
def test_what_a_variable_holds_is_not_shown_where_a_line_is_refused(project, monkeypatch, line):
    monkeypatch.setenv("INDEX_TOKEN", TOKEN)
    result = build(line.format(url="https://host/${INDEX_TOKEN}/x"))
    assert result.exit_code == 2
    assert "requirements.txt, line 1" in result.stderr
    assert "****" in result.stderr
    assert TOKEN not in result.output


def test_user_names_and_passwords_of_urls_are_not_shown():
    text = "git+https://me:pw@host/x and http://token@host/y, not a@b or https://host/c@d"
    assert redacted(text) == (
        "git+https://****@host/x and http://****@host/y, not a@b or https://host/c@d"
    )
    assert redacted("see s3cret", {"s3cret"}) == "see ****"
