"""Values: how a definition says where data comes from, read once and resolved at run time.

A value is one of four forms, told apart by `type`: `const`, `field`, `expr`, `template`. Any other JSON is itself,
member by member, so parameters may be a whole document with values at its leaves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never, cast

from engine.errors import ExpressionError
from engine.expression import (
    Expression,
    Moment,
    Template,
    compile_expression,
    compile_template,
    evaluate,
    render,
)
from engine.json_types import JSON, UNDEFINED, Undefined
from engine.references import Reference

Scope = Mapping[str, object]

_FIELD_ROOTS = {
    "CONTEXT": "__context__",
    "STEP": "__steps__",
    "EACH": "__each__",
    "TRIGGER": "__trigger__",
    "VARIABLE": "__variables__",
    "DATASOURCE": "__datasources__",
}


@dataclass(frozen=True, slots=True)
class Const:
    """Itself."""

    value: JSON


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A dot path below a root of the scope; numbers step into lists."""

    path: str
    root: str
    members: tuple[str, ...]
    default: "Value | None" = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ExprValue:
    """A JSONata expression."""

    path: str
    expression: Expression
    default: "Value | None" = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TemplateValue:
    """Text with JSONata inside double braces."""

    path: str
    template: Template


@dataclass(frozen=True, slots=True)
class ObjectValue:
    """An object whose members hold values; a member that is undefined and optional is left out."""

    members: tuple[tuple[str, "Value"], ...]


@dataclass(frozen=True, slots=True)
class ListValue:
    """A list whose items hold values."""

    items: tuple["Value", ...]


Value = Const | FieldValue | ExprValue | TemplateValue | ObjectValue | ListValue

NOTHING = Const(None)


class ValueReader:
    """Reads raw JSON into values and collects every fault on the way, each with its definition path."""

    def __init__(self) -> None:
        self.faults: list[ExpressionError] = []

    def read(self, raw: JSON, path: str) -> Value:
        """The value written at `path`; a fault is collected and leaves `Const(None)` in its place."""
        if isinstance(raw, list):
            return _list_value(tuple(self.read(item, f"{path}[{index}]") for index, item in enumerate(raw)))
        if not isinstance(raw, dict):
            return Const(raw)
        match raw.get("type"):
            case "const":
                return self._const(raw, path)
            case "field":
                return self._field(raw, path)
            case "expr":
                return self._expr(raw, path)
            case "template":
                return self._template(raw, path)
            case _:
                return _object_value(tuple((key, self.read(member, f"{path}.{key}")) for key, member in raw.items()))

    def expression(self, raw: JSON, path: str) -> Value:
        """A place that is always an expression: its text, or `{type?: "jsonata", src}`."""
        source = raw
        if isinstance(raw, dict):
            self._only(raw, path, {"type", "src"})
            if raw.get("type", "jsonata") != "jsonata":
                return self._fault(path, "the expression language is jsonata")
            source = raw.get("src")
        if not isinstance(source, str):
            return self._fault(path, "an expression is JSONata text, or {src}")
        try:
            return ExprValue(path, compile_expression(source))
        except ExpressionError as error:
            self.faults.append(error.at(path))
            return NOTHING

    def _const(self, raw: dict[str, JSON], path: str) -> Value:
        self._only(raw, path, {"type", "value"})
        if "value" not in raw:
            return self._fault(path, "a const needs a `value`")
        return Const(raw["value"])

    def _field(self, raw: dict[str, JSON], path: str) -> Value:
        self._only(raw, path, {"type", "ref", "default", "optional"})
        ref = raw.get("ref")
        if not isinstance(ref, dict):
            return self._fault(path, "a field needs a `ref` object")
        self._only(ref, f"{path}.ref", {"source", "stepId", "key", "path"})
        root = _FIELD_ROOTS.get(str(ref.get("source")))
        if root is None:
            return self._fault(f"{path}.ref.source", f"the source is one of {', '.join(_FIELD_ROOTS)}")
        members = _dot_path(ref.get("path"))
        if members is None:
            return self._fault(f"{path}.ref.path", "a path is dot separated text")
        first = {"__steps__": "stepId", "__variables__": "key", "__datasources__": "key"}.get(root)
        if first is not None:
            name = ref.get(first)
            if not isinstance(name, str):
                return self._fault(f"{path}.ref", f"the source {ref['source']} needs a `{first}`")
            members = (name, *members)
        return FieldValue(path, root, members, self._default(raw, path), self._optional(raw, path))

    def _expr(self, raw: dict[str, JSON], path: str) -> Value:
        self._only(raw, path, {"type", "expr", "default", "optional"})
        value = self.expression(raw.get("expr"), f"{path}.expr")
        if not isinstance(value, ExprValue):
            return value
        return replace(value, default=self._default(raw, path), optional=self._optional(raw, path))

    def _template(self, raw: dict[str, JSON], path: str) -> Value:
        self._only(raw, path, {"type", "src"})
        source = raw.get("src")
        if not isinstance(source, str):
            return self._fault(path, "a template needs its text in `src`")
        try:
            return TemplateValue(path, compile_template(source))
        except ExpressionError as error:
            self.faults.append(error.at(f"{path}.src"))
            return NOTHING

    def _default(self, raw: dict[str, JSON], path: str) -> Value | None:
        return self.read(raw["default"], f"{path}.default") if "default" in raw else None

    def _optional(self, raw: dict[str, JSON], path: str) -> bool:
        optional = raw.get("optional", False)
        if not isinstance(optional, bool):
            self._fault(f"{path}.optional", "`optional` is true or false")
        return optional is True

    def _only(self, raw: dict[str, JSON], path: str, allowed: set[str]) -> None:
        for key in raw:
            if key not in allowed:
                self._fault(f"{path}.{key}", f"unknown field; allowed here: {', '.join(sorted(allowed))}")

    def _fault(self, path: str, message: str) -> Value:
        self.faults.append(ExpressionError("EXPRESSION_INVALID", message, path))
        return NOTHING


