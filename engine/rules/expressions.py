"""Rules about expressions: that they can be read, and that what they refer to is there when they are evaluated."""

import re
from collections.abc import Iterator

from engine.problems import Severity
from engine.references import Reference
from engine.rules.children import incomplete_iterables
from engine.rules.examined import Examined, Finding
from engine.rules.hints import listed
from engine.sites import Site
from engine.steps import ActionStep, ChildStep, ConfirmStep, Step, StepType
from engine.values import leaves

EXECUTION_FACTS = ("id", "name", "rootId", "parentId", "templateId", "version", "startedAt")
CONFIRM_OUTPUT = ("outcome", "comment", "completedBy", "completedAt")

_ONLY_THERE = {
    "__each__": "__each__ is only there in the inputMapping and childWorkflowName of a BATCH",
    "__index__": "__index__ is only there in the inputMapping and childWorkflowName of a BATCH",
    "__child__": "__child__ is only there in a contextProjection",
}
_PLACE = re.compile(r"(steps|stepTransitions)\[(\d+)\]")


def expression_compiles(examined: Examined) -> Iterator[Finding]:
    """Every value can be read, and every expression compiles."""
    incomplete = incomplete_iterables(examined)
    for fault in examined.sites.faults:
        path = fault.path or ""
        if path not in incomplete:
            yield _at(examined, path, fault.message)


def reference_exists(examined: Examined) -> Iterator[Finding]:
    """A reference begins with a root that is there, and names a step, a variable or a fact that exists."""
    for site, path, reference in _references(examined):
        message = _missing(examined, site, reference)
        if message is not None:
            yield _at(examined, path, message)


def reference_before_available(examined: Examined) -> Iterator[Finding]:
    """A step that is referred to has completed before: surely, or it is a warning; possibly, or it is an error."""
    for site, path, reference in _references(examined):
        place = _place(examined, site)
        earlier = examined.position.get(_step_of(reference) or "")
        if place is None or earlier is None or not _has_output(examined.steps[earlier]):
            continue
        if (site.after and earlier == place and site.step_id is not None) or examined.flow.surely(earlier, place):
            continue
        name = examined.steps[earlier].id
        if not examined.flow.maybe(earlier, place):
            yield _at(examined, path, f'"{name}" can never have completed before this is evaluated')
        elif reference.required:
            message = (
                f'"{name}" may not have completed before this is evaluated; '
                "say what holds then: `default`, `optional`, `??` or $exists"
            )
            yield _at(examined, path, message, Severity.WARNING)


def _references(examined: Examined) -> Iterator[tuple[Site, str, Reference]]:
    """Every reference, once per leaf."""
    incomplete = incomplete_iterables(examined)
    for site in examined.sites.by_path.values():
        if site.path in incomplete:
            continue
        for path, references in leaves(site.value):
            for reference in dict.fromkeys(references):
                yield site, path, reference


def _place(examined: Examined, site: Site) -> int | None:
    """The step before which (or after which) a place is evaluated; None when no execution comes there."""
    flow = examined.flow
    if site.step_id is not None:
        place = examined.position.get(site.step_id)
    else:
        place = next((at for at, step in examined.first_steps if step.type is StepType.END), None)
    return place if place is not None and flow.reachable >> place & 1 else None


def _missing(examined: Examined, site: Site, reference: Reference) -> str | None:
    """Why there can be nothing at a reference, or None."""
    root, members = reference.root, reference.path
    if root not in site.roots:
        return _ONLY_THERE.get(root) or f"there is no {root} here; there are {listed(sorted(site.roots))}"
    if not members:
        return None
    match root:
        case "__steps__":
            return _missing_step(examined, reference)
        case "__variables__":
            variables = {variable.key: variable for variable in examined.definition.variables}
            if members[0] not in variables:
                hint = examined.hints.similar("variable", members[0], variables)
                return f'there is no variable "{members[0][:100]}"{hint}'
        case "__execution__":
            if members[0] not in EXECUTION_FACTS:
                return f'an execution has no "{members[0][:100]}"; it has {", ".join(EXECUTION_FACTS)}'
    return None


def _missing_step(examined: Examined, reference: Reference) -> str | None:
    step_id, *below = reference.path
    position = examined.position.get(step_id)
    if position is None:
        hint = examined.hints.similar("step", step_id, examined.position)
        return f'there is no step "{step_id[:100]}"{hint}'
    step = examined.steps[position]
    if not _has_output(step):
        return f'"{step_id}" is a {step.type}, which has no output; what it writes is in __context__'
    if isinstance(step, ConfirmStep) and below and reference.required and below[0] not in CONFIRM_OUTPUT:
        return f'the output of "{step_id}" has no "{below[0][:100]}"; it has {", ".join(CONFIRM_OUTPUT)}'
    return None


def _has_output(step: Step) -> bool:
    return isinstance(step, ActionStep | ConfirmStep | ChildStep)


def _step_of(reference: Reference) -> str | None:
    return reference.path[0] if reference.root == "__steps__" and reference.path else None


def _at(examined: Examined, path: str, message: str, severity: Severity = Severity.ERROR) -> Finding:
    """A finding with the steps and transitions that its path stands in."""
    place = _PLACE.match(path)
    if place is None:
        return Finding(path, message, severity)
    at = int(place[2])
    if place[1] == "steps":
        return Finding(path, message, severity, (examined.steps[at].id,))
    transition = examined.transitions[at]
    return Finding(path, message, severity, (transition.from_step_id,), (transition.id,))
