"""Prepares the process and serves: lock, port, key, the emulator's settings, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from twobuckets.local.server import (
    batch_gaps,
    bodies,
    children,
    guard,
    invocations,
    log_gaps,
    metric_gaps,
    multipart_gaps,
    queue_gaps,
    s3_gaps,
    template_gaps,
)
from twobuckets.local.server.checkpoint import Checkpoint, save
from twobuckets.local.state import (
    RootKey,
    ServerRecord,
    StateDirectory,
    locked,
    process_started,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from twobuckets.local.server.guard import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MINISTACK_VERSION = "1.5.33"
USER = "twobuckets-local"
SERVICES = (
    "apigateway,batch,cloudformation,dynamodb,events,iam,kms,lambda,logs,monitoring,s3,scheduler,"
    "sns,sqs,ssm,states,sts,tagging"
)
LOCK_PATIENCE_SECONDS = 2.0
GRACE_SECONDS = 1.0
# From Python 3.12 on, a server waits for its connections however long they take.
END_SECONDS = 6.0


class StartError(Exception):
    """The server cannot start; says why and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Reporter(Protocol):
    """Tells how the start goes."""

    def send(self, **report: object) -> None:
        """Send one report."""

    def close(self) -> None:
        """End the reports."""


def serve(state: StateDirectory, port: int | None, reports: Reporter) -> None:
    """Run the embedded AWS on a state directory until a signal ends it. Raises StartError."""
    os.umask(0o077)
    state.create()
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        # Whoever asks whether a server runs holds the lock for an instant.
        with locked(state.server_lock) as free:
            if free:
                _serve_alone(state, port, reports)
                return
        if time.monotonic() > deadline:
            raise StartError(
                "Another server runs on this state directory", "twobuckets local status"
            )
        time.sleep(0.05)


def _serve_alone(state: StateDirectory, port: int | None, reports: Reporter) -> None:
    state.discard_temporary()
    state.temporary.mkdir()
    listener = _listen(state, port)
    chosen = listener.getsockname()[1]
    page_listener = _listen_again(state.page_port)
    page_port = page_listener.getsockname()[1]
    credentials = state.read_credentials() or _new_credentials(state)
    _require_emulator()
    _configure(state, chosen)
    endpoint_url = f"http://{HOST}:{chosen}"
    checkpoint = Checkpoint()
    queue = invocations.install(state.invocations)
    workers = children.install(state.temporary, endpoint_url, checkpoint.touch)
    template_gaps.install()
    log_gaps.install()
    bodies.install()
    multipart_gaps.install()
    s3_gaps.install()
    measure_queues = queue_gaps.install(checkpoint.touch)
    metric_gaps.install()
    jobs = batch_gaps.install(workers, endpoint_url, checkpoint.touch)

    def ready() -> None:
        _seed(credentials)
        checkpoint.start()
        measure_queues()
        workers.start()
        queue.start(_concurrency())
        jobs.start()
        write_private(state.port, str(chosen))
        pid = os.getpid()
        write_private(state.page_port, str(page_port))
        started = process_started(pid) or ""
        state.write_record(ServerRecord(pid, started, chosen, __file__, page_port))
        reports.send(ready=True)
        reports.close()

    def end() -> None:
        # In this order: what a child was doing when it was ended is no failure of its own, and
        # the emulator saves its state after this.
        queue.close()
        jobs.close()
        workers.close()
        checkpoint.close()

    def give_up() -> None:
        logger.warning("Connections are still open; ending without them")
        end()
        save()
        state.discard_temporary()
        os._exit(0)

    server = Gate(chosen, page_port, credentials.access_key, checkpoint.touch, ready, end)
    try:
        asyncio.run(_run(server, [listener, page_listener], give_up))
    finally:
        end()
        state.discard_temporary()


def _listen(state: StateDirectory, port: int | None) -> socket.socket:
    """Return a socket that accepts connections from now on; they wait for the server."""
    if port is None:
        return _listen_again(state.port)
    try:
        return _bind(port)
    except (OSError, OverflowError) as error:
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if is_taken else f"cannot be used: {error}"
        raise StartError(
            f"Port {port} on {HOST} {reason}",
            "Give another --port, or leave it out to take a free one",
        ) from None


