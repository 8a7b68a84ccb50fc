"""Who does something, and with which key, in whatever script it is written."""

import asyncio
import getpass
from uuid import uuid4

import httpx
import pytest

from app.cli.api_client import Api
from tests.app.scenes import active_template, ok, refused
from tests.app.steering import audit, start
from tests.app.test_cli_subscribing import answered, said

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.mark.parametrize("actor", ["ann", "Zoë", "李"])
async def test_the_command_line_sends_names_and_keys_of_any_script(api: httpx.AsyncClient, actor: str) -> None:
    execution_id = await start(api, await active_template(api))
    headers = {"X-Millrace-Actor": actor, "Idempotency-Key": actor}
    with Api(f"http://{api.base_url.host}:{api.base_url.port}") as calls:
        await asyncio.to_thread(calls.post, f"/executions/{execution_id}/pause", {}, headers=headers)
    [event] = await audit(api, execution_id)
    assert (event["action"], event["actor"]) == ("PAUSE", actor)


@pytest.mark.parametrize("sent", ["Zoë".encode(), "Zoë".encode("latin-1")])
async def test_a_name_in_a_header_is_utf_8_or_else_latin_1(api: httpx.AsyncClient, sent: bytes) -> None:
    execution_id = await start(api, await active_template(api))
    await ok(await api.post(f"/executions/{execution_id}/pause", headers={b"X-Millrace-Actor": sent}))
    assert [event["actor"] for event in await audit(api, execution_id)] == ["Zoë"]


async def test_a_name_has_two_hundred_characters_at_most_not_bytes(api: httpx.AsyncClient) -> None:
    execution_id = await start(api, await active_template(api))
    url = f"/executions/{execution_id}/pause"
    await ok(await api.post(url, headers={b"X-Millrace-Actor": ("李" * 200).encode()}))
    refused(await api.post(url, headers={b"X-Millrace-Actor": ("李" * 201).encode()}), 422, "REQUEST_INVALID")


async def test_publishing_and_linking_on_the_command_line_say_who_did_it(api: httpx.AsyncClient) -> None:
    slug, entity = f"by-name-{uuid4().hex[:8]}", f"prod_{uuid4().hex[:8]}"
    words = ("publish", "examples/order-approval.json", "--slug", slug, "--version", "1.0.0", "--activate")
    template = (await answered(api, *words))["templateId"]
    await said(api, "link", "PRODUCT", entity, slug)
    found = [
        one
        for kind, subject in (("TEMPLATE", template), ("LINK", entity))
        for one in (await ok(await api.get("/audit", params={"entityKind": kind, "entityId": subject})))["items"]
    ]
    assert {one["action"] for one in found} >= {"CREATE_TEMPLATE", "LINK"}
    assert {one["actor"] for one in found} == {getpass.getuser()}
