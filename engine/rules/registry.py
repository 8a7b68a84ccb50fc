"""Rules about actions: that they are registered, and that their parameters fit as far as they are known now."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from engine.catalogue import ActionEntry
from engine.errors import EngineError
from engine.json_types import JSON
from engine.rules.data import NO_ACTIONS, sources
from engine.rules.examined import Examined, Finding, not_checked
from engine.schema import Checker, SchemaViolation, path_to
from engine.steps import ActionStep, WorkStep
from engine.values import (
    Const,
    ExprValue,
    FieldValue,
    ListValue,
    ObjectValue,
    TemplateValue,
    Value,
)

Location = tuple[str | int, ...]

# What a schema can say about an object or a list whatever its run-time members turn out to be.
_ABOUT_MEMBERS = frozenset(
    {"required", "additionalProperties", "propertyNames", "type", "minItems", "minProperties", "dependentRequired"}
)
# After these words comes a name, not another word.
_BEFORE_NAMES = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)


LONGEST_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Called:
    """One place where an action is called: the step's own, its compensator, a datasource.

    `key_path` and `path` (of the parameters) are definition paths; `timeout` is in seconds.
    """

    step_id: str
    key: str
    key_path: str
    path: str
    given: bool
    timeout: float | None = None
    timeout_path: str = ""


def _calls(examined: Examined) -> Iterator[Called]:
    """Every call of an action."""
    for at, step in enumerate(examined.steps):
        place = f"steps[{at}]"
        if isinstance(step, ActionStep):
            given, timeout = step.parameters is not None, step.timeout
            path = f"{place}.parameters"
            yield Called(step.id, step.action_key, f"{place}.actionKey", path, given, timeout, f"{place}.timeout")
        if isinstance(step, WorkStep) and step.compensate is not None:
            undo, place = step.compensate, f"{place}.compensate"
            given, path = undo.parameters is not None, f"{place}.parameters"
            yield Called(step.id, undo.action_key, f"{place}.actionKey", path, given, undo.timeout, f"{place}.timeout")
    for path, owner, source in sources(examined):
        id_path, given = f"{path}.dataSourceId", source.params is not None
        yield Called(owner.id, source.data_source_id, id_path, f"{path}.params", given)


def action_exists(examined: Examined) -> Iterator[Finding]:
    """An action is registered, and so is what undoes a step."""
    for called in _calls(examined):
        if called.key_path.endswith(".dataSourceId"):
            continue
        if examined.catalogue is None:
            yield not_checked(called.key_path, NO_ACTIONS)
            return
        if called.key not in examined.catalogue.actions:
            hint = examined.hints.similar("action", called.key, examined.catalogue.actions)
            yield Finding(called.key_path, f'there is no action "{called.key}"{hint}', step_ids=(called.step_id,))


def action_parameters_valid(examined: Examined) -> Iterator[Finding]:
    """What an action is called with fits its schema, as far as it is constant; run-time values count as present."""
    checkers: dict[str, Checker | None] = {}
    for called in _calls(examined):
        if examined.catalogue is None:
            yield not_checked(called.path, NO_ACTIONS)
            return
        entry = examined.catalogue.actions.get(called.key)
        if entry is None:
            continue
        if entry.key not in checkers:
            checkers[entry.key] = _checker(entry)
        checker = checkers[entry.key]
        if checker is None:
            yield not_checked(called.path, f'the schema of the action "{entry.key}" is not usable')
        else:
            yield from _parameter_findings(examined, called, checker)


def action_timeout_in_range(examined: Examined) -> Iterator[Finding]:
    """Only an action that says it is long may take longer than 300 s."""
    for called in _calls(examined):
        if called.timeout is None or called.timeout <= LONGEST_TIMEOUT:
            continue
        if examined.catalogue is None:
            yield not_checked(called.timeout_path, NO_ACTIONS)
            return
        entry = examined.catalogue.actions.get(called.key)
        if entry is not None and not entry.long:
            message = f'"{entry.key}" does not say that it is long, so it has at most {LONGEST_TIMEOUT:g} s'
            yield Finding(called.timeout_path, message, step_ids=(called.step_id,))


def _checker(entry: ActionEntry) -> Checker | None:
    try:
        return Checker(dict(entry.parameters_schema))
    except EngineError:
        return None


def _parameter_findings(examined: Examined, called: Called, checker: Checker) -> Iterator[Finding]:
    known = _Known()
    value = known.read(examined.sites.value(called.path), ()) if called.given else {}
    if () in known.at_run_time:
        return
    for violation in checker.violations(value):
        if known.certain(violation):
            place = path_to(violation.location, called.path)
            yield Finding(place, violation.message, step_ids=(called.step_id,))


@dataclass(slots=True)
class _Known:
    """What is known of a value now, and which places in it are only known at run time."""

    at_run_time: set[Location] = field(default_factory=set)
    _above: set[Location] = field(default_factory=set)

    def read(self, value: Value, location: Location) -> JSON:
        """The value with null at the places that are known at run time."""
        match value:
            case Const(constant):
                return constant
            case ObjectValue(members):
                return {name: self.read(member, (*location, name)) for name, member in members}
            case ListValue(items):
                return [self.read(item, (*location, at)) for at, item in enumerate(items)]
            case FieldValue() | ExprValue() | TemplateValue():
                self.at_run_time.add(location)
                self._above.update(location[:length] for length in range(len(location)))
                return None
            case _:
                assert_never(value)

    def certain(self, violation: SchemaViolation) -> bool:
        """Whether a violation stands whatever the run-time values turn out to be."""
        location = violation.location
        if any(location[:length] in self.at_run_time for length in range(len(location) + 1)):
            return False
        if self.at_run_time and _conditional(violation.schema_location):
            return False
        return location not in self._above or violation.keyword in _ABOUT_MEMBERS


def _conditional(schema_location: Location) -> bool:
    """Whether a part of the schema applies only when something else in the value is so."""
    words = iter(schema_location)
    for word in words:
        if word in ("then", "else"):
            return True
        if word in _BEFORE_NAMES:
            next(words, None)
    return False
