"""A judging model behind its cache: one question is one listwise call, answered from disk when it was asked before.

Knows nothing of groups, ties or rewards (ruler.py). An outage is waited out, then it is an error; a reply that stays unusable is a
reading without scores.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.errors import JudgeError, LlmError, LlmOutageError, LlmRefusalError
from journeyman.llm import JsonReply, Llm, Usage
from journeyman.rewards.expected_score import expected_scores
from journeyman.rewards.judge_store import JudgeStore
from journeyman.rewards.listwise import PROMPT_VERSION, build_messages, find_fault, new_labels, reply_schema
from journeyman.rewards.spending import Spending
from journeyman.types.trajectory import JudgeCall

_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 10.0, 60.0
_NUM_STARTS = 2


def print_nothing(text: str) -> None:
    """A listener that does not listen."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one call shows: `texts` in this order, after `shared`. `keys` name the texts' whole contents."""

    rubric: str
    task: str
    shared: str
    texts: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call said, by place. `scores` None: nothing usable came back, `fault` says why."""

    scores: tuple[float, ...] | None
    calls: tuple[JudgeCall, ...]
    fault: str = ""


class JudgeModel:
    """Asks a model, keeps its answers, counts what they cost.

    Args:
        patience_seconds: how long an outage (after the retries of `llm`) is waited out before it is a JudgeError.
        warn: told about outages, and parameters that the model does not take.
    """

    def __init__(
        self,
        llm: Llm,
        *,
        store: JudgeStore | None,
        spending: Spending,
        with_expected_scores: bool = False,
        patience_seconds: float = 600.0,
        warn: Callable[[str], None] = print_nothing,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.llm, self.store, self.spending = llm, store, spending
        self.warn = warn
        self._expects = with_expected_scores
        self._patience_seconds = patience_seconds
        self._told: tuple[str, ...] = ()
        self._sleep = sleep

    async def ask(self, question: Question) -> Reading:
        """The reading of one question. Raises JudgeError (outage, wrong key or model), JudgeBudgetError, StoreError."""
        key = self._key(question)
        kept = self.store.get(key) if self.store is not None else None
        if kept is not None:
            calls = tuple(
                JudgeCall.model_validate(item).model_copy(
                    update={"is_cached": True, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": None}
                )
                for item in kept
            )
            return Reading(tuple(float(call.score or 0.0) for call in calls), calls)
        started = time.perf_counter()
        try:
            labels, items, usage = await self._scored(question)
        except LlmRefusalError as error:
            usage = error.usage if isinstance(error.usage, Usage) else Usage()
            return self._unusable(question, error.message, usage, time.perf_counter() - started)
        seconds = time.perf_counter() - started
        if self.llm.omitted != self._told:
            self._told = self.llm.omitted
            self.warn(f"the judge {self.llm.endpoint.model} does not take {', '.join(self._told)}: it judges without")
        name = secrets.token_hex(4)
        calls = tuple(
            JudgeCall(
                call=name,
                model=self.llm.endpoint.model,
                place=place,
                num_shown=len(labels),
                score=items[label]["score"],
                explanation=str(items[label].get("explanation", "")),
                raw=json.dumps(items[label].get("raw", items[label])),
                seconds=seconds,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost_usd=self.spending.cost_of(usage),
                omitted=self.llm.omitted,
            )
            for place, label in enumerate(labels)
        )
        if self.store is not None:
            self.store.put(key, [call.model_dump() for call in calls])
        return Reading(tuple(float(items[label]["score"]) for label in labels), calls)

    async def _scored(self, question: Question) -> tuple[list[str], dict[str, dict[str, Any]], Usage]:
        """Labels, items by label with `score` as it counts, and usage. A question that fails is asked once more under new labels."""
        spent = Usage()
        for start in range(_NUM_STARTS):
            labels = new_labels(len(question.texts))
            try:
                reply = await self._reply(question, labels)
            except LlmRefusalError as error:
                spent += error.usage if isinstance(error.usage, Usage) else Usage()
                if start + 1 == _NUM_STARTS:
                    raise LlmRefusalError(error.message, hint=error.hint, usage=spent) from error
            else:
                return labels, self._items(reply), spent + reply.usage
        raise AssertionError("the last start returns or raises")

    async def _reply(self, question: Question, labels: Sequence[str]) -> JsonReply:
        """A reply without fault; an outage is waited out. Raises LlmRefusalError, JudgeError."""
        messages = build_messages(question.rubric, question.task, question.shared, question.texts, labels)
        schema = reply_schema(labels)

        def fault(value: Any) -> str | None:
            return find_fault(value, labels)

        waited, pause = 0.0, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self.llm.complete_json(messages, schema, name="scores", find_fault=fault, with_tokens=self._expects)
            except LlmOutageError as error:
                if waited >= self._patience_seconds:
                    raise JudgeError(
                        f"the judge is out of service: {error.message}",
                        hint="nothing was trained on missing scores; when it answers again, go on with --resume RUN",
                        reason=error.reason,
                    ) from error
                self.warn(f"the judge is out of service, waiting {pause:.0f} s: {error.message}")
                await self._sleep(pause)
                waited, pause = waited + pause, min(_MAX_PAUSE_SECONDS, 2 * pause)
            except LlmRefusalError:
                raise
            except LlmError as error:
                failure = JudgeError(f"the judge cannot be used: {error.message}", hint=error.hint, reason=error.reason)
                failure.exit_code = error.exit_code  # a wrong key or address is the user's to mend, whoever meets it
                raise failure from error

    def _items(self, reply: JsonReply) -> dict[str, dict[str, Any]]:
        items = {str(item["id"]): dict(item) for item in reply.value["scores"]}
        if self._expects:
            for label, value in expected_scores(reply.text, reply.tokens, items).items():
                items[label] |= {"raw": dict(items[label]), "score": value}
        return items

    def _unusable(self, question: Question, fault: str, usage: Usage, seconds: float) -> Reading:
        name = secrets.token_hex(4)
        calls = tuple(
            JudgeCall(
                call=name,
                model=self.llm.endpoint.model,
                place=place,
                num_shown=len(question.texts),
                score=None,
                explanation=fault,
                seconds=seconds,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost_usd=self.spending.cost_of(usage),
                omitted=self.llm.omitted,
            )
            for place in range(len(question.texts))
        )
        return Reading(None, calls, fault)

    def _key(self, question: Question) -> str:
        """Content, order, judge, rubric, settings and version."""
        settings = self.llm.settings
        whole = [
            PROMPT_VERSION, self.llm.endpoint.model, self.llm.endpoint.base_url, settings.temperature, settings.seed, self._expects,
            question.rubric, question.task, question.shared, question.keys, question.texts,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(whole).encode("utf-8", "surrogatepass")).hexdigest()
