"""Values that a model proposes for free-text arguments. The server decides which are valid; nothing here knows what they mean.

A small base model knows many values of a kind (places, codes, expressions) but repeats the likeliest when it is asked for one, and mixes
up parts of them. So each round samples only the *first piece* of many values, which costs one token each, and then lets every
different piece be finished at a low temperature. Rounds begin with a head that worked before ("Asia/"), chosen by how many valid new
values it gave per token.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from journeyman.errors import LlmError
from journeyman.llm.openai_client import open_openai
from journeyman.mcp.tools import McpTool
from journeyman.scenarios.wording import humanise
from journeyman.types.names import BASE

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SEPARATORS = "/:-+* ,.(_"
_HEAD = re.compile(r"^(.{1,30}?[" + re.escape(SEPARATORS) + "])")
_MAX_VALUE_CHARS = 60
_EASY = 0.5
_MAX_ROUNDS = 40
_RUN = re.compile(r"([^\w\s])\1{2,}")
_NUMBER = re.compile(r"(?<![\d.])\d{1,3}(?![\d.])")


class Proposer(Protocol):
    """Proposes values for a parameter."""

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        """About `count` values, new if possible; `known` are values that work. An empty list means that there are no more."""
        ...


class InTurn:
    """Asks the first proposer until it has no more for a parameter, then the next."""

    def __init__(self, *proposers: Proposer) -> None:
        self._proposers = proposers
        self._places: Counter[tuple[str, str]] = Counter()

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        place = (tool.name, parameter)
        while self._places[place] < len(self._proposers):
            values = await self._proposers[self._places[place]].propose(tool, parameter, schema, known, count)
            if values:
                return values
            self._places[place] += 1
        return []


@dataclass(slots=True)
class _Memory:
    """What was tried for one parameter: per head the valid values found and the tokens spent."""

    found: Counter[str] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)
    proposed: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    last: tuple[str, tuple[str, ...]] = ("", ())
    tokens: int = 0
    rounds: int = 0
    valid_share: float = 0.0


class CompletionProposer:
    """Asks any server with OpenAI's legacy `/v1/completions` to go on with a list of values.

    Args:
        base_url, api_key: of the server.
        model: name to send.
        max_tokens_per_parameter: sampled tokens after which no more values are proposed for a parameter.
        max_concurrent: requests in flight.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str = BASE,
        *,
        max_tokens_per_parameter: int = 2000,
        max_concurrent: int = 24,
        timeout_seconds: float = 120.0,
        seed: int = 0,
    ) -> None:
        self._address = (base_url, api_key)
        self._model = model
        self._max_tokens = max_tokens_per_parameter
        self._places = asyncio.Semaphore(max_concurrent)
        self._timeout_seconds = timeout_seconds
        self._rng = random.Random(seed)
        self._memories: dict[tuple[str, str], _Memory] = {}
        self._client: AsyncOpenAI | None = None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        """One round. Raises LlmError when the server fails."""
        memory = self._memories.setdefault((tool.name, parameter), _Memory())
        _learn(memory, known)
        if memory.tokens >= self._max_tokens:
            return []
        memory.rounds += 1
        head = self._choose_head(memory, known)
        shown = self._choose_shown(known, head)
        text = list_prompt(describe(tool, parameter, schema), parameter, shown)
        spent_before = memory.tokens
        pieces = await self._complete(memory, text + head, n=count * 2, max_tokens=1, temperature=1.2)
        # A piece that was finished before would be finished the same way again.
        heads = [start for piece in _distinct(pieces) if (start := head + piece) not in memory.started][:count]
        memory.started.update(heads)
        # Where most values are valid, knowledge is not what is short but variety.
        temperature = 1.0 if memory.valid_share > _EASY else 0.3
        # Finishing one piece is one short request; the server batches them.
        async with asyncio.TaskGroup() as tasks:
            ends = [
                tasks.create_task(self._complete(memory, text + start, n=1, max_tokens=14, temperature=temperature, keep_whole=True))
                for start in heads
            ]
        values = [start + end for start, task in zip(heads, ends, strict=True) for end in task.result()]
        fresh = [
            value
            for value in dict.fromkeys(" ".join(value.split()) for value in values)
            if _is_usable(value) and value not in memory.proposed
        ]
        memory.proposed.update(fresh)
        memory.spent[head] += memory.tokens - spent_before
        memory.last = (head, tuple(fresh))
        # A round without anything new is not the end: with something known the caller asks again, but not for ever.
        return fresh or list(known[:1] if memory.rounds < _MAX_ROUNDS else ())

    def _choose_head(self, memory: _Memory, known: Sequence[str]) -> str:
        """A head of a value that works, of several that do not (the head may be right all the same), or none."""
        heads = Counter(match.group(1) for value in memory.proposed if (match := _HEAD.match(value)))
        proven = {match.group(1) for value in known if (match := _HEAD.match(value))}
        candidates = sorted({"", *proven, *(head for head, count in heads.items() if count >= 3)})

        def promise(head: str) -> float:
            prior = 4 if head in proven or not head else 2
            share = sum(value.startswith(head) for value in known) / max(len(known), 1) if head else 0.0
            variety = 1 / (1 + 6 * share) if memory.valid_share > _EASY else 1.0
            return variety * (memory.found[head] + prior) / (memory.spent[head] + 60) * self._rng.uniform(0.7, 1.3)

        return max(candidates, key=promise)

    def _choose_shown(self, known: Sequence[str], head: str) -> list[str]:
        like = [value for value in known if head and value.startswith(head)]
        others = [value for value in known if value not in like]
        num_like = min(5, len(like))
        return self._rng.sample(others, min(6 - num_like, len(others))) + self._rng.sample(like, num_like)

    async def _complete(
        self, memory: _Memory, prompt: str, *, n: int, max_tokens: int, temperature: float, keep_whole: bool = False
    ) -> list[str]:
        """Texts after the prompt; with `keep_whole` only those that came to their closing quote."""
        import openai

        async with self._places:
            try:
                reply = await self._open().completions.create(
                    model=self._model,
                    prompt=prompt,
                    n=n,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    stop=['"', "\n"] if keep_whole else None,
                    seed=self._rng.randrange(2**31),
                )
            except openai.OpenAIError as error:
                raise LlmError(
                    f"the model that proposes values failed: {error}", hint="check that the server has /v1/completions", reason="refused"
                ) from error
        memory.tokens += reply.usage.completion_tokens if reply.usage else n * max_tokens
        return [choice.text for choice in reply.choices if not keep_whole or choice.finish_reason == "stop"]

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            base_url, api_key = self._address
            self._client = open_openai(base_url, api_key or "none", timeout_seconds=self._timeout_seconds)
        return self._client


