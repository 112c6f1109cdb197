"""Every test runs without the AWS settings of whoever runs it."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterable, Iterator
from urllib.request import urlopen

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has them, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_models() -> Iterator[None]:
    """Let all sessions read AWS's service models once: parsing them is most of a test's time."""
    with pytest.MonkeyPatch.context() as patched:
        shared = functools.cache(botocore.session.create_loader)
        patched.setattr(botocore.session, "create_loader", shared)
        yield


@pytest.fixture(autouse=True)
def no_aws_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """Point AWS's variables and files nowhere, and ours to an empty home."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TWOBUCKETS_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    # A version manager's shim takes half a second to say that it has no such Python, at each build.
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if os.path.basename(folder) != "shims")
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The URL of moto's server, of which each process of the tests has one.

    Others may have left buckets in it, or may empty it between two tests: see `empty_moto_url`.
    """
    import moto.backends
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patched:
        # For every request it lists its own folder of two hundred services.
        services = frozenset(moto.backends.list_of_moto_modules())
        patched.setattr(moto.backends, "list_of_moto_modules", lambda: services)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def empty_moto_url(moto_url: str) -> str:
    """The URL of moto's server, emptied."""
    urlopen(f"{moto_url}/moto-api/reset", b"").close()
    return moto_url


def put_into_moto(bucket: str, keys: Iterable[str], body: bytes = b"") -> None:
    """Put objects into moto's S3 of this process; a hundred times as fast as by requests."""
    from moto.s3.models import s3_backends

    s3 = s3_backends["123456789012"]["aws"]
    for key in keys:
        s3.put_object(bucket, key, body)


@pytest.fixture
def fake_credentials(monkeypatch: pytest.MonkeyPatch):
    """Credentials and a region for tests on moto, which accepts any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
