"""The five actions as somebody would write them with the Temporal SDK alone."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

BY_HAND = "bench-by-hand"
BY_HAND_OUTSIDE = "bench-by-hand-outside-the-sandbox"
BY_HAND_LOCAL = "bench-by-hand-with-local-activities"
ADD = "bench.add_by_hand"
STEPS = ("first", "second", "third", "fourth", "fifth")


@workflow.defn(name=BY_HAND)
class ByHand:
    """As it is written first: in the SDK's sandbox, its default."""

    @workflow.run
    async def run(self, given: dict[str, int]) -> int:
        """Takes `{n}`, gives n + 5."""
        return await _five_activities(given["n"])


@workflow.defn(name=BY_HAND_OUTSIDE, sandboxed=False)
class ByHandOutside:
    """As it is written by those who know what the sandbox costs; Millrace's own workflow does without it too."""

    @workflow.run
    async def run(self, given: dict[str, int]) -> int:
        """Takes `{n}`, gives n + 5."""
        return await _five_activities(given["n"])


@workflow.defn(name=BY_HAND_LOCAL, sandboxed=False)
class ByHandLocal:
    """The same with local activities, as Millrace runs steps that are short and idempotent."""

    @workflow.run
    async def run(self, given: dict[str, int]) -> int:
        """Takes `{n}`, gives n + 5."""
        value = given["n"]
        for name in STEPS:
            output: dict[str, int] = await workflow.execute_local_activity(
                ADD,
                args=[value, 1],
                result_type=dict[str, int],
                start_to_close_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(maximum_attempts=3, maximum_interval=timedelta(seconds=60)),
                summary=name,
            )
            value = output["value"]
        return value


async def _five_activities(value: int) -> int:
    """Five activities, each with what the one before gave."""
    for name in STEPS:
        output: dict[str, int] = await workflow.execute_activity(
            ADD,
            args=[value, 1],
            result_type=dict[str, int],
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=3, maximum_interval=timedelta(seconds=60)),
            summary=name,
        )
        value = output["value"]
    return value
