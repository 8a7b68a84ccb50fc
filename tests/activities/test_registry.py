"""Actions as activities."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.registry import (
    LARGEST_RESULT,
    RegistryError,
    action_activities,
    check_activities,
    load_actions,
    unknown_action,
)
from app.contracts import NOT_LOCAL
from millrace.actions import ActionFailure, Call, action
from tests.activities.conftest import CallAction, CallDescribed


class Order(BaseModel):
    """One parameter that stands for all."""

    sku: str
    count: int = 1


@action("stock.reserve")
async def reserve(sku: str, count: int = 1) -> dict[str, Any]:
    """Takes from the shelf.

    And more that nobody reads in a list.
    """
    return {"sku": sku, "count": count}


@action("stock.order")
async def order(parameters: Order, call: Call) -> Order:
    """Orders, with the call at hand."""
    return Order(sku=f"{parameters.sku}/{call.idempotency_key}/{call.attempt}", count=parameters.count)


@action("stock.broken")
async def broken(kind: str) -> None:
    """Breaks."""
    if kind == "coded":
        raise ActionFailure("NO_STOCK", "none left", retryable=False)
    raise ValueError("a bug")


def test_a_function_s_types_are_its_form() -> None:
    schema = reserve.parameters.model_json_schema()
    assert schema["required"] == ["sku"]
    assert schema["properties"]["count"]["default"] == 1
    assert reserve.description == "Takes from the shelf."


async def test_parameters_are_validated_and_defaults_filled_in(call_action: CallAction) -> None:
    assert await call_action(reserve, {"sku": "a"}) == {"sku": "a", "count": 1}


async def test_a_model_as_the_only_parameter_stands_for_all_and_the_call_is_given(call_action: CallAction) -> None:
    assert await call_action(order, {"sku": "a", "count": 2}) == {"sku": "a/run/step#1/1", "count": 2}


async def test_a_coded_failure_keeps_its_code(call_action: CallAction) -> None:
    with pytest.raises(ApplicationError) as raised:
        await call_action(broken, {"kind": "coded"})
    assert (raised.value.type, raised.value.message, raised.value.non_retryable) == ("NO_STOCK", "none left", True)


async def test_any_other_exception_is_one_coded_failure_that_may_be_tried_again(call_action: CallAction) -> None:
    with pytest.raises(ApplicationError) as raised:
        await call_action(broken, {"kind": "bug"})
    assert (raised.value.type, raised.value.non_retryable) == ("ACTION_FAILED", False)


async def test_linear_backoff_and_jitter_are_asked_for_by_the_activity(call_action: CallAction) -> None:
    with pytest.raises(ApplicationError) as raised:
        await call_action(broken, {"kind": "bug"}, backoff="linear", initialInterval=4)
    assert raised.value.next_retry_delay is not None
    assert raised.value.next_retry_delay.total_seconds() == 4
    with pytest.raises(ApplicationError) as plain:
        await call_action(broken, {"kind": "bug"})
    assert plain.value.next_retry_delay is None


def test_two_actions_with_one_key_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"stock\.reserve"):
        action_activities([reserve, reserve])


def test_activities_that_do_not_match_the_contract_are_refused() -> None:
    with pytest.raises(RegistryError, match="missing"):
        check_activities(action_activities([reserve]), ["stock.reserve", "stock.order"])


def test_a_function_that_is_not_async_or_not_typed_is_refused() -> None:
    def plain() -> None: ...

    async def untyped(value) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(TypeError, match="async"):
        action("x")(plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="value"):
        action("x")(untyped)


def test_a_module_s_actions_are_found_and_one_without_any_is_refused() -> None:
    assert {entry.key for entry in load_actions([__name__])} == {
        "stock.reserve",
        "stock.order",
        "stock.broken",
        "stock.strange",
        "stock.look",
    }
    with pytest.raises(RegistryError, match="holds no @action"):
        load_actions(["tests.documents"])
    with pytest.raises(RegistryError, match="cannot be imported"):
        load_actions(["no.such.module"])


@action("stock.strange")
async def strange(kind: str) -> Any:
    """Gives what no step may give, or only just."""
    return object() if kind == "object" else "x" * (LARGEST_RESULT - 2 + (kind == "large"))


@pytest.mark.parametrize(("kind", "code"), [("object", "ACTION_RESULT_INVALID"), ("large", "ACTION_RESULT_TOO_LARGE")])
async def test_a_result_that_no_step_may_give_has_a_code(call_action: CallAction, kind: str, code: str) -> None:
    with pytest.raises(ApplicationError) as raised:
        await call_action(strange, {"kind": kind})
    assert (raised.value.type, raised.value.non_retryable) == (code, True)


async def test_a_result_of_sixteen_mebibytes_is_taken(call_action: CallAction) -> None:
    assert len(await call_action(strange, {"kind": "largest"})) == 16 * 1024 * 1024 - 2


@action("stock.look", idempotent=True, expected_duration=0.2)
async def look(call: Call, sku: str) -> str:
    """Looks, and says so meanwhile."""
    call.heartbeat("looking", sku)
    return sku


@pytest.mark.parametrize(
    ("declared", "local"),
    [
        ({}, False),
        ({"idempotent": True}, False),
        ({"expected_duration": 0.1}, False),
        ({"idempotent": True, "expected_duration": 1}, True),
        ({"idempotent": True, "expected_duration": 1.01}, False),
        ({"idempotent": True, "expected_duration": 0.1, "long": True}, False),
    ],
)
def test_only_what_is_idempotent_and_short_runs_locally(declared: dict[str, Any], local: bool) -> None:
    entry = action("stock.any", **declared)(look.handler)
    assert entry.runs_locally is local
    assert entry.policies["local"] is local


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_an_expected_duration_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected duration"):
        action("stock.any", expected_duration=seconds)


async def test_a_heartbeat_reaches_temporal(call_described: CallDescribed) -> None:
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    assert await call_described(environment, look, {"sku": "a"}) == "a"
    assert beats == [("looking", "a")]


async def test_a_local_attempt_keeps_its_input_and_beats_for_nobody(call_described: CallDescribed) -> None:
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, is_local=True)
    environment.on_heartbeat = lambda *details: beats.append(details)
    record = await call_described(environment, look, {"sku": "a"})
    assert (record.input, record.output, beats) == ({"sku": "a"}, "a", [])


async def test_a_local_attempt_that_fails_keeps_its_input_too(call_described: CallDescribed) -> None:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, is_local=True)
    with pytest.raises(ApplicationError) as raised:
        await call_described(environment, broken, {"kind": "coded"})
    assert (raised.value.type, raised.value.non_retryable) == ("NO_STOCK", True)
    assert raised.value.details == ({"attempts": 1, "input": {"kind": "coded"}},)


async def test_an_action_that_this_worker_lacks_is_left_to_others_for_good_only_when_local() -> None:
    environment = ActivityEnvironment()
    with pytest.raises(ApplicationError) as ordinary:
        await environment.run(unknown_action, [])
    assert (ordinary.value.type, ordinary.value.non_retryable) == ("ACTION_NOT_REGISTERED", False)
    environment.info = replace(environment.info, is_local=True)
    with pytest.raises(ApplicationError) as local:
        await environment.run(unknown_action, [])
    assert (local.value.type, local.value.non_retryable) == (NOT_LOCAL, True)
