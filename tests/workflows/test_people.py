"""What people hand in on the real server: taken when it fits, refused with its reason and without an event when not."""

import asyncio
from typing import Any

import pytest

from tests.documents import arrow, confirm, document, expr, join, line, step
from tests.workflows.harness import Executions, event_types, refused

FORM = step(
    "form",
    "HUMAN_FORM",
    form={
        "schema": {
            "type": "object",
            "properties": {"amount": {"type": "number", "minimum": 1}},
            "required": ["amount"],
            "additionalProperties": False,
        }
    },
)
UPLOAD = step(
    "upload",
    "HUMAN_DOC_UPLOAD",
    documents=[
        {"key": "passport", "label": "Passport", "accept": ["application/pdf", ".png"], "maxSize": 1000},
        {"key": "letter", "label": "Letter", "required": False},
    ],
)
PDF = {"name": "p.pdf", "size": 900, "contentType": "application/pdf"}


@pytest.mark.parametrize(
    ("person", "data", "code"),
    [
        (FORM, None, "FORM_INVALID"),
        (FORM, {"amount": 0}, "FORM_INVALID"),
        (FORM, {"amount": 1, "more": True}, "FORM_INVALID"),
        (confirm("plain"), {"amount": 1}, "FORM_INVALID"),
        (UPLOAD, None, "DOCUMENTS_INVALID"),
        (UPLOAD, {"letter": PDF}, "DOCUMENTS_INVALID"),
        (UPLOAD, {"passport": {**PDF, "size": 1001}}, "DOCUMENTS_INVALID"),
        (UPLOAD, {"passport": {**PDF, "name": "p.exe", "contentType": "application/x-exe"}}, "DOCUMENTS_INVALID"),
        (UPLOAD, {"passport": PDF, "diary": PDF}, "DOCUMENTS_INVALID"),
    ],
)
async def test_what_does_not_fit_is_refused_and_leaves_no_event(
    cached: Executions, person: dict[str, Any], data: Any, code: str
) -> None:
    handle = await cached.start(line(person))
    await cached.waits_for(handle, person["id"])
    assert await refused(cached.complete(handle, person["id"], data=data)) == code
    assert "workflow_execution_update_accepted" not in await event_types(handle)
    await handle.terminate()


async def test_a_form_a_document_and_a_redirect_are_handed_in(running: Executions) -> None:
    redirect = step("sign", "HUMAN_URL_REDIRECT", url=expr("'https://sign.example/' & __steps__.form.data.amount"))
    definition = line(
        FORM,
        UPLOAD,
        redirect,
        output=expr("[__steps__.form.data.amount, __steps__.upload.documents.passport.name, __steps__.sign.data]"),
    )
    handle = await running.start(definition)
    await running.waits_for(handle, "form")
    first = await running.complete(handle, "form", data={"amount": 5}, completed_by="ada")
    assert (first["output"]["data"], first["output"]["completedBy"]) == ({"amount": 5}, "ada")
    await running.complete(handle, "upload", data={"passport": PDF})
    await running.complete(handle, "sign", data={"signed": True})
    assert await handle.result() == [5, "p.pdf", {"signed": True}]


async def test_items_are_completed_by_number_and_none_by_guessing(running: Executions) -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": '["a", "b"]'}}}
    handle = await running.start(line(confirm("ask", forEach=each), output=expr("__steps__.ask.comment")))
    await running.waits_for(handle, "ask", "ask")
    assert await refused(running.complete(handle, "ask")) == "AMBIGUOUS"
    assert await refused(running.complete(handle, "ask", item=7)) == "STEP_NOT_OPEN"
    second = await running.complete(handle, "ask", item=1, comment="two")
    assert await running.complete(handle, "ask", item=1, comment="two") == second
    assert await refused(running.complete(handle, "ask", item=1, comment="other")) == "STEP_ALREADY_COMPLETED"
    await running.complete(handle, "ask", item=0, comment="one")
    assert await handle.result() == ["one", "two"]


async def test_a_person_is_asked_again_and_again_until_the_condition_holds(running: Executions) -> None:
    again = confirm("ask", outcomes=["more", "enough"], repeat={"until": "__result__.outcome = 'enough'"})
    handle = await running.start(line(again, output=expr("$count(__steps__.ask)")))
    await running.waits_for(handle, "ask")
    for outcome in ("more", "more", "enough"):
        await running.complete(handle, "ask", outcome=outcome)
    assert await handle.result() == 3


async def test_an_overdue_step_goes_to_somebody_else(running: Executions) -> None:
    late = confirm("ask", dueIn=0.3, assignment={"assignee": "ada"}, escalation={"assignment": {"assignee": "boss"}})
    handle = await running.start(line(late, output=expr("__steps__.ask.completedBy")))
    assert (await running.waits_for(handle, "ask")).waiting_for[0].who in {"ada", "boss"}
    while (await running.view(handle)).waiting_for[0].who != "boss":
        await asyncio.sleep(0.05)
    await running.complete(handle, "ask", completed_by="boss")
    assert await handle.result() == "boss"


async def test_a_step_that_expires_goes_its_own_way(running: Executions) -> None:
    definition = document(
        confirm("ask", timeout=0.3),
        step("late", "SYS_SET", assignments=[{"targetPath": "late", "value": True}]),
        join("m", "EXCLUSIVE"),
        arrow("start -> ask"),
        arrow("ask -> m"),
        arrow("ask -> late", on="TIMEOUT"),
        arrow("late -> m"),
        arrow("m -> end"),
    )
    handle = await running.start(definition)
    assert await handle.result() == {"late": True}
    assert (await running.statuses(handle))["ask"] == "FAILED"
