"""A Temporal server that suggests early to continue as new."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.embedded import start_temporal
from app.processes import OwnProcess


@asynccontextmanager
async def suggesting_early(home: Path, after: int) -> AsyncIterator[str]:
    """The address of one for the block, which suggests it after so many events; `home` is a folder for it."""
    started: list[OwnProcess] = []
    option = f"limit.historyCount.suggestContinueAsNew={after}"
    try:
        server = await start_temporal(home, started.append, throwaway=True, options=("--dynamic-config-value", option))
        yield server.address
    finally:
        for process in started:
            await process.stop()
