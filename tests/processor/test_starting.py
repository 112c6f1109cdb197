"""What an environment of Lambda does before its first event comes, and what is left for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from twobuckets.processor import runtime
from twobuckets.processor.runtime import RecordsFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processor.conftest import Pipeline

# Looks the handler up, as Lambda does when it starts, and says what that has loaded.
START = """
import json, socket, sys

def refuse(*args, **options):
    raise SystemExit(f"asked the network for {args}")

socket.getaddrinfo = socket.socket.connect = refuse
from twobuckets.processor import handler

print(json.dumps({"boto3": "boto3" in sys.modules, "module": "intake" in sys.modules}))
"""
MODULE = """
import sys
sys.loads = getattr(sys, "loads", 0) + 1
"""


def start(folder: Path, module: str, **variables: str) -> Any:
    (folder / "intake.py").write_text(module)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TWO"))
    }
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "TWOBUCKETS_PROCESS": "intake:process",
        "ARCHIVE_BUCKET": "archive",
        **variables,
    }
    ran = subprocess.run(
        [sys.executable, "-c", START],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(ran.stdout)


def test_in_lambda_the_client_and_the_users_module_are_there_before_the_first_event(
    tmp_path: Path,
) -> None:
    module = "def process(file): pass"
    loaded = start(tmp_path, module, AWS_LAMBDA_FUNCTION_NAME="intake-processor")
    assert loaded == {"boto3": True, "module": True}


def test_elsewhere_nothing_is_loaded_that_nobody_asked_for(tmp_path: Path) -> None:
    assert start(tmp_path, "raise SystemExit(9)") == {"boto3": False, "module": False}


@pytest.mark.parametrize(
    "wrong", ["import nowhere", "raise SystemExit(9)", "def process(:", "{}[1]", ""]
)
def test_a_module_that_is_wrong_leaves_a_handler_that_can_say_so(
    tmp_path: Path, wrong: str
) -> None:
    assert start(tmp_path, wrong, AWS_LAMBDA_FUNCTION_NAME="intake-processor")["boto3"]


def test_what_failed_at_the_start_is_told_by_the_first_event_and_loaded_anew_by_the_next(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    # What was loaded once stays loaded, so each test has a module of its own.
    name = f"intake_{abs(hash(tmp_path))}"
    monkeypatch.setenv("TWOBUCKETS_PROCESS", f"{name}:process")
    monkeypatch.setattr(sys, "loads", 0, raising=False)
    (tmp_path / f"{name}.py").write_text(MODULE + "import nowhere")
    runtime._start_early()
    with pytest.raises(RecordsFailedError, match="No module named 'nowhere'"):
        pipeline.invoke(pipeline.upload("a"))
    assert pipeline.lines[0]["error"]["type"] == "ConfigurationError"
    assert sys.loads == 1  # type: ignore[attr-defined]
    (tmp_path / f"{name}.py").write_text(MODULE + "def process(file): pass # is mended")
    pipeline.invoke(pipeline.upload("b"))
    assert sys.loads == 2  # type: ignore[attr-defined]
    assert set(pipeline.archived()) == {"b"}
