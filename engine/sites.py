"""Where a definition may hold values, and what each place can see.

The compiler takes the read values from here and the rules read the same list, so that "the validator accepts it" and
"it compiles" cannot come apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, assert_never

from engine.definition import (
    ActionStep,
    ChildStep,
    ConfirmStep,
    Definition,
    EndStep,
    GatewayStep,
    ItemSource,
    SetStep,
    StartStep,
    Step,
    ValueMapping,
)
from engine.errors import ExpressionError
from engine.values import Value, ValueReader

EVERYWHERE = frozenset({"__context__", "__steps__", "__trigger__", "__variables__", "__execution__"})
PER_ITEM = EVERYWHERE | {"__each__", "__index__"}
OVER_CHILDREN = EVERYWHERE | {"__child__"}


@dataclass(frozen=True, slots=True)
class Site:
    """One place: the value read there, the step it belongs to (None: the definition), the roots in its scope.

    `after` tells that the place is evaluated when its own step has completed, so it may refer to that step.
    """

    path: str
    value: Value
    step_id: str | None
    roots: frozenset[str]
    after: bool = False


@dataclass(frozen=True, slots=True)
class Sites:
    """Every place of a definition, by definition path, with what could not be read."""

    by_path: dict[str, Site]
    faults: tuple[ExpressionError, ...]

    def value(self, path: str) -> Value:
        """The value at a path that is known to be a place."""
        return self.by_path[path].value


def read_sites(definition: Definition) -> Sites:
    """Reads every value of a definition once; faults are collected, not raised."""
    reader = ValueReader()
    sites = list(_definition_sites(definition, reader))
    return Sites({site.path: site for site in sites}, tuple(reader.faults))


def _definition_sites(definition: Definition, reader: ValueReader) -> Iterator[Site]:
    for index, step in enumerate(definition.steps):
        path = f"steps[{index}]"
        yield from _step_sites(step, path, reader)
        yield from _mapping_sites(step.output_mapping, f"{path}.outputMapping", step.id, EVERYWHERE, reader, after=True)
    for index, transition in enumerate(definition.step_transitions):
        if transition.condition is not None:
            path = f"stepTransitions[{index}].condition"
            value = reader.expression(transition.condition, path)
            yield Site(path, value, transition.from_step_id, EVERYWHERE)
    if definition.output is not None:
        yield Site("output", reader.read(definition.output, "output"), None, EVERYWHERE, after=True)


def _step_sites(step: Step, path: str, reader: ValueReader) -> Iterator[Site]:
    match step:
        case ActionStep():
            yield _read(step.parameters, f"{path}.parameters", step.id, EVERYWHERE, reader)
        case SetStep():
            yield from _mapping_sites(step.assignments, f"{path}.assignments", step.id, EVERYWHERE, reader)
        case ConfirmStep():
            if step.assignment is not None:
                place = f"{path}.assignment.assignee"
                yield _read(step.assignment.assignee, place, step.id, EVERYWHERE, reader)
        case ChildStep():
            yield from _child_sites(step, path, reader)
        case StartStep() | EndStep() | GatewayStep():
            return
        case _:
            assert_never(step)


def _child_sites(step: ChildStep, path: str, reader: ValueReader) -> Iterator[Site]:
    roots = PER_ITEM if step.mode == "BATCH" else EVERYWHERE
    yield from _mapping_sites(step.input_mapping, f"{path}.inputMapping", step.id, roots, reader)
    if step.child_workflow_name is not None:
        yield _read(step.child_workflow_name, f"{path}.childWorkflowName", step.id, roots, reader)
    projection = f"{path}.contextProjection"
    yield from _mapping_sites(step.context_projection, projection, step.id, OVER_CHILDREN, reader, after=True)
    if step.iterable is not None:
        place = f"{path}.iterable"
        value = reader.expression(_iterable_source(step.iterable), place)
        yield Site(place, value, step.id, EVERYWHERE)


def _iterable_source(iterable: ItemSource) -> Any:
    """A STEP iterable is short for an expression over that step's output."""
    if iterable.type == "EXPRESSION":
        return iterable.expr
    source = f"__steps__.`{iterable.step_id}`"
    return f"{source}.({iterable.select})" if iterable.select else source


def _mapping_sites(
    mappings: tuple[ValueMapping, ...],
    path: str,
    step_id: str,
    roots: frozenset[str],
    reader: ValueReader,
    after: bool = False,
) -> Iterator[Site]:
    for index, mapping in enumerate(mappings):
        place = f"{path}[{index}].value"
        yield Site(place, reader.read(mapping.value, place), step_id, roots, after)


def _read(raw: Any, path: str, step_id: str, roots: frozenset[str], reader: ValueReader) -> Site:
    return Site(path, reader.read(raw, path), step_id, roots)
