"""Rules about actions: that they are registered, and that their parameters fit as far as they are known now."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from engine.catalogue import ActionEntry
from engine.definition import ActionStep
from engine.errors import EngineError
from engine.json_types import JSON
from engine.rules.examined import Examined, Finding, not_checked
from engine.schema import Checker, SchemaViolation, path_to
from engine.values import (
    Const,
    ExprValue,
    FieldValue,
    ListValue,
    ObjectValue,
    TemplateValue,
    Value,
)

# Seconds that one attempt of an action may take which gives no sign of life meanwhile.
LONGEST_ACTION = 300.0

_NO_CATALOGUE = "the registered actions are not known here"

Location = tuple[str | int, ...]

# What a schema can say about an object or a list whatever its run-time members turn out to be.
_ABOUT_MEMBERS = frozenset(
    {"required", "additionalProperties", "propertyNames", "type", "minItems", "minProperties", "dependentRequired"}
)
# After these words comes a name, not another word.
_BEFORE_NAMES = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)


def action_exists(examined: Examined) -> Iterator[Finding]:
    """An action is registered."""
    for at, step in _actions(examined):
        path = f"steps[{at}].actionKey"
        if examined.catalogue is None:
            yield not_checked(path, _NO_CATALOGUE)
            return
        if step.action_key not in examined.catalogue.actions:
            hint = examined.hints.similar("action", step.action_key, examined.catalogue.actions)
            yield Finding(path, f'there is no action "{step.action_key}"{hint}', step_ids=(step.id,))


def action_parameters_valid(examined: Examined) -> Iterator[Finding]:
    """An action's parameters fit its schema, as far as they are constant; run-time values count as present."""
    checkers: dict[str, Checker | None] = {}
    for at, step in _actions(examined):
        path = f"steps[{at}].parameters"
        if examined.catalogue is None:
            yield not_checked(path, _NO_CATALOGUE)
            return
        entry = examined.catalogue.actions.get(step.action_key)
        if entry is None:
            continue
        if entry.key not in checkers:
            checkers[entry.key] = _checker(entry)
        checker = checkers[entry.key]
        if checker is None:
            yield not_checked(path, f'the schema of the action "{entry.key}" is not usable')
        else:
            yield from _parameter_findings(examined, step, path, checker)


def action_timeout_in_range(examined: Examined) -> Iterator[Finding]:
    """Only an action that is long, and so heartbeats, has a timeout above 300 seconds."""
    for at, step in _actions(examined):
        if step.timeout is None or step.timeout <= LONGEST_ACTION:
            continue
        path = f"steps[{at}].timeout"
        if examined.catalogue is None:
            yield not_checked(path, _NO_CATALOGUE)
            return
        entry = examined.catalogue.actions.get(step.action_key)
        if entry is not None and not entry.long:
            message = f'the action "{entry.key}" is not long: an attempt may take {LONGEST_ACTION:.0f} s at most'
            yield Finding(path, message, step_ids=(step.id,))


def _checker(entry: ActionEntry) -> Checker | None:
    try:
        return Checker(dict(entry.parameters_schema))
    except EngineError:
        return None


def _parameter_findings(examined: Examined, step: ActionStep, path: str, checker: Checker) -> Iterator[Finding]:
    known = _Known()
    value = {} if step.parameters is None else known.read(examined.sites.value(path), ())
    if () in known.at_run_time:
        return
    for violation in checker.violations(value):
        if known.certain(violation):
            place = path_to(violation.location, path)
            yield Finding(place, violation.message, step_ids=(step.id,))


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


def _actions(examined: Examined) -> Iterator[tuple[int, ActionStep]]:
    return ((at, step) for at, step in enumerate(examined.steps) if isinstance(step, ActionStep))
