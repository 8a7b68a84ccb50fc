"""`http.request` against a real server."""

from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.http import http_request_action
from app.hosts import is_public
from app.settings import HttpActionSettings
from tests.activities.conftest import CallAction

ALLOWED = HttpActionSettings(allowed_private_hosts=("127.0.0.1",))


async def refused(call_action: CallAction, settings: HttpActionSettings, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as raised:
        await call_action(http_request_action(settings), parameters)
    return raised.value


async def test_method_query_headers_and_body_arrive(call_action: CallAction, http_server: str) -> None:
    answer = await call_action(
        http_request_action(ALLOWED),
        {
            "method": "POST",
            "url": f"{http_server}/echo?a=1",
            "query": {"b": 2, "c": True},
            "headers": {"X-Kind": "test"},
            "body": {"n": [1, None]},
        },
    )
    assert answer["status"] == 200
    body = answer["body"]
    assert (body["method"], body["query"], body["body"]) == (
        "POST",
        {"a": "1", "b": "2", "c": "true"},
        '{"n":[1,null]}',
    )
    assert body["headers"]["x-kind"] == "test"


async def test_the_idempotency_key_is_sent(call_action: CallAction, http_server: str) -> None:
    answer = await call_action(http_request_action(ALLOWED), {"url": f"{http_server}/echo"})
    assert answer["body"]["headers"]["idempotency-key"] == "run/step#1"


async def test_without_a_body_none_is_sent(call_action: CallAction, http_server: str) -> None:
    answer = await call_action(http_request_action(ALLOWED), {"url": f"{http_server}/echo"})
    assert answer["body"]["body"] == ""
    assert "content-type" not in answer["body"]["headers"]


@pytest.mark.parametrize(
    ("status", "code", "final"),
    [
        (500, "HTTP_SERVER_ERROR", False),
        (503, "HTTP_SERVER_ERROR", False),
        (404, "HTTP_CLIENT_ERROR", True),
        (422, "HTTP_CLIENT_ERROR", True),
        (429, "HTTP_CLIENT_ERROR", False),
    ],
)
async def test_a_server_s_fault_may_be_tried_again_and_a_client_s_may_not(
    call_action: CallAction, http_server: str, status: int, code: str, final: bool
) -> None:
    error = await refused(call_action, ALLOWED, url=f"{http_server}/status/{status}")
    assert (error.type, error.non_retryable) == (code, final)
    assert str(status) in error.message


async def test_an_expected_status_is_no_failure(call_action: CallAction, http_server: str) -> None:
    request = http_request_action(ALLOWED)
    answer = await call_action(request, {"url": f"{http_server}/status/404", "expectedStatus": [200, 404]})
    assert (answer["status"], answer["body"]) == (404, "as you wish")
    error = await refused(call_action, ALLOWED, url=f"{http_server}/echo", expectedStatus=[204])
    assert error.type == "HTTP_UNEXPECTED_STATUS"


async def test_a_redirect_is_not_followed(call_action: CallAction, http_server: str) -> None:
    error = await refused(call_action, ALLOWED, url=f"{http_server}/moved")
    assert error.type == "HTTP_UNEXPECTED_STATUS"


async def test_no_answer_in_time_may_be_tried_again(call_action: CallAction, http_server: str) -> None:
    error = await refused(call_action, ALLOWED, url=f"{http_server}/slow", timeoutSeconds=0.1)
    assert (error.type, error.non_retryable) == ("HTTP_TIMED_OUT", False)


async def test_nobody_listening_may_be_tried_again(call_action: CallAction) -> None:
    error = await refused(call_action, ALLOWED, url="http://127.0.0.1:9/")
    assert (error.type, error.non_retryable) == ("HTTP_CONNECTION_FAILED", False)


async def test_an_answer_beyond_the_limit_is_refused(call_action: CallAction, http_server: str) -> None:
    error = await refused(call_action, ALLOWED, url=f"{http_server}/large")
    assert (error.type, error.non_retryable) == ("HTTP_RESPONSE_TOO_LARGE", True)


async def test_json_that_is_none_is_refused(call_action: CallAction, http_server: str) -> None:
    assert (await refused(call_action, ALLOWED, url=f"{http_server}/broken")).type == "HTTP_BODY_INVALID"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
    ],
)
async def test_private_addresses_are_refused_however_they_are_written(call_action: CallAction, host: str) -> None:
    error = await refused(call_action, HttpActionSettings(), url=f"http://{host}:80/")
    assert error.non_retryable
    assert error.type in {"HTTP_ADDRESS_REFUSED", "HTTP_URL_INVALID"}


@pytest.mark.parametrize("url", ["ftp://example.com/", "/relative", "http://", "http://x:port/", "file:///etc/passwd"])
async def test_an_address_that_is_not_http_is_refused(call_action: CallAction, url: str) -> None:
    error = await refused(call_action, ALLOWED, url=url)
    assert (error.type, error.non_retryable) == ("HTTP_URL_INVALID", True)


async def test_unknown_parameters_are_refused(call_action: CallAction) -> None:
    error = await refused(call_action, ALLOWED, url="http://x/", bogus=1)
    assert (error.type, error.non_retryable) == ("ACTION_PARAMETERS_INVALID", True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("path", ["nan", "infinite"])
async def test_numbers_that_json_does_not_have_are_refused(
    call_action: CallAction, http_server: str, path: str
) -> None:
    assert (await refused(call_action, ALLOWED, url=f"{http_server}/{path}")).type == "HTTP_BODY_INVALID"
