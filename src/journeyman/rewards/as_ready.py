"""Judging in the background: a group is judged as soon as its attempts are done, while later ones still run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from journeyman.rewards.judge import Judge
from journeyman.types.trajectory import Group


async def score_as_ready(judge: Judge, pending: Sequence[Awaitable[Group]]) -> list[Group]:
    """Scored groups in the order given; each waits for its own attempts only.

    The first error of a rollout or of the judge cancels what is still running and is raised.

    Example (needs a server):
        >>> async def one(scenario):                                                          # doctest: +SKIP
        ...     return (await gather(rollout, [scenario], model=model))[0]
        >>> groups = await score_as_ready(judge, [one(scenario) for scenario in batch])       # doctest: +SKIP
    """

    async def run(attempts: Awaitable[Group]) -> Group:
        [scored] = await judge.score([await attempts])
        return scored

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run(attempts)) for attempts in pending]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in running]
