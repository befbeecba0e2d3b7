"""The three judges that are compared, and made-up groups whose true quality is known. Not for training."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Protocol

from journeyman.errors import LlmError
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.llm.replies import json_values
from journeyman.rewards import Ruler, RulerOptions
from journeyman.rewards.attempt_text import attempt_text, shared_text
from journeyman.rewards.judge_model import build_messages, find_fault, new_labels, reply_schema
from journeyman.rewards.ruler import DEFAULT_RUBRIC
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.sampling import SamplingParameters
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, ToolEvent, Trajectory, Turn

WORDS = "ship port cargo crane tide berth quay hull mast rope sail deck anchor wharf pilot buoy keel stern bow dock".split()
TASK = "Find the berth with the most free places and say how many ships can still come today."


class Contender(Protocol):
    """Scores one group; None: no rewards."""

    async def rewards(self, group: Group) -> list[float | None]: ...

    async def close(self) -> None: ...


def settings(timeout_seconds: float) -> LlmSettings:
    return LlmSettings(timeout_seconds=timeout_seconds, max_tokens=4096, max_retries=8, max_concurrent=8)


async def no_wait(seconds: float) -> None:
    """Instead of waiting between retries: the simulated server is ready at once."""


class FixedOrder:
    """(a) One call in the order given, scores zipped by position, whatever they are: what the first RULER did."""

    def __init__(self, base_url: str, timeout_seconds: float) -> None:
        self._llm = Llm(LlmEndpoint.parse("simulated", base_url), settings=settings(timeout_seconds), sleep=no_wait)

    async def rewards(self, group: Group) -> list[float | None]:
        labels = [str(place + 1) for place in range(len(group))]
        try:
            reply = await self._llm.complete(_messages(group, range(len(group)), labels))
        except LlmError:
            return [None] * len(group)
        found = [value for value in json_values(reply.text) if isinstance(value, dict) and value.get("scores")]
        scores = [float(item["score"]) for item in found[-1]["scores"]] if found else []
        return list(scores) if len(scores) == len(group) else [None] * len(group)

    async def close(self) -> None:
        await self._llm.close()


class Shuffled:
    """(b) One call in random order, scores by id, one repair."""

    def __init__(self, base_url: str, timeout_seconds: float, seed: int = 0) -> None:
        self._llm = Llm(LlmEndpoint.parse("simulated", base_url), settings=settings(timeout_seconds), sleep=no_wait)
        self._random = random.Random(seed)

    async def rewards(self, group: Group) -> list[float | None]:
        order = self._random.sample(range(len(group)), len(group))
        labels = new_labels(len(group))
        try:
            reply = await self._llm.complete_json(
                _messages(group, order, labels), reply_schema(labels), find_fault=lambda value: find_fault(value, labels)
            )
        except LlmError:
            return [None] * len(group)
        by_label = {item["id"]: float(item["score"]) for item in reply.value["scores"]}
        by_index = {at: by_label[label] for at, label in zip(order, labels, strict=True)}
        return [by_index[at] for at in range(len(group))]

    async def close(self) -> None:
        await self._llm.close()


class Ours:
    """(c) Ruler with its defaults, less what would hide errors of its own: the cache."""

    def __init__(self, base_url: str, timeout_seconds: float, options: RulerOptions | None = None) -> None:
        options = options or RulerOptions(cache=False)
        self._ruler = Ruler("simulated", base_url, options=options, settings=settings(timeout_seconds), sleep=no_wait)

    async def rewards(self, group: Group) -> list[float | None]:
        [scored] = await self._ruler.score([group])
        return list(scored.rewards)

    async def close(self) -> None:
        await self._ruler.close()


def _messages(group: Group, order: Sequence[int], labels: Sequence[str]) -> list[dict[str, object]]:
    shared, count = shared_text(group.trajectories)
    texts = [attempt_text(group.trajectories[at], count).fit(4000) for at in order]
    return [dict(message) for message in build_messages(DEFAULT_RUBRIC, group.scenario.task, shared, texts, labels)]


def make_group(qualities: Sequence[float], seed: int, num_words: int = 350) -> Group:
    """Attempts of a tool call, its result (`num_words` words) and an answer; the answer's mark is its quality in hundredths."""
    generator = random.Random(seed)
    attempts = []
    for at, quality in enumerate(qualities):
        result = " ".join(generator.choice(WORDS) for _ in range(num_words))
        attempts.append(make_attempt(f"t{at}", f"The berth is {generator.choice(WORDS)}, mark {round(100 * quality)}.", result))
    return Group(scenario=Scenario(id=f"s{seed}", task=TASK), trajectories=tuple(attempts))


def make_attempt(name: str, answer: str, result: str) -> Trajectory:
    call = ToolCall(id="c1", function=FunctionCall(name="look_up", arguments='{"what": "berths"}'))
    question = (Message(role="system", content="Use the tools."), Message(role="user", content=TASK))
    asking = Message(role="assistant", tool_calls=(call,))
    told = Message(role="tool", content=result, tool_call_id="c1")
    event = ToolEvent(
        turn=0, call_id="c1", name="look_up", arguments={"what": "berths"}, is_known=True, is_valid=True, is_error=False, result=result
    )
    turns = (_turn(0, question, asking), _turn(1, (*question, asking, told), Message(role="assistant", content=answer)))
    return Trajectory(id=name, scenario_id="s", model="m", turns=turns, tool_events=(event,))


def quality_of(group: Group) -> list[float]:
    return [int(re.findall(r"mark (\d+)", one.answer or "")[-1]) / 100 for one in group]


def _turn(index: int, messages: tuple[Message, ...], reply: Message) -> Turn:
    return Turn(
        index=index,
        adapter=None,
        messages=messages,
        reply=reply,
        prompt_ids=(1,),
        sampled_ids=(2,),
        sampled_logprobs=(-0.1,),
        finish_reason="stop",
        parameters=SamplingParameters(),
        started_at=0.0,
        seconds=0.0,
    )
