"""Backfills over HTTP: what is taken, what is refused, and what stays when it comes again."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.app.scenes import (
    Json,
    active_template,
    create_template,
    link,
    ok,
    purchase,
    refused,
    with_input_schema,
)

AMOUNTS = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}


async def create(api: httpx.AsyncClient, **fields: Any) -> Json:
    body = {"name": "Past requests", **fields}
    return await ok(await api.post("/backfills", json=body), 201)


async def load(api: httpx.AsyncClient, backfill: Json, *rows: Json) -> Json:
    return await ok(await api.post(f"/backfills/{backfill['id']}/rows", json={"rows": list(rows)}))


async def read(api: httpx.AsyncClient, backfill: Json) -> Json:
    return await ok(await api.get(f"/backfills/{backfill['id']}"))


def row(number: int, **fields: Any) -> Json:
    return {"number": number, "context": {"amount": number}, **fields}


async def test_a_backfill_takes_rows_until_it_is_started(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    backfill = await create(api, template=template["slug"], rate=5, concurrency=2, source={"kind": "csv"})
    assert backfill["status"] == "LOADING"
    assert (backfill["template"], backfill["rate"], backfill["concurrency"]) == (template["slug"], 5.0, 2)
    answer = await load(
        api, backfill, row(2), row(3), {"number": 4, "code": "COLUMNS_WRONG", "message": "no", "raw": ["x"]}
    )
    assert answer == {"loaded": 3, "invalid": 1, "repeated": 0}
    found = await read(api, backfill)
    assert found["rows"] == {"total": 3, "pending": 2, "started": 0, "repeated": 0, "refused": 0, "invalid": 1}
    assert (found["lastNumber"], found["source"]) == (4, {"kind": "csv"})

    started = await ok(await api.post(f"/backfills/{backfill['id']}/start"), 202)
    assert started["status"] == "RUNNING"
    assert (await ok(await api.post(f"/backfills/{backfill['id']}/start"), 202))["startedAt"] == started["startedAt"]
    refused(await api.post(f"/backfills/{backfill['id']}/rows", json={"rows": [row(5)]}), 409, "BACKFILL_NOT_LOADING")


async def test_rows_that_come_again_are_left_as_they_were(api: httpx.AsyncClient) -> None:
    backfill = await create(api, template=(await active_template(api))["slug"])
    await load(api, backfill, row(1), row(2))
    answer = await load(api, backfill, row(2, context={"amount": 99}), row(3))
    assert answer == {"loaded": 1, "invalid": 0, "repeated": 1}
    page = await ok(await api.get(f"/backfills/{backfill['id']}/rows"))
    assert [(one["number"], one["context"]["amount"]) for one in page["items"]] == [(1, 1), (2, 2), (3, 3)]


async def test_of_two_rows_with_one_event_the_first_counts(api: httpx.AsyncClient) -> None:
    backfill = await create(api, template=(await active_template(api))["slug"])
    answer = await load(api, backfill, row(1, eventId="a"), row(2, eventId="b"), row(3, eventId="a"))
    assert answer == {"loaded": 3, "invalid": 1, "repeated": 0}
    assert (await load(api, backfill, row(4, eventId="b"), row(1, eventId="a")))["invalid"] == 1
    page = await ok(await api.get(f"/backfills/{backfill['id']}/rows", params={"status": "INVALID"}))
    assert [(one["number"], one["code"]) for one in page["items"]] == [(3, "EVENT_REPEATED"), (4, "EVENT_REPEATED")]


async def test_a_row_without_what_the_target_needs_is_invalid(api: httpx.AsyncClient) -> None:
    backfill = await create(api, entityType="PRODUCT")
    await load(api, backfill, row(1), {"number": 2, "entityId": "p"}, row(3, entityId="p"))
    page = await ok(await api.get(f"/backfills/{backfill['id']}/rows"))
    found = [(one["number"], one["status"], one["code"]) for one in page["items"]]
    assert found == [
        (1, "INVALID", "ENTITY_MISSING"),
        (2, "INVALID", "CONTEXT_MISSING"),
        (3, "PENDING", None),
    ]


async def test_rows_are_listed_page_by_page_and_by_status(api: httpx.AsyncClient) -> None:
    backfill = await create(api, template=(await active_template(api))["slug"])
    bad = [{"number": n, "code": "CSV_INVALID", "message": "no"} for n in (2, 5)]
    await load(api, backfill, row(1), row(3), row(4), *bad)
    path = f"/backfills/{backfill['id']}/rows"
    first = await ok(await api.get(path, params={"limit": 3}))
    second = await ok(await api.get(path, params={"limit": 3, "cursor": first["nextCursor"]}))
    assert [one["number"] for one in first["items"] + second["items"]] == [1, 2, 3, 4, 5]
    assert second["nextCursor"] is None
    both = await ok(await api.get(path, params={"status": ["PENDING", "INVALID"], "code": "CSV_INVALID"}))
    assert [one["number"] for one in both["items"]] == [2, 5]
    refused(await api.get(path, params={"cursor": "bm9uZQ"}), 422, "CURSOR_INVALID")


async def test_a_backfill_without_a_target_or_with_an_unknown_one_is_refused(api: httpx.AsyncClient) -> None:
    refused(await api.post("/backfills", json={"name": "x"}), 422, "TARGET_MISSING")
    refused(await api.post("/backfills", json={"name": "x", "template": "nothing"}), 404, "TEMPLATE_NOT_FOUND")
    template = await active_template(api)
    await ok(await api.post(f"/templates/{template['id']}/archive"))
    refused(await api.post("/backfills", json={"name": "x", "template": template["id"]}), 409, "TEMPLATE_ARCHIVED")


@pytest.mark.parametrize("field", [{"rate": 0}, {"concurrency": 0}, {"entityType": "THING"}, {"unknown": 1}])
async def test_a_backfill_that_is_told_nonsense_is_refused(api: httpx.AsyncClient, field: Json) -> None:
    answer = await api.post("/backfills", json={"name": "x", "entityType": "PRODUCT", **field})
    assert answer.status_code == 422


async def test_two_rows_with_one_number_are_refused(api: httpx.AsyncClient) -> None:
    backfill = await create(api, entityType="PRODUCT")
    body = {"rows": [row(1, entityId="a"), row(1, entityId="b")]}
    refused(await api.post(f"/backfills/{backfill['id']}/rows", json=body), 422, "ROW_REPEATED")
    assert (await read(api, backfill))["rows"]["total"] == 0


async def test_an_unknown_backfill_is_not_found(api: httpx.AsyncClient) -> None:
    unknown = uuid4()
    refused(await api.get(f"/backfills/{unknown}"), 404, "BACKFILL_NOT_FOUND")
    refused(await api.get(f"/backfills/{unknown}/rows"), 404, "BACKFILL_NOT_FOUND")
    for what in ("start", "pause", "resume", "cancel"):
        refused(await api.post(f"/backfills/{unknown}/{what}"), 404, "BACKFILL_NOT_FOUND")
    body = {"rows": [row(1)]}
    refused(await api.post(f"/backfills/{unknown}/rows", json=body), 404, "BACKFILL_NOT_FOUND")


async def test_what_does_not_fit_the_status_is_refused(api: httpx.AsyncClient) -> None:
    backfill = await create(api, template=(await active_template(api))["slug"])
    path = f"/backfills/{backfill['id']}"
    refused(await api.post(f"{path}/pause"), 409, "BACKFILL_NOT_STARTED")
    refused(await api.post(f"{path}/resume"), 409, "BACKFILL_NOT_STARTED")
    await load(api, backfill, row(1))
    await ok(await api.post(f"{path}/start"), 202)
    assert (await ok(await api.post(f"{path}/pause")))["status"] == "PAUSED"
    assert (await ok(await api.post(f"{path}/pause")))["status"] == "PAUSED"
    refused(await api.post(f"{path}/start"), 409, "BACKFILL_PAUSED")
    assert (await ok(await api.post(f"{path}/resume")))["status"] == "RUNNING"
    cancelled = await ok(await api.post(f"{path}/cancel"))
    assert (cancelled["status"], cancelled["endedAt"] is None) == ("CANCELLED", False)
    assert (await ok(await api.post(f"{path}/cancel")))["endedAt"] == cancelled["endedAt"]
    for what in ("start", "pause", "resume"):
        refused(await api.post(f"{path}/{what}"), 409, "BACKFILL_OVER")


async def test_backfills_are_listed_the_newest_first(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    made = [await create(api, template=template["slug"], name=f"n{n}") for n in range(3)]
    await load(api, made[2], row(1))
    page = await ok(await api.get("/backfills", params={"limit": 2, "status": "LOADING"}))
    assert [one["id"] for one in page["items"]] == [made[2]["id"], made[1]["id"]]
    assert [one["rows"]["total"] for one in page["items"]] == [1, 0]
    rest = await ok(await api.get("/backfills", params={"cursor": page["nextCursor"]}))
    assert rest["items"][0]["id"] == made[0]["id"]


async def test_a_change_of_a_backfill_is_audited(api: httpx.AsyncClient) -> None:
    headers = {"X-Millrace-Actor": "ann"}
    template = await active_template(api)
    body = {"name": "Past", "template": template["slug"]}
    backfill = await ok(await api.post("/backfills", json=body, headers=headers), 201)
    assert backfill["createdBy"] == "ann"
    await ok(await api.post(f"/backfills/{backfill['id']}/cancel", headers=headers))
    page = await ok(await api.get("/audit", params={"entityKind": "BACKFILL", "entityId": backfill["id"]}))
    assert [(one["action"], one["actor"]) for one in page["items"]] == [
        ("CANCEL_BACKFILL", "ann"),
        ("CREATE_BACKFILL", "ann"),
    ]
    assert page["items"][0]["after"] == {"status": "CANCELLED"}


async def test_a_check_tells_what_would_become_of_rows_and_keeps_nothing(api: httpx.AsyncClient) -> None:
    template = await active_template(api, with_input_schema(AMOUNTS))
    rows = [row(1), row(2, context={"amount": "two"}), row(3, context={}), {"number": 4, "code": "CSV_INVALID"}]
    found = await ok(await api.post("/backfills/check", json={"template": template["slug"], "rows": rows}))
    assert (found["valid"], found["repeated"]) == (1, 0)
    assert [(one["number"], one["code"]) for one in found["problems"]] == [
        (2, "CONTEXT_INVALID"),
        (3, "CONTEXT_INVALID"),
        (4, "CSV_INVALID"),
    ]
    assert "context.amount" in found["problems"][0]["message"]


async def test_a_check_knows_links_and_what_was_started_live(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    entity = await link(api, template)
    sleeping = await link(api, await create_template(api))
    live = purchase(entity)
    await ok(await api.post("/triggers/product-purchases", json=live), 202)
    rows = [
        row(1, entityId=entity, eventId=live["eventId"]),
        row(2, entityId=entity, eventId="another"),
        row(3, entityId="nobody"),
        row(4, entityId=sleeping),
    ]
    found = await ok(await api.post("/backfills/check", json={"entityType": "PRODUCT", "rows": rows}))
    assert (found["valid"], found["repeated"]) == (1, 1)
    assert [(one["number"], one["code"]) for one in found["problems"]] == [(3, "UNLINKED"), (4, "TEMPLATE_NOT_ACTIVE")]
