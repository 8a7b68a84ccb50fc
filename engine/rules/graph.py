"""Rules about the shape of the graph: its ends, its edges, and that every step lies on a way from START to END."""

from collections.abc import Iterator

from engine.rules.examined import Examined, Finding
from engine.rules.hints import listed
from engine.rules.outputs import is_disabled
from engine.steps import StepType, is_gateway


def exactly_one_start(examined: Examined) -> Iterator[Finding]:
    """A definition has exactly one START."""
    yield from _exactly_one(examined, StepType.START)


def exactly_one_end(examined: Examined) -> Iterator[Finding]:
    """A definition has exactly one END."""
    yield from _exactly_one(examined, StepType.END)


def _exactly_one(examined: Examined, kind: StepType) -> Iterator[Finding]:
    found = [at for at, step in enumerate(examined.steps) if step.type is kind]
    if not found:
        yield Finding("steps", f"there is no {kind} step; a definition has exactly one")
    elif len(found) > 1:
        ids = tuple(examined.steps[at].id for at in found)
        message = f"there are {len(found)} {kind} steps ({listed(ids)}); a definition has exactly one"
        yield Finding(f"steps[{found[1]}]", message, step_ids=ids)


def start_has_no_incoming(examined: Examined) -> Iterator[Finding]:
    """Nothing leads to START."""
    for at, step in examined.first_steps:
        if step.type is StepType.START and examined.incoming[at]:
            yield Finding(
                f"steps[{at}]",
                "no transition may lead to START",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(examined.incoming[at]),
            )


def start_has_outgoing(examined: Examined) -> Iterator[Finding]:
    """START leads somewhere."""
    for at, step in examined.first_steps:
        if step.type is StepType.START and not examined.outgoing[at]:
            yield Finding(f"steps[{at}]", "START leads nowhere: it has no transition", step_ids=(step.id,))


def end_has_one_incoming(examined: Examined) -> Iterator[Finding]:
    """Exactly one transition leads to END."""
    for at, step in examined.first_steps:
        incoming = examined.incoming[at]
        if step.type is StepType.END and len(incoming) != 1:
            yield Finding(
                f"steps[{at}]",
                f"exactly one transition leads to END, not {len(incoming)}; merge the branches before it",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(incoming),
            )


def end_has_no_outgoing(examined: Examined) -> Iterator[Finding]:
    """Nothing comes after END."""
    for at, step in examined.first_steps:
        if step.type is StepType.END and examined.outgoing[at]:
            yield Finding(
                f"steps[{at}]",
                "nothing may come after END",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(examined.outgoing[at]),
            )


def transition_ends_exist(examined: Examined) -> Iterator[Finding]:
    """Both ends of a transition are steps."""
    ids = examined.position
    for at, transition in enumerate(examined.transitions):
        for field, step_id in (("fromStepId", transition.from_step_id), ("toStepId", transition.to_step_id)):
            if step_id not in ids:
                hint = examined.hints.similar("step", step_id, ids)
                yield Finding(
                    f"stepTransitions[{at}].{field}",
                    f'there is no step "{step_id}"{hint}',
                    transition_ids=(transition.id,),
                )


def transitions_unique(examined: Examined) -> Iterator[Finding]:
    """At most one transition between the same two steps, in one direction, with one `on` and one `branchKey`."""
    first: dict[tuple[str | None, ...], str] = {}
    for at, transition in enumerate(examined.transitions):
        source, target = transition.from_step_id, transition.to_step_id
        way = (source, target, transition.on, transition.branch_key)
        if way in first:
            yield Finding(
                f"stepTransitions[{at}]",
                f'"{first[way]}" already leads from "{source}" to "{target}"',
                step_ids=(source, target),
                transition_ids=(first[way], transition.id),
            )
        else:
            first[way] = transition.id


def no_self_loops(examined: Examined) -> Iterator[Finding]:
    """A transition leads to another step than it comes from."""
    for at, transition in enumerate(examined.transitions):
        if transition.from_step_id == transition.to_step_id:
            yield Finding(
                f"stepTransitions[{at}]",
                "a step may not lead directly back to itself; loop through a gateway",
                step_ids=(transition.from_step_id,),
                transition_ids=(transition.id,),
            )


def no_isolated_steps(examined: Examined) -> Iterator[Finding]:
    """A step that is neither START nor END is joined to something."""
    for at, step in examined.first_steps:
        if _isolated(examined, at):
            yield Finding(f"steps[{at}]", "no transition leads to or from this step", step_ids=(step.id,))


def _isolated(examined: Examined, at: int) -> bool:
    inner = examined.steps[at].type not in (StepType.START, StepType.END)
    return inner and not examined.incoming[at] and not examined.outgoing[at]


def reachable_from_start(examined: Examined) -> Iterator[Finding]:
    """A token from START can come to every step. Isolated steps are another rule's finding."""
    reachable = examined.flow.reachable
    if not reachable:
        return
    for at, step in examined.first_steps:
        if not reachable >> at & 1 and step.type is not StepType.START and not _isolated(examined, at):
            yield Finding(f"steps[{at}]", "no path leads from START to this step", step_ids=(step.id,))


def can_reach_end(examined: Examined) -> Iterator[Finding]:
    """From every step a token can come to END or SYS_TERMINATE, and goes on when the step has succeeded.

    Isolated steps are another rule's finding.
    """
    finishing = examined.flow.finishing
    if not finishing:
        return
    for at, step in examined.first_steps:
        if step.type in (StepType.END, StepType.SYS_TERMINATE) or _isolated(examined, at):
            continue
        if not finishing >> at & 1:
            yield Finding(f"steps[{at}]", "no path leads from this step to END", step_ids=(step.id,))
        elif not any(succeeded for _, succeeded in examined.ways[at]):
            message = "no transition is taken when this step succeeds; all of them are for errors"
            yield Finding(f"steps[{at}]", message, step_ids=(step.id,))


def terminate_has_no_outgoing(examined: Examined) -> Iterator[Finding]:
    """Nothing comes after SYS_TERMINATE, which ends the whole execution."""
    for at, step in examined.first_steps:
        if step.type is StepType.SYS_TERMINATE and examined.outgoing[at]:
            yield Finding(
                f"steps[{at}]",
                "nothing comes after SYS_TERMINATE: it ends the whole execution",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(examined.outgoing[at]),
            )


def special_steps_are_enabled(examined: Examined) -> Iterator[Finding]:
    """START, END, SYS_TERMINATE and gateways direct tokens and so cannot be passed by."""
    for at, step in examined.first_steps:
        special = step.type in (StepType.START, StepType.END, StepType.SYS_TERMINATE) or is_gateway(step)
        if special and is_disabled(step):
            path = f"steps[{at}].activationPolicy.defaultStatus"
            yield Finding(path, f"a {step.type} cannot be DISABLED", step_ids=(step.id,))
