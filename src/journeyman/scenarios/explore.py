"""Try tools with candidate values and keep what works: pools of values, each for the parameters of one kind. Calls only the tools it is
given; writes no tasks.

A value is good once it was part of a call that succeeded. Values are probed with the tool that needs the fewest other arguments; the other
arguments of a probe are good already where there are any, so that a failure says something about the value.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.errors import McpError
from journeyman.mcp.client import McpServer
from journeyman.mcp.results import looks_like_error, texts_in
from journeyman.mcp.schemas import argument_faults
from journeyman.mcp.tools import McpTool, split_identifier
from journeyman.observe.progress import Progress
from journeyman.scenarios.proposals import Proposer, recombine, vary_numbers
from journeyman.scenarios.texts import Draw, made_texts
from journeyman.scenarios.values import canonical, is_closed, schema_values, value_maker

_AT_ONCE = 8
_MAX_TRIES = 3
_FIRST_MADE = 16
_DRAWS = 240


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter of one tool."""

    tool: str
    parameter: str
    schema: dict[str, Any]
    is_required: bool


@dataclass(slots=True)
class Pool:
    """Values that the slots of one kind share, such as every time zone parameter of a server.

    Attributes:
        is_closed: the schema lists every value (enumeration, flag): such values are not split between training and held-out.
        draw: makes a new value; None when the schema says nothing about how values look, or what it says leaves none.
        good: values that were part of a call that succeeded, in the order found.
        candidates: not tried yet.
        failed: tried without success.
    """

    slots: tuple[Slot, ...]
    schema: dict[str, Any]
    is_closed: bool
    draw: Draw | None
    candidates: list[Any] = field(default_factory=list)
    good: list[Any] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def offer(self, values: Sequence[Any]) -> int:
        """Add untried values that the schema allows; returns how many were new."""
        added = 0
        for value in values:
            key = canonical(value)
            if key not in self.seen and not argument_faults(self.schema, value):
                self.seen.add(key)
                self.candidates.append(value)
                added += 1
        return added

    def make_up(self, rng: random.Random, count: int) -> int:
        """Offer about `count` texts of the form that the schema asks for; returns how many were new.

        None where the schema names values: those say more of what is meant than a form does.
        """
        if not self.is_text or (self.draw is not None and self.seen) or any(schema_values(slot.schema) for slot in self.slots):
            return 0
        return self.offer([text for slot in self.slots for text in made_texts(slot.schema, rng, count)])

    @property
    def is_text(self) -> bool:
        return self.schema.get("type", "string") == "string" and "enum" not in self.schema

    @property
    def needs_proposals(self) -> bool:
        """Text of which the schema only gives examples, or nothing."""
        return self.is_text and not self.is_closed and self.draw is None


def make_pools(tools: Sequence[McpTool], rng: random.Random) -> list[Pool]:
    """Pools for all parameters of the tools, filled with what the schemas give."""
    pools: list[Pool] = []
    for tool in tools:
        for name, schema in tool.properties.items():
            slot = Slot(tool.name, name, schema, name in tool.required)
            for pool in pools:
                if _is_same_kind(slot, pool):
                    pool.slots = (*pool.slots, slot)
                    pool.offer(schema_values(schema))
                    break
            else:
                pools.append(_new_pool(slot, rng))
    return pools


def _new_pool(slot: Slot, rng: random.Random) -> Pool:
    draw = value_maker(slot.schema)
    pool = Pool(slots=(slot,), schema=slot.schema, is_closed=is_closed(slot.schema), draw=draw)
    pool.offer(schema_values(slot.schema))
    if draw is not None and not pool.is_closed:
        pool.offer([draw(rng) for _ in range(_DRAWS)])
    return pool


def _is_same_kind(slot: Slot, pool: Pool) -> bool:
    other = pool.slots[0]
    if slot.schema.get("type") != other.schema.get("type") or is_closed(slot.schema) or pool.is_closed:
        return slot.parameter == other.parameter and slot.schema == other.schema
    if slot.schema.get("type", "string") != "string":
        return slot.parameter == other.parameter and slot.schema == other.schema
    quoted = {canonical(value) for value in schema_values(slot.schema)}
    shared = quoted & {canonical(value) for value in schema_values(other.schema)}
    return bool(shared) or split_identifier(slot.parameter)[-1:] == split_identifier(other.parameter)[-1:]


