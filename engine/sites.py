"""Where a definition may hold values, and what each place can see.

The compiler takes the read values from here and the rules read the same list, so that "the validator accepts it" and
"it compiles" cannot come apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, assert_never

from engine.definition import Definition
from engine.errors import ExpressionError
from engine.steps import (
    ActionStep,
    ChildStep,
    ConfirmStep,
    DelayStep,
    EndStep,
    FormStep,
    GatewayStep,
    HumanStep,
    ItemSource,
    JoinStep,
    RedirectStep,
    RouteStep,
    SetStep,
    SignalStep,
    StartStep,
    Step,
    TerminateStep,
    UploadStep,
    ValueMapping,
    WorkStep,
)
from engine.values import Value, ValueReader

EVERYWHERE = frozenset({"__context__", "__steps__", "__trigger__", "__variables__", "__execution__", "__error__"})
OF_AN_ITEM = frozenset({"__each__", "__index__"})
OF_AN_ITERATION = frozenset({"__iteration__", "__previous__"})
RESULT = frozenset({"__result__"})
OF_ITS_ITEMS = frozenset({"__results__", "__counts__"})
CHILDREN = frozenset({"__child__"})
DATA = frozenset({"__datasources__"})


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

    def get(self, path: str) -> Value | None:
        """The value at a path, or None when nothing is written there."""
        site = self.by_path.get(path)
        return None if site is None else site.value


def read_sites(definition: Definition) -> Sites:
    """Reads every value of a definition once; faults are collected, not raised."""
    reader = ValueReader()
    sites = list(_definition_sites(definition, reader))
    return Sites({site.path: site for site in sites}, tuple(reader.faults))


def _definition_sites(definition: Definition, reader: ValueReader) -> Iterator[Site]:
    with_data = {step.id for step in definition.steps if step.data_sources}
    for index, step in enumerate(definition.steps):
        yield from _StepReader(step, f"steps[{index}]", reader).sites()
    for index, transition in enumerate(definition.step_transitions):
        if transition.condition is not None:
            path = f"stepTransitions[{index}].condition"
            value = reader.expression(transition.condition, path)
            roots = EVERYWHERE | DATA if transition.from_step_id in with_data else EVERYWHERE
            yield Site(path, value, transition.from_step_id, roots)
    if definition.output is not None:
        yield Site("output", reader.read(definition.output, "output"), None, EVERYWHERE, after=True)


class _StepReader:
    """Reads the places of one step."""

    def __init__(self, step: Step, path: str, reader: ValueReader) -> None:
        self._step = step
        self._path = path
        self._reader = reader
        self._here = EVERYWHERE | DATA if step.data_sources else EVERYWHERE
        self._unit = self._here | _unit_roots(step)

    def sites(self) -> Iterator[Site]:
        """Every place, in the order in which they are evaluated."""
        step = self._step
        if isinstance(step, WorkStep):
            yield from self._conditions(step)
        yield from self._data()
        if isinstance(step, WorkStep):
            yield from self._work(step)
        yield from self._own(step)
        yield from self._mappings(step.output_mapping, "outputMapping", self._here, after=True)

    def _conditions(self, step: WorkStep) -> Iterator[Site]:
        for name, condition in (("skipIf", step.skip_if), ("enabledWhile", step.enabled_while)):
            if condition is not None:
                yield self._expression(condition, name, EVERYWHERE)

    def _data(self) -> Iterator[Site]:
        for at, source in enumerate(self._step.data_sources):
            place = f"dataSources[{at}]"
            roots = self._unit - DATA - OF_AN_ITERATION if source.scope == "per-item" else EVERYWHERE
            yield self._read(source.params, f"{place}.params", roots)
            if source.select is not None:
                yield self._expression(source.select, f"{place}.select", roots | RESULT)

    def _work(self, step: WorkStep) -> Iterator[Site]:
        if step.for_each is not None:
            yield self._iterable(step.for_each.iterable, "forEach.iterable")
            if step.for_each.completion_condition is not None:
                condition = step.for_each.completion_condition
                yield self._expression(condition, "forEach.completionCondition", self._here | OF_ITS_ITEMS)
        if step.repeat is not None:
            if step.repeat.while_ is not None:
                yield self._expression(step.repeat.while_, "repeat.while", self._unit)
            if step.repeat.until is not None:
                yield self._expression(step.repeat.until, "repeat.until", self._unit | RESULT)
            if step.repeat.feedback is not None:
                yield self._read(step.repeat.feedback, "repeat.feedback", self._unit | RESULT)
        if step.retry is not None and step.retry.delay is not None:
            yield self._read(step.retry.delay, "retry.delay", self._unit)
        if step.compensate is not None:
            undo = self._read(step.compensate.parameters, "compensate.parameters", self._unit | RESULT)
            yield replace(undo, after=True)

    def _own(self, step: Step) -> Iterator[Site]:
        match step:
            case SetStep():
                yield from self._mappings(step.assignments, "assignments", self._here)
            case ConfirmStep() | FormStep() | RedirectStep() | UploadStep():
                yield from self._human(step)
            case ChildStep():
                yield from self._child(step)
            case StartStep() | EndStep() | GatewayStep() | JoinStep():
                return
            case _:
                for name, raw in _plain_places(step):
                    yield self._read(raw, name, self._unit)

    def _human(self, step: HumanStep) -> Iterator[Site]:
        if step.assignment is not None:
            yield self._read(step.assignment.assignee, "assignment.assignee", self._unit)
        if step.escalation is not None:
            assignee = step.escalation.assignment.assignee
            yield self._read(assignee, "escalation.assignment.assignee", self._unit)
        if isinstance(step, RedirectStep):
            yield self._read(step.url, "url", self._unit)

    def _child(self, step: ChildStep) -> Iterator[Site]:
        yield from self._mappings(step.input_mapping, "inputMapping", self._unit)
        if step.child_workflow_name is not None:
            yield self._read(step.child_workflow_name, "childWorkflowName", self._unit)
        projection = self._here | CHILDREN
        yield from self._mappings(step.context_projection, "contextProjection", projection, after=True)
        if step.iterable is not None:
            yield self._iterable(step.iterable, "iterable")
        if step.completion_condition is not None:
            yield self._expression(step.completion_condition, "completionCondition", self._here | OF_ITS_ITEMS)

    def _iterable(self, iterable: ItemSource, name: str) -> Site:
        return self._expression(_iterable_source(iterable), name, self._here)

    def _mappings(
        self, mappings: tuple[ValueMapping, ...], name: str, roots: frozenset[str], after: bool = False
    ) -> Iterator[Site]:
        for index, mapping in enumerate(mappings):
            yield replace(self._read(mapping.value, f"{name}[{index}].value", roots), after=after)

    def _read(self, raw: Any, name: str, roots: frozenset[str]) -> Site:
        path = f"{self._path}.{name}"
        return Site(path, self._reader.read(raw, path), self._step.id, roots)

    def _expression(self, raw: Any, name: str, roots: frozenset[str]) -> Site:
        path = f"{self._path}.{name}"
        return Site(path, self._reader.expression(raw, path), self._step.id, roots)


def _plain_places(
    step: ActionStep | DelayStep | SignalStep | TerminateStep | RouteStep,
) -> tuple[tuple[str, Any], ...]:
    """The fields that hold one value each; those that may be left out are no place then."""
    match step:
        case ActionStep():
            return (("parameters", step.parameters),)
        case DelayStep():
            given = (("duration", step.duration), ("until", step.until))
            return tuple((name, raw) for name, raw in given if raw is not None)
        case SignalStep(correlation_key=None):
            return (("signal", step.signal),)
        case SignalStep():
            return (("signal", step.signal), ("correlationKey", step.correlation_key))
        case TerminateStep():
            return (("message", step.message),)
        case RouteStep():
            return (("select", step.select),)
        case _:
            assert_never(step)


def _unit_roots(step: Step) -> frozenset[str]:
    """What one item, and one iteration of it, can see besides what the step can."""
    roots: frozenset[str] = frozenset()
    if isinstance(step, WorkStep):
        if step.for_each is not None or (isinstance(step, ChildStep) and step.mode == "BATCH"):
            roots |= OF_AN_ITEM
        if step.repeat is not None:
            roots |= OF_AN_ITERATION
    return roots


def _iterable_source(iterable: ItemSource) -> Any:
    """A STEP or DATASOURCE iterable is short for an expression over that output or answer."""
    match iterable.type:
        case "EXPRESSION":
            return iterable.expr
        case "STEP":
            source = f"__steps__.`{iterable.step_id}`"
        case "DATASOURCE":
            source = f"__datasources__.`{iterable.alias}`"
    return f"{source}.({iterable.select})" if iterable.select else source
