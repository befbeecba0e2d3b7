"""A home folder, backends on it with the fake engine and trainer, and what tests do with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.service.backend import Backend
from journeyman.service.requests import ChatRequest
from journeyman.service.sampling import CallContext
from journeyman.service.trainable import Computing
from journeyman.store import Store
from journeyman.types.messages import Message
from journeyman.types.settings import Retention
from journeyman.types.training import (
    CreateModel,
    CreateRollout,
    FinishRollout,
    GrpoJob,
    JobStatus,
    ScoredGroup,
    ScoredTrajectory,
)


class House:
    """A home folder on which backends are started one after the other, as after a stop."""

    def __init__(self, home: Path, tokenizer: Any) -> None:
        self.home = home
        self.tokenizer = tokenizer
        self.reply = "hello"
        self.trainers: list[FakeTrainer] = []
        self.open: list[Backend] = []

    def start(self, *, base: str = "fake-model", retention: Retention | None = None) -> Backend:
        engine = FakeEngine(lambda prompt: self.reply, self.tokenizer, base=base)
        backend = Backend(engine, Renderer(self.tokenizer, 2048), Store.open(self.home), self._trainer, retention=retention)
        self.open.append(backend)
        return backend

    async def stop(self, backend: Backend) -> None:
        self.open.remove(backend)
        await backend.close()

    @property
    def trainer(self) -> FakeTrainer:
        return self.trainers[-1]

    def _trainer(self, request: CreateModel, before: Computing) -> tuple[FakeTrainer, Computing]:
        self.trainers.append(FakeTrainer())
        return self.trainers[-1], {}


CREATE = CreateModel(name="m", run="r")


async def attempt(backend: Backend, model: str = "m", *, seed: int = 0, temperature: float = 1.0) -> str:
    """One finished rollout of one turn; returns the trajectory's id."""
    ticket = await backend.open_rollout(CreateRollout(model=model, scenario_id="s"))
    session = await backend.recorder.session(ticket.id, ticket.token)
    request = ChatRequest(model="agent", messages=(Message(role="user", content="hi"),), seed=seed, temperature=temperature)
    await backend.sampling.chat(request, CallContext(session, body_hash=f"{seed}", retry_count=0))
    await backend.finish_rollout(ticket.id, FinishRollout())
    return ticket.id


async def scored_group(backend: Backend, *rewards: float | None) -> ScoredGroup:
    scored = [ScoredTrajectory(trajectory_id=await attempt(backend), reward=reward) for reward in rewards]
    return ScoredGroup(scenario_id="s", trajectories=tuple(scored))


async def finish(backend: Backend, status: JobStatus) -> JobStatus:
    status = await backend.jobs.wait(status.id, 30)
    assert status.state in ("done", "failed"), "the job did not end within 30 s"
    return status


async def train_once(
    backend: Backend, *rewards: float | None, key: str | None = None, measured: Mapping[str, float] | None = None
) -> JobStatus:
    group = await scored_group(backend, *(rewards or (1.0, 0.0)))
    return await finish(backend, backend.train("m", GrpoJob(groups=(group,), measured=dict(measured or {})), key))


def served_version(backend: Backend, model: str) -> str | None:
    """The name of the version that serves a model; None for the base."""
    row = backend.weights.find(model)
    return None if row is None else row.name


def read_adapter(house: House, step: int) -> str:
    return (house.home / "runs" / "r" / "adapters" / f"m@{step}" / "adapter.json").read_text()
