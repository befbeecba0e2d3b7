"""A trainer without gradients for tests of the service (its weights are two numbers, its update is a sum), and a small turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from journeyman.engine.fake import folder_fingerprint
from journeyman.trainer.base import OnProgress, SamplePair, TrainSample
from journeyman.types.messages import Message
from journeyman.types.sampling import SamplingParameters
from journeyman.types.settings import Dpo, Grpo, Sft, WhenTooLong
from journeyman.types.trajectory import Turn


class FakeTrainer:
    """Follows the protocol, with exact save and load.

    `fail_with` makes the next step raise half-way; `gate` (when set) is waited for inside a step; `logged` are further metrics of
    policy steps.
    """

    def __init__(self) -> None:
        self._step = 0
        self.weight = 0.0
        self.seen: list[Sequence[Sequence[TrainSample]]] = []
        self.chosen_change = 0.0
        self.logged: dict[str, float] = {}
        self.fail_with: Exception | None = None
        self.gate: threading.Event | None = None
        self.entered = threading.Event()
        self.is_closed = False

    @property
    def step(self) -> int:
        return self._step

    def policy_step(self, groups: Sequence[Sequence[TrainSample]], settings: Grpo, on_progress: OnProgress) -> dict[str, float]:
        self.seen.append(groups)
        samples = [sample for group in groups for sample in group]
        self._compute(sum(sample.advantage * sample.num_sampled for sample in samples), on_progress)
        return {"loss": 0.5, "num_tokens": float(sum(sample.num_sampled for sample in samples))} | self.logged

    def supervised_step(self, samples: Sequence[TrainSample], settings: Sft, on_progress: OnProgress) -> dict[str, float]:
        self.seen.append([samples])
        self._compute(1.0, on_progress)
        return {"loss": 0.25, "num_tokens": float(sum(sample.num_sampled for sample in samples))}

    def preference_step(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        self.seen.append([pair.samples for pair in pairs])
        self._compute(2.0, on_progress)
        return {"loss": 0.75, "chosen_logprob_change": self.chosen_change}

    def measure_loss(self, samples: Sequence[TrainSample], when_too_long: WhenTooLong, on_progress: OnProgress) -> dict[str, float]:
        self.seen.append([samples])
        on_progress(1.0)
        return {"loss": 0.125 + self.weight}

    def measure_pairs(self, pairs: Sequence[SamplePair], settings: Dpo, on_progress: OnProgress) -> dict[str, float]:
        self.seen.append([pair.samples for pair in pairs])
        on_progress(1.0)
        return {"loss": 0.375 + self.weight, "ranked_right": 0.5}

    def save_adapter(self, folder: Path) -> str:
        (folder / "adapter.json").write_text(json.dumps(self.weight))
        return folder_fingerprint(folder)

    def save_state(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps([self._step, self.weight]))

    def load_state(self, folder: Path) -> None:
        self._step, self.weight = json.loads((folder / "state.json").read_text())

    def close(self) -> None:
        self.is_closed = True

    def _compute(self, change: float, on_progress: OnProgress) -> None:
        self.entered.set()
        self.weight += 0.5  # half an update: a failure must not leave it behind
        if self.gate is not None:
            assert self.gate.wait(timeout=30)
        on_progress(0.5)
        if self.fail_with is not None:
            error, self.fail_with = self.fail_with, None
            raise error
        self.weight += change - 0.5
        self._step += 1
        on_progress(1.0)


def turn(text: str = "ok", index: int = 0, body_hash: str = "", call: str = "") -> Turn:
    return Turn(
        index=index,
        adapter=None,
        messages=(Message(role="user", content="hi"),),
        reply=Message(role="assistant", content=text),
        prompt_ids=(1,),
        sampled_ids=(2,),
        sampled_logprobs=(-0.5,),
        finish_reason="stop",
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
        body_hash=body_hash,
        call=call,
    )