@dataclass(frozen=True, slots=True)
class ExecutedCall:
    """A call that succeeded and what it returned."""

    tool: str
    arguments: dict[str, Any]
    result: str

    @property
    def key(self) -> str:
        return f"{self.tool} {canonical(self.arguments)}"


@dataclass(slots=True)
class ExploreSettings:
    """Bounds of exploring. `values_per_pool`: good values aimed at for each kind of argument; `max_probes`: calls
    spent on that; `num_scenarios`: a tool with one free parameter needs as many values as scenarios; `max_timeouts`: a tool is given up
    after so many calls without a result in time."""

    values_per_pool: int = 48
    max_probes: int = 3000
    max_recombined: int = 2000
    num_scenarios: int = 160
    call_timeout_seconds: float = 20.0
    max_timeouts: int = 3
    optional_share: float = 0.25


@dataclass(slots=True)
class Explorer:
    """Pools of the tools, and the calls made so far."""

    server: McpServer
    tools: Sequence[McpTool]
    rng: random.Random
    settings: ExploreSettings
    progress: Progress
    pools: list[Pool] = field(default_factory=list)
    executed: dict[str, ExecutedCall | None] = field(default_factory=dict)
    num_calls: int = 0
    timeouts: Counter[str] = field(default_factory=Counter)
    last_errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pools = make_pools(self.tools, self.rng)

    async def find_values(self, proposer: Proposer | None) -> None:
        """Fill the pools' good values: from the schemas, from earlier results, from what the proposer offers, and last by form alone."""
        for tool in self.tools:
            if not tool.required:
                await self.execute(tool.name, {})
        ordered = sorted(self.pools, key=lambda pool: self._cost(pool.slots))
        for pool in ordered:
            await self._probe(pool)
        for pool in ordered:
            if not pool.is_closed and pool.is_text and not pool.good:
                pool.offer(self._seen_in_results(pool))
                await self._probe(pool)
        for pool in ordered:
            if proposer is not None and pool.needs_proposals and any(slot.is_required for slot in pool.slots):
                await self._propose(pool, proposer)
        await self._make_up([pool for pool in ordered if len(pool.good) < self._wanted(pool)])
        await self._probe_again()

    async def _make_up(self, pools: Sequence[Pool]) -> None:
        """Texts that only have the right form: a few, and more where the server knows some of those."""
        # All of them first, so that a call with several such arguments has a value for each.
        offered = [pool for pool in pools if pool.make_up(self.rng, _FIRST_MADE)]
        for pool in offered:
            num_good = len(pool.good)
            await self._probe(pool)
            if len(pool.good) > num_good and pool.make_up(self.rng, 2 * self._wanted(pool)):
                await self._probe(pool)

    async def _probe_again(self) -> None:
        """What failed for want of good values beside it gets another chance."""
        for pool in self.pools:
            if not pool.good and pool.failed:
                pool.candidates += pool.failed[:20]
                pool.failed = []
                await self._probe(pool)

    async def execute(self, tool: str, arguments: dict[str, Any]) -> ExecutedCall | None:
        """Call a tool once per arguments. None when it failed, or hung too often to be called again. Raises McpError when the server is
        gone."""
        key = f"{tool} {canonical(arguments)}"
        if key in self.executed:
            return self.executed[key]
        if self.timeouts[tool] >= self.settings.max_timeouts:
            return None
        self.num_calls += 1
        self.progress.advance(1)
        self.executed[key] = None
        try:
            result = await self.server.call(tool, arguments, self.settings.call_timeout_seconds)
        except McpError as error:
            if error.reason != "call_timeout":
                raise
            self.timeouts[tool] += 1
            self.last_errors[tool] = error.message
            return None
        if result.is_error or looks_like_error(result.text):
            self.last_errors[tool] = result.text.strip()[:200]
            return None
        call = ExecutedCall(tool, arguments, result.text)
        self.executed[key] = call
        return call

    async def execute_all(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[ExecutedCall | None]:
        """Several calls, a few at a time; results in the order given."""
        out: list[ExecutedCall | None] = []
        for start in range(0, len(calls), _AT_ONCE):
            some = calls[start : start + _AT_ONCE]
            out += await asyncio.gather(*(self.execute(tool, arguments) for tool, arguments in some))
        return out

    def pool_of(self, tool: str, parameter: str) -> Pool | None:
        return next((pool for pool in self.pools for slot in pool.slots if (slot.tool, slot.parameter) == (tool, parameter)), None)

    def choose_parameters(self, tool: McpTool, rng: random.Random) -> list[str]:
        """Required parameters, and now and then an optional one that has values."""
        optional = [
            name
            for name in tool.properties
            if name not in tool.required and (pool := self.pool_of(tool.name, name)) is not None and pool.good
        ]
        chosen = [name for name in optional if rng.random() < self.settings.optional_share]
        return [*tool.required, *chosen]

    def _tool(self, name: str) -> McpTool:
        return next(tool for tool in self.tools if tool.name == name)

    def _cost(self, slots: Sequence[Slot]) -> int:
        return min(len({*self._tool(slot.tool).required, slot.parameter}) for slot in slots)

    def _arguments(self, slot: Slot, value: Any) -> dict[str, Any] | None:
        """A call with the value in its slot and something likely everywhere else; None when another argument has no value at all."""
        arguments: dict[str, Any] = {}
        for name in dict.fromkeys([*self._tool(slot.tool).required, slot.parameter]):
            if name == slot.parameter:
                arguments[name] = value
                continue
            pool = self.pool_of(slot.tool, name)
            values = (pool.good or pool.candidates or pool.failed) if pool is not None else []
            others = [other for other in values if canonical(other) != canonical(value)] or values
            if not others:
                return None
            arguments[name] = self.rng.choice(others)
        return arguments

    async def _probe(self, pool: Pool) -> None:
        """Try the pool's candidates until enough are good."""
        slots = sorted(pool.slots, key=lambda slot: self._cost([slot]))
        wanted = self._wanted(pool)
        while pool.candidates and len(pool.good) < wanted and self.num_calls < self.settings.max_probes:
            some, pool.candidates = pool.candidates[:_AT_ONCE], pool.candidates[_AT_ONCE:]
            verdicts = await asyncio.gather(*(self._works(value, slots) for value in some))
            for value, works in zip(some, verdicts, strict=True):
                (pool.good if works else pool.failed).append(value)

    def _wanted(self, pool: Pool) -> int:
        """Good values to look for: more when nothing else makes calls with this pool different from each other."""
        users = [self._tool(name) for name in {slot.tool for slot in pool.slots}]
        if all(len(tool.required) <= 1 for tool in users) and not pool.is_closed:
            return max(self.settings.values_per_pool, math.ceil(1.2 * self.settings.num_scenarios / len(self.tools)))
        return self.settings.values_per_pool

    async def _works(self, value: Any, slots: Sequence[Slot]) -> bool:
        for slot in slots[:_MAX_TRIES]:
            arguments = self._arguments(slot, value)
            if arguments is None:
                continue
            if await self.execute(slot.tool, arguments) is not None:
                return True
            if len(arguments) == 1:
                return False  # nothing else can be to blame
        return False

    def _seen_in_results(self, pool: Pool) -> list[str]:
        """Texts of earlier results, those under a key of the same name first."""
        words = {split_identifier(slot.parameter)[-1] for slot in pool.slots if split_identifier(slot.parameter)}
        pairs = [pair for call in self.executed.values() if call is not None for pair in texts_in(call.result)]
        ranked = sorted(pairs, key=lambda pair: not set(split_identifier(pair[0])) & words)
        return list(dict.fromkeys(text for _, text in ranked))[:60]

    async def _propose(self, pool: Pool, proposer: Proposer) -> None:
        """Rounds of proposing and probing, then the parts of all values joined anew."""
        slot = min(pool.slots, key=lambda slot: self._cost([slot]))
        tool, wanted = self._tool(slot.tool), self._wanted(pool)
        while len(pool.good) < wanted:
            known = [str(value) for value in pool.good]
            values = await proposer.propose(tool, slot.parameter, slot.schema, known, 24)
            if not values:
                break
            pool.offer(values)
            await self._probe(pool)
            self.progress.advance(0, values=float(len(pool.good)))
        if len(pool.good) < wanted:
            pool.offer(vary_numbers([str(value) for value in pool.good], self.rng, 2 * wanted))
            await self._probe(pool)
        if len(pool.good) < wanted:
            await self._recombine(pool)

    async def _recombine(self, pool: Pool) -> None:
        texts = [str(value) for value in pool.good]
        joined = recombine(texts, [str(value) for value in pool.failed], self.settings.max_recombined)
        pool.offer(joined)
        await self._probe(pool)
