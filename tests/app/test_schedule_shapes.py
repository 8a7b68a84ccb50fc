"""A schedule has one shape: what is read of it can be sent back, as a change or as another schedule."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.app.clockwork import HOURLY, NEVER, create_schedule
from tests.app.scenes import Json, active_template, ok, refused

POLL = {"source": {"type": "HTTP", "url": "https://shop.example/orders"}, "id": "$string(__trigger__.item.id)"}


async def _audit(api: httpx.AsyncClient, schedule: Json) -> list[Json]:
    wanted = {"entityKind": "SCHEDULE", "entityId": schedule["id"]}
    items: list[Json] = (await ok(await api.get("/audit", params=wanted)))["items"]
    return items


async def _each_kind(api: httpx.AsyncClient) -> list[Json]:
    template = await active_template(api)
    target = {"templateId": template["slug"], "context": {"at": 1}, "name": {"type": "expr", "expr": "'at ' & 1"}}
    every = [{"every": "PT90M", "offset": "PT10M"}]
    spec = {"intervals": every, "jitter": "PT1M", "endAt": "2040-01-01T00:00:00+01:00"}
    return [
        await create_schedule(api, HOURLY),
        await create_schedule(
            api, spec, target, overlap="BUFFER_ONE", catchUpWindow="PT1H", maxExecutions=3, paused=True, note="so"
        ),
        await create_schedule(api, NEVER, poll=POLL),
    ]


async def test_what_is_read_of_a_schedule_can_be_sent_back_and_changes_nothing(api: httpx.AsyncClient) -> None:
    for made in await _each_kind(api):
        read = await ok(await api.get(f"/schedules/{made['id']}"))
        changed = await ok(await api.patch(f"/schedules/{made['id']}", json=read))
        assert changed | {"updatedAt": ""} == read | {"updatedAt": ""}
        assert [one["action"] for one in await _audit(api, made)] == ["CREATE_SCHEDULE"]


async def test_what_is_read_of_a_schedule_makes_another_one_under_another_name(api: httpx.AsyncClient) -> None:
    for made in await _each_kind(api):
        read = await ok(await api.get(f"/schedules/{made['id']}"))
        copy = await ok(await api.post("/schedules", json=read | {"name": f"s-{uuid4().hex}"}), 201)
        assert copy["id"] != made["id"]
        same = ("spec", "target", "catchUpWindow", "overlap", "maxExecutions", "paused", "note", "poll", "kind")
        assert [copy[name] for name in same] == [read[name] for name in same]


async def test_a_schedule_says_its_target_and_its_window_as_it_was_told_them(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    target = {"templateId": template["id"], "context": {"a": 1}, "name": "Nightly"}
    made = await create_schedule(api, HOURLY, target, catchUpWindow=3600)
    assert made["target"] == {**target, "triggerKey": None}
    assert made["catchUpWindow"] == 3600
    assert not {"templateId", "triggerKey", "context", "executionName", "catchUpSeconds"} & made.keys()
    created = (await _audit(api, made))[0]["after"]
    assert (created["target"], created["catchUpWindow"]) == (made["target"], 3600)


async def test_a_schedule_names_its_template_by_its_slug_too(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    made = await create_schedule(api, HOURLY, {"templateId": template["id"], "context": {}})
    other = await create_schedule(api, HOURLY)
    assert (made["template"], other["template"]) == (template["slug"], None)
    path = f"/schedules/{made['id']}"
    answers = [await ok(await api.get(path)), await ok(await api.patch(path, json={"note": "so"}))]
    answers += [await ok(await api.post(f"{path}/{deed}")) for deed in ("pause", "resume")]
    answers += [one for one in (await ok(await api.get("/schedules")))["items"] if one["id"] == made["id"]]
    assert [one["template"] for one in answers] == [template["slug"]] * 5
    refused(await api.patch(path, json={"template": "another"}), 422, "REQUEST_INVALID")


async def test_the_next_times_say_in_which_zone_they_are_meant(api: httpx.AsyncClient) -> None:
    spec = {"cron": ["30 2 * * *"], "timeZone": "Europe/Berlin"}
    made = await create_schedule(api, spec)
    assert (await ok(await api.get(f"/schedules/{made['id']}/next")))["timeZone"] == "Europe/Berlin"
    assert (await ok(await api.post("/schedules/preview", json=spec)))["timeZone"] == "Europe/Berlin"
    assert (await ok(await api.post("/schedules/preview", json=HOURLY)))["timeZone"] == "UTC"


async def test_a_schedule_is_renamed_paused_and_noted_by_a_change(api: httpx.AsyncClient) -> None:
    made, other = await create_schedule(api, HOURLY), await create_schedule(api, HOURLY)
    name = f"s-{uuid4().hex}"
    changed = await ok(
        await api.patch(f"/schedules/{made['name']}", json={"name": name, "paused": True, "note": "stocktaking"})
    )
    assert (changed["id"], changed["name"], changed["paused"]) == (made["id"], name, True)
    assert changed["note"] == "stocktaking"
    refused(await api.get(f"/schedules/{made['name']}"), 404, "SCHEDULE_NOT_FOUND")
    refused(await api.patch(f"/schedules/{name}", json={"name": other["name"]}), 409, "NAME_TAKEN")
    assert (await _audit(api, made))[0]["after"] == {"name": name, "paused": True, "note": "stocktaking"}


@pytest.mark.parametrize(
    ("member", "instead"),
    [
        ({"templateId": "report"}, "target.templateId"),
        ({"triggerKey": "nightly"}, "target.triggerKey"),
        ({"context": {}}, "target.context"),
        ({"executionName": "x"}, "target.name"),
        ({"catchUpSeconds": 60}, "catchUpWindow"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_member_of_another_name_is_refused_with_the_name_it_has(
    api: httpx.AsyncClient, member: Json, instead: str
) -> None:
    made = await create_schedule(api, HOURLY)
    body = {"name": f"s-{uuid4().hex}", "spec": HOURLY, "target": {"triggerKey": "test.tick"}}
    for answer in (
        await api.post("/schedules", json=body | member),
        await api.patch(f"/schedules/{made['id']}", json=member),
    ):
        problem = refused(answer, 422, "REQUEST_INVALID")
        assert f"write {instead} instead" in problem["problems"][0]["message"]


@pytest.mark.parametrize("member", ["name", "spec", "overlap", "catchUpWindow", "target", "paused"])
async def test_what_every_schedule_has_is_not_taken_away_by_null(api: httpx.AsyncClient, member: str) -> None:
    made = await create_schedule(api, HOURLY)
    problem = refused(await api.patch(f"/schedules/{made['id']}", json={member: None}), 422, "REQUEST_INVALID")
    assert member in problem["problems"][0]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [({"kind": "POLL"}, "KIND_FIXED"), ({"poll": POLL}, "KIND_FIXED")],
    ids=["kind", "poll"],
)
async def test_a_schedule_does_not_become_a_poll(api: httpx.AsyncClient, body: Any, code: str) -> None:
    made = await create_schedule(api, HOURLY)
    refused(await api.patch(f"/schedules/{made['id']}", json=body), 409, code)
    poll = await create_schedule(api, NEVER, poll=POLL)
    refused(await api.patch(f"/schedules/{poll['id']}", json={"poll": None}), 409, "KIND_FIXED")
    wrong = {"name": f"s-{uuid4().hex}", "spec": HOURLY, "target": {"triggerKey": "test.tick"}, "kind": "POLL"}
    refused(await api.post("/schedules", json=wrong), 422, "REQUEST_INVALID")
