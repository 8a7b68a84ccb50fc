"""Rules about the mapping onto an older service-request system: type → group → task.

The older system's names come with the catalogue. Without a `legacyServiceRequestType` there is nothing to map onto;
keys are then without effect, which is a warning.
"""

from collections.abc import Iterator, Mapping

from engine.problems import Severity
from engine.rules.examined import Examined, Finding, not_checked
from engine.steps import HumanStep

_NO_EFFECT = "this key has no effect: the definition has no legacyServiceRequestType"
_UNKNOWN_HERE = "the older service requests' task groups are not known here"


def task_unique(examined: Examined) -> Iterator[Finding]:
    """No two steps map to the same task of the same group."""
    group_keys = _group_keys(examined)
    first: dict[tuple[str | None, str], str] = {}
    for at, step in enumerate(examined.steps):
        task = step.legacy_service_request_task_key
        if task is None:
            continue
        pair = (group_keys.get(step.id), task)
        if pair in first:
            yield Finding(
                f"steps[{at}].legacyServiceRequestTaskKey",
                f'"{first[pair]}" already maps to this task of the group',
                step_ids=(first[pair], step.id),
            )
        else:
            first[pair] = step.id


def _group_keys(examined: Examined) -> dict[str, str | None]:
    """By step id, the older system's key of the group that the step is in."""
    by_group = {}
    keys: dict[str, str | None] = {}
    for group in examined.definition.step_groups:
        by_group[group.id] = group.legacy_service_request_task_group_key
        for step_id in group.step_ids:
            keys.setdefault(step_id, group.legacy_service_request_task_group_key)
    for step in examined.steps:
        if step.group is not None:
            keys.setdefault(step.id, by_group.get(step.group.group_id))
    return keys


def _tasks(examined: Examined) -> Mapping[str, frozenset[str]] | None:
    """Task keys by group key for the definition's type; None when the older system is not known here."""
    catalogue = examined.catalogue
    if catalogue is None or catalogue.legacy_tasks is None:
        return None
    return catalogue.legacy_tasks.get(examined.definition.legacy_service_request_type or "", {})


def task_group_exists(examined: Examined) -> Iterator[Finding]:
    """A group's key is one of the service-request type's task groups."""
    kind = examined.definition.legacy_service_request_type
    tasks = _tasks(examined)
    for at, group in enumerate(examined.definition.step_groups):
        key = group.legacy_service_request_task_group_key
        if key is None:
            continue
        path = f"stepGroups[{at}].legacyServiceRequestTaskGroupKey"
        if kind is None:
            yield Finding(path, _NO_EFFECT, Severity.WARNING)
        elif tasks is None:
            yield not_checked(path, _UNKNOWN_HERE)
            return
        elif key not in tasks:
            hint = examined.hints.similar("task group", key, tuple(sorted(tasks)))
            yield Finding(path, f'the service request type "{kind}" has no task group "{key}"{hint}')


def task_exists(examined: Examined) -> Iterator[Finding]:
    """A step's key is one of the tasks of its group."""
    kind = examined.definition.legacy_service_request_type
    tasks = _tasks(examined)
    group_keys = _group_keys(examined)
    for at, step in enumerate(examined.steps):
        task = step.legacy_service_request_task_key
        if task is None:
            continue
        path = f"steps[{at}].legacyServiceRequestTaskKey"
        group = group_keys.get(step.id)
        if kind is None:
            yield Finding(path, _NO_EFFECT, Severity.WARNING, (step.id,))
        elif group is None:
            message = "the step is in no group that has a legacyServiceRequestTaskGroupKey"
            yield Finding(path, message, step_ids=(step.id,))
        elif tasks is None:
            yield not_checked(path, _UNKNOWN_HERE)
            return
        elif group in tasks and task not in tasks[group]:
            hint = examined.hints.similar(f"task of {group}", task, tuple(sorted(tasks[group])))
            message = f'the task group "{group}" has no task "{task}"{hint}'
            yield Finding(path, message, step_ids=(step.id,))


def task_only_on_human_step(examined: Examined) -> Iterator[Finding]:
    """Only a human step maps to a task."""
    for at, step in enumerate(examined.steps):
        if step.legacy_service_request_task_key is not None and not isinstance(step, HumanStep):
            yield Finding(
                f"steps[{at}].legacyServiceRequestTaskKey",
                f"only a human step maps to a task, not a {step.type}",
                step_ids=(step.id,),
            )
