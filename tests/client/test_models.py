"""Waiting for a training job: at a bounded pace, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest
from tests.llm_server import Answer, scripted, serve

import journeyman as jm
from journeyman.client.models import TrainableModel
from journeyman.errors import WaitTimeoutError
from journeyman.types.settings import LoraSettings
from journeyman.types.training import JobStatus, ModelInfo, TrainResult

INFO = ModelInfo(name="m", run="r", base="b", step=0, adapter="m@0", lora=LoraSettings(), context_length=64)
RUNNING = JobStatus(id="job_1", state="running", progress=0.5)
DONE = JobStatus(id="job_1", state="done", progress=1.0, result=TrainResult(step=1, adapter="m@1"))


class HastyServer:
    """Stands for the wire to a server that answers at once, however long it was asked to wait."""

    url = shown = "http://127.0.0.1:1"
    api_key = "none"

    def __init__(self, *answers: JobStatus) -> None:
        self.answers = list(answers)
        self.num_asked = 0

    async def post(self, path: str, body: Any, kind: Any, **_: Any) -> JobStatus:
        return RUNNING

    async def get(self, path: str, kind: Any, **_: Any) -> JobStatus:
        self.num_asked += 1
        return self.answers.pop(0) if self.answers else RUNNING


def model(server: Any) -> TrainableModel:
    return TrainableModel(INFO, server)


async def test_a_job_that_nothing_is_heard_of_is_asked_for_at_a_bounded_pace_and_given_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.client.models._SHORTEST_POLL_SECONDS", 0.05)
    monkeypatch.setattr("journeyman.client.models._LONGEST_SILENCE_SECONDS", 0.2)
    server = HastyServer()
    with pytest.raises(WaitTimeoutError, match=r"job_1.*'m'.*50%") as caught:
        await model(server).train_sft([jm.TextExample(text="a")])
    assert server.num_asked <= 6
    assert (caught.value.reason, "key" in str(caught.value.hint)) == ("no_news", True)


async def test_news_of_a_job_are_passed_on_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.client.models._LONGEST_SILENCE_SECONDS", 0.0)
    heard: list[float] = []
    server = HastyServer(*[RUNNING.model_copy(update={"progress": part}) for part in (0.6, 0.7)], DONE)
    trained = model(server)
    assert (await trained.train_sft([jm.TextExample(text="a")], on_progress=heard.append)).step == 1
    assert (heard, trained.adapter) == ([0.6, 0.7, 1.0], "m@1")


async def test_what_a_model_of_others_says_beside_text_reaches_the_agent_and_the_record_has_a_mark() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    said = {"role": "assistant", "content": None, "tool_calls": [custom], "annotations": [{"type": "url_citation"}]}
    heard: list[Any] = []

    async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
        asked: Any = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "custom", "custom": {"name": "shell"}}]}
        reply = await run.openai().chat.completions.create(model=run.model, **asked)
        heard.append(reply.choices[0].message)

    with serve(scripted(Answer(body={"id": "1", "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}]}))) as server:
        other = jm.Model("m", server.base_url, "k")
        ((trajectory,),) = await jm.gather(agent, [jm.Scenario(id="a", task="hi")], model=other, group_size=1)
        await other.close()
    assert (trajectory.error, trajectory.turns[0].tools, trajectory.answer) == (None, (), "[custom call left out]")
    assert (heard[0].tool_calls[0].custom.input, len(heard[0].annotations)) == ("ls", 1)
