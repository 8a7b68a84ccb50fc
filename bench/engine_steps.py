"""The engine alone: what one pure step costs, beside SpiffWorkflow, the other interpreter in Python.

A run is everything from `start` to the end of a compiled plan; its time is divided by the steps that it makes, those
at the ends and the gateways among them. Storing the state is no part of it on either side.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.definitions import chain, parallel
from bench.figures import Figure, Say
from bench.measuring import time_calls
from engine.compile import compile_document
from engine.events import Yielded
from engine.interpreter import advance, start
from engine.plan import Plan
from engine.protocol import RunInput, Yield
from engine.state import Phase

SIZES = (10, 100, 1_000, 5_000)
SHAPES = {"chain": chain, "parallel": parallel}
REACH = 10.0
FLAT_WITHIN = 1.5

SPIFF_PYTHON = Path(__file__).parent / ".venv" / "bin" / "python"
SPIFF_LIMIT = 40.0
# The next size has at least five times the steps, and a step there costs at least as much.
SPIFF_TOO_SLOW = SPIFF_LIMIT / 5


def measure(say: Say) -> list[Figure]:
    """Every shape at every size."""
    figures = []
    for shape, document in SHAPES.items():
        ours = {}
        spiff: dict[str, Any] = {}
        for size in SIZES:
            say(f"{shape} of {size:,} steps")
            ours[size] = _microseconds(compile_document(document(size)))
            spiff = _spiff(shape, size, spiff)
            figures.append(_figure(shape, size, ours[size], spiff))
        figures.append(_flatness(shape, ours))
    return figures


def run_through(plan: Plan) -> None:
    """One run from start to end. Raises AssertionError for one that does not complete."""
    step = start(plan, _run_input())
    while any(isinstance(command, Yield) for command in step.commands):
        step = advance(plan, step.state, Yielded(1_001))
    if step.state.phase is not Phase.COMPLETED:
        raise AssertionError(f"the run ended {step.state.phase}: {step.commands}")


def _run_input() -> RunInput:
    return RunInput(
        execution_id="00000000-0000-7000-8000-000000000001",
        name="bench",
        root_id="00000000-0000-7000-8000-000000000001",
        parent_id=None,
        template_id="00000000-0000-7000-8000-000000000002",
        template="bench",
        version_id="00000000-0000-7000-8000-000000000003",
        version="1.0.0",
        context={},
        trigger=None,
        at=1_000,
    )


def _microseconds(plan: Plan) -> dict[str, float]:
    times = time_calls(lambda: run_through(plan), seconds=1.0, at_least=7)
    steps = len(plan.nodes)
    return {"best": times.best / steps * 1e6, "median": times.median / steps * 1e6, "samples": times.samples}


def _spiff(shape: str, size: int, before: dict[str, Any]) -> dict[str, Any]:
    """What SpiffWorkflow needs, or why there is no figure; `before` is the answer for the size before."""
    if not SPIFF_PYTHON.exists():
        return {"died": "not installed"}
    if "died" in before:
        return {"died": "not tried: died at fewer"}
    if before.get("seconds", 0.0) > SPIFF_TOO_SLOW:
        return {"died": f"not tried: {before['seconds']:.0f} s at fewer"}
    command = [str(SPIFF_PYTHON), "-m", "bench.spiff_steps", shape, str(size)]
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SPIFF_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"died": f"more than {SPIFF_LIMIT:.0f} s"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"died": f"died: {last.partition(':')[0]}"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _figure(shape: str, size: int, ours: dict[str, float], spiff: dict[str, Any]) -> Figure:
    died = spiff.get("died")
    beside = str(died) if died else f"{spiff['best']:,.0f} ({spiff['median']:,.0f}) µs"
    return Figure(
        part="engine",
        case=f"{shape}, {size:,} steps",
        millrace=f"{ours['best']:.1f} ({ours['median']:.1f}) µs",
        beside=f"SpiffWorkflow {beside}",
        ratio="" if died else f"{spiff['best'] / ours['best']:,.0f} × faster",
        goal=f"≤ {REACH:.0f} µs a step",
        reached=ours["best"] <= REACH,
        numbers={"microseconds": ours, "spiff": spiff},
    )


def _flatness(shape: str, ours: dict[int, dict[str, float]]) -> Figure:
    """What a step costs where it costs most, beside where it costs least."""
    most, least = (pick(ours, key=lambda size: ours[size]["best"]) for pick in (max, min))
    ratio = ours[most]["best"] / ours[least]["best"]
    return Figure(
        part="engine",
        case=f"{shape}, dearest against cheapest",
        millrace=f"{ours[most]['best']:.1f} µs at {most:,}",
        beside=f"{ours[least]['best']:.1f} µs at {least:,}",
        ratio=f"{ratio:.2f} ×",
        goal=f"flat: ≤ {FLAT_WITHIN} ×",
        reached=ratio <= FLAT_WITHIN,
        numbers={"ratio": ratio},
    )
