"""A backend with the fake engine and trainer, for recipes: its script plays a model that doubles numbers, right or wrong as it is told."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.service.fakes import FakeTrainer

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.service.backend import Backend
from journeyman.service.trainable import Computing
from journeyman.store import Store
from journeyman.store.checkpoints import Reached, pass_by
from journeyman.trainer.base import OnProgress, SamplePair, TrainSample
from journeyman.types.sampling import SampleRequest
from journeyman.types.settings import Dpo, Grpo, Retention, Sft
from journeyman.types.training import CreateModel

CONTEXT_LENGTH = 8192
PROBE = "What can you do?"
"""The prompt that the service tries a new version with."""

Talent = Callable[[str, int], bool]
"""Whether the attempt of that number at a task (from 0) is a right one."""


def never(task: str, number: int) -> bool:
    return False


def always(task: str, number: int) -> bool:
    return True


def every_second(task: str, number: int) -> bool:
    """Of two attempts at a task the later one: groups have spread, and what is evaluated second beats what is evaluated first."""
    return number % 2 == 1


class InterruptibleTrainer(FakeTrainer):
    """At step `stop_at` it calls `stop` and goes on computing until it is told to drop the step."""

    stop_at: int | None = None

    def __init__(self, stop: Callable[[], object]) -> None:
        super().__init__()
        self._stop = stop

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        self._stop_here(on_progress)
        return super().policy_step(groups, settings, on_progress)

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        self._stop_here(on_progress)
        return super().supervised_step(samples, settings, on_progress)

    def preference_step(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        self._stop_here(on_progress)
        return super().preference_step(pairs, settings, on_progress)

    def _stop_here(self, on_progress: OnProgress) -> None:
        if self.step == self.stop_at:
            self._stop()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                on_progress(0.1)


class FakeModel:
    """What a recipe loads: `open` stands in for `journeyman.local.open_backend`.

    A right attempt calls the tool for every number of its task and then says the results; a wrong one is prose. As a real model it draws
    the same again where the same version is asked the same with the same seed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.is_right: Talent = every_second
        self.stop_at: int | None = None
        self.stop: Callable[[], object] = lambda: None
        self.on_training: Callable[[], object] = lambda: None
        self.reached: Reached = pass_by
        self.trainers: list[InterruptibleTrainer] = []
        self._engines: list[FakeEngine] = []
        self._tokenizer = tokenizer
        self._attempts: Counter[str] = Counter()
        self._numbers: dict[tuple[str | None, str, int], int] = {}

    def open(
        self, base: str, *, home: Path, num_workers: int | None = None, note: object = None, retention: Retention | None = None
    ) -> Backend:
        engine = FakeEngine(self._reply, self._tokenizer, context_length=CONTEXT_LENGTH, base=base)
        self._engines.append(engine)
        renderer = Renderer(self._tokenizer, CONTEXT_LENGTH)
        return Backend(engine, renderer, Store.open(home), self._trainer, retention=retention, reached=self.reached)

    def renderer(self, base: str) -> Renderer:
        """Stands in for `journeyman.local.open_renderer`."""
        return Renderer(self._tokenizer, CONTEXT_LENGTH)

    def forget(self) -> None:
        """Begin anew, as in another process."""
        self._engines.clear()
        self._attempts.clear()
        self._numbers.clear()

    def num_drawn(self, adapter: str) -> int:
        """Attempts that a version of the model was asked for."""
        return sum(request.adapter == adapter and not self._is_probe(request) for engine in self._engines for request in engine.requests)

    def tasks(self) -> dict[str | None, set[str]]:
        """The tasks that were attempted, for each version of the model (None: the base)."""
        found = defaultdict(set)
        for engine in self._engines:
            for request in engine.requests:
                if not self._is_probe(request):
                    found[request.adapter].add(self._task_of(request))
        return dict(found)

    def _task_of(self, request: SampleRequest) -> str:
        return _task(self._tokenizer.decode(list(request.prompt_ids)))

    def _is_probe(self, request: SampleRequest) -> bool:
        return self._task_of(request) == PROBE

    def _reply(self, prompt: str) -> str:
        results = re.findall(r'"twice": ?(\d+)', prompt.partition("<|im_start|>user")[2])
        if results:
            return f"Twice that is {' and '.join(results)}."
        task = _task(prompt)
        if not self.is_right(task, self._number(task)):
            return "I would rather talk about the weather."
        return "\n".join(_call(int(number)) for number in re.findall(r"\d+", task))

    def _number(self, task: str) -> int:
        """Of the attempt at a task that is drawn now, over all versions, from 0."""
        request = self._engines[-1].answering
        assert request is not None
        adapter, seed = request.adapter, request.parameters.seed
        number = self._attempts[task] if seed is None else self._numbers.setdefault((adapter, task, seed), self._attempts[task])
        self._attempts[task] += number == self._attempts[task]
        return number

    def _trainer(self, request: CreateModel, before: Computing) -> tuple[InterruptibleTrainer, Computing]:
        trainer = InterruptibleTrainer(lambda: self.stop())
        trainer.stop_at = self.stop_at
        self.on_training()
        self.trainers.append(trainer)
        return trainer, {}


def _task(prompt: str) -> str:
    return prompt.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


def _call(number: int) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'double', 'arguments': {'number': number}})}\n</tool_call>"
