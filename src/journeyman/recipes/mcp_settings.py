"""Settings of `journeyman mcp train`. Each default is written here or in `types/settings.py`, once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.rewards.ruler_options import RulerOptions
from journeyman.scenarios.target import McpTarget
from journeyman.types.record import Record, SettingsRecord
from journeyman.types.retention import Retention
from journeyman.types.settings import Grpo, LoraSettings, Seed, Sft


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
