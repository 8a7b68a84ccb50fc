"""What is allowed and often regretted: people without a date, loops without a bound, effects that nothing undoes."""

from collections.abc import Iterator

from engine.problems import Severity
from engine.reach import components
from engine.rules.data import NO_ACTIONS
from engine.rules.examined import Examined, Finding, not_checked
from engine.rules.hints import listed
from engine.rules.outputs import is_disabled
from engine.steps import ActionStep, HumanStep, StepType, WorkStep


def human_step_without_due(examined: Examined) -> Iterator[Finding]:
    """A person is given a date, unless something else ends the wait; who is late is escalated only after one."""
    for at, step in enumerate(examined.steps):
        if not isinstance(step, HumanStep) or step.due_in is not None:
            continue
        if step.escalation is not None:
            message = "without `dueIn` this step is never overdue, so it never goes to anybody else"
            yield Finding(f"steps[{at}].escalation", message, Severity.WARNING, (step.id,))
        elif step.timeout is None and not _competes(examined, step.id):
            message = "nobody is told when this is due; give it `dueIn` or a `timeout`"
            yield Finding(f"steps[{at}]", message, Severity.WARNING, (step.id,))


def _competes(examined: Examined, step_id: str) -> bool:
    """Whether a step stands after an event split, where something else may end it."""
    incoming = (examined.transitions[at].from_step_id for at in examined.incoming[examined.position[step_id]])
    return any(examined.steps[examined.position[source]].type is StepType.GATEWAY_EVENT_SPLIT for source in incoming)


def loop_without_limit(examined: Examined) -> Iterator[Finding]:
    """Whoever writes a loop says how often it may go round at most; otherwise a default does."""
    limits = examined.definition.limits
    if "max_step_visits" not in limits.model_fields_set:
        for loop in components(examined.flow.following):
            if len(loop) > 1:
                ids = tuple(examined.steps[at].id for at in sorted(loop))
                message = (
                    f"a loop ({listed(ids)}) ends after {limits.max_step_visits} visits of a step; "
                    "say with `limits.maxStepVisits` how many there may be"
                )
                yield Finding(f"steps[{min(loop)}]", message, Severity.WARNING, ids)
    for at, step in enumerate(examined.steps):
        repeat = step.repeat if isinstance(step, WorkStep) else None
        if repeat is not None and "max_iterations" not in repeat.model_fields_set:
            message = (
                f"this ends after {repeat.max_iterations:,} iterations; say with `maxIterations` how many there may be"
            )
            yield Finding(f"steps[{at}].repeat", message, Severity.WARNING, (step.id,))


def unsafe_action_not_compensable(examined: Examined) -> Iterator[Finding]:
    """An action that cannot just be repeated has an effect that only `compensate` undoes when a later step fails."""
    working = sum(1 << at for at, step in examined.first_steps if isinstance(step, WorkStep) and not is_disabled(step))
    for at, step in examined.first_steps:
        if not isinstance(step, ActionStep) or step.compensate is not None or is_disabled(step):
            continue
        if examined.catalogue is None:
            yield not_checked(f"steps[{at}]", NO_ACTIONS)
            return
        action = examined.catalogue.actions.get(step.action_key)
        if action is None or action.idempotent or not examined.flow.descendants[at] & working & ~(1 << at):
            continue
        message = f'"{action.key}" is not idempotent, and nothing undoes it when a later step fails: `compensate` would'
        yield Finding(f"steps[{at}]", message, Severity.WARNING, (step.id,))
