"""Pauses between attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.retry import pause_after
from engine.steps import Retry


def policy(**fields: object) -> Retry:
    return Retry.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "pauses"),
    [
        ({"backoff": "exponential", "maxInterval": 5}, [1, 2, 4, 5, 5]),
        ({"backoff": "linear", "initialInterval": 2}, [2, 4, 6, 8, 10]),
        ({"backoff": "fixed", "initialInterval": "PT3S"}, [3, 3, 3, 3, 3]),
    ],
)
def test_each_backoff_grows_in_its_own_way(fields: dict[str, object], pauses: list[float]) -> None:
    assert [pause_after(policy(**fields), attempt, "x") for attempt in range(1, 6)] == pauses


@given(st.floats(0, 1), st.integers(1, 1000), st.text())
def test_jitter_spreads_within_its_bounds_and_is_the_same_for_the_same_seed(
    jitter: float, attempt: int, seed: str
) -> None:
    retry = policy(jitter=jitter)
    pause = pause_after(retry, attempt, seed)
    plain = pause_after(policy(), attempt, seed)
    assert plain * (1 - jitter) - 1e-9 <= pause <= plain * (1 + jitter) + 1e-9
    assert pause == pause_after(retry, attempt, seed)


def test_a_thousandth_attempt_is_no_overflow() -> None:
    assert pause_after(policy(multiplier=100), 1000, "x") == 60
