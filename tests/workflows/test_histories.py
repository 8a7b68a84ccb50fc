"""Every recorded history is replayed: a run begun by an earlier version of the driver must go on with this one."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from app.payloads.storage import data_converter
from app.settings import PayloadSettings
from tests.workflows.memory_blobs import MemoryBlobs, load_blobs
from workflows.backfill import BackfillStarts
from workflows.execution import Execution
from workflows.tick import TickRun

FOLDER = Path(__file__).with_name("histories")
RECORDED = sorted(file for file in FOLDER.glob("*.json") if not file.name.endswith(".payloads.json"))


def replayer(blobs: MemoryBlobs) -> Replayer:
    return Replayer(
        workflows=[Execution, TickRun, BackfillStarts], data_converter=data_converter(blobs, PayloadSettings())
    )


@pytest.mark.parametrize("file", RECORDED, ids=[file.stem for file in RECORDED])
async def test_a_recorded_history_replays(file: Path) -> None:
    history = WorkflowHistory.from_json(f"execution/{file.stem}", file.read_text())
    await replayer(load_blobs(file)).replay_workflow(history)


async def test_a_history_whose_stored_values_are_gone_does_not_replay() -> None:
    history = WorkflowHistory.from_json("execution/gone", (FOLDER / "stored-values.json").read_text())
    with pytest.raises(RuntimeError, match="is not there"):
        await replayer(MemoryBlobs()).replay_workflow(history)


async def test_a_history_of_another_process_does_not_replay() -> None:
    changed = (FOLDER / "failure.json").read_text().replace("test.sleep", "test.slept")
    history = WorkflowHistory.from_json("execution/changed", changed)
    history.events[0].workflow_execution_started_event_attributes.input.payloads[1].data = (
        b'{"steps": [{"id": "s", "type": "START", "name": "s"}, {"id": "p", "type": "HUMAN_CONFIRM", "name": "p"},'
        b' {"id": "e", "type": "END", "name": "e"}], "stepTransitions": ['
        b'{"id": "a", "fromStepId": "s", "toStepId": "p"}, {"id": "b", "fromStepId": "p", "toStepId": "e"}]}'
    )
    with pytest.raises(NondeterminismError):
        await replayer(MemoryBlobs()).replay_workflow(history)


def test_there_are_recordings() -> None:
    named = {
        "everything",
        "failure",
        "cancelled",
        "many-pure-steps",
        "stored-values",
        "local-steps",
        "ticked",
        "backfilled",
    }
    assert named <= {file.stem for file in RECORDED}
    assert len(load_blobs(FOLDER / "stored-values.json").blobs) >= 3
