"""Runs Python functions in child processes, one per concurrent invocation, and logs what they say.

Replaces the emulator's own workers, which inherit the user's environment and packages, lose the log
of a function that does not load, and give log lines that come late to the next invocation.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twobuckets.local.server import child as child_script
from twobuckets.local.server.child import END_OF_LOG, PROVIDED

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

IDLE_SECONDS = 120.0
# AWS gives the initialization 10 s and then runs it again within the function's own time-out.
INITIALIZATION_SECONDS = 10.0
LOG_GRACE_SECONDS = 2.0
END_GRACE_SECONDS = 2.0
# What `Invoke` with the log type Tail gets; AWS gives the last 4 KB.
TAIL_LINES = 50


@dataclass(frozen=True, slots=True)
class Function:
    """What a child is made of; two children of the same value are interchangeable."""

    name: str
    arn: str
    version: str
    handler: str
    code: Path
    timeout_seconds: float
    environment: tuple[tuple[str, str], ...]


class Child:
    """One process that runs one function, as one of Lambda's execution environments does."""

    def __init__(self, function: Function, folder: Path, stream_name: str) -> None:
        self.function = function
        self.stream_name = stream_name
        self.idle_since = time.monotonic()
        self._folder = folder
        self._log: Callable[[str], None] = lambda _: None
        self._log_ended = threading.Event()
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        temporary = folder / "tmp"
        temporary.mkdir(parents=True)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                child_script.__file__,
                str(folder),
                json.dumps(provided_folders()),
            ],
            cwd=function.code,
            env=dict(function.environment)
            | {"TMPDIR": str(temporary), "AWS_LAMBDA_LOG_STREAM_NAME": stream_name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=self._read_log, daemon=True).start()
        threading.Thread(target=self._read_replies, daemon=True).start()

    def initialize(self, log: Callable[[str], None]) -> dict[str, Any] | None:
        """Load the handler; returns the error, or None when it is ready."""
        function = self.function
        request = {
            "code": str(function.code),
            "handler": function.handler,
            "function_name": function.name,
            "function_arn": function.arn,
        }
        patience = max(INITIALIZATION_SECONDS, function.timeout_seconds)
        reply = self._ask(request, patience, log)
        error: dict[str, Any] | None = reply.get("error")
        return error

    def invoke(self, event: object, request_id: str, log: Callable[[str], None]) -> dict[str, Any]:
        """Run one invocation; returns its `result` or its `error`, as Lambda describes it."""
        request = {
            "event": event,
            "request_id": request_id,
            "timeout_seconds": self.function.timeout_seconds,
        }
        return self._ask(request, self.function.timeout_seconds, log, request_id)

    @property
    def is_alive(self) -> bool:
        """Tell whether the process can take another invocation."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, by force if it must be, and remove its folder."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(
        self,
        request: dict[str, Any],
        patience_seconds: float,
        log: Callable[[str], None],
        request_id: str = "",
    ) -> dict[str, Any]:
        self._log = log
        self._log_ended.clear()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = self._replies.get(timeout=patience_seconds)
        except queue.Empty:
            self.end()
            text = f"Task timed out after {patience_seconds:.2f} seconds"
            log(f"{_timestamp()} {request_id} {text}")
            return {
                "error": {
                    "errorType": "Sandbox.Timedout",
                    "errorMessage": f"RequestId: {request_id} Error: {text}",
                }
            }
        except BrokenPipeError:
            reply = None
        self._log_ended.wait(LOG_GRACE_SECONDS)
        if reply is None:
            status = self._process.wait()
            text = f"Runtime exited with error: exit status {status}"
            log(f"RequestId: {request_id} Error: {text}")
            return {
                "error": {
                    "errorType": "Runtime.ExitError",
                    "errorMessage": f"RequestId: {request_id} Error: {text}",
                }
            }
        return reply

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                text = line.rstrip("\n")
                ends = text.endswith(END_OF_LOG)
                if ends:
                    text = text.removesuffix(END_OF_LOG)
                if text:
                    self._log(text)
                if ends:
                    self._log_ended.set()
        self._log_ended.set()

    def _read_replies(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._replies.put(json.loads(line))
        self._replies.put(None)


class Children:
    """The children of all functions: leased for an invocation, kept warm for a while, ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._closed = threading.Event()

    def start(self) -> None:
        """Start ending children that have been idle for too long."""
        threading.Thread(target=self._end_idle, name="end-idle-children", daemon=True).start()

    def lease(self, function: Function, log: Callable[[str], None]) -> Child | dict[str, Any]:
        """Return a child that is ready, or the error of one that did not load."""
        with self._lock:
            while found := next((c for c in self._idle if c.function == function), None):
                self._idle.remove(found)
                if found.is_alive:
                    self._busy.add(found)
                    return found
        today = datetime.now(UTC).strftime("%Y/%m/%d")
        number = uuid.uuid4().hex
        child = Child(function, self._folder / number, f"{today}/[{function.version}]{number}")
        with self._lock:
            self._busy.add(child)
        error = child.initialize(log)
        if error is not None:
            self.discard(child)
            return error
        return child

    def release(self, child: Child) -> None:
        """Take a child back, and end it when it is of no further use."""
        with self._lock:
            self._busy.discard(child)
            keep = child.is_alive and not self._closed.is_set()
            if keep:
                child.idle_since = time.monotonic()
                self._idle.append(child)
        if not keep:
            child.end()

    def discard(self, child: Child) -> None:
        """End a child that must not run anything else."""
        with self._lock:
            self._busy.discard(child)
        child.end()

    def close(self) -> None:
        """End them all, busy ones included."""
        self._closed.set()
        with self._lock:
            children = [*self._idle, *self._busy]
            self._idle.clear()
        for child in children:
            child.end()

    def unpack(self, code_zip: bytes) -> Path:
        """Return the folder that holds an artifact's files; children share it."""
        target = self._folder / "code" / hashlib.sha256(code_zip).hexdigest()[:16]
        with self._lock:
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(dir=target.parent))
                with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
                    archive.extractall(partial)
                partial.rename(target)
        return target

    def _end_idle(self) -> None:
        while not self._closed.wait(IDLE_SECONDS / 4):
            limit = time.monotonic() - IDLE_SECONDS
            with self._lock:
                ended = [child for child in self._idle if child.idle_since < limit]
                self._idle = [child for child in self._idle if child.idle_since >= limit]
            for child in ended:
                child.end()


