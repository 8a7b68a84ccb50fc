"""What people are asked, what they may answer, and what happens when they do not."""

from typing import Any

import pytest

from engine.errors import EngineError
from engine.events import HumanCompleted
from engine.protocol import CloseHumanTask, OpenHumanTask, ReassignHumanTask
from engine.tasks import Answer, find_task
from tests.documents import Document, action, confirm, expr, form, line, step
from tests.engine.world import BEGAN, World

AMOUNT = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
PASSPORT = {"key": "passport", "label": "Passport", "accept": ["application/pdf", "image/*", ".heic"], "maxSize": 1000}
EXTRA = {"key": "extra", "label": "Anything", "required": False}


def upload(*documents: Document) -> Document:
    """A HUMAN_DOC_UPLOAD."""
    return step("docs", "HUMAN_DOC_UPLOAD", documents=list(documents))


def refusal(world: World, step_id: str, **answer: Any) -> str:
    """The code with which an answer is refused."""
    with pytest.raises(EngineError) as refused:
        find_task(world.plan, world.state, step_id, None, None, Answer(**answer))
    return refused.value.code


def accepted(world: World, step_id: str, **answer: Any) -> str:
    """The key of the task that an answer is for."""
    return find_task(world.plan, world.state, step_id, None, None, Answer(**answer)).key


def test_a_form_is_shown_and_its_data_is_the_output() -> None:
    world = World(line(form("ask", AMOUNT), output=expr("__steps__.ask.data.amount")))
    assert world.command("ask#1").form == {"schema": AMOUNT, "uiSchema": None}
    assert accepted(world, "ask", data={"amount": 3}) == "ask#1"
    assert world.done("ask#1", data={"amount": 3}).output == 3


@pytest.mark.parametrize("data", [None, {}, {"amount": "3"}, []])
def test_data_that_does_not_fit_the_form_is_refused(data: Any) -> None:
    assert refusal(World(line(form("ask", AMOUNT))), "ask", data=data) == "FORM_INVALID"


def problems(world: World, step_id: str, data: Any) -> list[str]:
    """The paths of what is wrong with an answer."""
    with pytest.raises(EngineError) as refused:
        find_task(world.plan, world.state, step_id, None, None, Answer(data=data))
    assert all(message for _, message in refused.value.faults)
    return [path for path, _ in refused.value.faults]


@pytest.mark.parametrize(
    ("asked", "data", "paths"),
    [
        (form("docs", AMOUNT), {"amount": "3"}, ["data.amount"]),
        (confirm("docs"), {"amount": 3}, ["data"]),
        (upload(PASSPORT), 1, ["data"]),
        (upload(PASSPORT), {"diary": 1}, ["data.diary", "data.passport"]),
        (upload(PASSPORT), {"passport": [{"name": "a.heic", "size": 1}, {"name": "b"}]}, ["data.passport[1]"]),
    ],
)
def test_each_fault_of_an_answer_has_its_path(asked: Document, data: Any, paths: list[str]) -> None:
    assert problems(World(line(asked)), "docs", data) == paths


def test_a_confirmation_takes_no_data() -> None:
    assert refusal(World(line(confirm("ok"))), "ok", data={"a": 1}) == "FORM_INVALID"


def test_an_outcome_is_one_of_those_that_were_offered() -> None:
    world = World(line(confirm("ok", outcomes=["yes", "no"])))
    assert refusal(world, "ok") == refusal(world, "ok", outcome="maybe") == "OUTCOME_UNKNOWN"
    assert accepted(world, "ok", outcome="no") == "ok#1"


def test_a_redirect_has_a_url_that_is_worked_out_and_takes_any_data() -> None:
    redirect = step("go", "HUMAN_URL_REDIRECT", url=expr("'https://bank.example/' & __context__.id"))
    world = World(line(redirect, output=expr("__steps__.go.data")), {"id": "7"})
    assert world.command("go#1").url == "https://bank.example/7"
    assert accepted(world, "go", data={"paid": True}) == "go#1"
    assert world.done("go#1", data={"paid": True}).output == {"paid": True}


def test_a_redirect_without_a_url_fails() -> None:
    redirect = step("go", "HUMAN_URL_REDIRECT", url=expr("__context__.missing"))
    assert World(line(redirect)).failure.step_id == "go"


def test_documents_are_asked_for_and_named_by_key() -> None:
    world = World(line(upload(PASSPORT, EXTRA), output=expr("__steps__.docs.documents.passport.name")))
    assert [one["key"] for one in world.command("docs#1").documents] == ["passport", "extra"]
    given = {"passport": {"name": "me.pdf", "size": 10, "contentType": "application/pdf"}}
    assert accepted(world, "docs", data=given) == "docs#1"
    assert world.done("docs#1", data=given).output == "me.pdf"


