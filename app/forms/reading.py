"""A form is read, and everything that is wrong with it told, when it is saved: nothing is left for its users."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from app.errors import Invalid
from app.forms.checking import Fault, check_default
from app.forms.fields import (
    MOST_FIELDS,
    TAGS,
    ChoiceField,
    CollectionField,
    DatabaseSource,
    DisplayOptions,
    FixedCollectionField,
    Form,
    FormField,
    LocatorField,
    Rule,
)
from app.forms.rows import unfit_for_rows
from app.problem_details import location
from engine.errors import EngineError
from engine.expression import compile_expression
from engine.filters.comparing import pattern
from engine.filters.faults import FilterError
from engine.filters.reading import parse

DEEPEST: Final = 4
_FORM: TypeAdapter[list[FormField]] = TypeAdapter(list[FormField])
_NEEDS: Final = {
    "regex": ("regex",),
    "length": ("min", "max"),
    "range": ("min", "max"),
    "maxLength": ("max",),
    "custom": ("expr",),
}


def read_form(raw: Sequence[Any], path: str = "properties") -> Form:
    """The form that a document says. Raises PROPERTY_FORM_INVALID with every problem and its path."""
    try:
        form = tuple(_FORM.validate_python(list(raw)))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise form_invalid([Fault(f"{path}{_place(each['loc'])}", "SHAPE", each["msg"]) for each in found]) from error
    faults = list(_faults(form, path, 1))
    if faults:
        raise form_invalid(faults)
    return form


def _place(parts: Sequence[Any]) -> str:
    """`(0, "collection", "options", 1, "string", "name")` → `[0].options[1].name`: which kind of field it was taken
    for stands after each index, and is no part of the document.
    """
    kept = [part for at, part in enumerate(parts) if not (part in TAGS and at and isinstance(parts[at - 1], int))]
    text = location([*kept])
    return f".{text}" if text and not text.startswith("[") else text


def form_invalid(faults: Sequence[Fault]) -> Invalid:
    """The refusal of a form, PROPERTY_FORM_INVALID, with what is wrong with it."""
    problems = [fault.problem() for fault in faults[:MOST_FIELDS]]
    return Invalid("PROPERTY_FORM_INVALID", "The form of the properties is not valid.", problems)


def _faults(form: Sequence[FormField], path: str, depth: int) -> Iterator[Fault]:
    if depth > DEEPEST:
        yield Fault(path, "SIZE", f"forms are nested at most {DEEPEST} deep")
        return
    if len(form) > MOST_FIELDS:
        yield Fault(path, "SIZE", f"a form has at most {MOST_FIELDS} fields on one level")
    yield from _repeated([field.name for field in form], path, "field")
    names = {field.name for field in form}
    for index, field in enumerate(form):
        place = f"{path}[{index}]"
        own = list(chain(_of_field(field, place, names), _within(field, place, depth)))
        yield from own
        if not own and field.default is not None:
            yield from check_default(field, f"{place}.default")


def _of_field(field: FormField, path: str, names: set[str]) -> Iterator[Fault]:
    yield from _display(field.display_options, f"{path}.displayOptions", names - {field.name})
    for name in field.type_options.load_options_depends_on:
        if name not in names:
            yield Fault(f"{path}.typeOptions.loadOptionsDependsOn", "UNKNOWN_FIELD", f"there is no field {name}")
    low, high = field.type_options.min_value, field.type_options.max_value
    if low is not None and high is not None and low > high:
        yield Fault(f"{path}.typeOptions.minValue", "BOUNDS", "the least value is above the greatest")
    yield from _rules(field.validation, f"{path}.validation")


def _display(options: DisplayOptions, path: str, names: set[str]) -> Iterator[Fault]:
    for way, members in (("show", options.show), ("hide", options.hide)):
        for name in members:
            if name not in names:
                yield Fault(f"{path}.{way}.{name}", "UNKNOWN_FIELD", f"there is no other field {name} beside this one")


def _within(field: FormField, path: str, depth: int) -> Iterator[Fault]:
    match field:
        case ChoiceField():
            yield from _choices(field, path)
        case CollectionField():
            yield from _faults(field.options, f"{path}.options", depth + 1)
        case FixedCollectionField():
            yield from _repeated([group.name for group in field.options], f"{path}.options", "group")
            for index, group in enumerate(field.options):
                yield from _faults(group.values, f"{path}.options[{index}].values", depth + 1)
        case LocatorField():
            yield from _repeated([mode.name for mode in field.modes], f"{path}.modes", "mode")
            for index, mode in enumerate(field.modes):
                place = f"{path}.modes[{index}]"
                yield from _rules(mode.validation, f"{place}.validation")
                if mode.extract_value is not None:
                    yield from _pattern(mode.extract_value.regex, f"{place}.extractValue.regex")
                yield from _source(mode.data_source, f"{place}.dataSource")
        case _:
            pass


def _choices(field: ChoiceField, path: str) -> Iterator[Fault]:
    if not field.options and field.data_source is None:
        yield Fault(f"{path}.options", "OPTIONS_MISSING", "there are neither options nor a source of them")
    if field.options and field.data_source is not None:
        yield Fault(f"{path}.options", "OPTIONS_TWICE", "options stand here or come from a source, not both")
    yield from _repeated([repr(choice.value) for choice in field.options], f"{path}.options", "value")
    yield from _source(field.data_source, f"{path}.dataSource")


def _source(source: Any, path: str) -> Iterator[Fault]:
    if not isinstance(source, DatabaseSource) or source.where is None:
        return
    try:
        unfit = unfit_for_rows(parse(source.where, f"{path}.where"))
        if unfit is not None:
            yield Fault(f"{path}.where", "WHERE", unfit)
    except FilterError as error:
        yield from (Fault(problem.path, problem.rule, problem.message) for problem in error.problems)


def _rules(rules: Sequence[Rule], path: str) -> Iterator[Fault]:
    for index, rule in enumerate(rules):
        place = f"{path}[{index}]"
        needed = _NEEDS[rule.type]
        if all(getattr(rule, name) is None for name in needed):
            yield Fault(place, "RULE", f"a rule of type {rule.type} needs {' or '.join(needed)}")
        if rule.regex is not None:
            yield from _pattern(rule.regex, f"{place}.regex")
        if rule.expr is not None:
            yield from _expression(rule.expr, f"{place}.expr")


def _pattern(source: str, path: str) -> Iterator[Fault]:
    try:
        pattern(source, True)
    except EngineError as error:
        yield Fault(path, "PATTERN", error.message)


@lru_cache(maxsize=256)
def _strange_root(source: str) -> str | None:
    return next((str(found) for found in compile_expression(source).references if found.root != "__context__"), None)


def _expression(source: str, path: str) -> Iterator[Fault]:
    try:
        strange = _strange_root(source)
    except EngineError as error:
        yield Fault(path, "EXPRESSION", error.message)
        return
    if strange is not None:
        message = f"{strange} is not there; there are __context__.value and __context__.properties"
        yield Fault(path, "EXPRESSION", message)


def _repeated(names: Sequence[str], path: str, what: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Fault(f"{path}[{index}]", "REPEATED", f"there is a {what} {name} already")
        seen.add(name)
