"""Values that somebody gives for a form: each is held to its field, and every finding has its path and a code."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.forms.fields import (
    ChoiceField,
    CollectionField,
    FixedCollectionField,
    Form,
    FormField,
    LocatorField,
    LocatorMode,
    PlainField,
    Rule,
    StaticSource,
)
from engine.errors import ClockExceeded, EngineError
from engine.expression import Moment, compile_expression, evaluate
from engine.filters.comparing import pattern
from engine.filters.faults import FilterError
from engine.filters.kinds import date_in, same
from engine.filters.reading import parse

_NO_MOMENT: Final = Moment(0, "form")
# Fields that only an editor looks at.
_NEVER_WRONG: Final = ("hidden", "notice")
_SHOWN_AT_MOST: Final = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding: where, a code for programs, and a sentence."""

    path: str
    code: str
    message: str

    def problem(self) -> dict[str, Any]:
        """As an answer has it."""
        return {"path": self.path, "code": self.code, "message": self.message}


def check_properties(form: Form, given: Mapping[str, Any], path: str = "properties") -> list[Fault]:
    """Everything that is wrong with what was given for a form; nothing when it can be used.

    A field that is not shown need not be given, and may not be: it would not be looked at.
    """
    return list(_members(form, given, path))


def is_shown(field: FormField, form: Sequence[FormField], given: Mapping[str, Any]) -> bool:
    """Whether a field is asked for, with these values of the fields beside it (their defaults where not given)."""
    values = {each.name: given.get(each.name, each.default) for each in form}
    show, hide = field.display_options.show, field.display_options.hide
    if any(_is_any(values.get(name), wanted) for name, wanted in hide.items()):
        return False
    return all(_is_any(values.get(name), wanted) for name, wanted in show.items())


def check_default(field: FormField, path: str) -> Iterator[Fault]:
    """What is wrong with a field's own default. Empty text is none."""
    if field.default not in ("", [], {}):
        yield from _value(field, field.default, path, {})


def _is_any(value: Any, wanted: Sequence[Any]) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(same(one, other) for one in values for other in wanted)


def _members(form: Sequence[FormField], given: Mapping[str, Any], path: str) -> Iterator[Fault]:
    known = {field.name: field for field in form}
    for name in given:
        if name not in known:
            message = f"there is no such property; there are {', '.join(known) or 'none'}"
            yield Fault(f"{path}.{name[:100]}", "UNKNOWN", message)
    for name, field in known.items():
        place = f"{path}.{name}"
        shown = is_shown(field, form, given)
        value = given.get(name)
        if not shown:
            if name in given and value is not None and field.type not in _NEVER_WRONG:
                yield Fault(place, "NOT_SHOWN", "with these properties it is not asked for, and would not be used")
        elif _is_missing(value):
            if field.required and _is_missing(field.default) and field.type not in _NEVER_WRONG:
                yield Fault(place, "REQUIRED", f"{field.display_name} is required")
        else:
            yield from _value(field, value, place, given)


def _is_missing(value: Any) -> bool:
    return value is None or value in ("", [])