def _listen_again(last: Path) -> socket.socket:
    """Return a socket on the port that a file names, on another where that is not free."""
    try:
        return _bind(_read_port(last))
    except (OSError, OverflowError):
        return _bind(0)


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _read_port(file: Path) -> int:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return 0


def _new_credentials(state: StateDirectory) -> RootKey:
    """Make the root key. Its id is as random as its secret, and no key of the real AWS."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    identifier = "LOCA" + "".join(secrets.choice(alphabet) for _ in range(16))
    credentials = RootKey(identifier, secrets.token_urlsafe(30))
    state.write_credentials(credentials)
    return credentials


def _require_emulator() -> None:
    try:
        found = importlib.metadata.version("ministack")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != MINISTACK_VERSION:
        raise StartError(
            "The embedded AWS is not installed"
            if found is None
            else f"The embedded AWS needs ministack {MINISTACK_VERSION}, and {found} is installed",
            "Install it: pip install 'twobuckets[local]'",
        )


def _configure(state: StateDirectory, port: int) -> None:
    """Set what the emulator reads from its environment when it is imported."""
    tempfile.tempdir = str(state.temporary)
    os.environ.update(
        {
            "AUTH": "true",
            # Signatures of the emulator's own root key are not checked; nobody learns it.
            "AWS_ACCESS_KEY_ID": secrets.token_hex(16),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "BIND_HOST": HOST,
            # No containers: the emulator would remove those of others that look like its own.
            "DOCKER_HOST": f"unix://{state.temporary}/no-docker",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "0",
            "LAMBDA_ACCOUNT_CONCURRENCY": str(2 * _concurrency() + 8),
            "LAMBDA_EXECUTOR": "local",
            "LOG_LEVEL": "WARNING",
            "MINISTACK_HOST": HOST,
            "PERSIST_STATE": "1",
            "S3_DATA_DIR": str(state.objects),
            "S3_PERSIST": "1",
            "SERVICES": SERVICES,
            "SFTP_ENABLED": "0",
            "STATE_DIR": str(state.services),
            "TMPDIR": str(state.temporary),
        }
    )


def _concurrency() -> int:
    """Return how many queued invocations run at once: enough to wait on, few enough to breathe."""
    return min(8, 2 * (os.cpu_count() or 1))


def _seed(credentials: RootKey) -> None:
    """Make the root key one of an administrator, whose signatures the emulator does check."""
    from ministack.services import iam

    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    if USER not in iam._users:
        iam._create_user({"UserName": [USER]})
    iam._user_inline_policies[USER] = {
        "everything": _json({"Version": "2012-10-17", "Statement": [everything]})
    }
    # A root key that was lost is none any more.
    for key in [key for key, known in iam._access_keys.items() if known["UserName"] == USER]:
        del iam._access_keys[key]
    iam._access_keys[credentials.access_key] = {
        "UserName": USER,
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Status": "Active",
        "CreateDate": iam._now(),
    }


def _json(value: object) -> str:
    import json

    return json.dumps(value)


class Gate:
    """The application that is served: the guard, then the emulator."""

    def __init__(
        self,
        port: int,
        page_port: int,
        access_key: str,
        touch: Callable[[], None],
        ready: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        from ministack import app

        self._emulator = app.app
        self._port = port
        self._page_port = page_port
        self._access_key = access_key
        self._touch = touch
        self._ready = ready
        self.end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and end."""
        match scope["type"]:
            case "lifespan":
                await self._live(scope, receive, send)
            case "http" if (scope.get("server") or ("", 0))[1] == self._page_port:
                await self._answer_page(scope, receive, send)
            case "http":
                await self._answer(scope, receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1008})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_end() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self.end)
            return message

        async def send_when_ready(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._ready()
            await send(message)

        await self._emulator(scope, receive_and_end, send_when_ready)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = guard.find_refusal(
            scope["headers"],
            scope["path"],
            port=self._port,
            is_known=lambda headers: self._is_known(headers, scope),
            is_admitted=lambda origin: _is_admitted(scope, origin),
            is_preflight=scope["method"] == "OPTIONS",
        )
        if reason is not None:
            logger.warning("Refused %s: %s", scope["method"], reason)
            await guard.refuse(send, reason)
            return
        await self._emulator(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            self._touch()

    async def _answer_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `/API/…` from that HTTP API: nothing else is behind the port of pages."""
        from ministack.services import apigateway

        reason = guard.find_page_refusal(
            scope["headers"], scope["method"], scope["path"], port=self._page_port
        )
        api, _, rest = scope["path"].lstrip("/").partition("/")
        if reason is None and (not api or apigateway.find_api_scope(api) is None):
            reason = "There is no such page."
        if reason is not None:
            logger.warning("Refused %s of a page: %s", scope["method"], reason)
            await guard.refuse(send, reason)
            return
        path = f"/_aws/execute-api/{api}/$default/{rest}"
        # What leads the emulator to its other services is in headers and in the query as well.
        kept = [(n, v) for n, v in scope["headers"] if n.lower() not in guard.OF_OTHER_SERVICES]
        await self._emulator(
            {
                **scope,
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": kept,
            },
            receive,
            send,
        )
        self._touch()

    def _is_known(self, headers: guard.Headers, scope: Scope) -> bool:
        """Tell whether the emulator will take the request for one of a key that exists here."""
        from urllib.parse import parse_qs

        from ministack.core.router import extract_access_key_id
        from ministack.services import iam, sts

        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        key = extract_access_key_id(named, query)
        if not key and _is_form_upload(scope["method"], named):
            # The key is in the form, with the policy that S3 checks: so it must come to S3.
            return _is_posted_to_bucket(scope, named)
        return key == self._access_key or key in sts._sessions or key in iam._access_keys


def _is_admitted(scope: Scope, origin: str) -> bool:
    """Tell whether a page of an origin may send this: signed in the URL, and allowed by a bucket.

    A rule counts that names the origin letter by letter: what `*` lets in on AWS would be every
    page that is open on this machine.
    """
    from urllib.parse import parse_qs

    from ministack.services import s3

    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if "authorization" in headers or "x-amz-target" in headers or "Action" in query:
        # The last two lead the emulator to other services, whatever the path says.
        return False
    method = scope["method"]
    wanted = method if method != "OPTIONS" else headers.get("access-control-request-method", "")
    bucket, _, key = scope["path"].lstrip("/").partition("/")
    if "X-Amz-Signature" not in query or "X-Amz-Credential" not in query:
        # A form is signed in its policy, and posted to the bucket.
        is_form = method == "OPTIONS" or _is_form_upload(method, headers)
        if key or wanted != "POST" or not is_form:
            return False
    elif not key and not (wanted == "GET" and query.get("list-type") == ["2"]):
        # Of all that is about a bucket, only a listing tells what became of an object.
        return False
    return any(
        origin in (allowed.lower() for allowed in rule.get("AllowedOrigin", []))
        and wanted in rule.get("AllowedMethod", [])
        for rule in s3._cors_rules(bucket) or []
    )


def _is_form_upload(method: str, headers: dict[str, str]) -> bool:
    return method == "POST" and headers.get("content-type", "").startswith("multipart/form-data")


def _is_posted_to_bucket(scope: Scope, headers: dict[str, str]) -> bool:
    """Tell whether the emulator will take a form for one that is posted to a bucket it has."""
    from ministack.services import s3

    leads_elsewhere = any(name.decode() in headers for name in guard.OF_OTHER_SERVICES)
    return scope["path"].strip("/") in s3._buckets and not (
        scope["query_string"] or leads_elsewhere
    )


async def _run(
    server: Gate, listeners: Sequence[socket.socket], give_up: Callable[[], None]
) -> None:
    """Serve until a signal; `give_up` is called when connections do not end after it."""
    from hypercorn.asyncio import serve as serve_http
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.detach()}" for listener in listeners]
    config.keep_alive_timeout = 75
    config.graceful_timeout = GRACE_SECONDS
    config.loglevel = "WARNING"
    ended = asyncio.Event()

    def end() -> None:
        ended.set()
        # At once: whoever waits for the answer of a function would be waited for.
        asyncio.get_running_loop().run_in_executor(None, server.end)
        timer = threading.Timer(END_SECONDS, give_up)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    # The terminal that this was started from may close.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    application: Any = server
    await serve_http(application, config, shutdown_trigger=ended.wait)