def _list_value(items: tuple[Value, ...]) -> Value:
    if all(isinstance(item, Const) for item in items):
        return Const([cast(Const, item).value for item in items])
    return ListValue(items)


def _object_value(members: tuple[tuple[str, Value], ...]) -> Value:
    if all(isinstance(member, Const) for _, member in members):
        return Const({key: cast(Const, member).value for key, member in members})
    return ObjectValue(members)


def _dot_path(raw: JSON) -> tuple[str, ...] | None:
    if raw is None or raw == "":
        return ()
    if not isinstance(raw, str):
        return None
    members = tuple(raw.split("."))
    return members if all(members) else None


def resolve(value: Value, scope: Scope, moment: Moment) -> JSON | Undefined:
    """The JSON that a value stands for; UNDEFINED only when it is optional and has none.

    Raises `ExpressionError` with the definition path, and `ClockExceeded`.
    """
    match value:
        case Const(constant):
            return constant
        case FieldValue():
            return _or_default(value, _walk(scope.get(value.root, UNDEFINED), value.members), scope, moment)
        case ExprValue():
            return _or_default(value, _evaluated(value, scope, moment), scope, moment)
        case TemplateValue(path, template):
            try:
                return render(template, scope, moment.at(path))
            except ExpressionError as error:
                raise error.at(path) from error
        case ObjectValue(members):
            resolved = ((key, resolve(member, scope, moment)) for key, member in members)
            return {key: member for key, member in resolved if not isinstance(member, Undefined)}
        case ListValue(items):
            resolved_items = (resolve(item, scope, moment) for item in items)
            return [item for item in resolved_items if not isinstance(item, Undefined)]
        case _:
            assert_never(value)


