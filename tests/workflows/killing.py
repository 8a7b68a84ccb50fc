"""Worker processes of a test, to be killed."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from app.processes import OwnProcess, spawn

# How long a workflow task may take before another worker gets it.
SOON = timedelta(seconds=2)


class Workers:
    """Worker processes on one task queue, with the actions of the harness.

    With nothing `cached` a run is replayed at each of its tasks, and a kill is noticed at once: no task waits for the
    worker that had the run in memory.
    """

    def __init__(
        self, task_queue: str, temporal_address: str, database_url: str, folder: Path, cached: int = 1000
    ) -> None:
        self._folder = folder
        self.environment = {
            **os.environ,
            "MILLRACE_HOME": str(folder),
            "MILLRACE_DATABASE__URL": database_url,
            "MILLRACE_TEMPORAL__ADDRESS": temporal_address,
            "MILLRACE_TEMPORAL__TASK_QUEUE": task_queue,
            "MILLRACE_HTTP_ACTION__ALLOWED_PRIVATE_HOSTS": '["127.0.0.1"]',
            "MILLRACE_WORKER__MAX_CACHED_WORKFLOWS": str(cached),
            "MILLRACE_WORKER__ACTIONS": '["tests.workflows.harness"]',
        }
        self.processes: list[OwnProcess] = []

    def run(self, module: str, folder: Path) -> None:
        """Workers started from now on have the actions of a module in a folder."""
        self.environment |= {"MILLRACE_WORKER__ACTIONS": f'["{module}"]', "PYTHONPATH": str(folder)}

    def start(self) -> OwnProcess:
        """One more worker."""
        command = [sys.executable, "-m", "app.cli.main", "worker"]
        log = self._folder / f"worker-{len(self.processes)}.log"
        process = spawn("worker", command, log, environment=self.environment)
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """SIGKILL for every worker."""
        for process in self.processes:
            if not process.ended():
                os.kill(process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ends those that are left."""
        for process in self.processes:
            await process.stop(patience=5)