def _value(field: FormField, value: Any, path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    if field.type in _NEVER_WRONG:
        return
    several = field.type_options.multiple_values and not isinstance(field, FixedCollectionField | CollectionField)
    if not several:
        yield from _single(field, value, path, properties)
    elif not isinstance(value, list):
        yield _wrong_type(path, "a list")
    else:
        for index, item in enumerate(value):
            yield from _single(field, item, f"{path}[{index}]", properties)


def _single(field: FormField, value: Any, path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    match field:
        case PlainField():
            faults = list(_PLAIN[field.type](field, value, path))
        case ChoiceField():
            faults = list(_choice(field, value, path))
        case CollectionField():
            faults = list(_collection(field, value, path))
        case FixedCollectionField():
            faults = list(_groups(field, value, path))
        case LocatorField():
            faults = list(_locator(field, value, path, properties))
    yield from faults or _broken_rules(field.validation, value, path, properties)


def _string(_: FormField, value: Any, path: str) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield _wrong_type(path, "text")


def _number(field: FormField, value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield _wrong_type(path, "a number")
        return
    options = field.type_options
    if options.min_value is not None and value < options.min_value:
        yield Fault(path, "BELOW_MINIMUM", f"it must be at least {options.min_value}")
    if options.max_value is not None and value > options.max_value:
        yield Fault(path, "ABOVE_MAXIMUM", f"it must be at most {options.max_value}")
    if options.number_precision is not None and round(value, options.number_precision) != value:
        yield Fault(path, "PRECISION", f"it has at most {options.number_precision} digits after the point")


def _boolean(_: FormField, value: Any, path: str) -> Iterator[Fault]:
    if not isinstance(value, bool):
        yield _wrong_type(path, "true or false")


def _date_time(_: FormField, value: Any, path: str) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield _wrong_type(path, "a date and time as text")
    elif not isinstance(date_in(value), datetime):
        yield Fault(path, "DATE", "it must be an ISO 8601 date or date and time")


def _json(_: FormField, value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, dict | list):
        return
    if not isinstance(value, str):
        yield _wrong_type(path, "a JSON object, or JSON as text")
        return
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        yield Fault(path, "JSON", "it is not JSON")


def _filter(field: FormField, value: Any, path: str) -> Iterator[Fault]:
    try:
        parse(value, path)
    except FilterError as error:
        yield from (Fault(problem.path, problem.rule, problem.message) for problem in error.problems)
        return
    allowed, most = field.type_options.allowed_combinators, field.type_options.max_conditions
    groups, conditions = _counted(value)
    if allowed and groups - set(allowed):
        yield Fault(path, "COMBINATOR", f"groups are combined by {' or '.join(allowed)} here")
    if most is not None and conditions > most:
        yield Fault(path, "TOO_MANY_CONDITIONS", f"there may be at most {most} conditions")


def _counted(document: Any) -> tuple[set[str], int]:
    """The combinators of a filter's groups, and how many conditions there are."""
    if not isinstance(document, dict) or not document:
        return set(), 0
    if "conditions" not in document:
        return set(), 1
    below = [_counted(part) for part in document["conditions"]]
    own = str(document.get("combinator", document.get("operator"))).upper()
    return {own}.union(*(found for found, _ in below)), sum(count for _, count in below)


def _assignments(_: FormField, value: Any, path: str) -> Iterator[Fault]:
    listed = value.get("assignments") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        yield _wrong_type(path, "an object with a list `assignments`")
        return
    for index, each in enumerate(listed):
        place = f"{path}.assignments[{index}]"
        if not isinstance(each, dict) or not isinstance(each.get("name"), str) or not each["name"]:
            yield Fault(f"{place}.name", "REQUIRED", "an assignment has a name")
        elif "value" not in each:
            yield Fault(f"{place}.value", "REQUIRED", "an assignment has a value")


_PLAIN: Final = {
    "string": _string,
    "number": _number,
    "boolean": _boolean,
    "dateTime": _date_time,
    "json": _json,
    "credentialsSelect": _string,
    "filter": _filter,
    "assignmentCollection": _assignments,
}


def _choice(field: ChoiceField, value: Any, path: str) -> Iterator[Fault]:
    if field.type == "multiOptions":
        if not isinstance(value, list):
            yield _wrong_type(path, "a list")
            return
        wrong = [f"{each!r:.60}" for each in value if not _is_offered(field, each)]
        if wrong:
            yield Fault(path, "NOT_AN_OPTION", f"{', '.join(wrong[:_SHOWN_AT_MOST])}: {_offered(field)}")
    elif not _is_offered(field, value):
        yield Fault(path, "NOT_AN_OPTION", f"{value!r:.60}: {_offered(field)}")


def _is_offered(field: ChoiceField, value: Any) -> bool:
    choices = field.data_source.options if isinstance(field.data_source, StaticSource) else field.options
    if not choices:
        # They come from elsewhere and change there: what was there yesterday may be asked for today.
        return isinstance(value, str | int | float | bool)
    return any(same(value, choice.value) for choice in choices)


def _offered(field: ChoiceField) -> str:
    choices = field.data_source.options if isinstance(field.data_source, StaticSource) else field.options
    if not choices:
        return "an option is text, a number, true or false"
    shown = ", ".join(str(choice.value) for choice in choices[:_SHOWN_AT_MOST])
    return f"the options are {shown}{' …' if len(choices) > _SHOWN_AT_MOST else ''}"


def _collection(field: CollectionField, value: Any, path: str) -> Iterator[Fault]:
    items = value if field.type_options.multiple_values else [value]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        yield _wrong_type(path, "a list of objects" if field.type_options.multiple_values else "an object")
        return
    for index, item in enumerate(items):
        yield from _members(field.options, item, f"{path}[{index}]" if items is value else path)


def _groups(field: FixedCollectionField, value: Any, path: str) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield _wrong_type(path, "an object")
        return
    known = {group.name: group for group in field.options}
    several = field.type_options.multiple_values
    for name, given in value.items():
        place = f"{path}.{name[:100]}"
        if name not in known:
            yield Fault(place, "UNKNOWN", f"there is no such group; there are {', '.join(known)}")
            continue
        items = given if several else [given]
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            yield _wrong_type(place, "a list of objects" if several else "an object")
            continue
        for index, item in enumerate(items):
            yield from _members(known[name].values, item, f"{place}[{index}]" if several else place)


def _locator(field: LocatorField, value: Any, path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield _wrong_type(path, "an object with `mode` and `value`")
        return
    for member in ("mode", "value"):
        if _is_missing(value.get(member)):
            yield Fault(
                f"{path}.{member}", "REQUIRED", f"a resource is named by a mode and a value; `{member}` is missing"
            )
            return
    mode = next((each for each in field.modes if each.name == value["mode"]), None)
    if mode is None:
        message = f"the modes are {', '.join(each.name for each in field.modes)}"
        yield Fault(f"{path}.mode", "MODE_UNKNOWN", message)
        return
    yield from _located(mode, value["value"], f"{path}.value", properties)


def _located(mode: LocatorMode, value: Any, path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    if mode.type in ("string", "url") and not isinstance(value, str):
        yield _wrong_type(path, "text")
    elif isinstance(value, bool) or not isinstance(value, str | int):
        yield _wrong_type(path, "text or a whole number")
    elif mode.extract_value is not None and not pattern(mode.extract_value.regex, True).found_in(str(value)):
        yield Fault(path, "PATTERN", f"it is not like {mode.extract_value.regex}")
    else:
        yield from _broken_rules(mode.validation, value, path, properties)


def _broken_rules(rules: Sequence[Rule], value: Any, path: str, properties: Mapping[str, Any]) -> Iterator[Fault]:
    for rule in rules:
        found = _broken(rule, value, properties)
        if found is not None:
            code, message = found
            yield Fault(path, code, rule.error_message or message)


def _broken(rule: Rule, value: Any, properties: Mapping[str, Any]) -> tuple[str, str] | None:
    match rule.type:
        case "regex":
            holds = rule.regex is not None and pattern(rule.regex, True).found_in(_text_of(value)) is True
            return None if holds else ("PATTERN", f"it is not like {rule.regex}")
        case "length" | "maxLength":
            size = len(value) if isinstance(value, str | list | dict) else len(_text_of(value))
            return None if _is_within(rule, size) else ("LENGTH", f"its length must be {_bounds(rule)}")
        case "range":
            holds = isinstance(value, int | float) and _is_within(rule, value)
            return None if holds else ("RANGE", f"it must be {_bounds(rule)}")
        case "custom":
            return _customary(rule, value, properties)


def _customary(rule: Rule, value: Any, properties: Mapping[str, Any]) -> tuple[str, str] | None:
    scope = {"__context__": {"value": value, "properties": dict(properties)}}
    try:
        holds = evaluate(compile_expression(rule.expr or ""), scope, _NO_MOMENT)
    except EngineError as error:
        return "RULE", f"the rule could not be decided: {error.message}"
    except ClockExceeded:
        return "RULE", "the rule could not be decided: it took too long"
    return None if holds is True else ("RULE", f"it does not satisfy {rule.expr}")


def _is_within(rule: Rule, size: float) -> bool:
    return (rule.min is None or size >= rule.min) and (rule.max is None or size <= rule.max)


def _bounds(rule: Rule) -> str:
    ends = [
        f"at least {rule.min}" if rule.min is not None else "",
        f"at most {rule.max}" if rule.max is not None else "",
    ]
    return " and ".join(filter(None, ends))


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _wrong_type(path: str, wanted: str) -> Fault:
    return Fault(path, "WRONG_TYPE", f"it must be {wanted}")
