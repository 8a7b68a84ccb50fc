"""Definitions for tests, written down shortly."""

import itertools
from typing import Any

Document = dict[str, Any]


def step(step_id: str, step_type: str, **fields: Any) -> Document:
    """A step; its name is its id."""
    return {"id": step_id, "type": step_type, "name": step_id, **fields}


def arrow(text: str, **fields: Any) -> Document:
    """A transition from `"a -> b"`; its id is the text without spaces."""
    source, target = (part.strip() for part in text.split("->"))
    return {"id": f"{source}-{target}", "fromStepId": source, "toStepId": target, **fields}


def document(*parts: Document, **fields: Any) -> Document:
    """A definition of these steps and transitions; START and END are there without being named."""
    steps = [part for part in parts if "type" in part]
    return {
        "steps": [step("start", "START"), *steps, step("end", "END")],
        "stepTransitions": [part for part in parts if "fromStepId" in part],
        **fields,
    }


def line(*steps: Document, **fields: Any) -> Document:
    """A definition whose steps follow one another."""
    ids = ["start", *(part["id"] for part in steps), "end"]
    arrows = [arrow(f"{source} -> {target}") for source, target in itertools.pairwise(ids)]
    return document(*steps, *arrows, **fields)


def action(step_id: str, **fields: Any) -> Document:
    """A SYS_ACTION."""
    return step(step_id, "SYS_ACTION", **{"actionKey": "test.echo", **fields})


def put(step_id: str, **values: Any) -> Document:
    """A SYS_SET that writes each keyword."""
    writes = [{"targetPath": name, "value": value} for name, value in values.items()]
    return step(step_id, "SYS_SET", assignments=writes)


def confirm(step_id: str, **fields: Any) -> Document:
    """A HUMAN_CONFIRM."""
    return step(step_id, "HUMAN_CONFIRM", **fields)


def form(step_id: str, schema: Document | None = None, **fields: Any) -> Document:
    """A HUMAN_FORM; without a schema it takes any object."""
    return step(step_id, "HUMAN_FORM", form={"schema": {"type": "object"} if schema is None else schema}, **fields)


def delay(step_id: str, duration: Any = "PT1S", **fields: Any) -> Document:
    """A SYS_DELAY of a duration, or (`duration=None, until=…`) until a time."""
    length = {} if duration is None else {"duration": duration}
    return step(step_id, "SYS_DELAY", **length, **fields)


def wait_signal(step_id: str, signal: Any = None, **fields: Any) -> Document:
    """A SYS_WAIT_SIGNAL; the signal is named after the step unless it is given."""
    return step(step_id, "SYS_WAIT_SIGNAL", signal=step_id if signal is None else signal, **fields)


def terminate(step_id: str, outcome: str = "COMPLETED", **fields: Any) -> Document:
    """A SYS_TERMINATE."""
    return step(step_id, "SYS_TERMINATE", outcome=outcome, **fields)


def child(step_id: str, **fields: Any) -> Document:
    """A single SYS_SUB_WORKFLOW."""
    return step(step_id, "SYS_SUB_WORKFLOW", **{"childWorkflowTemplateVersionId": "child@1.0.0", **fields})


def batch(step_id: str, items: str, **fields: Any) -> Document:
    """A BATCH over an expression."""
    return child(step_id, mode="BATCH", iterable={"type": "EXPRESSION", "expr": {"src": items}}, **fields)


def split(step_id: str, kind: str = "PARALLEL") -> Document:
    """A split gateway."""
    return step(step_id, f"GATEWAY_{kind}_SPLIT")


def join(step_id: str, kind: str = "PARALLEL") -> Document:
    """A join gateway."""
    return step(step_id, f"GATEWAY_{kind}_JOIN")


def policy_join(step_id: str, policy: str, n: int | None = None, cancel: bool = False, **fields: Any) -> Document:
    """A parallel join with a policy: ANY, N_OF_M, ALL_SETTLED."""
    chosen: Document = {"policy": policy, "cancelRemaining": cancel}
    return step(step_id, "GATEWAY_PARALLEL_JOIN", join=chosen if n is None else {**chosen, "n": n}, **fields)


def route(step_id: str, select: Any, **fields: Any) -> Document:
    """A GATEWAY_ROUTE; the transitions that leave it carry `branchKey`, or `isDefault`."""
    return step(step_id, "GATEWAY_ROUTE", select=select, **fields)


def event_split(step_id: str, **fields: Any) -> Document:
    """A GATEWAY_EVENT_SPLIT."""
    return step(step_id, "GATEWAY_EVENT_SPLIT", **fields)


def expr(source: str, **fields: Any) -> Document:
    """A JSONata value."""
    return {"type": "expr", "expr": {"src": source}, **fields}


def parallel(*branches: str) -> Document:
    """Actions between a parallel split and join."""
    arrows = [arrow("start -> s"), arrow("j -> end")]
    for name in branches:
        arrows += [arrow(f"s -> {name}"), arrow(f"{name} -> j")]
    return document(split("s"), join("j"), *(action(name) for name in branches), *arrows)
