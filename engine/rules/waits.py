"""Rules about waiting: for a time, and for the first of several things."""

from collections.abc import Iterator
from datetime import datetime

from engine.rules.examined import Examined, Finding
from engine.rules.outputs import is_disabled
from engine.scalars import seconds
from engine.steps import DelayStep, HumanStep, SignalStep, Step, StepType, WorkStep
from engine.values import Const


def event_split_targets(examined: Examined) -> Iterator[Finding]:
    """An event split leads to waits, delays and human steps, each entered from there alone and done just once."""
    for at, step in examined.first_steps:
        if step.type is not StepType.GATEWAY_EVENT_SPLIT:
            continue
        for out in examined.outgoing[at]:
            transition = examined.transitions[out]
            target = examined.position[transition.to_step_id]
            for message in _target_faults(examined, target):
                ids = (step.id, transition.to_step_id)
                yield Finding(f"stepTransitions[{out}]", message, step_ids=ids, transition_ids=(transition.id,))


def _target_faults(examined: Examined, target: int) -> Iterator[str]:
    step = examined.steps[target]
    if not isinstance(step, DelayStep | SignalStep | HumanStep):
        yield f"an event split leads to SYS_DELAY, SYS_WAIT_SIGNAL and human steps, not to a {step.type}"
        return
    if len(examined.incoming[target]) != 1:
        yield f'"{step.id}" competes after an event split, so no other transition leads to it'
    for name in _repeated(step):
        yield f'"{step.id}" competes after an event split, so it has no {name}'
    if is_disabled(step):
        yield f'"{step.id}" competes after an event split, so it is not DISABLED'


def _repeated(step: Step) -> Iterator[str]:
    if isinstance(step, WorkStep):
        fields = {"forEach": step.for_each, "repeat": step.repeat, "skipIf": step.skip_if, "retry": step.retry}
        yield from (name for name, value in fields.items() if value is not None)


def delay_valid(examined: Examined) -> Iterator[Finding]:
    """A delay has a duration or an end, and what is constant of it can be read."""
    for at, step in enumerate(examined.steps):
        if not isinstance(step, DelayStep):
            continue
        path = f"steps[{at}]"
        if (step.duration is None) == (step.until is None):
            yield Finding(path, "a delay has exactly one of `duration` and `until`", step_ids=(step.id,))
            continue
        name, read = ("duration", _duration) if step.until is None else ("until", _time)
        value = examined.sites.get(f"{path}.{name}")
        message = read(value.value) if isinstance(value, Const) and not _faulty(examined, f"{path}.{name}") else None
        if message is not None:
            yield Finding(f"{path}.{name}", message, step_ids=(step.id,))


def _faulty(examined: Examined, path: str) -> bool:
    """Whether a value could not be read, so that something else stands in its place."""
    return any((fault.path or "").startswith(path) for fault in examined.sites.faults)


def _duration(value: object) -> str | None:
    if value == 0 and not isinstance(value, bool):
        return None
    try:
        seconds(value)
    except ValueError as error:
        return str(error)
    return None


def _time(value: object) -> str | None:
    try:
        if isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None:
            return None
    except ValueError:
        pass
    return "an end is an ISO 8601 time with its offset, such as 2030-01-31T09:00:00Z"
