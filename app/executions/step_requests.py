"""What is asked about one step, in the words of the run."""

from typing import Any, Literal

from app.executions.control_schemas import IncidentResolution, StepChoice, StepResumption
from app.run_contracts import ControlRequest

Steering = Literal["RESUME_STEP", "SKIP_TIMER", "RETRY_INCIDENT", "COMPLETE_INCIDENT", "FAIL_INCIDENT"]

_RESOLUTIONS: dict[str, Steering] = {
    "retry": "RETRY_INCIDENT",
    "complete": "COMPLETE_INCIDENT",
    "fail": "FAIL_INCIDENT",
}


def timer_request(step_id: str, given: StepChoice) -> ControlRequest:
    """Let a timer of the step fire now."""
    return _about_step("SKIP_TIMER", step_id, given)


def resumption_request(step_id: str, given: StepResumption) -> ControlRequest:
    """Enter the suspended step again."""
    return _about_step("RESUME_STEP", step_id, given).model_copy(update={"data": given.data})


def incident_request(step_id: str, given: IncidentResolution) -> ControlRequest:
    """Retry, complete or fail the parked step; parameters of null are parameters."""
    more: dict[str, Any] = {"output": given.output} if given.action == "complete" else {}
    if given.action == "retry" and "parameters" in given.model_fields_set:
        more = {"parameters": given.parameters, "edit_parameters": True}
    return _about_step(_RESOLUTIONS[given.action], step_id, given).model_copy(update=more)


def _about_step(what: Steering, step_id: str, choice: StepChoice) -> ControlRequest:
    return ControlRequest(what=what, step_id=step_id, visit=choice.visit, item=choice.item, reason=choice.reason)