def _learn(memory: _Memory, known: Sequence[str]) -> None:
    """Credit the last round's head with those of its values that work."""
    head, values = memory.last
    num_valid = len(set(values) & set(known))
    memory.found[head] += num_valid
    if values:
        memory.valid_share = num_valid / len(values)
    memory.last = (head, ())


def describe(tool: McpTool, parameter: str, schema: dict[str, Any]) -> str:
    """One line that says what the values are."""
    described = re.split(r"[.(\n]", str(schema.get("description", "")))[0].strip()
    return described or f"{humanise(parameter)}. {tool.description.splitlines()[0] if tool.description else humanise(tool.name)}"


def list_prompt(description: str, parameter: str, shown: Sequence[str]) -> str:
    """A list in Python to go on with: base models have seen many, and the closing quote ends a value."""
    return f"# {description}\n{parameter}s = [" + "".join(f'"{value}", ' for value in shown) + '"'


def _distinct(pieces: Sequence[str]) -> list[str]:
    counts = Counter(piece for piece in pieces if piece.strip() and not set(piece) & set('"\n<\\'))
    return [piece for piece, _ in counts.most_common()]


def _is_usable(value: str) -> bool:
    if not 0 < len(value) <= _MAX_VALUE_CHARS or _RUN.search(value):
        return False
    return not set(value) & set("\n\t\"'<>{}#\\`|;") and not value.endswith(tuple("+-*/,(:"))


def vary_numbers(good: Sequence[str], rng: random.Random, limit: int) -> list[str]:
    """Values that work with other numbers in them, as many digits or one more. Costs no tokens, only calls."""
    # Powers of powers can keep a server busy for ever.
    forms = [value for value in good if _NUMBER.search(value) and len(re.findall(r"\*\*|\^", value)) < 2]
    varied: dict[str, None] = {}
    for _ in range(3 * limit):
        if not forms or len(varied) >= limit:
            break
        value = _NUMBER.sub(lambda match: str(_number_like(match.group(), rng)), rng.choice(forms))
        if value not in good:
            varied[value] = None
    return list(varied)


def _number_like(digits: str, rng: random.Random) -> int:
    size = len(digits) + (len(digits) < 3 and rng.random() < 0.5)
    return rng.randrange(10 ** (size - 1), 10**size)


def recombine(good: Sequence[str], tried: Sequence[str], limit: int) -> list[str]:
    """Heads of values that work joined to the tails of all values tried: a model often knows the parts and joins them wrongly.

    Costs no tokens, only calls; at most `limit` values.
    """
    for separator in SEPARATORS:
        share = sum(separator in value for value in good)
        if len(good) >= 3 and share >= 0.6 * len(good):
            break
    else:
        return []
    heads = Counter(value.rpartition(separator)[0] for value in tried)
    for value in good:
        heads[value.rpartition(separator)[0]] += 100
    tails = list(dict.fromkeys(value.rpartition(separator)[2].strip() for value in (*good, *tried)))
    known = {*good, *tried}
    likely = [head for head, count in heads.most_common(10) if head and count >= 3]
    # Tail by tail, so that a limit leaves every head its share.
    joined = (f"{head}{separator}{tail}" for tail in tails if tail for head in likely)
    return [value for value in dict.fromkeys(joined) if value not in known and _is_usable(value)][:limit]
