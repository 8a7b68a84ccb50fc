"""Three hundred rows, with the command and the worker killed in the middle."""

import pytest

from tests.acceptance.backfilling import killed_meanwhile
from tests.workflows.outages import a_house


@pytest.mark.timeout(240)
async def test_each_row_is_started_once_though_command_and_worker_are_killed() -> None:
    async with a_house() as house:
        found = await killed_meanwhile(house, rows=300, kills=4, rate=40)
    # How far each was when it was killed is chance; a busy machine may be through before the last.
    assert found["kills"]["command"] == 2
    assert found["kills"]["worker"] >= 1
