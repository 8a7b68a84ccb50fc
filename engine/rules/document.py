"""Rules about single fields: paths that are written to, variables, schemas, documents."""

import re
from collections.abc import Iterator

from engine.definition import Variable
from engine.rules.examined import Examined, Finding
from engine.scalars import JsonObject
from engine.schema import check_schema
from engine.steps import ChildStep, FormStep, SetStep, UploadStep

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_WORD = "[A-Za-z0-9][A-Za-z0-9.+_-]*"
_ACCEPTED = re.compile(rf"\.{_WORD}|{_WORD}/(?:\*|{_WORD})|\*/\*")


def target_path_valid(examined: Examined) -> Iterator[Finding]:
    """A target is a dot path whose members are neither empty nor like the names of roots."""
    for path, target, step_id in _targets(examined):
        members = target.split(".")
        if not all(members):
            yield Finding(path, "a target is names separated by single dots", step_ids=(step_id,))
        elif any(member.startswith("__") for member in members):
            message = "a target is a path inside the context; its names do not begin with __"
            yield Finding(path, message, step_ids=(step_id,))


def _targets(examined: Examined) -> Iterator[tuple[str, str, str]]:
    for at, step in enumerate(examined.steps):
        fields = {"outputMapping": step.output_mapping}
        match step:
            case SetStep():
                fields = {"assignments": step.assignments, **fields}
            case ChildStep():
                fields |= {"inputMapping": step.input_mapping, "contextProjection": step.context_projection}
            case _:
                pass
        for name, mappings in fields.items():
            for index, mapping in enumerate(mappings):
                yield f"steps[{at}].{name}[{index}].targetPath", mapping.target_path, step.id


def variable_default_fits(examined: Examined) -> Iterator[Finding]:
    """A variable's default is of its data type; null is no default."""
    for at, variable in enumerate(examined.definition.variables):
        if variable.default is not None and not _fits(variable):
            message = f"the default of a variable of type {variable.data_type} is a {variable.data_type}"
            yield Finding(f"variables[{at}].default", message)


def _fits(variable: Variable) -> bool:
    if isinstance(variable.default, bool):
        return variable.data_type == "boolean"
    return isinstance(variable.default, _TYPES[variable.data_type])


def schema_valid(examined: Examined) -> Iterator[Finding]:
    """The schemas of the input, of outputs and of forms are usable JSON Schemas."""
    for path, schema, step_ids in _schemas(examined):
        why = check_schema(schema)
        if why is not None:
            yield Finding(path, why, step_ids=step_ids)


def _schemas(examined: Examined) -> Iterator[tuple[str, JsonObject, tuple[str, ...]]]:
    if examined.definition.input_schema is not None:
        yield "inputSchema", examined.definition.input_schema, ()
    for at, step in enumerate(examined.steps):
        if step.output_schema is not None:
            yield f"steps[{at}].outputSchema", step.output_schema, (step.id,)
        if isinstance(step, FormStep):
            yield f"steps[{at}].form.schema", step.form.schema_, (step.id,)


def documents_valid(examined: Examined) -> Iterator[Finding]:
    """Documents have keys of their own, and accept media types (`image/*`) and extensions (`.pdf`)."""
    for at, step in enumerate(examined.steps):
        if not isinstance(step, UploadStep):
            continue
        seen: set[str] = set()
        for index, document in enumerate(step.documents):
            path = f"steps[{at}].documents[{index}]"
            if document.key in seen:
                message = f'another document already has the key "{document.key}"'
                yield Finding(f"{path}.key", message, step_ids=(step.id,))
            seen.add(document.key)
            for place, pattern in enumerate(document.accept):
                if not _ACCEPTED.fullmatch(pattern):
                    message = "a media type such as application/pdf or image/*, or an extension such as .pdf"
                    yield Finding(f"{path}.accept[{place}]", message, step_ids=(step.id,))
