"""Settings of `method: grpo`: reinforcement learning on tasks and rewards of your own. Each default is written here or in
`types/settings.py`, once.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from journeyman.types.names import ModelName, check_model_name
from journeyman.types.record import Record, SettingsRecord
from journeyman.types.retention import Retention
from journeyman.types.settings import Grpo, LoraSettings, Seed

#: Short: the run's id is the name and the time. The pattern is for editors; who is told why a name cannot be used is told by `ModelName`.
ShortName = Annotated[ModelName, Field(max_length=40, json_schema_extra={"pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"})]


class Named(Protocol):
    """Settings with a name for the model and for its base."""

    @property
    def name(self) -> str: ...
    @property
    def base(self) -> str: ...


_Named = TypeVar("_Named", bound=Named)


def own_name(settings: _Named) -> _Named:
    """The settings, unless their model is called as its base: the name would mean the untrained one."""
    check_model_name(settings.name, settings.base)
    return settings


class ChatOrFunction(Record):
    """How an attempt is made: one reply of the model to the task, or your own agent.

    Attributes:
        function: dotted path of `async def rollout(scenario, run)`; None: one chat turn.
        system: system prompt of the chat turn; none when None.
        max_tokens: of the reply of the chat turn.
    """

    function: str | None = None
    system: str | None = None
    max_tokens: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _a_function_has_its_own(self) -> Self:
        for name in ("system", "max_tokens"):
            if self.function is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` belongs to the chat turn, and `function` replaces that: leave one of them out")
        return self


class ModelJudge(Record):
    """A model that compares the attempts of a group (RULER). Where it is, say its provider and the environment variables.

    Attributes:
        model: OpenAI-compatible, e.g. openai/gpt-5-mini.
        rubric: what makes an attempt good, in words; a general one when None.
        budget: "$2.50" or "300k" (tokens), over the whole run.
    """

    model: str
    rubric: str | None = None
    budget: str | None = None


class GrpoTrain(SettingsRecord):
    """Everything about a run of `method: grpo`.

    Attributes:
        name: of the trained model; the file's name when not given.
        base: base model: a known name, a folder, or a Hugging Face id.
        scenarios: the tasks: a JSON-lines file (one `{"task": ...}` a line) or the dotted path of a function that makes them.
        num_train, num_heldout: how many of each; `num_train` None: all that are not held out.
        rollout: how an attempt is made.
        rewards: dotted paths of `reward(scenario, trajectory)`, each with its weight; they return 0 to 1, or None: does not apply. Without
            rewards and judge the rollout function sets `run.reward`.
        judge: a model that compares attempts; its opinion weighs 1 beside `rewards`.
        steps: of `groups_per_step` groups of `group_size` attempts each.
        grpo: of each step. The learning rate rises over `warmup_steps` and falls in equal parts to `decay_to` of itself.
        heldout_attempts: at each held-out task, before and after; 1 is greedy, more are sampled.
        stop_without_spread: stop after this many steps in a row in which no group had attempts of different reward; None: never.
        timeout_seconds: of one attempt.
        retention: which checkpoints and adapters stay on disk.
    """

    method: Literal["grpo"] = "grpo"
    name: ShortName = "model"
    base: str = "smollm2-135m"
    seed: Seed = 0
    scenarios: str
    num_train: int | None = Field(default=None, ge=1)
    num_heldout: int = Field(default=32, ge=0)
    rollout: ChatOrFunction = ChatOrFunction()
    rewards: dict[str, float] = Field(default_factory=dict)
    judge: ModelJudge | None = None
    steps: int = Field(default=20, ge=0)
    groups_per_step: int = Field(default=4, ge=1)
    group_size: int = Field(default=8, ge=2)
    lora: LoraSettings = LoraSettings()
    grpo: Grpo = Grpo()
    warmup_steps: int = Field(default=0, ge=0)
    decay_to: float = Field(default=1.0, gt=0.0, le=1.0)
    heldout_attempts: int = Field(default=1, ge=1)
    stop_without_spread: int | None = Field(default=5, ge=1)
    timeout_seconds: float = Field(default=600.0, gt=0)
    retention: Retention = Retention()

    _own_name = model_validator(mode="after")(own_name)

    @model_validator(mode="after")
    def _somebody_scores(self) -> Self:
        if not self.rewards and self.judge is None and self.rollout.function is None:
            raise ValueError("nobody scores the attempts: name functions in `rewards`, or a model in `judge`")
        return self
