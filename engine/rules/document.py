"""Rules about single fields: paths that are written to, variables, the input's schema."""

from collections.abc import Iterator

from engine.definition import Variable
from engine.rules.examined import Examined, Finding
from engine.schema import check_schema
from engine.steps import ChildStep, SetStep

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


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
    """The input's schema is a usable JSON Schema."""
    schema = examined.definition.input_schema
    if schema is not None:
        why = check_schema(schema)
        if why is not None:
            yield Finding("inputSchema", why)