@pytest.mark.parametrize(
    "file",
    [
        {"name": "me.png", "size": 1000, "contentType": "image/png"},
        {"name": "me.HEIC", "size": 0},
        [{"name": "a.pdf", "size": 1, "contentType": "application/pdf"}, {"name": "b.heic", "size": 1}],
    ],
)
def test_fitting_documents_are_accepted(file: Any) -> None:
    assert accepted(World(line(upload(PASSPORT))), "docs", data={"passport": file}) == "docs#1"


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"passport": []},
        {"passport": None},
        {"passport": "me.pdf"},
        {"passport": {"name": "me.pdf"}},
        {"passport": {"name": "me.pdf", "size": -1, "contentType": "application/pdf"}},
        {"passport": {"name": "me.pdf", "size": True, "contentType": "application/pdf"}},
        {"passport": {"name": "me.pdf", "size": 1001, "contentType": "application/pdf"}},
        {"passport": {"name": "me.exe", "size": 1, "contentType": "application/x-msdownload"}},
        {"passport": {"name": "me.pdf", "size": 1}},
        {"passport": {"name": "me.heic", "size": 1}, "other": {"name": "x", "size": 1}},
    ],
)
def test_other_documents_are_refused(data: Any) -> None:
    assert refusal(World(line(upload(PASSPORT))), "docs", data=data) == "DOCUMENTS_INVALID"


def test_a_task_that_is_due_goes_to_somebody_else() -> None:
    escalation = {"assignment": {"assignee": expr("__context__.boss"), "candidateGroups": ["leads"]}}
    world = World(line(confirm("ok", dueIn="PT1H", escalation=escalation)), {"boss": "ann"})
    assert world.command("ok#1").due == BEGAN + 3_600_000
    world.fire("ok#1/due")
    assert world.said(ReassignHumanTask) == [ReassignHumanTask("ok#1", "ann", ("leads",))]
    assert world.state.work["ok#1"].who == "ann"
    world.done("ok#1")
    assert world.ended is not None


def test_a_due_time_without_an_escalation_is_only_shown() -> None:
    world = World(line(confirm("ok", dueIn="PT1H")))
    assert world.keys() == ["ok#1"]


def test_the_due_time_is_over_with_the_answer() -> None:
    escalation = {"assignment": {"candidateGroups": ["leads"]}}
    assert World(line(confirm("ok", dueIn=60, escalation=escalation), confirm("b"))).done("ok#1").keys() == ["b#1"]


@pytest.mark.parametrize("on_failure", ["FAIL", "INCIDENT"])
def test_an_escalation_that_cannot_be_worked_out_fails_the_step_and_closes_the_task(on_failure: str) -> None:
    escalation = {"assignment": {"assignee": expr("__context__.boss.name")}}
    world = World(line(confirm("ok", dueIn=60, timeout=600, escalation=escalation, onFailure=on_failure)))
    world.fire("ok#1/due")
    assert CloseHumanTask("ok#1", "CANCELLED") in world.commands
    assert not world.state.timers
    if on_failure == "FAIL":
        assert world.failure.step_id == "ok"
    else:
        assert world.keys() == ["ok#1"]


def test_a_person_who_takes_too_long_is_not_asked_any_more() -> None:
    world = World(line(confirm("ok", timeout=60))).fire("ok#1/timeout")
    assert CloseHumanTask("ok#1", "EXPIRED") in world.commands
    assert world.failure.code == "STEP_TIMED_OUT"
    world.changes_nothing(HumanCompleted("ok#1", world.tick()))


def test_a_person_is_asked_again_where_the_step_is_tried_again() -> None:
    world = World(line(confirm("ok", timeout=60, retry={"maxAttempts": 2, "initialInterval": 5})))
    world.fire("ok#1/timeout").fire("ok#1/retry")
    assert world.keys() == ["ok#1", "ok#1/timeout"]
    assert len(world.said(OpenHumanTask)) == 2
    world.done("ok#1")
    assert world.ended is not None


@pytest.mark.parametrize("on_failure", ["FAIL", "INCIDENT"])
def test_an_answer_whose_mapping_fails_has_been_given_all_the_same(on_failure: str) -> None:
    mapping = [{"targetPath": "x", "value": expr("__steps__.ok.missing")}]
    ask = confirm("ok", timeout=60, outputMapping=mapping, onFailure=on_failure)
    world = World(line(ask)).done("ok#1", completed_by="ann")
    assert [command.status for command in world.said(CloseHumanTask)] == ["COMPLETED"]
    answer: Any = world.state.answers["ok#1"]
    assert answer["completedBy"] == "ann"
    assert not world.state.timers
    assert world.statuses()["ok"] == ("FAILED" if on_failure == "FAIL" else "INCIDENT")


def test_an_answer_is_checked_against_the_output_schema() -> None:
    schema = {"type": "object", "properties": {"outcome": {"const": "yes"}}}
    assert World(line(confirm("ok", outputSchema=schema))).done("ok#1", "no").failure.code == "OUTPUT_INVALID"


def test_completing_twice_finds_the_first_answer() -> None:
    world = World(line(confirm("ok"), action("then"))).done("ok#1")
    task = find_task(world.plan, world.state, "ok", None, None, Answer())
    assert (task.key, task.open) == ("ok#1", False)
    world.changes_nothing(HumanCompleted("ok#1", world.tick(), "again"))


def test_a_place_that_is_not_open_is_named_without_stray_commas() -> None:
    world = World(line(confirm("a")))
    with pytest.raises(EngineError) as refused:
        find_task(world.plan, world.state, "a", 2, 3, Answer())
    assert str(refused.value).endswith("step a, visit 2, item 3, is not waiting for anyone")
