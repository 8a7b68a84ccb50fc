"""Values over an event: what a subscription works out of a payload, such as the context that an execution starts with.

They are the values of the definition language, and see the payload alone, as `__trigger__`. Neither the clock nor
chance is there: an event that is delivered again must come to the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from engine.errors import ClockExceeded, ExpressionError
from engine.expression import Expression, Moment
from engine.filters.paths import Path, parse_path
from engine.filters.tree import mentions_braces
from engine.json_types import JSON, Undefined
from engine.problems import Problem
from engine.syntax import Node, parse
from engine.values import ExprValue, FieldValue, TemplateValue, Value, ValueReader, parts_of, resolve

ROOT: Final = "__trigger__"
RULE: Final = "EVENT_VALUE_VALID"
CODE: Final = "EXPRESSION_INVALID"

_OF_CLOCK_AND_CHANCE = frozenset({"now", "millis", "random", "shuffle", "uuid"})
# Nothing asks for the time or for chance (it is refused), so any moment is as good as another.
_NO_MOMENT = Moment(0, "event")


@dataclass(frozen=True, slots=True)
class EventValue:
    """A value over the payload of an event."""

    value: Value

    def of(self, payload: JSON) -> JSON | Undefined:
        """What it is for this payload; UNDEFINED only where it is optional and has none.

        Raises `ExpressionError`, also when it takes too long (EXPRESSION_LIMIT).
        """
        try:
            return resolve(self.value, {ROOT: payload}, _NO_MOMENT)
        except ClockExceeded as error:
            raise ExpressionError("EXPRESSION_LIMIT", f"the expression took too long: {error.source[:200]}") from error


def read_event_value(raw: JSON, path: str) -> tuple[EventValue, list[Problem]]:
    """The value that is written at `path`, and everything that is wrong with it. It is only usable when nothing is.

    Text that is one whole reference, `"{{ after.id }}"`, is what stands at that path, as in a filter.
    """
    reader = _EventValueReader()
    value = reader.read(raw, path)
    problems = [Problem(RULE, CODE, fault.message, fault.path or path) for fault in reader.faults]
    problems += [Problem(RULE, CODE, message, place) for place, message in _strange(value)]
    return EventValue(value), problems


def beyond_event(expression: Expression) -> Iterator[str]:
    """What an expression asks for that is no part of an event, in words."""
    for reference in expression.references:
        if reference.root != ROOT:
            yield f"{reference} is not there: {ROOT}, the payload of the event, is all there is to see"
    for name in sorted(_variables(parse(expression.source)) & _OF_CLOCK_AND_CHANCE):
        yield f"${name} is not available here: the same event must always come to the same"


class _EventValueReader(ValueReader):
    """Takes a whole reference in braces for what it means in a filter; it would be a constant text otherwise."""

    def read(self, raw: JSON, path: str) -> Value:
        if not isinstance(raw, str) or not mentions_braces(raw):
            return super().read(raw, path)
        text = raw.strip()
        if not (text.startswith("{{") and text.endswith("}}")):
            return self._fault(
                path, 'text with braces in it is {"type": "template", "src": …}, or {"type": "const", "value": …}'
            )
        found = parse_path(text)
        return FieldValue(path, ROOT, found.members) if isinstance(found, Path) else self._fault(path, found)


def _strange(value: Value) -> Iterator[tuple[str, str]]:
    match value:
        case FieldValue(path, root) if root != ROOT:
            yield path, f"the source is TRIGGER: {ROOT}, the payload of the event, is all there is to see"
        case ExprValue(path, expression):
            yield from ((path, message) for message in beyond_event(expression))
        case TemplateValue(path, template):
            expressions = [part for part in template.parts if isinstance(part, Expression)]
            yield from ((path, message) for part in expressions for message in beyond_event(part))
        case _:
            pass
    for part in parts_of(value):
        yield from _strange(part)


def _variables(tree: Node) -> set[str]:
    found = {tree.text} if tree.kind == "variable" else set()
    return found.union(*map(_variables, tree.parts))
