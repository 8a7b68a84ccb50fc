"""What API and worker say to each other while they are not of the same version."""

import pytest
from pydantic import ValidationError

from app.run_contracts import ControlRequest, RunView


def test_an_answer_of_a_newer_worker_is_read_without_what_nobody_knows_here() -> None:
    step = {"id": "a", "name": "a", "type": "SYS_SET", "status": "COMPLETED", "visits": 1, "mood": "fine"}
    view = RunView.model_validate({"steps": [step], "waitingFor": [], "weather": {"rain": True}})
    assert (view.steps[0].id, view.waiting_for) == ("a", [])


def test_a_request_with_what_nobody_knows_here_is_refused() -> None:
    with pytest.raises(ValidationError, match="mood"):
        ControlRequest.model_validate({"what": "PAUSE", "mood": "fine"})
