"""The settings of every method of `journeyman train`, and the files that come with Journeyman. Each default is written here or in
`types/settings.py`, once.

Not for reading settings files: `methods.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from journeyman.config import path_of
from journeyman.mcp.target import McpTarget
from journeyman.rewards.ruler import RulerOptions
from journeyman.types.names import ModelName, check_model_name
from journeyman.types.record import Record, SettingsRecord
from journeyman.types.settings import Dpo, Grpo, LoraSettings, Retention, Seed, Sft

#: The folder of the settings and data files that come with Journeyman.
CONFIGS: Final = Path(__file__).parent / "configs"
#: What describes a data set, and what chooses among a run's attempts: one of them has no meaning for the other.
OF_SOURCE: Final = ("source", "split", "format", "columns", "skip_bad", "heldout_source", "heldout_split")
OF_RUN: Final = ("from_run", "min_reward", "max_per_task", "margin")
#: Short: the run's id is the name and the time. The pattern is for editors; `ModelName` says why a name cannot be used.
ShortName = Annotated[ModelName, Field(max_length=40, json_schema_extra={"pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"})]


class NamedTraining(SettingsRecord):
    """What a run of every method but `mcp` has; its model has a name that is not its base's, which would mean the untrained one."""

    name: ShortName = "model"
    base: str = "smollm2-135m"
    seed: Seed = 0

    @model_validator(mode="after")
    def _own_name(self) -> Self:
        check_model_name(self.name, self.base)
        return self


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


class GrpoTrain(NamedTraining):
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

    @model_validator(mode="after")
    def _somebody_scores(self) -> Self:
        if not self.rewards and self.judge is None and self.rollout.function is None:
            raise ValueError("nobody scores the attempts: name functions in `rewards`, or a model in `judge`")
        return self


class DataSource(Record):
    """Examples from a data set, or from what a run of this home folder tried: one of `source` and `from_run`.

    Attributes:
        source: a file (JSON lines, JSON, CSV, Parquet), a folder, or the id of a data set on the Hugging Face hub. A file is looked for
            in the current folder, then beside the settings file.
        split: of a folder or data set.
        format: of the rows, e.g. messages; "auto": by the columns.
        columns: our name of a column -> its name in the rows.
        skip_bad: leave faulty rows out and count them; otherwise the first of them stops the run.
        heldout_source, heldout_split: where the held-out examples are, when they are apart; else they are taken out of the source.
        num_heldout: held-out examples; never trained. A few more where a row or task has several: it is trained or held out as a whole.
        from_run: a run whose scored attempts are the examples, with their exact tokens.
    """

    source: str | None = None
    split: str | None = None
    format: str = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    skip_bad: bool = False
    heldout_source: str | None = None
    heldout_split: str | None = None
    num_heldout: int = Field(default=32, ge=0)
    from_run: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.source is None) == (self.from_run is None):
            raise ValueError("give one of `source` (a data set) and `from_run` (a run's own attempts)")
        of_source = [name for name in OF_SOURCE if name != "source"]
        given = [name for name in of_source if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True)]
        if self.from_run is not None and given:
            raise ValueError(f"{', '.join(given)} belong to `source`: leave them out with `from_run`")
        return self


