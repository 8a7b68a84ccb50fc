"""Rules about steps that are done several times: over items, and again and again."""

from collections.abc import Iterator

from engine.rules.examined import Examined, Finding
from engine.steps import ChildStep, ItemSource, WorkStep

_FIELDS = {"EXPRESSION": ("expr",), "STEP": ("step_id", "select"), "DATASOURCE": ("alias", "select")}
_NAMES = {"expr": "expr", "step_id": "stepId", "alias": "alias", "select": "select"}


def iterables(examined: Examined) -> Iterator[tuple[str, WorkStep, ItemSource]]:
    """Everything that is run over, with its path and its step."""
    for at, step in enumerate(examined.steps):
        if isinstance(step, ChildStep) and step.iterable is not None:
            yield f"steps[{at}].iterable", step, step.iterable
        if isinstance(step, WorkStep) and step.for_each is not None:
            yield f"steps[{at}].forEach.iterable", step, step.for_each.iterable


def iterable_valid(examined: Examined) -> Iterator[Finding]:
    """An iterable has the fields of its type and no others; it stands on a BATCH or in a forEach, not in both."""
    for path, step, iterable in iterables(examined):
        if isinstance(step, ChildStep) and iterable is step.iterable and step.mode == "SINGLE":
            yield Finding(path, "an iterable belongs to mode BATCH", step_ids=(step.id,))
        for message in _faults(iterable):
            yield Finding(path, message, step_ids=(step.id,))
    for at, child in enumerate(examined.steps):
        if not isinstance(child, ChildStep):
            continue
        if child.mode == "BATCH" and child.for_each is not None:
            message = "a BATCH has items already; forEach does not go with it"
            yield Finding(f"steps[{at}].forEach", message, step_ids=(child.id,))
        if child.mode == "SINGLE" and child.completion_condition is not None:
            message = "a completionCondition belongs to mode BATCH"
            yield Finding(f"steps[{at}].completionCondition", message, step_ids=(child.id,))


def _faults(iterable: ItemSource) -> Iterator[str]:
    allowed = _FIELDS[iterable.type]
    if getattr(iterable, allowed[0]) is None:
        yield f"an iterable of type {iterable.type} needs `{_NAMES[allowed[0]]}`"
    for field, name in _NAMES.items():
        if field not in allowed and getattr(iterable, field) is not None:
            yield f"`{name}` does not belong to an iterable of type {iterable.type}"


def incomplete_iterables(examined: Examined) -> frozenset[str]:
    """Paths of iterables that lack what they are read from, so that nothing else need be said about them."""
    return frozenset(
        path for path, _, iterable in iterables(examined) if getattr(iterable, _FIELDS[iterable.type][0]) is None
    )


def repeat_valid(examined: Examined) -> Iterator[Finding]:
    """A step that repeats says when it stops."""
    for at, step in enumerate(examined.steps):
        repeat = step.repeat if isinstance(step, WorkStep) else None
        if repeat is not None and repeat.while_ is None and repeat.until is None:
            yield Finding(f"steps[{at}].repeat", "a repeat needs `while` or `until`", step_ids=(step.id,))
