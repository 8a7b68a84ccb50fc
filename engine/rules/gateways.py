"""Rules about gateways: what may fan out, what joins, and where conditions and defaults belong."""

from collections.abc import Iterator

from engine.definition import Transition
from engine.problems import Severity
from engine.rules.examined import Examined, Finding
from engine.steps import StepType

SPLITS = frozenset(
    {
        StepType.GATEWAY_PARALLEL_SPLIT,
        StepType.GATEWAY_EXCLUSIVE_SPLIT,
        StepType.GATEWAY_INCLUSIVE_SPLIT,
        StepType.GATEWAY_ROUTE,
        StepType.GATEWAY_EVENT_SPLIT,
    }
)
CONDITIONAL_SPLITS = frozenset({StepType.GATEWAY_EXCLUSIVE_SPLIT, StepType.GATEWAY_INCLUSIVE_SPLIT})
JOINS = frozenset(
    {
        StepType.GATEWAY_PARALLEL_JOIN,
        StepType.GATEWAY_EXCLUSIVE_JOIN,
        StepType.GATEWAY_INCLUSIVE_JOIN,
    }
)


def only_splits_fan_out(examined: Examined) -> Iterator[Finding]:
    """Only a split has more than one outgoing transition that is taken on success."""
    for at, step in examined.first_steps:
        outgoing = tuple(out for out in examined.outgoing[at] if examined.transitions[out].on == "SUCCESS")
        if len(outgoing) > 1 and step.type not in SPLITS:
            yield Finding(
                f"steps[{at}]",
                f"only a split gateway may have several outgoing transitions, not a {step.type}",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(outgoing),
            )


def joins_many_in_one_out(examined: Examined) -> Iterator[Finding]:
    """A join has at least two incoming transitions and exactly one outgoing."""
    for at, step in examined.first_steps:
        incoming, outgoing = examined.incoming[at], examined.outgoing[at]
        if step.type not in JOINS:
            continue
        if len(incoming) < 2:
            yield Finding(
                f"steps[{at}]",
                f"a join has at least two incoming transitions, not {len(incoming)}",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(incoming),
            )
        if len(outgoing) != 1:
            yield Finding(
                f"steps[{at}]",
                f"a join has exactly one outgoing transition, not {len(outgoing)}",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(outgoing),
            )


def conditional_split_single_default(examined: Examined) -> Iterator[Finding]:
    """An exclusive or inclusive split has one default without a condition; its other transitions have one.

    A default anywhere else (but after a route, which has a rule of its own) means nothing, which is a warning.
    """
    for at, step in examined.first_steps:
        if step.type not in CONDITIONAL_SPLITS:
            continue
        defaults = tuple(out for out in examined.outgoing[at] if examined.transitions[out].is_default)
        if len(defaults) != 1:
            yield Finding(
                f"steps[{at}]",
                f"exactly one outgoing transition is the default (isDefault), not {len(defaults)}",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(defaults),
            )
    for at, transition in enumerate(examined.transitions):
        finding = _default_or_condition(examined, at, transition)
        if finding is not None:
            yield finding


def _default_or_condition(examined: Examined, at: int, transition: Transition) -> Finding | None:
    source = examined.position.get(transition.from_step_id)
    if source is None:
        return None
    step = examined.steps[source]
    ids = (transition.id,)
    if step.type not in CONDITIONAL_SPLITS:
        if not transition.is_default or step.type is StepType.GATEWAY_ROUTE:
            return None
        message = f"a default means nothing after a {step.type}"
        return Finding(f"stepTransitions[{at}].isDefault", message, Severity.WARNING, (step.id,), ids)
    if transition.is_default and transition.condition is not None:
        message = "the default transition is taken when no condition holds, so it has none of its own"
        return Finding(f"stepTransitions[{at}].condition", message, step_ids=(step.id,), transition_ids=ids)
    if not transition.is_default and transition.condition is None:
        message = f"a transition that leaves a {step.type} has a condition or is the default"
        return Finding(f"stepTransitions[{at}]", message, step_ids=(step.id,), transition_ids=ids)
    return None


def exclusive_split_two_outgoing(examined: Examined) -> Iterator[Finding]:
    """An exclusive split has exactly two outgoing transitions."""
    for at, step in examined.first_steps:
        outgoing = examined.outgoing[at]
        if step.type is StepType.GATEWAY_EXCLUSIVE_SPLIT and len(outgoing) != 2:
            yield Finding(
                f"steps[{at}]",
                "an exclusive split has exactly two outgoing transitions, one conditional and one default, "
                f"not {len(outgoing)}",
                step_ids=(step.id,),
                transition_ids=examined.transition_ids(outgoing),
            )


def conditions_leave_conditional_splits(examined: Examined) -> Iterator[Finding]:
    """A condition stands only on a transition that leaves an exclusive or inclusive split."""
    for at, transition in enumerate(examined.transitions):
        source = examined.position.get(transition.from_step_id)
        if transition.condition is None or source is None:
            continue
        step = examined.steps[source]
        if step.type not in CONDITIONAL_SPLITS:
            yield Finding(
                f"stepTransitions[{at}].condition",
                f"a condition belongs after an exclusive or inclusive split, not after a {step.type}",
                step_ids=(step.id,),
                transition_ids=(transition.id,),
            )


def route_keys_unique(examined: Examined) -> Iterator[Finding]:
    """A route's transitions each have a branch key of their own; one of them may be the default, without a key.

    A branch key anywhere else means nothing, which is a warning.
    """
    for at, step in examined.first_steps:
        if step.type is StepType.GATEWAY_ROUTE:
            yield from _route_keys(examined, at)
    for at, transition in enumerate(examined.transitions):
        source = examined.position.get(transition.from_step_id)
        if transition.branch_key is None or source is None:
            continue
        step = examined.steps[source]
        if step.type is not StepType.GATEWAY_ROUTE:
            path = f"stepTransitions[{at}].branchKey"
            message = f"a branch key means nothing after a {step.type}"
            yield Finding(path, message, Severity.WARNING, (step.id,), (transition.id,))


def _route_keys(examined: Examined, at: int) -> Iterator[Finding]:
    step_id = examined.steps[at].id
    first: dict[str, str] = {}
    default: str | None = None
    for out in examined.outgoing[at]:
        transition = examined.transitions[out]
        path, ids = f"stepTransitions[{out}]", (transition.id,)
        key = transition.branch_key
        if transition.is_default:
            if default is not None:
                message = f'"{default}" already is the default; a route has one at most'
                yield Finding(f"{path}.isDefault", message, step_ids=(step_id,), transition_ids=(default, *ids))
            default = default or transition.id
        elif key is None:
            message = "a transition that leaves a route has a branchKey or is the default"
            yield Finding(path, message, step_ids=(step_id,), transition_ids=ids)
        if key is not None and key in first:
            message = f'"{first[key]}" already has this branch key'
            yield Finding(f"{path}.branchKey", message, step_ids=(step_id,), transition_ids=(first[key], *ids))
        elif key is not None:
            first[key] = transition.id
