"""Ten thousand rows of a backfill, with the command and the worker killed meanwhile."""

import os
from typing import Any

from tests.acceptance.backfilling import killed_meanwhile
from tests.workflows.outages import a_house

ROWS = int(os.environ.get("SOAK_ROWS", "10000"))
KILLS = 9


async def run() -> dict[str, Any]:
    """The whole of it."""
    async with a_house() as house:
        return await killed_meanwhile(house, ROWS, KILLS)
