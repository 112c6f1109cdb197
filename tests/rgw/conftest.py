"""A cluster of one node in memory on loopback, with a gateway, for the session's tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
INSTALL = "apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-base"
ACCESS_KEY, SECRET_KEY = "AKIAGATEWAY", "secret-of-the-gateway"

SETTINGS = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
keyring = {home}/keyring
run dir = {home}
admin socket =
log file = {home}/$name.log
mon data = {home}/mon
osd data = {home}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
rgw frontends = beast endpoint=127.0.0.1:{http_port}
rgw data = {home}/rgw
rgw run sync thread = false
rgw sts key = 0123456789abcdef
rgw s3 auth use sts = true
"""


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Mark everything in this folder."""
    for item in items:
        if "/tests/rgw/" in str(item.path):
            item.add_marker(pytest.mark.rgw)
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that runs; `admin` calls radosgw-admin."""

    url: str
    settings: Path

    def admin(self, *arguments: str) -> str:
        return call("radosgw-admin", "-c", str(self.settings), *arguments)

    def client(self, service: str = "s3") -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}; {INSTALL}")
    home = tmp_path_factory.mktemp("rgw")
    settings, ring, fsid = home / "ceph.conf", str(home / "keyring"), str(uuid.uuid4())
    mon_port, http_port = free_port(), free_port()
    text = SETTINGS.format(fsid=fsid, home=home, mon_port=mon_port, http_port=http_port)
    settings.write_text(text)
    where = ("-c", str(settings))
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (home / f"{command[0]}.out").open("wb") as out:
            running.append(subprocess.Popen(command, stdout=out, stderr=out))

    call("ceph-authtool", ring, "--create-keyring", "--gen-key", "-n", "mon.",
         "--cap", "mon", "allow *")  # fmt: skip
    call("ceph-authtool", ring, "--gen-key", "-n", "client.admin",
         "--cap", "mon", "allow *", "--cap", "osd", "allow *")  # fmt: skip
    address = f"[v2:127.0.0.1:{mon_port}]"
    call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(home / "map"))
    call("ceph-mon", *where, "--mkfs", "-i", "a", "--monmap", str(home / "map"), "--keyring", ring)
    try:
        start("ceph-mon", *where, "-i", "a", "-f")
        call("ceph", *where, "--connect-timeout", "60", "osd", "create")
        (home / "osd").mkdir()
        osd_ring = home / "osd" / "keyring"
        call("ceph", *where, "auth", "get-or-create", "osd.0", "mon", "allow profile osd",
             "osd", "allow *", "-o", str(osd_ring))  # fmt: skip
        with (home / "keyring").open("a") as file:
            file.write(osd_ring.read_text())
        call("ceph-osd", *where, "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        start("ceph-osd", *where, "-i", "0", "-f")
        found = Gateway(f"http://127.0.0.1:{http_port}", settings)
        found.admin("user", "create", "--uid", "tests", "--display-name", "tests",
                    "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)  # fmt: skip
        start("radosgw", *where, "-n", "client.admin", "-f", "--keyring", ring)
        wait_for(http_port, running[-1])
        yield found
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the gateway does not listen: {process.poll()}")


@pytest.fixture
def pair(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two buckets with versions at the gateway, which the settings name; returns a client of S3."""
    s3 = gateway.client()
    for role, bucket in (("STAGING", "rgw-in"), ("ARCHIVE", "rgw-out")):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        monkeypatch.setenv(f"TWOBUCKETS_{role}", bucket)
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", gateway.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert os.environ["TWOBUCKETS_STAGING"] == "rgw-in"
    return s3
