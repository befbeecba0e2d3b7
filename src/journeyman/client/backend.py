"""A connected Journeyman server, from the app's side."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from journeyman.client.models import ServedModel, TrainableModel
from journeyman.client.wire import Wire, asked
from journeyman.types.names import BASE, check_name
from journeyman.types.runs import CreateRun, RunInfo, StepMetrics
from journeyman.types.settings import LoraSettings
from journeyman.types.training import CreateModel, ModelInfo
from journeyman.types.trajectory import Trajectory


class Connection:
    """A Journeyman server. Use it as an async context manager, or `close` it.

    Example:
        >>> async with jm.connect("http://gpu-box:8100", api_key="...") as backend:       # doctest: +SKIP
        ...     model = await backend.model("time-agent")
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._wire = Wire(url, api_key)

    @property
    def url(self) -> str:
        """The server's address, without `/v1`."""
        return self._wire.url

    @property
    def openai_url(self) -> str:
        """The address for OpenAI clients."""
        return f"{self._wire.url}/v1"

    @property
    def api_key(self) -> str:
        return self._wire.api_key

    async def health(self) -> dict[str, Any]:
        """What runs there: status, engine, version. Raises ServiceError when nothing does."""
        return await self._wire.get("healthz", dict[str, Any])

    async def model(self, name: str, *, run: str | None = None, lora: LoraSettings | None = None) -> TrainableModel:
        """A trainable model: a new one, or the one of that run and name, which goes on where it stopped.

        Args:
            run: the run its history is kept in; the model's name when not given.
            lora: for a new model. For one that exists it may be left out; other settings than it has are refused.

        Raises SettingError, StoreError as the server does; ServiceError when there is none.
        """
        fields: dict[str, Any] = {"name": name, "run": run or name}
        if lora is not None:
            fields["lora"] = lora
        info = await self._wire.post("api/models", asked(CreateModel, **fields), ModelInfo, unset=False)
        return TrainableModel(info, self._wire)

    def base_model(self) -> ServedModel:
        """The base model, untrained: what a trained one is compared with."""
        return ServedModel(BASE, self._wire)

    def served_model(self, name: str) -> ServedModel:
        """A model that the server serves, by name or `name@step`, without training it."""
        return ServedModel(name, self._wire)

    async def create_run(self, run: str, *, kind: str, settings: Mapping[str, Any] | None = None) -> RunInfo:
        """Create a run with its settings, or find the one of that id."""
        request = asked(CreateRun, id=run, kind=kind, settings=dict(settings or {}))
        return await self._wire.post("api/runs", request, RunInfo)

    async def runs(self) -> list[RunInfo]:
        return await self._wire.get("api/runs", list[RunInfo])

    async def run(self, run: str) -> RunInfo:
        return await self._wire.get(f"api/runs/{check_name(run, 'the id of a run')}", RunInfo)

    async def steps(self, run: str) -> list[StepMetrics]:
        """The metrics of a run's steps, in the order of time."""
        return await self._wire.get(f"api/runs/{check_name(run, 'the id of a run')}/steps", list[StepMetrics])

    async def trajectory(self, trajectory_id: str) -> Trajectory:
        return await self._wire.get(f"api/rollouts/{check_name(trajectory_id, 'the id of a trajectory')}", Trajectory)

    async def close(self) -> None:
        await self._wire.close()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()


def connect(url: str, api_key: str | None = None) -> Connection:
    """A Journeyman server by its address. Nothing is sent yet; the first request tells whether it is there."""
    return Connection(url, api_key)
