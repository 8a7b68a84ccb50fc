"""`millrace webhooks …` against a real API."""

import asyncio
import json
import sys
import time
from typing import Any
from uuid import uuid4

import httpx

from tests.app.webhook_senders import standard


async def millrace(api: httpx.AsyncClient, *words: str, given: str = "") -> tuple[int, str]:
    url = str(api.base_url).removesuffix("/api/v1/").removesuffix("/api/v1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli.main", "webhooks", *words, "--api", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate(given.encode())
    return process.returncode or 0, told.decode()


async def answered(api: httpx.AsyncClient, *words: str, given: str = "") -> Any:
    code, told = await millrace(api, *words, "--json", given=given)
    assert code == 0, told
    return json.loads(told)


async def test_an_endpoint_is_made_shown_given_another_secret_and_deleted(api: httpx.AsyncClient) -> None:
    path = f"cli-{uuid4().hex}"
    made = await answered(api, "create", "Orders", path, "--scheme", "standard", "--method", "put", "--generate-secret")
    assert (made["methods"], made["verification"]["scheme"], made["secretSet"]) == (["PUT"], "STANDARD", True)
    response = await api.put(f"/hooks/{path}", content=b"{}", headers=standard(b"{}", made["secret"], time.time()))
    assert response.status_code == 202
    shown = await answered(api, "show", made["id"])
    assert "secret" not in shown
    assert shown["deliveries"]["accepted"] == 1
    listed = await answered(api, "list", "--trigger", made["triggerKey"])
    assert [one["id"] for one in listed] == [made["id"]]
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    code, told = await millrace(api, "rotate", made["id"], "--secret-file", "-", "--keep", "PT0S", given=f"{secret}\n")
    assert code == 0, told
    assert secret not in told
    response = await api.put(f"/hooks/{path}", content=b"{}", headers=standard(b"{}", secret, time.time()))
    assert response.status_code == 202
    code, told = await millrace(api, "rotate", made["id"])
    assert (code, told.split(":")[0]) == (1, "SECRET_MISSING")
    code, told = await millrace(api, "delete", made["id"])
    assert (code, told) == (0, f"Endpoint {made['id']} is gone.\n")
