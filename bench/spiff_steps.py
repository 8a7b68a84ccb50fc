"""The same chain and the same parallel part in SpiffWorkflow. Runs in `bench/.venv`, as a program.

`python -m bench.spiff_steps chain 100` prints what a step costs in microseconds, as JSON. A workflow is made from a
finished specification and run to its end; making the specification is not measured, as compiling is not on our side.
"""

import json
import logging
import sys
import time

from SpiffWorkflow.operators import Assign  # type: ignore[import-not-found]
from SpiffWorkflow.specs.Join import Join  # type: ignore[import-not-found]
from SpiffWorkflow.specs.Simple import Simple  # type: ignore[import-not-found]
from SpiffWorkflow.specs.WorkflowSpec import WorkflowSpec  # type: ignore[import-not-found]
from SpiffWorkflow.workflow import Workflow  # type: ignore[import-not-found]

from bench.measuring import Times, time_calls

BRANCHES = 10
LONG = 2.0


def chain(count: int) -> WorkflowSpec:
    """`count` tasks, one after the other, each assigning a constant."""
    spec = WorkflowSpec("chain", addstart=True)
    before = spec.start
    for at in range(count):
        task = _put(spec, f"s{at}", f"k{at % 50}", at + 1)
        before.connect(task)
        before = task
    return spec


def parallel(count: int) -> WorkflowSpec:
    """`count` tasks in ten branches between a split and a join."""
    spec = WorkflowSpec("parallel", addstart=True)
    split, join = Simple(spec, "split"), Join(spec, "join", split_task="split")
    spec.start.connect(split)
    for branch in range(BRANCHES):
        before = split
        for at in range(count // BRANCHES):
            task = _put(spec, f"s{branch}_{at}", f"k{branch}", at + 1)
            before.connect(task)
            before = task
        before.connect(join)
    join.connect(Simple(spec, "end"))
    return spec


def _put(spec: WorkflowSpec, name: str, target: str, value: int) -> Simple:
    return Simple(spec, name, post_assign=[Assign(target, right=value)])


def run_through(spec: WorkflowSpec) -> None:
    """One run. Raises AssertionError for one that does not complete."""
    workflow = Workflow(spec)
    workflow.run_all()
    if not workflow.is_completed():
        raise AssertionError("the run did not complete")


def measure(spec: WorkflowSpec) -> Times:
    """Long runs are measured once: their warm-up would take as long again."""
    began = time.perf_counter()
    run_through(spec)
    once = time.perf_counter() - began
    if once > LONG:
        return Times(once, once, 1)
    return time_calls(lambda: run_through(spec), seconds=1.0, at_least=3)


def main() -> None:
    """Prints the answer for the shape and size of the command line."""
    shape, size = sys.argv[1], int(sys.argv[2])
    # Below this level it gathers every task of the workflow for log lines that nobody reads.
    for name in ("spiff", "spiff.workflow", "spiff.task"):
        logging.getLogger(name).setLevel(logging.WARNING)
    spec = {"chain": chain, "parallel": parallel}[shape](size)
    try:
        times = measure(spec)
    except RecursionError:
        print(json.dumps({"died": "died: RecursionError"}))
        return
    steps = len(spec.task_specs)
    answer = {
        "best": times.best / steps * 1e6,
        "median": times.median / steps * 1e6,
        "samples": times.samples,
        "seconds": times.best,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
