"""Rules about sub-workflows: that they name one child, that it is there, and that it does not start itself for ever.

What can be known of a cycle: a version that is pinned never changes, and a published version pins published ones
only, so versions cannot pin each other in a circle. A circle needs a reference to a *template*, which means whatever
is active when the child is spawned. When this definition refers to its own template and nothing decides whether that
step runs, every execution starts another, until `maxDepth` fails them all: an error. When the way back leads through
other templates, only their references are known here, not whether they are conditional: a warning. A step that a
split may leave out, or items, which may be none, can end the recursion; there `maxDepth` is the bound.
"""

from collections.abc import Iterator

from engine.catalogue import Catalogue
from engine.problems import Severity
from engine.rules.examined import Examined, Finding, not_checked
from engine.rules.outputs import runs_over_items
from engine.steps import ChildStep

_PINNED = "childWorkflowTemplateVersionId"
_ACTIVE = "childWorkflowTemplateId"
_NO_CATALOGUE = "the templates and versions are not known here"


def missing_batch_iterator(examined: Examined) -> Iterator[Finding]:
    """A batch says what it runs over."""
    for at, step in _children(examined):
        if step.mode == "BATCH" and step.iterable is None:
            yield Finding(f"steps[{at}].iterable", "a BATCH needs an iterable", step_ids=(step.id,))


def child_reference_given(examined: Examined) -> Iterator[Finding]:
    """A sub-workflow names either a version or a template."""
    for at, step in _children(examined):
        given = [step.child_workflow_template_version_id, step.child_workflow_template_id]
        if sum(reference is not None for reference in given) != 1:
            message = f"exactly one of {_PINNED} and {_ACTIVE} must be given"
            yield Finding(f"steps[{at}]", message, step_ids=(step.id,))


def child_exists(examined: Examined) -> Iterator[Finding]:
    """The version or template of a sub-workflow is there."""
    for at, step in _children(examined):
        catalogue = examined.catalogue
        if catalogue is None:
            yield not_checked(f"steps[{at}]", _NO_CATALOGUE)
            return
        version, template = step.child_workflow_template_version_id, step.child_workflow_template_id
        if version is not None and version not in catalogue.versions:
            hint = examined.hints.similar("version", version, catalogue.versions)
            message = f'there is no version "{version[:100]}"{hint}'
            yield Finding(f"steps[{at}].{_PINNED}", message, step_ids=(step.id,))
        if template is not None and template not in catalogue.templates and template != catalogue.template_id:
            hint = examined.hints.similar("template", template, catalogue.templates)
            message = f'there is no template "{template[:100]}"{hint}'
            yield Finding(f"steps[{at}].{_ACTIVE}", message, step_ids=(step.id,))


def child_published(examined: Examined) -> Iterator[Finding]:
    """A pinned version is published; a deprecated one, and a template with no active version, are warnings."""
    for at, step in _children(examined):
        catalogue = examined.catalogue
        if catalogue is None:
            yield not_checked(f"steps[{at}]", _NO_CATALOGUE)
            return
        pinned = catalogue.versions.get(step.child_workflow_template_version_id or "")
        if pinned is not None and pinned.status != "PUBLISHED":
            severity = Severity.WARNING if pinned.status == "DEPRECATED" else Severity.ERROR
            message = f"{pinned.template_slug}@{pinned.version} is {pinned.status}, not PUBLISHED"
            yield Finding(f"steps[{at}].{_PINNED}", message, severity, (step.id,))
        template = step.child_workflow_template_id
        if template is not None and template in catalogue.templates and catalogue.templates[template] is None:
            message = f'the template "{template}" has no active version yet; a child cannot start before it has one'
            yield Finding(f"steps[{at}].{_ACTIVE}", message, Severity.WARNING, (step.id,))


def child_cycle_bounded(examined: Examined) -> Iterator[Finding]:
    """No execution starts itself again without anything that could end it."""
    children = list(_children(examined))
    catalogue = examined.catalogue
    if not children:
        return
    if catalogue is None or catalogue.template_id is None:
        what = "which template this definition belongs to is not known here"
        yield not_checked(f"steps[{children[0][0]}]", what)
        return
    own = _own_references(catalogue)
    leading_back = _leading_back(catalogue, own)
    for at, step in children:
        template = step.child_workflow_template_id
        reference = template or step.child_workflow_template_version_id
        if runs_over_items(step) or step.repeat is not None or not examined.flow.always(at):
            continue
        if reference not in leading_back:
            continue
        path = f"steps[{at}].{_PINNED if template is None else _ACTIVE}"
        if template in own:
            message = "every execution would start another of its own template, without end"
            yield Finding(path, message, step_ids=(step.id,))
        else:
            message = (
                "this child leads back to its own template through other templates; "
                "make sure that one of them can do without its child"
            )
            yield Finding(path, message, Severity.WARNING, (step.id,))


def detached_child_has_no_result(examined: Examined) -> Iterator[Finding]:
    """A child that nobody waits for has no output, no failure and no end that its parent could do anything with."""
    for at, step in _children(examined):
        if step.wait:
            continue
        fields = {
            "contextProjection": step.context_projection,
            "compensate": step.compensate,
            "completionCondition": step.completion_condition,
        }
        for name, value in fields.items():
            if value:
                message = f"nobody waits for this child (`wait: false`), so it has no {name}"
                yield Finding(f"steps[{at}].{name}", message, step_ids=(step.id,))


def _own_references(catalogue: Catalogue) -> frozenset[str]:
    """What a definition may write to mean its own template: its id, and its slug where that is known."""
    own = {catalogue.template_id or ""}
    for reference, active in catalogue.templates.items():
        if active is not None and active.template_id == catalogue.template_id:
            own |= {reference, active.template_slug}
    for version in catalogue.versions.values():
        if version.template_id == catalogue.template_id:
            own.add(version.template_slug)
    return frozenset(own)


def _leading_back(catalogue: Catalogue, own: frozenset[str]) -> frozenset[str]:
    """The references from which a way of children leads to this definition's own template."""
    parents: dict[str, list[str]] = {}
    for entries in (catalogue.versions, catalogue.templates):
        for reference, entry in entries.items():
            for child in entry.children if entry is not None else ():
                parents.setdefault(child, []).append(reference)
    found = set(own)
    waiting = sorted(own)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return frozenset(found)


def _children(examined: Examined) -> Iterator[tuple[int, ChildStep]]:
    return ((at, step) for at, step in enumerate(examined.steps) if isinstance(step, ChildStep))
