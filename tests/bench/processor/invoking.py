"""Runs a handler as Lambda does: `python -m tests.bench.processor.invoking HANDLER EVENTS`.

Loading the handler is INIT; then comes one invocation for each event of the file. Prints the CPU
seconds of each, how many raised, and the peak memory as JSON.
"""

import contextlib
import importlib
import io
import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    """Measure the handler that the command line names."""
    name, events = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    module, _, function = name.rpartition(".")
    began = time.process_time()
    handler = getattr(importlib.import_module(module), function)
    init = time.process_time() - began
    cpu: list[float] = []
    failed = 0
    for number, event in enumerate(events):
        context = SimpleNamespace(
            aws_request_id=f"request-{number}", get_remaining_time_in_millis=lambda: 900_000
        )
        began = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                handler(event, context)
        except Exception:
            failed += 1
        cpu.append(time.process_time() - began)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    taken = {"init_cpu": init, "invocation_cpu": cpu, "failed": failed, "peak_mib": peak_mib}
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
