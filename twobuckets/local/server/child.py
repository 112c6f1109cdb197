"""Runs a Python function's handler: one process, one invocation at a time.

Runs as a script on a bare interpreter (`python -I -S child.py FOLDER PACKAGES`), so that the
artifact sees what it sees in Lambda: itself, the standard library and boto3. Requests come in as
JSON lines on stdin, replies go out as JSON lines on stdout, and stderr is the function's log.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import logging
import os
import queue
import resource
import shutil
import sys
import threading
import time
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# What Lambda's Python runtimes bring along (Lambda guide, "Runtime-included SDK versions").
PROVIDED = frozenset({"boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3"})
# Ends the log lines of one invocation; the server reads up to it.
END_OF_LOG = "\x1e"
# Lambda's names for the levels of `ApplicationLogLevel`; they hold for the JSON format only.
LEVELS = {
    "TRACE": logging.NOTSET,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


class ProvidedFinder:
    """Finds the packages that Lambda provides, and none of the others installed beside them."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec, or None for what Lambda does not provide."""
        if path is None and name in PROVIDED:
            return importlib.machinery.PathFinder.find_spec(name, self._folders, target)
        return None


class LogHandler(logging.Handler):
    """Writes records as Lambda's Python runtime writes them, in its text or its JSON format."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""

    @property
    def is_json(self) -> bool:
        """Tell whether the function's logging configuration asks for JSON."""
        return os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON"

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record to the function's log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        if not self.is_json:
            stamp = f"{stamp}.{int(record.msecs):03d}Z"
            text = self.format(record)
            sys.stderr.write(f"[{record.levelname}]\t{stamp}\t{self.request_id}\t{text}\n")
            return
        line = {
            "timestamp": f"{stamp}Z",
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "requestId": self.request_id,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe(record.exc_info[1])
        sys.stderr.write(json.dumps(line) + "\n")

    def log_raised(self, error: BaseException) -> None:
        """Log what a handler raised, as Lambda does."""
        self.log(describe(error))

    def log(self, described: dict[str, Any]) -> None:
        """Log an exception that was described."""
        if self.is_json:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = {"timestamp": stamp, "level": "ERROR", "requestId": self.request_id}
            sys.stderr.write(json.dumps(line | described) + "\n")
        else:
            trace = "".join(described["stackTrace"])
            name, message = described["errorType"], described["errorMessage"]
            sys.stderr.write(f"[ERROR] {name}: {message}\nTraceback (most recent call last):\n")
            sys.stderr.write(trace)


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception in the words of Lambda's error responses."""
    trace = error.__traceback__
    # As Lambda's runtime, this leaves its own frames out.
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(trace),
    }


def describe_unloaded(error: BaseException, module: str, name: str) -> dict[str, Any]:
    """Return in the words of Lambda's runtime why a handler could not be loaded."""
    described = describe(error)
    match error:
        case ImportError():
            kind, said = "ImportModuleError", f"Unable to import module '{module}': {error}"
        case SyntaxError():
            kind, said = "UserCodeSyntaxError", f"Syntax error in module '{module}': {error}"
        case AttributeError() if f"has no attribute '{name}'" in str(error):
            kind, said = "HandlerNotFound", f"Handler '{name}' missing on module '{module}'"
        case _:
            return described
    return described | {"errorType": f"Runtime.{kind}", "errorMessage": said}


class RequestLoop:
    """The other end: requests from stdin, replies to what was stdout."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        # Whatever prints, also natively or in a process of its own, prints to the log.
        os.dup2(2, 1)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._requests.put(json.loads(line))
        # The server is gone, perhaps killed: nobody waits for what runs here.
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def receive(self) -> Any:
        """Wait for the next request."""
        return self._requests.get()

    def reply(self, **reply: Any) -> None:
        """Send one reply, after everything that was logged before it."""
        sys.stdout.flush()
        sys.stderr.write(END_OF_LOG + "\n")
        sys.stderr.flush()
        self._replies.write(json.dumps(reply) + "\n")
        self._replies.flush()


def peak_memory_mb() -> int:
    """Return how much memory this process has taken at most."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            # What getrusage tells on Linux can be the peak of whoever started this process.
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1024 if sys.platform == "darwin" else 1
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    return -(-kib // 1024)


def context_of(start: Any, request: Any, deadline: float) -> SimpleNamespace:
    """Return the context object of one invocation."""
    return SimpleNamespace(
        function_name=start["function_name"],
        function_version=os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        memory_limit_in_mb=os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"],
        invoked_function_arn=start["function_arn"],
        aws_request_id=request["request_id"],
        log_group_name=os.environ["AWS_LAMBDA_LOG_GROUP_NAME"],
        log_stream_name=os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        identity=None,
        client_context=None,
        get_remaining_time_in_millis=lambda: max(0, int((deadline - time.monotonic()) * 1000)),
    )


def main() -> None:
    """Load the handler and serve invocations until the server ends."""
    folder, packages = sys.argv[1], json.loads(sys.argv[2])
    # Lambda's locale is UTF-8, and a line is in its log when it is printed.
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    server = RequestLoop(folder)
    start = server.receive()
    log = LogHandler()
    logging.getLogger().addHandler(log)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL")
    if log.is_json and level in LEVELS:
        logging.getLogger().setLevel(LEVELS[level])
    sys.path.insert(0, start["code"])
    sys.meta_path.append(ProvidedFinder(packages))
    try:
        module, _, name = start["handler"].rpartition(".")
        handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    except BaseException as error:  # noqa: BLE001 - a SystemExit while importing is a failure too
        described = describe_unloaded(error, module, name)
        log.log(described)
        server.reply(error=described)
        return
    server.reply(result=None)
    while True:
        request = server.receive()
        deadline = time.monotonic() + request["timeout_seconds"]
        log.request_id = request["request_id"]
        try:
            result = handler(request["event"], context_of(start, request, deadline))
            reply = {"result": json.loads(json.dumps(result))}
        except Exception as error:  # noqa: BLE001 - whatever a handler raises fails its invocation
            log.log_raised(error)
            reply = {"error": describe(error)}
        server.reply(**reply, memory_mb=peak_memory_mb())


if __name__ == "__main__":
    main()