@dataclass(frozen=True, slots=True)
class LogStream:
    """Where one child's lines go; each becomes a log event when it is written, as on AWS."""

    group: dict[str, Any]
    name: str

    def write(self, line: str) -> None:
        """Append one log event."""
        from ministack.services import cloudwatch_logs

        now = int(time.time() * 1000)
        stream = self.group["streams"].get(self.name)
        if stream is None:
            stream = self.group["streams"][self.name] = {
                "events": [],
                "uploadSequenceToken": "1",
                "creationTime": now,
                "firstEventTimestamp": None,
                "lastEventTimestamp": None,
                "lastIngestionTime": None,
            }
        event = {
            "timestamp": now,
            "message": line,
            "ingestionTime": now,
            "eventId": f"{now:020d}{uuid.uuid4().int % 10**36:036d}",
        }
        cloudwatch_logs._append_log_events(stream, [event])


def install(folder: Path, endpoint_url: str, touch: Callable[[], None]) -> Children:
    """Put these children in the place of the emulator's; `touch` hears of changes."""
    from ministack.services import lambda_svc

    children = Children(folder)
    others = lambda_svc._execute_function_dispatch

    def dispatch(
        func: dict[str, Any],
        config: dict[str, Any],
        event: object,
        request_id: str,
        started: float,
    ) -> Any:
        runtime = str(config.get("Runtime", ""))
        if not runtime.startswith("python") or not func.get("code_zip"):
            return others(func, config, event, request_id, started)
        function = Function(
            name=config["FunctionName"],
            arn=config["FunctionArn"],
            version=config.get("Version", "$LATEST"),
            handler=config["Handler"],
            code=children.unpack(func["code_zip"]),
            timeout_seconds=float(config.get("Timeout", 3)),
            environment=tuple(sorted(_environment(config, endpoint_url).items())),
        )
        try:
            return _run(children, function, config, event, request_id)
        finally:
            touch()

    lambda_svc._execute_function_dispatch = dispatch
    return children


def _run(
    children: Children,
    function: Function,
    config: dict[str, Any],
    event: object,
    request_id: str,
) -> dict[str, Any]:
    """Run one invocation and return it in the emulator's form."""
    group = _log_group(config)
    started = time.monotonic()
    early: list[str] = []
    leased = children.lease(function, early.append)
    if isinstance(leased, Child):
        stream = LogStream(group, leased.stream_name)
    else:
        stream = LogStream(group, f"{datetime.now(UTC):%Y/%m/%d}/{uuid.uuid4().hex}")
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def write(line: str) -> None:
        tail.append(line)
        stream.write(line)

    platform = _json_lines if _logs_json(config) else _text_lines
    for line in early:
        write(line)
    write(platform("start", config, request_id, 0.0, None))
    if isinstance(leased, Child):
        try:
            reply = leased.invoke(event, request_id, write)
        finally:
            children.release(leased)
    else:
        reply = {"error": leased}
    duration_ms = (time.monotonic() - started) * 1000
    error = reply.get("error")
    for kind in ("end", "report"):
        write(platform(kind, config, request_id, duration_ms, error, reply.get("memory_mb")))
    log = "\n".join(tail)
    if error is not None:
        return {"body": {**error, "requestId": request_id}, "error": True, "log": log}
    return {"body": reply.get("result"), "log": log}


