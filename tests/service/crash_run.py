"""A training run that can be killed anywhere: the real trainer, store and service, in a process of its own.

Attempts are drawn from seeds, and scored by the trainer's own weights; rewards also draw from the global sources of random numbers. So
the result of a run depends on everything that a resume must bring back: weights, optimiser, place in the scenarios, random state.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import torch
from tests.service.house import finish
from tests.tiny import LORA, base_of

from journeyman.chat.renderer import Renderer
from journeyman.client.gather import iterate
from journeyman.engine.fake import FakeEngine
from journeyman.modeling.base_models import load_tokenizer
from journeyman.modeling.lora import fingerprint, read_adapter
from journeyman.service.backend import Backend
from journeyman.service.requests import ChatRequest
from journeyman.service.sampling import CallContext
from journeyman.service.trainable import Computing
from journeyman.store import Store
from journeyman.store.checkpoints import Reached
from journeyman.trainer.base import TrainSample
from journeyman.trainer.trainer import LoraTrainer
from journeyman.types.messages import Message
from journeyman.types.sampling import SampleDelta, SampleRequest
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Dpo, Grpo, Retention
from journeyman.types.training import (
    CreateModel,
    CreateRollout,
    DpoJob,
    FinishRollout,
    GrpoJob,
    ScoredGroup,
    ScoredTrajectory,
    StoredPair,
    TrainJob,
)

STEPS = 3
GROUPS_PER_STEP = 2
_SCENARIOS = tuple(Scenario(id=f"s{number}", task=f"say {number}") for number in range(5))
_SETTINGS = Grpo(learning_rate=1e-2, tokens_per_micro_batch=64)
_PAIR_SETTINGS = Dpo(learning_rate=1e-2, tokens_per_micro_batch=64, epochs=2, batch_size=1, sft_weight=0.1)


class SeededEngine(FakeEngine):
    """Draws from the request's seed alone, and tells the log-probabilities of the trainer's weights."""

    trainer: LoraTrainer

    async def stream(self, request: SampleRequest) -> AsyncGenerator[SampleDelta]:
        self._check(request)
        uniform = random.Random(f"{request.prompt_ids}/{request.parameters.seed}")
        ids = [*(uniform.randrange(5, 250) for _ in range(uniform.randrange(3, 7))), *request.stop_token_ids[:1]]
        given = len(request.prompt_ids)
        sample = TrainSample((*request.prompt_ids, *ids), (False,) * given + (True,) * len(ids), (0.0,) * (given + len(ids)), 0.0)
        (logprobs,) = self.trainer.logprobs([sample])
        yield SampleDelta(tuple(ids), tuple(logprobs), "stop")

    async def load_adapter(self, name: str, folder: Path) -> str:
        await super().load_adapter(name, folder)
        return fingerprint(read_adapter(folder)[0])


def train(home: Path, model: Path, kill_at: tuple[str, int] | None = None, method: str = "grpo") -> None:
    """Start or resume the run in `home` and end it; `kill_at` (point, how often it was reached) ends the process there."""
    random.seed(5)
    torch.manual_seed(5)
    asyncio.run(_train(home, model, _lethal(home, *kill_at) if kill_at else lambda _: None, method))


def _lethal(home: Path, point: str, number: int) -> Reached:
    seen: Counter[str] = Counter()

    def reached(name: str) -> None:
        seen[name] += 1
        if name == point and seen[name] == number:
            with home.with_name("witness").open("w") as witness:
                witness.write(f"{name} {number}")
                witness.flush()
                os.fsync(witness.fileno())
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


async def _train(home: Path, model: Path, reached: Reached, method: str) -> None:
    tokenizer = load_tokenizer(model)
    engine = SeededEngine(str, tokenizer, context_length=512)

    def make_trainer(request: CreateModel, before: Computing) -> tuple[LoraTrainer, Computing]:
        engine.trainer = LoraTrainer(base_of(model), request.lora, num_workers=2, precision="float32")
        return engine.trainer, {}

    retention = Retention(checkpoints=2, adapters=1, best=0)
    backend = Backend(engine, Renderer(tokenizer, 512), Store.open(home), make_trainer, retention=retention, reached=reached)
    await backend.create_model(CreateModel(name="m", run="r", lora=LORA))
    batches = iterate(_SCENARIOS, groups_per_step=1, epochs=100, seed=3)
    while len(made := backend.store.runs.steps("r", "train")) < STEPS:
        place = len(made) * GROUPS_PER_STEP
        assert method == "dpo" or place == int(sum(row.metrics["train/num_groups"] for row in made))
        groups = tuple([await _group(backend, batches.batch(place + index)[0]) for index in range(GROUPS_PER_STEP)])
        status = await finish(backend, backend.train("m", _job(groups, method), f"train-{len(made)}"))
        assert status.state == "done", status.error
    await backend.close()


def _job(groups: tuple[ScoredGroup, ...], method: str) -> TrainJob:
    if method == "grpo":
        return GrpoJob(groups=groups, settings=_SETTINGS)
    ranked = [sorted(group.trajectories, key=lambda scored: scored.reward or 0.0) for group in groups]
    pairs = tuple(StoredPair(chosen=best.trajectory_id, rejected=worst.trajectory_id) for worst, *_, best in ranked)
    return DpoJob(pairs=pairs, settings=_PAIR_SETTINGS)


async def _group(backend: Backend, scenario: Scenario) -> ScoredGroup:
    scored = []
    for seed in range(4):
        ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id=scenario.id))
        session = await backend.recorder.session(ticket.id, ticket.token)
        request = ChatRequest(model="agent", messages=(Message(role="user", content=scenario.task),), seed=seed)
        await backend.sampling.chat(request, CallContext(session, body_hash=f"{seed}", retry_count=0))
        trajectory = await backend.finish_rollout(ticket.id, FinishRollout())
        digest = hashlib.sha256(str(trajectory.turns[0].sampled_ids).encode()).digest()
        reward = digest[0] / 255 + 0.2 * random.random() + 0.2 * float(torch.rand(()))
        scored.append(ScoredTrajectory(trajectory_id=ticket.id, reward=reward))
    return ScoredGroup(scenario_id=scenario.id, trajectories=tuple(scored))
