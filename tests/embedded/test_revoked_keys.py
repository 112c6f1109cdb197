"""A key that is revoked while a stack is deployed, used or destroyed ends the command with 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tests.faults.proxy import FaultProxy
from tests.faults.revoked import Revocation
from twobuckets.cli import cli
from twobuckets.errors import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws


def run(server: local.Server, after: int, *arguments: str) -> tuple[Result, Revocation]:
    """Run a command whose key is revoked after so many requests."""
    revocation = Revocation(after)
    where = ["--endpoint-url", server.endpoint_url, "--region", server.region, "--stack", "intake"]
    # The embedded AWS answers to its own name only, so the proxy is one of HTTP.
    with (
        FaultProxy(rate=0, refuses=revocation) as proxy,
        pytest.MonkeyPatch.context() as environ,
    ):
        environ.setenv("http_proxy", proxy.url)
        environ.delenv("NO_PROXY", raising=False)
        environ.delenv("no_proxy", raising=False)
        result = CliRunner().invoke(cli, [*where, *arguments])
    assert not isinstance(result.exception, Exception), result.output
    return result, revocation


def test_what_a_stack_is_for_ends_with_5_and_goes_on_with_another_key(
    embedded: Aws,
    embedded_server: local.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    (tmp_path / "twobuckets.toml").write_text("[page]\nenabled = true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", embedded_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", embedded_server.secret_key)
    for command in (["deploy", "--yes"], ["link"], ["destroy", "--yes", "--delete-data"]):
        after = 0
        while True:
            result, revocation = run(embedded_server, after, *command)
            if revocation.asked <= after:
                break
            assert result.exit_code == ExitStatus.ACCESS, (command, after, result.output)
            after += 4
        assert result.exit_code == ExitStatus.DONE, (command, after, result.output)
    stacks = embedded.cloudformation.list_stacks()["StackSummaries"]
    assert [s["StackStatus"] for s in stacks] in ([], ["DELETE_COMPLETE"] * len(stacks))
