"""From a connected server to a set of scenarios: try the tools, split the values, write the tasks. The order of the whole is here."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from journeyman.errors import McpError
from journeyman.mcp.client import McpServer
from journeyman.mcp.tools import McpTool, choose_tools
from journeyman.observe.progress import Progress, SilentProgress
from journeyman.scenarios.explore import ExecutedCall, Explorer, ExploreSettings, Pool
from journeyman.scenarios.generate import Author, askable_leaves, comparable_leaves, drop_uniform
from journeyman.scenarios.proposals import Proposer
from journeyman.scenarios.scenario_set import ScenarioSet, ToolMaterial
from journeyman.scenarios.values import canonical
from journeyman.scenarios.wording import make_wording
from journeyman.scenarios.writer import Writer, reword_all
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario, Split

_SMALL_POOL = 6
_SIDES: tuple[Split, Split] = ("heldout", "train")
_DRAWS_PER_CALL = 4


@dataclass(frozen=True, slots=True)
class ValueSplit:
    """Sides of values. A value of a small or closed pool has no side: there, whole calls are split instead.

    A value has one side wherever it occurs: a number held out for one parameter is not trained on in another.
    """

    sides: dict[str, Split]
    seed: int
    heldout_share: float

    def values(self, pool: Pool, side: Split) -> list[Any]:
        """The pool's good values that calls of a side may use."""
        if is_shared(pool):
            return list(pool.good)
        return [value for value in pool.good if self.sides.get(canonical(value)) == side]

    def side_of_call(self, key: str) -> Split:
        """Side of a call none of whose values has a side."""
        digest = hashlib.sha256(f"{self.seed} {key}".encode()).digest()
        return "heldout" if int.from_bytes(digest[:4], "big") / 2**32 < self.heldout_share else "train"


def is_shared(pool: Pool) -> bool:
    """Both sides use the pool's values: the schema lists them all, or there are too few to split."""
    return pool.is_closed or len(pool.good) < _SMALL_POOL


def split_values(pools: Sequence[Pool], seed: int, heldout_share: float) -> ValueSplit:
    """Give every good value of the large pools a side, `heldout_share` of each pool held out."""
    sides: dict[str, Split] = {}
    for number, pool in enumerate(pools):
        if is_shared(pool):
            continue
        keys = [canonical(value) for value in pool.good]
        free = [key for key in keys if key not in sides]
        random.Random(f"{seed} {number}").shuffle(free)
        num_heldout = round(heldout_share * len(keys)) - sum(sides.get(key) == "heldout" for key in keys)
        for index, key in enumerate(free):
            sides[key] = "heldout" if index < num_heldout else "train"
    return ValueSplit(sides, seed, heldout_share)


class ScenarioSettings(Record):
    """What to build.

    Attributes:
        num_train, num_heldout: scenarios aimed at; fewer are built, with a note, when the server gives no more.
        two_call_share: share of scenarios that need two calls, some of them a comparison of the results.
        joined_share: share of scenarios that need two different tools. Only a writer can word those: without one there are none.
        heldout_share: share of each parameter's values kept for held-out scenarios.
        tools: names of the tools to use, None for all that only read.
        read_only: names of tools that only read although the server does not say so.
        allow_writes: also call tools that may change something.
        values_per_parameter: good values aimed at for each kind of parameter.
    """

    num_train: int = Field(default=96, ge=1)
    num_heldout: int = Field(default=64, ge=1)
    two_call_share: float = Field(default=0.15, ge=0, le=1)
    joined_share: float = Field(default=0.15, ge=0, le=1)
    heldout_share: float = Field(default=0.4, gt=0, lt=1)
    tools: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    allow_writes: bool = False
    values_per_parameter: int = Field(default=48, ge=2)
    call_timeout_seconds: float = Field(default=20.0, gt=0)

    def num_of(self, side: Split) -> int:
        """Scenarios aimed at for one side."""
        return self.num_heldout if side == "heldout" else self.num_train


