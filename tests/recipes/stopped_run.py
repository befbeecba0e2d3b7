"""A run of the MCP recipe that can be killed inside a step: a fake model whose attempts are all told apart, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import build_tiny_tokenizer
from tests.recipes.backend import PROBE, FakeModel
from tests.recipes.conftest import TARGET

from journeyman.observe.progress import SilentProgress
from journeyman.recipes import mcp, session
from journeyman.recipes import run as open_runs
from journeyman.recipes.settings import McpTrain, Rollouts, WarmStart
from journeyman.rewards import RulerOptions
from journeyman.types.trajectory import Group

Kill = tuple[str, int]
"""A point and how often it is reached before the process ends there."""
TRAINING = "training step 2"


def settings(judge_url: str, *, rubric: str = "be right") -> McpTrain:
    # One attempt at a time: then it is known which are finished at a kill. No verdict comes from the judge's own cache.
    options = RulerOptions(base_url=judge_url, rubric=rubric, cache=False, tie_width=0.0, min_spread=0.0, max_concurrent=1)
    return McpTrain(
        target=TARGET,
        base="fake-model",
        judge="openai/big-model",
        judge_options=options,
        steps=2,
        num_train=8,
        num_heldout=2,
        warm_start=WarmStart(max_updates=0, probe_scenarios=2, probe_attempts=2),
        rollouts=Rollouts(
            groups_per_step=2, group_size=2, max_refills=0, max_tokens=400, max_turns=2, max_concurrent=1, isolation="shared"
        ),
    )


def train(home: Path, judged: McpTrain, run: str | None, kill_at: Kill | None) -> None:
    """Start or resume the run; `kill_at` ends the process there, as SIGKILL does."""
    os.environ["OPENAI_API_KEY"] = "k"
    reached = _Lethal(kill_at)
    model = _WordyModel(reached)
    open_runs.open_backend = model.open  # type: ignore[assignment]
    session.KeepingJudge = _lethal_judge(reached)  # type: ignore[misc]
    if kill_at is not None and kill_at[0] == TRAINING:  # a step that is not ended there goes on computing
        model.stop_at = 1
        model.stop = lambda: reached(TRAINING)
    asyncio.run(mcp.train(judged, SilentProgress(), home=home, resume=run, allow_changed_settings=True))


class _Lethal:
    def __init__(self, kill_at: Kill | None) -> None:
        self._kill_at = kill_at
        self._seen: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        self._seen[point] += 1
        if (point, self._seen[point]) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class _WordyModel(FakeModel):
    """Every reply has a word of its own."""

    def __init__(self, reached: _Lethal) -> None:
        super().__init__(build_tiny_tokenizer())
        self.reached = reached  # the points of the service's steps are this run's too

    def _reply(self, prompt: str) -> str:
        if PROBE not in prompt:
            self.reached("attempt")
        return f"I would rather talk about word {secrets.token_hex(4)}."


def _lethal_judge(reached: _Lethal) -> type[session.KeepingJudge]:
    class LethalJudge(session.KeepingJudge):
        """One group after the other: at the kill none is half judged."""

        _turn = asyncio.Lock()

        async def score(self, groups: Sequence[Group]) -> list[Group]:
            async with self._turn:
                reached("judging")
                return await super().score(groups)

    return LethalJudge
