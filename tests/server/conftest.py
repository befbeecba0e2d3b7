"""A server on a real loopback port, over the fake engine and a trainer without gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine, folder_fingerprint
from journeyman.server.app import Server, create_app
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.trainer.base import OnProgress, SamplePair, TrainSample
from journeyman.types.settings import Dpo, Grpo, Sft, WhenTooLong


class CountingTrainer:
    """Follows the trainer protocol; its weights are its step number."""

    def __init__(self) -> None:
        self._step = 0

    @property
    def step(self) -> int:
        return self._step

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        self._step += 1
        return {"loss": 0.5, "num_groups_seen": float(len(groups))}

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        self._step += 1
        return {"loss": 0.25}

    def preference_step(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        self._step += 1
        return {"loss": 0.75, "num_pairs_seen": float(len(pairs))}

    def measure_loss(self, samples: Sequence[TrainSample], when_too_long: WhenTooLong, on_progress: OnProgress) -> dict[str, float]:
        return {"loss": 1.5, "num_examples_seen": float(len(samples))}

    def measure_pairs(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        return {"loss": 2.5, "num_pairs_seen": float(len(pairs))}

    def save_adapter(self, folder: Path) -> str:
        (folder / "adapter.json").write_text(json.dumps(self._step))
        return folder_fingerprint(folder)

    def save_state(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps(self._step))

    def load_state(self, folder: Path) -> None:
        self._step = json.loads((folder / "state.json").read_text())

    def close(self) -> None:
        pass


@dataclass
class Running:
    """A running server and what is behind it. `replies` are given in order, then "ok"."""

    server: Server
    engine: FakeEngine
    backend: Backend
    replies: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def v1(self) -> str:
        return f"{self.server.url}/v1"


@pytest.fixture
def start_server(tiny_tokenizer: Any, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers; they stop when the test ends."""
    with ExitStack() as stack:

        def start(*, api_key: str | None = None) -> Running:
            replies: list[str] = []
            engine = FakeEngine(lambda _: replies.pop(0) if replies else "ok", tiny_tokenizer, context_length=512)
            backend = Backend(engine, Renderer(tiny_tokenizer, 512), Store.open(tmp_path), lambda *_: (CountingTrainer(), {}))
            server = stack.enter_context(Server(create_app(backend, api_key=api_key), api_key=api_key))
            return Running(server, engine, backend, replies)

        yield start


@pytest.fixture
def running(start_server: Callable[..., Running]) -> Running:
    return start_server()
