"""How the embedded AWS looks to a person."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.cli.views import View, Views, remote
from twobuckets.local import Status


def _status(status: Status) -> Text:
    if status.running:
        head = Text("The embedded AWS runs at ").append(str(status.endpoint_url), "bold green")
        head.append(f" (process {status.pid})")
    else:
        head = Text("The embedded AWS is stopped", "bold")
    lines = [
        head,
        Text("  state  ").append_text(remote(str(status.state_dir))),
        Text("  log    ").append_text(remote(str(status.log_file))),
    ]
    if status.waiting:
        lines.append(Text(f"  {status.waiting:,} invocations have not ended yet", "yellow"))
    return Text("\n").join(lines)


VIEWS: Final[Views] = {
    Status: View(_status),
}
