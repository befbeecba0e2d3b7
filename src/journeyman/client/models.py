"""Models to roll out and to train. Not for reaching a server: see `wire.py`; for making many attempts: see `gather.py`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from journeyman.client.foreign import ForeignRecorder, foreign_client
from journeyman.client.rollout import Rollout
from journeyman.client.wire import Wire, asked
from journeyman.errors import ServiceError, SettingError, TrainingError, WaitTimeoutError, error_from_code
from journeyman.llm import omitted_of
from journeyman.types.names import Version, check_name
from journeyman.types.scenarios import Scenario
from journeyman.types.settings import Dpo, Grpo, LoraSettings, Sft, WhenTooLong
from journeyman.types.training import (
    CreateRollout,
    DpoJob,
    FinishRollout,
    GrpoJob,
    JobStatus,
    KeptAttempt,
    LossJob,
    ModelInfo,
    PairLossJob,
    PreferencePair,
    RolloutTicket,
    ScoredGroup,
    ScoredTrajectory,
    SftExample,
    SftJob,
    StoredExample,
    StoredPair,
    TextExample,
    TextPair,
    TrainJob,
    TrainResult,
)
from journeyman.types.trajectory import Group, Trajectory

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LONG_POLL_SECONDS = 25
_SHORTEST_POLL_SECONDS = 1.0
_UNFINISHED = ("queued", "running")
# Without any news of a job. Long: a job may stand behind those of other models, each of them a whole training.
_LONGEST_SILENCE_SECONDS = 86_400.0


class Model:
    """Any OpenAI-compatible model; attempts with it can be gathered, judged and compared, but not trained.

    Args:
        name: what to send as the model's name.
        base_url: up to and including `/v1`; None: the `OPENAI_BASE_URL` environment variable or OpenAI itself.
        api_key: None: the `OPENAI_API_KEY` environment variable.

    Its turns are recorded on this side, without token ids, and only for calls through `run.openai()` that are not streamed.
    """

    def __init__(self, name: str, base_url: str | None = None, api_key: str | None = None) -> None:
        self.name = name
        self._base_url = base_url
        self._api_key = api_key
        self._client: AsyncOpenAI | None = None
        self._recorders: dict[str, ForeignRecorder] = {}

    @property
    def endpoint(self) -> tuple[str, str]:
        """(base URL, API key) for a client of one's own."""
        client = self._shared_client()
        return str(client.base_url), client.api_key

    @property
    def omitted(self) -> tuple[str, ...]:
        """Parameters of sampling that the model's server was found not to take: attempts since then were drawn without them."""
        return omitted_of(self._client, self.name)

    def openai(self) -> AsyncOpenAI:
        """A client of this model for calls outside rollouts. It shares its connections with others: closing it closes nothing."""
        return self._shared_client().with_options()

    async def open_rollout(self, scenario: Scenario, *, max_turns: int = 64, key: str | None = None) -> Rollout:
        """Begin an attempt. `gather` calls this; call it yourself only together with `finish_rollout`.

        `key`: what `kept_attempts` finds the finished attempt by. Raises SettingError where nothing is kept.
        """
        if key is not None:
            raise self._keeps_nothing()
        recorder = ForeignRecorder(self.name, max_turns)
        rollout_id = f"ro_{uuid.uuid4().hex[:16]}"
        self._recorders[rollout_id] = recorder
        base_url, api_key = self.endpoint
        return Rollout(
            rollout_id=rollout_id,
            scenario=scenario,
            model=self.name,
            base_url=base_url,
            api_key=api_key,
            make_client=lambda: recorder.attached(self._shared_client()),
        )

    async def finish_rollout(self, rollout: Rollout, outcome: FinishRollout) -> Trajectory:
        """End an attempt and return its complete record."""
        recorder = self._recorders.pop(rollout.id)
        return Trajectory(
            id=rollout.id,
            scenario_id=rollout.scenario.id,
            model=self.name,
            turns=recorder.turns,
            tool_events=outcome.tool_events,
            reward=outcome.reward,
            metrics=outcome.metrics,
            error=outcome.error,
            started_at=recorder.started_at,
            seconds=outcome.seconds,
        )

    async def kept_attempts(self, key: str) -> tuple[KeptAttempt, ...]:
        """The finished attempts that this version made under `key/...`. Raises SettingError where nothing is kept."""
        raise self._keeps_nothing()

    async def trajectory(self, trajectory_id: str) -> Trajectory:
        """A kept attempt, whole. Raises as `kept_attempts`."""
        raise self._keeps_nothing()

    def _keeps_nothing(self) -> SettingError:
        return SettingError(
            f"model {self.name!r} is not served by Journeyman: its attempts are not kept, so a key would find none",
            hint="leave the key out",
            reason="not_kept",
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _shared_client(self) -> AsyncOpenAI:
        if self._client is None:
            self._client = foreign_client(self._base_url, self._api_key)
        return self._client


class ServedModel(Model):
    """A model of a Journeyman server, at a fixed version or the base: its rollouts are recorded there, token by token."""

    def __init__(self, name: str, wire: Wire) -> None:
        super().__init__(name, base_url=f"{wire.url}/v1", api_key=wire.api_key)
        self._wire = wire

    @property
    def endpoint(self) -> tuple[str, str]:
        return f"{self._wire.url}/v1", self._wire.api_key

    async def open_rollout(self, scenario: Scenario, *, max_turns: int = 64, key: str | None = None) -> Rollout:
        request = asked(CreateRollout, model=self.name, scenario_id=scenario.id, max_turns=max_turns, key=key)
        ticket = await self._wire.post("api/rollouts", request, RolloutTicket)
        base_url = f"{self._wire.url}/r/{ticket.id}.{ticket.token}/v1"
        return Rollout(
            rollout_id=ticket.id,
            scenario=scenario,
            model="agent",
            base_url=base_url,
            api_key=ticket.token,
            # The copy shares the connection pool: a client for each rollout costs milliseconds, not a TLS context.
            make_client=lambda: self._wire.client.with_options(base_url=base_url, api_key=ticket.token),
        )

    async def finish_rollout(self, rollout: Rollout, outcome: FinishRollout) -> Trajectory:
        return await self._wire.post(f"api/rollouts/{rollout.id}/finish", outcome, Trajectory)

    async def kept_attempts(self, key: str) -> tuple[KeptAttempt, ...]:
        return await self._wire.get("api/rollouts", tuple[KeptAttempt, ...], query={"model": self.name, "key": key})

    async def trajectory(self, trajectory_id: str) -> Trajectory:
        return await self._wire.get(f"api/rollouts/{check_name(trajectory_id, 'the id of a trajectory')}", Trajectory)

    async def close(self) -> None:
        """Nothing: the connection belongs to the backend."""

    def _shared_client(self) -> AsyncOpenAI:
        return self._wire.client.with_options(base_url=f"{self._wire.url}/v1")


class TrainableModel(ServedModel):
    """A model of a Journeyman server that can be trained. Attempts use its newest version; `step` counts its updates.

    Example:
        >>> groups = await jm.gather(rollout, batch, model=model, group_size=8)           # doctest: +SKIP
        >>> result = await model.train(await judge.score(groups), jm.Grpo())              # doctest: +SKIP
    """

    def __init__(self, info: ModelInfo, wire: Wire) -> None:
        super().__init__(info.name, wire)
        self._info = info

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._info.step

    @property
    def adapter(self) -> str:
        """The newest version: `name@step`."""
        return self._info.adapter

    @property
    def run(self) -> str:
        return self._info.run

    @property
    def base(self) -> str:
        return self._info.base

    @property
    def lora(self) -> LoraSettings:
        return self._info.lora

    @property
    def context_length(self) -> int:
        """Tokens that prompt and reply may have together."""
        return self._info.context_length

    def at(self, step: int) -> ServedModel:
        """This model as it was at a step, to roll out; step 0 is the untrained adapter."""
        return ServedModel(str(Version(self.name, step)), self._wire)

    async def train(
        self,
        groups: Sequence[Group],
        settings: Grpo | None = None,
        *,
        measured: Mapping[str, float] | None = None,
        on_progress: Callable[[float], None] | None = None,
        key: str | None = None,
    ) -> TrainResult:
        """One policy update on scored groups, gathered with this model.

        Only ids and rewards travel; the tokens are on the server. A trajectory without reward is left out and counted, a group
        without spread is skipped and counted.

        Args:
            measured: metrics of your own to keep with the step; `journeyman runs show` and retention see them.
            on_progress: told a fraction in [0, 1] now and then.
            key: repeat a call with the same key and it is the same job, not a second update.

        Raises TrainingError and its kin; the model then is as it was. Raises WaitTimeoutError when nothing is heard of the job for a day.
        """
        scored = tuple(
            ScoredGroup(
                scenario_id=group.scenario.id,
                trajectories=tuple(ScoredTrajectory(trajectory_id=attempt.id, reward=attempt.reward) for attempt in group if attempt.id),
            )
            for group in groups
            if any(attempt.id for attempt in group)  # an attempt that the server refused has no id, and no record there
        )
        return await self._train(GrpoJob(groups=scored, settings=settings or Grpo(), measured=dict(measured or {})), on_progress, key)

    async def train_sft(
        self,
        examples: Sequence[SftExample | TextExample | StoredExample],
        settings: Sft | None = None,
        *,
        phase: Literal["warmup", "train"] = "warmup",
        measured: Mapping[str, float] | None = None,
        on_progress: Callable[[float], None] | None = None,
        key: str | None = None,
    ) -> TrainResult:
        """Imitate conversations: every assistant message in them is trained. Otherwise as `train`.

        `phase`: "warmup" before another kind of training, "train" where imitating is the training.
        """
        job = SftJob(examples=tuple(examples), settings=settings or Sft(), phase=phase, measured=dict(measured or {}))
        return await self._train(job, on_progress, key)

    async def train_dpo(
        self,
        pairs: Sequence[PreferencePair | TextPair | StoredPair],
        settings: Dpo | None = None,
        *,
        measured: Mapping[str, float] | None = None,
        on_progress: Callable[[float], None] | None = None,
        key: str | None = None,
    ) -> TrainResult:
        """Learn from pairs, a chosen and a rejected reply to one prompt. Otherwise as `train`; see `pairs_from_groups`."""
        job = DpoJob(pairs=tuple(pairs), settings=settings or Dpo(), measured=dict(measured or {}))
        return await self._train(job, on_progress, key)

    async def loss(
        self,
        examples: Sequence[SftExample | TextExample | StoredExample],
        *,
        when_too_long: WhenTooLong = "refuse",
        on_progress: Callable[[float], None] | None = None,
    ) -> float:
        """How unlikely examples are to the model as it is: the mean of -log-probability over the tokens that `train_sft` would train.

        Nothing is trained. On examples that were held out it tells when imitating begins to be learning by heart.
        """
        job = LossJob(examples=tuple(examples), when_too_long=when_too_long)
        return (await self._train(job, on_progress, None)).metrics["loss"]

    async def measure_pairs(
        self,
        pairs: Sequence[PreferencePair | TextPair | StoredPair],
        settings: Dpo | None = None,
        *,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, float]:
        """How the model, as it is, tells pairs apart; nothing is trained.

        Returns `loss`, `reward_margin`, `reward_accuracy`, ... of these settings; `ranked_right`, the share of pairs whose chosen side
        has the higher log-probability per token; `chosen_logprob_change` and `rejected_logprob_change` against the base model.
        """
        job = PairLossJob(pairs=tuple(pairs), settings=settings or Dpo())
        return (await self._train(job, on_progress, None)).metrics

    async def refresh(self) -> ModelInfo:
        """Ask the server where the model stands: another client may have trained it."""
        self._info = await self._wire.get(f"api/models/{self.name}", ModelInfo)
        return self._info

    async def _train(self, job: TrainJob, on_progress: Callable[[float], None] | None, key: str | None) -> TrainResult:
        # Without a key a lost answer would be sent again by the HTTP client, and trained twice.
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        status = await self._wire.post(f"api/models/{self.name}/train", job, JobStatus, headers=headers)
        if status.state in _UNFINISHED:
            status = await self._ended(status, on_progress)
        if status.state == "failed":
            text = status.error or "the training job failed"
            raise error_from_code(status.error_code or "", text, status.error_reason) or TrainingError(text)
        if status.result is None:
            raise ServiceError(f"training job {status.id} is done and has no result", reason="no_result")
        self._info = self._info.model_copy(update={"step": status.result.step, "adapter": status.result.adapter})
        return status.result

    async def _ended(self, status: JobStatus, on_progress: Callable[[float], None] | None) -> JobStatus:
        """The status of a job that is over. Raises WaitTimeoutError."""
        heard_at = time.monotonic()
        while status.state in _UNFINISHED:
            asked_at, before = time.monotonic(), status
            status = await self._wire.get(f"api/jobs/{status.id}", JobStatus, query={"wait_seconds": str(_LONG_POLL_SECONDS)})
            if on_progress is not None:
                on_progress(status.progress)
            if status != before:
                heard_at = time.monotonic()
                continue
            if time.monotonic() - heard_at > _LONGEST_SILENCE_SECONDS:
                raise WaitTimeoutError(
                    f"waited for training job {status.id} of model {self.name!r}: it is {status.state} at {status.progress:.0%}, and "
                    f"nothing has changed for {_LONGEST_SILENCE_SECONDS:.0f} s",
                    hint=f"the log of the server at {self._wire.shown} says what it does; call again with the same key to go on waiting",
                    reason="no_news",
                )
            # A server that does not let us wait is not asked as fast as it can answer.
            await asyncio.sleep(max(_SHORTEST_POLL_SECONDS - (time.monotonic() - asked_at), 0.0))
        return status
