"""`python -m bench` measures everything; `python -m bench engine runs` only those parts."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from app import event_loop
from app.observability import configure_logging
from app.settings import LogSettings
from bench import accepting, compiling, engine_steps, inbox, local_runs, row_changes, runs
from bench.figures import Figure, Say
from bench.report import machine_facts, print_report, write_report

RESULTS = Path(".millrace") / "bench.json"
PARTS: dict[str, Callable[[Say], list[Figure]]] = {
    "engine": engine_steps.measure,
    "compile": compiling.measure,
    "runs": lambda say: event_loop.run(runs.measure(say)),
    "local": lambda say: event_loop.run(local_runs.measure(say)),
    "accept": lambda say: event_loop.run(accepting.measure(say)),
    "inbox": lambda say: event_loop.run(inbox.measure(say)),
    "changes": lambda say: event_loop.run(row_changes.measure(say)),
}


def main() -> None:
    """Measures, prints the table, writes the file. A goal that is missed is no error: the machine has its say."""
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    configure_logging(LogSettings(level="ERROR"))
    facts = machine_facts()
    began = time.monotonic()
    progress = Console(stderr=True)
    figures: list[Figure] = []
    with progress.status("measuring") as status:
        for name in wanted:
            say = _say(progress, name, status.update)
            figures += PARTS[name](say)
    seconds = time.monotonic() - began
    write_report(RESULTS, facts, figures, seconds)
    print_report(facts, figures, seconds)
    print(f"All numbers: {RESULTS}")


def _say(progress: Console, part: str, update: Callable[[str], None]) -> Say:
    """What a part is doing: beside the spinner in a terminal, a line each elsewhere."""
    if progress.is_terminal:
        return lambda text: update(f"{part}: {text}")
    return lambda text: print(f"{part}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
