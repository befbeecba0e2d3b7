"""What the client asks the service to train on, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from journeyman.types.messages import Message, Tool
from journeyman.types.names import ModelName, RunName
from journeyman.types.record import Record
from journeyman.types.runs import Metrics
from journeyman.types.secrets import Redacted
from journeyman.types.settings import Dpo, Grpo, LoraSettings, Sft, WhenTooLong
from journeyman.types.trajectory import Failure, ToolEvent


class ScoredTrajectory(Record):
    """A stored trajectory and its reward (None = excluded)."""

    trajectory_id: str
    reward: float | None


class ScoredGroup(Record):
    """The scored trajectories of one scenario. The tokens stay on the server; only ids and rewards travel."""

    scenario_id: str
    trajectories: tuple[ScoredTrajectory, ...]


class SftExample(Record):
    """A conversation to imitate: assistant messages are trained, nothing else. `messages[:num_given]` are context only."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    num_given: int = Field(default=0, ge=0)


class TextExample(Record):
    """A text to imitate, without a chat template: `prompt` is given; `text` and the end token after it are trained."""

    text: str
    prompt: str = ""


class StoredExample(Record):
    """A trajectory of the store to imitate: the tokens that were sampled in it, exactly, in all its segments."""

    trajectory_id: str


def _example_kind(value: object) -> str:
    """Which example this is, by the field that only it has."""
    names = value.keys() if isinstance(value, Mapping) else type(value).model_fields if isinstance(value, Record) else ()
    return next((name for name in ("trajectory_id", "text") if name in names), "messages")


AnyExample = Annotated[
    Annotated[SftExample, Tag("messages")] | Annotated[TextExample, Tag("text")] | Annotated[StoredExample, Tag("trajectory_id")],
    Discriminator(_example_kind),
]


class PreferencePair(Record):
    """Two ways to go on after `prompt`, the better and the worse: the assistant messages of both are compared, nothing else."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


class TextPair(Record):
    """Two texts that may follow `prompt`, without a chat template; each is compared with the end token after it."""

    prompt: str
    chosen: str
    rejected: str


class StoredPair(Record):
    """Ids of two trajectories of one scenario in the store, the better and the worse: their sampled tokens are compared, exactly."""

    chosen: str
    rejected: str


def _pair_kind(value: object) -> str:
    """Which pair this is, by its prompt."""
    if isinstance(value, Record):
        return {PreferencePair: "messages", TextPair: "text"}.get(type(value), "stored")
    prompt = value.get("prompt") if isinstance(value, Mapping) else None
    return "stored" if prompt is None else "text" if isinstance(prompt, str) else "messages"


AnyPair = Annotated[
    Annotated[PreferencePair, Tag("messages")] | Annotated[TextPair, Tag("text")] | Annotated[StoredPair, Tag("stored")],
    Discriminator(_pair_kind),
]


class _Update(Record):
    """A step. `measured`: what its caller knows of it (rewards, rates); it is kept in the step's row beside what the service measures,
    whose names win."""

    measured: Metrics = Field(default_factory=dict)


class GrpoJob(_Update):
    kind: Literal["grpo"] = "grpo"
    groups: tuple[ScoredGroup, ...]
    settings: Grpo = Grpo()


class SftJob(_Update):
    """`phase`: of the step's row. Imitation is a warm start for what comes after it, or the training itself."""

    kind: Literal["sft"] = "sft"
    phase: Literal["warmup", "train"] = "warmup"
    examples: tuple[AnyExample, ...]
    settings: Sft = Sft()


class DpoJob(_Update):
    kind: Literal["dpo"] = "dpo"
    pairs: tuple[AnyPair, ...]
    settings: Dpo = Dpo()


class LossJob(Record):
    """How likely examples are to the model as it is, without training it: `TrainResult.metrics` has `loss` and counts."""

    kind: Literal["loss"] = "loss"
    examples: tuple[AnyExample, ...]
    when_too_long: WhenTooLong = "refuse"


class PairLossJob(Record):
    """What pairs cost as things are, without training: `TrainResult.metrics` as `DpoJob` logs them, and `ranked_right`."""

    kind: Literal["pair_loss"] = "pair_loss"
    pairs: tuple[AnyPair, ...]
    settings: Dpo = Dpo()


UpdateJob = GrpoJob | SftJob | DpoJob
MeasureJob = LossJob | PairLossJob
TrainJob = Annotated[UpdateJob | MeasureJob, Field(discriminator="kind")]


class TrainResult(Record):
    """One training call, or one that measured. `step` is the version now served (`model@step`).

    `metrics` are those of the step's row: what came as `measured` with the job, and what the service adds.

    The service's names are `train/loss`, `train/gradient_norm`, `train/clip_fraction`, `train/entropy`, `train/kl_to_base`,
    `train/logprob_gap_mean`, `train/logprob_gap_max`, `train/ratio_mean`, `train/num_tokens`, `train/num_groups`,
    `train/num_groups_without_spread`, `train/num_trajectories_excluded`, `train/truncated_fraction`, `train/seconds`, ...
    (docs/training.md lists what a policy update logs, docs/dpo.md what learning from pairs does).
    Where some were not finite, they are left out and counted under `train/num_metrics_not_finite`.
    """

    step: int
    adapter: str
    metrics: Metrics = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class JobStatus(Record):
    """A training job on the server. `error`, its code and reason are set when state is "failed"."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    progress: float = Field(default=0.0, ge=0.0, le=1.0)
    result: TrainResult | None = None
    error: Redacted | None = None
    error_code: str | None = None
    error_reason: str | None = None


class CreateModel(Record):
    """Create a trainable model, or find the one of that name and run again (it resumes where it stopped)."""

    name: ModelName
    run: RunName
    lora: LoraSettings = LoraSettings()


class ModelInfo(Record):
    """A trainable model. `adapter` is the version served now; step 0 is the untrained (zero) adapter."""

    name: str
    run: str
    base: str
    step: int
    adapter: str
    lora: LoraSettings
    context_length: int


class CreateRollout(Record):
    """Open a rollout. `model` is a trainable model's name, `name@step` for a fixed version, or "base".

    `max_turns`: model calls that it may make; one that asks for n replies counts n times, a retry not at all.
    A finished attempt that was opened under a `key` can be found by it (`KeptAttempt`). The base belongs to no run: it takes none.
    """

    model: str
    scenario_id: str
    max_turns: int = Field(default=64, ge=1, le=10**9)
    key: str | None = Field(default=None, min_length=1, max_length=200)


class KeptAttempt(Record):
    """A finished attempt that was opened under a key, by the version that was asked about."""

    key: str
    scenario_id: str
    trajectory_id: str


class RolloutTicket(Record):
    """An open rollout: its calls go to `/r/{id}.{token}/v1`, the token is the API key too. `model` is the version pinned for it."""

    id: str
    token: str
    model: str


class FinishRollout(Record):
    """Seal a rollout: what the agent's side knows of it. The turns are on the server already.

    `reward` None = not scored (yet); `error` is set when the rollout raised or timed out; `seconds` is its wall time.
    """

    reward: float | None = None
    metrics: Metrics = Field(default_factory=dict)
    error: Failure | None = None
    tool_events: tuple[ToolEvent, ...] = ()
    seconds: float = Field(default=0.0, ge=0.0)
