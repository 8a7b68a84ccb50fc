"""Temporal restarted, and Postgres away for a while, in the middle of runs: everything goes on by itself afterwards."""

import signal
from collections.abc import AsyncIterator

import pytest

from tests.workflows.outages import House, a_house, away, recorded, restarted

# Seconds; the soak takes longer.
AWAY = 3.0


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    """Servers of the module's own."""
    async with a_house() as subject:
        yield subject


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_runs_go_on_when_temporal_has_been_restarted(house: House, number: signal.Signals) -> None:
    await restarted(house, number)


async def test_runs_go_on_when_postgres_has_been_away(house: House) -> None:
    await away(house, AWAY)


async def test_a_task_that_was_opened_while_postgres_was_away_is_listed_afterwards(house: House) -> None:
    await recorded(house, AWAY * 3)