class ExampleTraining(NamedTraining):
    """What `method: sft` and `method: dpo` have in common.

    Attributes:
        name: of the trained model; the file's name when not given.
        base: base model: a known name, a folder, or a Hugging Face id.
        seed: of the held-out examples and the order; `sft.seed` and `dpo.seed` are of the order inside a step.
        updates_per_step: a step is so many updates; it is kept when it is done, and a run that was stopped goes on behind it.
        steps: stop after this many; None: all that the passes over the data (`sft.epochs`, `dpo.epochs`) take.
        warmup_steps, decay_to: the learning rate rises over `warmup_steps` and falls in equal parts to `decay_to` of itself.
        evaluate_every: the held-out examples are measured after every so many steps, before the first and after the last.
        retention: which checkpoints and adapters stay on disk; the best are those with the lowest held-out loss.
    """

    lora: LoraSettings = LoraSettings()
    updates_per_step: int = Field(default=4, ge=1)
    steps: int | None = Field(default=None, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    decay_to: float = Field(default=0.1, gt=0.0, le=1.0)
    evaluate_every: int = Field(default=4, ge=1)
    retention: Retention = Retention(metric="heldout/loss", best_is="lowest")


class SftData(DataSource):
    """Examples to imitate.

    Attributes:
        min_reward: with `from_run`: only attempts of at least this reward (rejection sampling).
        max_per_task: with `from_run`: the best so many attempts at one task.
    """

    min_reward: float = 1.0
    max_per_task: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _of_a_run(self) -> Self:
        for name in ("min_reward", "max_per_task"):
            if self.from_run is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` belongs to `from_run`")
        return self


class SftTrain(ExampleTraining):
    """Everything about a run of `method: sft`.

    Attributes:
        sft: of each update.
        heldout_replies: held-out conversations that base and trained model also answer, greedily; a reply counts when it is the example's.
        reply_tokens: of such a reply.
    """

    method: Literal["sft"] = "sft"
    data: SftData
    sft: Sft = Sft()
    heldout_replies: int = Field(default=16, ge=0)
    reply_tokens: int = Field(default=96, ge=1)

    @property
    def of_update(self) -> Sft:
        return self.sft


class DpoData(DataSource):
    """Pairs to learn from.

    `margin`: with `from_run`: the best attempt of a group against its worst, where their rewards differ by more than this.
    """

    margin: float = Field(default=0.1, ge=0.0)

    @model_validator(mode="after")
    def _of_a_run(self) -> Self:
        if self.from_run is None and self.margin != type(self).model_fields["margin"].default:
            raise ValueError("`margin` belongs to `from_run`")
        return self


class DpoTrain(ExampleTraining):
    """Everything about a run of `method: dpo`.

    Held-out pairs are measured without training: `heldout/loss`, `heldout/ranked_right` (the share whose chosen reply has the higher
    log-probability per token), `heldout/chosen_logprob_change` (it shows when DPO pushes the chosen replies down too), and others.
    """

    method: Literal["dpo"] = "dpo"
    data: DpoData
    dpo: Dpo = Dpo()

    @property
    def of_update(self) -> Dpo:
        return self.dpo


class WarmStart(SettingsRecord):
    """Drills before reinforcement learning, for models that cannot call tools yet: just until groups have spread.

    After every `updates_per_probe` updates the model attempts `probe_scenarios` training scenarios of all kinds; the warm start ends when
    at least `min_executed` of the attempts make a call that runs, at least `min_success` succeed, at least `min_tools` of the tools have
    an attempt that does, and at least `min_with_spread` of the groups have attempts that differ in score. Calls are cheaper to learn
    from drills; which call, and what to answer, is learned from comparing attempts. Where `enough_success` of the attempts succeed (with
    so many of the tools) it ends whatever the rest says: further drills only make attempts more alike.

    Attributes:
        sft: of the drills; `batch_size` is how many one optimiser update sees. One longer than the model's context is left out.
        updates_per_probe: updates between two looks at whether groups have spread.
        max_updates: give up waiting for spread after this many.
    """

    sft: Sft = Sft(learning_rate=5e-4, batch_size=8, when_too_long="drop")
    updates_per_probe: int = Field(default=8, ge=1)
    max_updates: int = Field(default=48, ge=0)
    probe_scenarios: int = Field(default=8, ge=1)
    probe_attempts: int = Field(default=3, ge=2)
    min_executed: float = Field(default=0.9, ge=0.0, le=1.0)
    min_success: float = Field(default=0.3, ge=0.0, le=1.0)
    enough_success: float = Field(default=0.5, gt=0.0, le=1.0)
    min_tools: float = Field(default=0.6, ge=0.0, le=1.0)
    min_with_spread: float = Field(default=0.3, ge=0.0, le=1.0)


class Rollouts(Record):
    """How attempts are made. `max_tokens` is per turn. `max_concurrent`: attempts at once, and with a server of its own for each
    (`isolation`) as many servers; when None 64, and 8 with servers of their own. `timeout_seconds`: of one attempt; waiting for its
    server does not count."""

    groups_per_step: int = Field(default=8, ge=1)
    group_size: int = Field(default=6, ge=2)
    max_refills: int = Field(default=1, ge=0)
    max_turns: int = Field(default=3, ge=1)
    max_tokens: int = Field(default=112, ge=8)
    max_concurrent: int | None = Field(default=None, ge=1)
    timeout_seconds: float = Field(default=600.0, gt=0)
    isolation: Literal["auto", "shared", "per_rollout"] = "auto"


class McpTrain(SettingsRecord):
    """Everything about a run of `journeyman mcp train`.

    Attributes:
        target: the MCP server.
        base: base model: a known name, a folder, or a Hugging Face id.
        judge: "evidence", or an OpenAI-compatible model such as openai/gpt-5-mini (RULER).
        judge_options: how a model judges: rubric, budget, price, ties and the rest (RULER only).
        writer: an OpenAI-compatible model that words the tasks and proposes values; templates and the base model when None.
        steps: GRPO steps after the warm start.
        grpo: of each step. The learning rate falls in equal parts to `decay_to` of itself, and a step in which fewer than half of
            `rollouts.groups_per_step` groups have spread is smaller in proportion: one group must not turn the whole model.
        tools: only these tools; all that only read when None.
        read_only: tools that only read, by your word, where the server does not say so itself.
        allow_writes: also call tools that may change something: all that are not known to only read.
        num_train, num_heldout: scenarios asked for; fewer when the server does not yield them.
        stop_without_spread: stop after this many steps in a row in which no group had spread.
        workers: threads that compute; measured when None.
        retention: which checkpoints and adapters stay on disk.
    """

    target: McpTarget
    base: str = "smollm2-135m"
    judge: str = "evidence"
    judge_options: RulerOptions = RulerOptions()
    writer: str | None = None
    steps: int = Field(default=20, ge=0)
    seed: Seed = 0
    tools: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    allow_writes: bool = False
    num_train: int = Field(default=96, ge=1)
    num_heldout: int = Field(default=64, ge=1)
    warm_start: WarmStart = WarmStart()
    rollouts: Rollouts = Rollouts()
    lora: LoraSettings = LoraSettings()
    grpo: Grpo = Grpo(learning_rate=3e-4, min_spread=0.05)
    decay_to: float = Field(default=0.5, gt=0.0, le=1.0)
    stop_without_spread: int = Field(default=5, ge=1)
    workers: int | None = Field(default=None, ge=1)
    retention: Retention = Retention()


def shipped_or(source: str) -> str:
    """A data file by its path, a shipped one when there is none here of that name; anything else as it is.

    Example:
        >>> Path(shipped_or("orders.jsonl")).is_file(), shipped_or("some-org/some-set")
        (True, 'some-org/some-set')
    """
    return str(CONFIGS / source) if not path_of(source).exists() and (CONFIGS / source).is_file() else source


def non_default_settings(settings: Record, defaults: Record | None = None) -> dict[str, Any]:
    """The settings that differ from their defaults, by dotted name: what a run's header shows. A changed choice comes by its kind.

    Fields without a default are always in it. A part is compared with the default of its field, which need not be that of its class.

    Args:
        defaults: what `settings` are compared with; the defaults of their class when None.

    Example:
        >>> non_default_settings(Grpo(learning_rate=3e-4, loss="gspo", clip_high=0.001))
        {'learning_rate': 0.0003, 'loss': 'gspo', 'loss.clip_high': 0.001}
    """
    changed: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        default = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        if value == default:
            continue
        if not isinstance(value, Record):
            changed[name] = value
            continue
        below = default if type(value) is type(default) else None
        if below is None and not field.is_required():
            changed[name] = getattr(value, "kind", type(value).__name__)
        changed |= {f"{name}.{inner}": setting for inner, setting in non_default_settings(value, below).items()}
    return changed
