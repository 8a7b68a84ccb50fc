"""Rules about expressions: that they can be read, and that what they refer to is there when they are evaluated."""

import re
from collections.abc import Iterator

from engine.problems import Severity
from engine.references import Reference
from engine.rules.examined import Examined, Finding
from engine.rules.hints import listed
from engine.rules.items import incomplete_iterables
from engine.rules.outputs import has_output, is_disabled, members_of_output
from engine.sites import Site
from engine.steps import StepType
from engine.values import leaves

EXECUTION_FACTS = ("id", "name", "rootId", "parentId", "templateId", "version", "startedAt")

# What the roots of fixed shape have, and what has it.
_FACTS = {
    "__execution__": ("an execution", EXECUTION_FACTS),
    "__error__": ("an error", ("code", "message", "stepId", "attempt")),
    "__counts__": ("__counts__", ("total", "completed", "failed", "running")),
}
_ONLY_THERE = {
    "__each__": "__each__ is only there in what is evaluated for an item of a forEach or a BATCH",
    "__index__": "__index__ is only there in what is evaluated for an item of a forEach or a BATCH",
    "__iteration__": "__iteration__ is only there in what is evaluated for an iteration of a repeat",
    "__previous__": "__previous__ is only there in what is evaluated for an iteration of a repeat",
    "__result__": "__result__ is only there where something has just given it: a repeat, a compensate, a select",
    "__results__": "__results__ is only there in a completionCondition",
    "__counts__": "__counts__ is only there in a completionCondition",
    "__child__": "__child__ is only there in a contextProjection",
    "__datasources__": "__datasources__ is only there in and after the evaluation of a step that has dataSources",
}
_OTHERWISE = "say what holds then: `default`, `optional`, `??` or $exists"
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
    """What is referred to has come about before: surely, or it is a warning; possibly, or it is an error."""
    for site, path, reference in _references(examined):
        if reference.root == "__error__":
            finding = _error_before(examined, site, path, reference)
        else:
            finding = _step_before(examined, site, path, reference)
        if finding is not None:
            yield finding


def _step_before(examined: Examined, site: Site, path: str, reference: Reference) -> Finding | None:
    place = _place(examined, site)
    earlier = examined.position.get(_step_of(reference) or "")
    if place is None or earlier is None or not has_output(examined.steps[earlier]):
        return None
    if (site.after and earlier == place and site.step_id is not None) or examined.flow.surely(earlier, place):
        return None
    name = examined.steps[earlier].id
    if is_disabled(examined.steps[earlier]):
        if not reference.required:
            return None
        return _at(examined, path, f'"{name}" is DISABLED, so it never has an output')
    if not examined.flow.maybe(earlier, place):
        return _at(examined, path, f'"{name}" can never have completed before this is evaluated')
    if not reference.required:
        return None
    message = f'"{name}" may not have completed before this is evaluated; {_OTHERWISE}'
    return _at(examined, path, message, Severity.WARNING)


def _error_before(examined: Examined, site: Site, path: str, reference: Reference) -> Finding | None:
    place = _place(examined, site)
    if place is None or "__error__" not in site.roots:
        return None
    if site.step_id is None or not examined.flow.with_error >> place & 1:
        return _at(examined, path, "there is no __error__ here: no transition for errors leads to this place")
    if reference.required and examined.flow.without_error >> place & 1:
        message = f"__error__ is only there when the token came by a transition for errors; {_OTHERWISE}"
        return _at(examined, path, message, Severity.WARNING)
    return None


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
        case "__datasources__":
            return _missing_datasource(examined, site, members[0])
        case _ if root in _FACTS and members[0] not in _FACTS[root][1]:
            what, facts = _FACTS[root]
            return f'{what} has no "{members[0][:100]}"; it has {", ".join(facts)}'
    return None


def _missing_step(examined: Examined, reference: Reference) -> str | None:
    step_id, *below = reference.path
    position = examined.position.get(step_id)
    if position is None:
        hint = examined.hints.similar("step", step_id, examined.position)
        return f'there is no step "{step_id[:100]}"{hint}'
    step = examined.steps[position]
    if not has_output(step):
        return f'"{step_id}" is a {step.type}, which has no output; what it writes is in __context__'
    known = members_of_output(step)
    if known is not None and below and reference.required and below[0] not in known:
        return f'the output of "{step_id}" has no "{below[0][:100]}"; it has {", ".join(known)}'
    return None


def _missing_datasource(examined: Examined, site: Site, alias: str) -> str | None:
    step = examined.steps[examined.position[site.step_id or ""]]
    found = next((source for source in step.data_sources if source.alias == alias), None)
    if found is None:
        known = listed(dict.fromkeys(source.alias for source in step.data_sources))
        return f'the step "{step.id}" reads no datasource "{alias}"; it reads {known}'
    if found.scope == "per-item" and "__each__" not in site.roots:
        return f'"{alias}" is read per item, so it is only there in what is evaluated for an item'
    return None


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