def _logs_json(config: dict[str, Any]) -> bool:
    return (config.get("LoggingConfig") or {}).get("LogFormat") == "JSON"


def _text_lines(
    kind: str,
    config: dict[str, Any],
    request_id: str,
    duration_ms: float,
    error: object,
    used_mb: int | None = None,
) -> str:
    """Return a platform line of Lambda's text format."""
    if kind == "start":
        return f"START RequestId: {request_id} Version: {config.get('Version', '$LATEST')}"
    if kind == "end":
        return f"END RequestId: {request_id}"
    memory = int(config.get("MemorySize", 128))
    # Nobody knows what a process took that is gone.
    used = "" if used_mb is None else f"\tMax Memory Used: {min(used_mb, memory)} MB"
    status = "" if error is None else "\tStatus: error"
    if error_type := _failed_runtime(error):
        status += f"\tError Type: {error_type}"
    return (
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\t"
        f"Billed Duration: {duration_ms:.0f} ms\tMemory Size: {memory} MB{used}{status}"
    )


def _json_lines(
    kind: str,
    config: dict[str, Any],
    request_id: str,
    duration_ms: float,
    error: object,
    used_mb: int | None = None,
) -> str:
    """Return a platform line of Lambda's JSON format."""
    record: dict[str, Any] = {"requestId": request_id}
    if kind == "start":
        record["version"] = config.get("Version", "$LATEST")
    else:
        record["status"] = "success" if error is None else "error"
        record["metrics"] = {"durationMs": round(duration_ms, 3)}
    if kind != "start" and (error_type := _failed_runtime(error)):
        record["errorType"] = error_type
    if kind == "report":
        memory = int(config.get("MemorySize", 128))
        record["metrics"] |= {
            "billedDurationMs": round(duration_ms),
            "memorySizeMB": memory,
        }
        if used_mb is not None:
            record["metrics"]["maxMemoryUsedMB"] = min(used_mb, memory)
    names = {"start": "platform.start", "end": "platform.runtimeDone", "report": "platform.report"}
    return json.dumps({"time": _timestamp(), "type": names[kind], "record": record})


def _failed_runtime(error: object) -> str:
    """Return the type of an error of the runtime itself, "" for what a handler raised."""
    error_type = error.get("errorType", "") if isinstance(error, dict) else ""
    return error_type if str(error_type).startswith("Runtime.") else ""


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_group(config: dict[str, Any]) -> dict[str, Any]:
    """Return the function's log group, which Lambda makes when it is missing."""
    return log_group_named(_log_group_name(config))


def log_group_named(name: str) -> dict[str, Any]:
    """Return a log group, made when it is missing."""
    from ministack.services import cloudwatch_logs

    if name not in cloudwatch_logs._log_groups:
        cloudwatch_logs._create_log_group({"logGroupName": name})
    group: dict[str, Any] = cloudwatch_logs._log_groups[name]
    return group


def _log_group_name(config: dict[str, Any]) -> str:
    named = (config.get("LoggingConfig") or {}).get("LogGroup")
    return str(named or f"/aws/lambda/{config['FunctionName']}")


def _environment(config: dict[str, Any], endpoint_url: str) -> dict[str, str]:
    """Return a child's whole environment: the function's variables and what Lambda adds.

    Nothing comes from the server's own, and no variable of the function can name other credentials,
    another profile or another endpoint than this server's.
    """
    from ministack.core import lambda_runtime

    variables = (config.get("Environment") or {}).get("Variables") or {}
    own = {name: str(value) for name, value in variables.items() if not name.startswith("AWS_")}
    region = config["FunctionArn"].split(":")[3]
    logging_config = config.get("LoggingConfig") or {}
    return {
        "PATH": os.defpath,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        **own,
        **lambda_runtime.execution_credentials(config),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.get('Runtime', '')}",
        "AWS_LAMBDA_FUNCTION_NAME": config["FunctionName"],
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_LOG_GROUP_NAME": _log_group_name(config),
        "AWS_LAMBDA_LOG_FORMAT": logging_config.get("LogFormat", "Text"),
        "AWS_LAMBDA_LOG_LEVEL": logging_config.get("ApplicationLogLevel", ""),
    }


def provided_folders() -> list[str]:
    """Return the folders in which the packages that Lambda provides are installed here."""
    folders = set()
    for name in PROVIDED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            place = Path(spec.origin).parent
            folders.add(str(place.parent if spec.submodule_search_locations else place))
    return sorted(folders)