async def build_scenarios(
    server: McpServer,
    settings: ScenarioSettings | None = None,
    *,
    proposer: Proposer | None = None,
    writer: Writer | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScenarioSet:
    """Feasible scenarios for a server's tools, each with a witness, split by argument values.

    Args:
        proposer: offers values for free-text parameters; without it only what schemas and results show is used.
        writer: rewords the tasks and joins some; without it they come from templates.

    Raises McpError: no_feasible_scenarios, died; what `choose_tools` raises; LlmError of the proposer or writer.
    """
    settings, progress = settings or ScenarioSettings(), progress or SilentProgress()
    choice = choose_tools(
        server.tools, server.target.label, settings.tools, read_only=settings.read_only, allow_writes=settings.allow_writes
    )
    tools = choice.tools
    bounds = ExploreSettings(
        values_per_pool=settings.values_per_parameter,
        num_scenarios=settings.num_train + settings.num_heldout,
        call_timeout_seconds=settings.call_timeout_seconds,
    )
    explorer = Explorer(server, tools, random.Random(seed), bounds, progress)
    progress.phase("explore", note=f"trying {len(tools)} tools of {server.target.label}")
    await explorer.find_values(proposer)
    split = split_values(explorer.pools, seed, settings.heldout_share)
    progress.phase("write tasks")
    calls = {side: await _gather_calls(explorer, split, side, settings, seed) for side in _SIDES}
    used = [tool for tool in tools if any(calls[side].get(tool.name) for side in _SIDES)]
    if not used:
        raise _nothing_feasible(server, explorer, writer)
    everything = {tool.name: [call for side in _SIDES for call in calls[side].get(tool.name, [])] for tool in used}
    leaves = {name: askable_leaves(found) for name, found in everything.items()}
    comparable = {name: () if await _is_changing(server, found) else comparable_leaves(found) for name, found in everything.items()}
    wording = make_wording(used, leaves)
    by_name, seen = {tool.name: tool for tool in used}, set[str]()
    authors: dict[Split, Author] = {}
    scenarios: dict[Split, list[Scenario]] = {}
    for side in _SIDES:
        rng = random.Random(f"{seed} {side}")
        authors[side] = Author(by_name, calls[side], leaves, comparable, wording, rng, settings.two_call_share, seen)
        drafts = authors[side].write(settings.num_of(side))
        scenarios[side] = [draft.scenario(side, number) for number, draft in enumerate(drafts)]
    if not scenarios["train"] or not scenarios["heldout"]:
        raise _nothing_feasible(server, explorer, writer)
    notes = [*server.notes, *choice.notes, *_notes(explorer, settings, scenarios, tools, used)]
    if writer is not None:
        progress.phase("reword tasks")
        notes += await _reword(writer, scenarios, authors, used, settings.joined_share)
    for note in notes:
        progress.note(note)
    # Drills may know the names of what training tasks ask for; what only held-out calls returned stays unseen.
    known = {tool.name: askable_leaves(calls["train"].get(tool.name, [])) for tool in used}
    materials = tuple(_material(explorer, split, tool, known[tool.name]) for tool in used)
    return ScenarioSet(train=tuple(scenarios["train"]), heldout=tuple(scenarios["heldout"]), materials=materials, notes=tuple(notes))


async def _reword(
    writer: Writer, scenarios: dict[Split, list[Scenario]], authors: dict[Split, Author], tools: Sequence[McpTool], joined_share: float
) -> list[str]:
    """Put the scenarios of both sides into the writer's words, some of them made to need two tools. Returns notes."""
    notes: list[str] = []
    taken: set[str] = set()
    for side in _SIDES:
        drafts = authors[side].join(round(joined_share * len(scenarios[side])))
        joined = [draft.scenario(side, number) for number, draft in enumerate(drafts)]
        scenarios[side], more = await reword_all(writer, scenarios[side], joined, tools, authors[side].rng, taken)
        notes += more
    return notes


async def _gather_calls(
    explorer: Explorer, split: ValueSplit, side: Split, settings: ScenarioSettings, seed: int
) -> dict[str, list[ExecutedCall]]:
    """Executed calls of one side, per tool, enough for its scenarios even when some tools have few."""
    wanted = settings.num_of(side)
    per_tool = min(math.ceil(1.4 * wanted), max(8, math.ceil(3 * wanted / len(explorer.tools))))
    out = {}
    for tool in explorer.tools:
        rng = random.Random(f"{seed} {side} {tool.name}")
        drawn: dict[str, tuple[str, dict[str, Any]]] = {}
        for _ in range(per_tool * _DRAWS_PER_CALL):
            arguments = _draw(explorer, split, side, tool, rng)
            if arguments is None or len(drawn) >= per_tool:
                break
            key = f"{tool.name} {canonical(arguments)}"
            if _has_sides(explorer, tool, arguments) or split.side_of_call(key) == side:
                drawn.setdefault(key, (tool.name, arguments))
        succeeded = [call for call in await explorer.execute_all(list(drawn.values())) if call is not None]
        kept = drop_uniform(succeeded)
        if kept:
            out[tool.name] = kept
    return out


def _draw(explorer: Explorer, split: ValueSplit, side: Split, tool: McpTool, rng: random.Random) -> dict[str, Any] | None:
    """Arguments made of the side's values, different ones for parameters that share a pool; None when a required one has none."""
    arguments: dict[str, Any] = {}
    for name in explorer.choose_parameters(tool, rng):
        pool = explorer.pool_of(tool.name, name)
        values = split.values(pool, side) if pool is not None else []
        if not values:
            if name in tool.required:
                return None
            continue
        fresh = [value for value in values if not any(value == other for other in arguments.values())] or values
        arguments[name] = rng.choice(fresh)
    return {name: arguments[name] for name in tool.properties if name in arguments}


def _has_sides(explorer: Explorer, tool: McpTool, arguments: dict[str, Any]) -> bool:
    pools = [explorer.pool_of(tool.name, name) for name in arguments]
    return any(pool is not None and not is_shared(pool) for pool in pools)


async def _is_changing(server: McpServer, calls: Sequence[ExecutedCall]) -> bool:
    """Whether a call gives another result now than when it was made (a clock, a feed): comparisons would go stale."""
    for call in calls[:2]:
        try:
            again = await server.call(call.tool, call.arguments)
        except McpError as error:
            if error.reason != "call_timeout":
                raise
            return True
        if again.text != call.result:
            return True
    return False


def _material(explorer: Explorer, split: ValueSplit, tool: McpTool, leaves: tuple[tuple[str | int, ...], ...]) -> ToolMaterial:
    values = {}
    for name in tool.properties:
        pool = explorer.pool_of(tool.name, name)
        good = split.values(pool, "train") if pool is not None else []
        if good:
            values[name] = tuple(good)
    return ToolMaterial(tool=tool, values=values, leaves=leaves)


def _notes(
    explorer: Explorer,
    settings: ScenarioSettings,
    scenarios: dict[Split, list[Scenario]],
    tools: Sequence[McpTool],
    used: Sequence[McpTool],
) -> list[str]:
    notes = [
        f"only {len(scenarios[side])} of {settings.num_of(side)} {side} scenarios are feasible: more valid argument values would be needed"
        for side in reversed(_SIDES)
        if len(scenarios[side]) < settings.num_of(side)
    ]
    notes += [f"no scenario uses {tool.server_name}: {_why_unused(explorer, tool)}" for tool in tools if tool not in used]
    for pool in explorer.pools:
        if is_shared(pool) and not pool.is_closed and pool.good and any(slot.is_required for slot in pool.slots):
            names = ", ".join(dict.fromkeys(slot.parameter for slot in pool.slots))
            notes.append(f"only {len(pool.good)} valid values are known for {names}: held-out scenarios share them, in other calls")
    return notes


def _why_unused(explorer: Explorer, tool: McpTool) -> str:
    impossible = [name for name in tool.required if (pool := explorer.pool_of(tool.name, name)) is not None and not pool.seen]
    if impossible:
        return f"no value was found that its schema takes for {', '.join(impossible)}"
    last = explorer.last_errors.get(tool.name)
    return f"no call to it succeeded (last failure: {last})" if last else "no call to it gave anything to ask for"


def _nothing_feasible(server: McpServer, explorer: Explorer, writer: Writer | None) -> McpError:
    lacking = sorted({slot.parameter for pool in explorer.pools for slot in pool.slots if slot.is_required and not pool.good})
    named = f"; no valid value was found for {', '.join(lacking)}" if lacking else "; too few different calls succeeded"
    because = "".join(f" (last failure: {tool}: {text})" for tool, text in [*explorer.last_errors.items()][-1:])
    model = "use a --writer or a larger base" if writer is None else "use another --writer"
    return McpError(
        "no_feasible_scenarios",
        f"no scenarios can be built for the MCP server {server.target.label} from {explorer.num_calls} calls{named}{because}",
        hint=f"give the parameters examples or enumerations in their schema, {model}, or write scenarios yourself",
    )
