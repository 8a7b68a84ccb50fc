"""Rules about what happens when a step fails."""

from collections.abc import Iterator

from engine.problems import Severity
from engine.rules.examined import Examined, Finding
from engine.steps import ActionStep, ChildStep, FailurePolicyFields, WorkStep


def error_transition_from_work_step(examined: Examined) -> Iterator[Finding]:
    """Only work steps are left by transitions for errors and timeouts; codes stand on those for errors.

    One that can never be taken is a warning: for a timeout where there is none, and after one that takes every error.
    """
    seen: dict[tuple[str, str], str] = {}
    for at, transition in enumerate(examined.transitions):
        path, ids = f"stepTransitions[{at}]", (transition.id,)
        if transition.error_codes and transition.on != "ERROR":
            yield Finding(f"{path}.errorCodes", "errorCodes belong to `on: ERROR`", transition_ids=ids)
        source = examined.position.get(transition.from_step_id)
        if transition.on == "SUCCESS" or source is None:
            continue
        step = examined.steps[source]
        if not isinstance(step, WorkStep):
            message = f"a {step.type} does nothing that could fail; errors are caught after work steps"
            yield Finding(f"{path}.on", message, step_ids=(step.id,), transition_ids=ids)
            continue
        if transition.on == "TIMEOUT" and step.timeout is None and not isinstance(step, ActionStep):
            message = f'"{step.id}" has no timeout, so this transition is never taken'
            yield Finding(f"{path}.on", message, Severity.WARNING, (step.id,), ids)
        if transition.error_codes:
            continue
        earlier = seen.setdefault((step.id, transition.on), transition.id)
        if earlier != transition.id:
            message = f'"{earlier}" already takes every {transition.on} that is left, so this transition is never taken'
            yield Finding(f"{path}.on", message, Severity.WARNING, (step.id,), (earlier, *ids))


def failure_policy_valid(examined: Examined) -> Iterator[Finding]:
    """TOLERATE says how many failures it bears, as a count or as a share; the other policies do not."""
    for at, step in enumerate(examined.steps):
        policies: dict[str, FailurePolicyFields] = {}
        if isinstance(step, WorkStep) and step.for_each is not None:
            policies[f"steps[{at}].forEach.failurePolicy"] = step.for_each.failure_policy
        if isinstance(step, ChildStep):
            policies[f"steps[{at}].failurePolicy"] = step.failure_policy
        for path, policy in policies.items():
            given = (policy.count is not None) + (policy.percent is not None)
            if policy.type == "TOLERATE" and given != 1:
                yield Finding(path, "TOLERATE needs exactly one of `count` and `percent`", step_ids=(step.id,))
            elif policy.type != "TOLERATE" and given:
                yield Finding(
                    path, f"`count` and `percent` belong to TOLERATE, not to {policy.type}", step_ids=(step.id,)
                )