def required(value: Value, scope: Scope, moment: Moment) -> JSON:
    """Like `resolve`, where an undefined value is an error."""
    resolved = resolve(value, scope, moment)
    if isinstance(resolved, Undefined):
        raise ExpressionError("EXPRESSION_UNDEFINED", "a value is needed here and there is none", path_of(value))
    return resolved


def listed(iterable: Value, scope: Scope, moment: Moment) -> list[JSON]:
    """What a batch runs over: an undefined result is the empty list, a single value a list of one.

    A path that does not exist is an error all the same.
    """
    if isinstance(iterable, ExprValue):
        found = _evaluated(iterable, scope, moment)
    else:
        found = required(iterable, scope, moment)
    if isinstance(found, Undefined):
        return []
    return found if isinstance(found, list) else [found]


def holds(condition: Value, scope: Scope, moment: Moment) -> bool:
    """Whether a condition is true; anything but true or false is an error."""
    result = required(condition, scope, moment)
    if not isinstance(result, bool):
        raise ExpressionError(
            "EXPRESSION_RESULT", "a condition must be true or false, this one is neither", path_of(condition)
        )
    return result


def path_of(value: Value) -> str | None:
    """The definition path of a value, where it has one of its own."""
    return getattr(value, "path", None)


def leaves(value: Value) -> Iterator[tuple[str, tuple[Reference, ...]]]:
    """Every leaf that refers to something: its definition path and its references."""
    match value:
        case Const():
            return
        case FieldValue(path, root, members):
            yield path, _forgiven(value, (Reference(root, members, True),))
        case ExprValue(path, expression):
            yield path, _forgiven(value, expression.references)
        case TemplateValue(path, template):
            yield path, template.references
        case ObjectValue() | ListValue():
            pass
        case _:
            assert_never(value)
    for part in parts_of(value):
        yield from leaves(part)


def parts_of(value: Value) -> tuple[Value, ...]:
    """The values inside a value: members, items, the default."""
    match value:
        case ObjectValue(members):
            return tuple(member for _, member in members)
        case ListValue(items):
            return items
        case FieldValue(default=default) | ExprValue(default=default):
            return () if default is None else (default,)
        case _:
            return ()


def _forgiven(value: FieldValue | ExprValue, references: tuple[Reference, ...]) -> tuple[Reference, ...]:
    """With a default, or where it may be left out, nothing that a value refers to is required."""
    if value.default is None and not value.optional:
        return references
    return tuple(replace(reference, required=False) for reference in references)


def _evaluated(value: ExprValue, scope: Scope, moment: Moment) -> JSON | Undefined:
    try:
        return evaluate(value.expression, scope, moment.at(value.path))
    except ExpressionError as error:
        if error.code == "EXPRESSION_UNDEFINED" and (value.default is not None or value.optional):
            return UNDEFINED
        raise error.at(value.path) from error


def _or_default(
    value: FieldValue | ExprValue, found: JSON | Undefined, scope: Scope, moment: Moment
) -> JSON | Undefined:
    if not isinstance(found, Undefined) or value.optional:
        return found
    if value.default is not None:
        return resolve(value.default, scope, moment)
    raise ExpressionError("EXPRESSION_UNDEFINED", f"{_written(value)} is undefined", value.path)


def _written(value: FieldValue | ExprValue) -> str:
    match value:
        case FieldValue(_, root, members):
            return ".".join((root, *members))
        case ExprValue(_, expression):
            return expression.source
        case _:
            assert_never(value)


def _walk(found: Any, members: tuple[str, ...]) -> JSON | Undefined:
    for member in members:
        if isinstance(found, Mapping):
            found = found.get(member, UNDEFINED)
        elif isinstance(found, list) and member.isdecimal() and int(member) < len(found):
            found = found[int(member)]
        else:
            return UNDEFINED
    if isinstance(found, Mapping) and not isinstance(found, dict):
        return dict(found)
    return cast(JSON, found)
