"""Rules about step groups, which say what belongs together for people.

A group lists its steps (`stepIds`); a step may also name its group, for its place in it, and the two must agree.
"""

from collections.abc import Iterator

from engine.rules.examined import Examined, Finding
from engine.steps import StepType, is_gateway


def no_group_for_special_nodes(examined: Examined) -> Iterator[Finding]:
    """START, END and gateways are in no group."""
    for at, step in enumerate(examined.steps):
        if step.group is not None and _special(examined, at):
            message = f"a {step.type} belongs to no group"
            yield Finding(f"steps[{at}].group", message, step_ids=(step.id,))
    for path, step_id in _listed_steps(examined):
        position = examined.position.get(step_id)
        if position is not None and _special(examined, position):
            message = f'"{step_id}" is a {examined.steps[position].type}, which belongs to no group'
            yield Finding(path, message, step_ids=(step_id,))


def _special(examined: Examined, at: int) -> bool:
    step = examined.steps[at]
    return step.type in (StepType.START, StepType.END) or is_gateway(step)


def _listed_steps(examined: Examined) -> Iterator[tuple[str, str]]:
    for at, group in enumerate(examined.definition.step_groups):
        for index, step_id in enumerate(group.step_ids):
            yield f"stepGroups[{at}].stepIds[{index}]", step_id


def group_step_ids_exist(examined: Examined) -> Iterator[Finding]:
    """A group lists steps that exist, and a step names a group that exists."""
    for path, step_id in _listed_steps(examined):
        if step_id not in examined.position:
            hint = examined.hints.similar("step", step_id, examined.position)
            yield Finding(path, f'there is no step "{step_id[:100]}"{hint}')
    groups = dict.fromkeys(group.id for group in examined.definition.step_groups)
    for at, step in enumerate(examined.steps):
        if step.group is not None and step.group.group_id not in groups:
            hint = examined.hints.similar("group", step.group.group_id, groups)
            message = f'there is no group "{step.group.group_id}"{hint}'
            yield Finding(f"steps[{at}].group.groupId", message, step_ids=(step.id,))


def step_in_one_group(examined: Examined) -> Iterator[Finding]:
    """A step is listed once, by one group, and names no other."""
    home: dict[str, str] = {}
    for at, group in enumerate(examined.definition.step_groups):
        for index, step_id in enumerate(group.step_ids):
            if step_id in home:
                message = f'"{step_id[:100]}" is already listed by the group "{home[step_id]}"'
                yield Finding(f"stepGroups[{at}].stepIds[{index}]", message, step_ids=(step_id,))
            else:
                home[step_id] = group.id
    for at, step in enumerate(examined.steps):
        if step.group is not None and home.get(step.id, step.group.group_id) != step.group.group_id:
            message = f'the step names the group "{step.group.group_id}" and is listed by "{home[step.id]}"'
            yield Finding(f"steps[{at}].group.groupId", message, step_ids=(step.id,))


def group_not_empty(examined: Examined) -> Iterator[Finding]:
    """A group lists at least one step."""
    for at, group in enumerate(examined.definition.step_groups):
        if not group.step_ids:
            yield Finding(f"stepGroups[{at}].stepIds", f'the group "{group.id}" lists no step')


def legacy_type_requires_groups(examined: Examined) -> Iterator[Finding]:
    """A definition for an older service-request type has groups."""
    definition = examined.definition
    if definition.legacy_service_request_type is not None and not definition.step_groups:
        message = "a definition with a legacyServiceRequestType has at least one step group"
        yield Finding("legacyServiceRequestType", message)
