"""The tool loop and the pool, on real server processes and a scripted model."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from journeyman.agents import ServerPool, ToolLoop, ToolLoopSettings
from journeyman.agents.server_pool import Isolation
from journeyman.client.rollout import AttemptClock
from journeyman.errors import McpError, SettingError, WaitTimeoutError
from journeyman.mcp import McpTarget, open_server
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Failure, ToolEvent

SERVER = Path(__file__).parents[1] / "mcp" / "servers" / "plain_server.py"
SCENARIO = Scenario(id="s", task="What is the capital of Peru?")


def _target(kind: str) -> McpTarget:
    return McpTarget(command=(sys.executable, str(SERVER), kind))


async def _pool(kind: str, names: tuple[str, ...], **settings: Any) -> ServerPool:
    async with open_server(_target(kind)) as server:
        tools = [tool for tool in server.tools if tool.name in names]
    return ServerPool(_target(kind), tools, **settings)


@pytest.fixture
async def pool() -> AsyncIterator[ServerPool]:
    async with await _pool("good", ("findCapital", "box_area")) as opened:
        yield opened


class ScriptedRun:
    """A rollout whose model says what the script says: a text, or a list of (name, arguments text)."""

    def __init__(self, *script: Any) -> None:
        self.model = "agent"
        self.seed: int | None = None
        self.metrics: dict[str, float] = {}
        self.events: list[ToolEvent] = []
        self.requests: list[dict[str, Any]] = []
        self._script = list(script)

    def openai(self) -> Any:
        return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=self._create)))

    def record_tool(self, event: ToolEvent) -> None:
        self.events.append(event)

    async def _create(self, **request: Any) -> Any:
        self.requests.append(json.loads(json.dumps(request)))
        said = self._script.pop(0)
        calls = None
        if not isinstance(said, str):
            functions = [SimpleNamespace(name=name, arguments=arguments) for name, arguments in said]
            calls = [SimpleNamespace(id=f"c{len(self.requests)}{n}", function=function) for n, function in enumerate(functions)]
        message = SimpleNamespace(content=said if isinstance(said, str) else None, tool_calls=calls)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])


async def test_it_calls_reads_and_answers(pool: ServerPool) -> None:
    run = ScriptedRun([("findCapital", '{"country_name": "Peru"}')], "It is Lima.")
    await ToolLoop(pool)(SCENARIO, run)
    assert [(event.is_error, "Lima" in event.result) for event in run.events] == [(False, True)]
    roles = [message["role"] for message in run.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool"]
    assert run.requests[1]["messages"][3]["tool_call_id"] == run.requests[1]["messages"][2]["tool_calls"][0]["id"]
    assert run.metrics["num_tool_calls"] == 1
    assert run.metrics["is_answered"] == 1
    assert run.metrics["num_turns"] == 2


async def test_what_the_model_does_wrong_goes_back_to_it(pool: ServerPool) -> None:
    wrong = [
        ("findCapital", '{"country_name": '),
        ("find_capital", "{}"),
        ("findCapital", '{"country": "Peru"}'),
        ("findCapital", '{"country_name": "Mars"}'),
    ]
    run = ScriptedRun(wrong, "I do not know.")
    await ToolLoop(pool)(SCENARIO, run)
    assert all(event.is_error for event in run.events)
    assert [(event.is_known, event.is_valid, event.arguments is None) for event in run.events] == [
        (True, False, True),
        (False, False, False),
        (True, False, False),
        (True, True, False),
    ]
    results = [message["content"] for message in run.requests[1]["messages"][3:]]
    assert all(name in results[1] for name in ("findCapital", "box_area"))
    assert "country_name" in results[2]
    assert run.metrics["num_malformed_calls"] == run.metrics["num_unknown_tools"] == run.metrics["num_invalid_arguments"] == 1
    assert run.metrics["num_tool_errors"] == 4


async def test_the_model_sees_its_own_broken_call_unchanged(pool: ServerPool) -> None:
    run = ScriptedRun([("findCapital", '{"country_name": ')], "?")
    await ToolLoop(pool)(SCENARIO, run)
    assert run.requests[1]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"country_name": '


async def test_turns_and_calls_per_turn_are_bounded(pool: ServerPool) -> None:
    call = ("findCapital", '{"country_name": "Peru"}')
    run = ScriptedRun([call, call, call], [call], [call])
    await ToolLoop(pool, ToolLoopSettings(max_turns=2, max_calls_per_turn=2))(SCENARIO, run)
    assert len(run.requests) == 2
    assert [event.is_error for event in run.events] == [False, False, True, False]
    assert run.metrics["is_answered"] == 0


async def test_each_turn_is_drawn_from_a_stream_of_its_own_that_the_rollouts_seed_names(pool: ServerPool) -> None:
    call = ("findCapital", '{"country_name": "Peru"}')
    for settings, own, sent in (
        (None, 40, [40, 41]),
        (ToolLoopSettings(seed=7), 40, [7, 8]),
        (None, None, [None, None]),
    ):
        run = ScriptedRun([call], "Lima")
        run.seed = own
        await ToolLoop(pool, settings)(SCENARIO, run)
        assert [request.get("seed") for request in run.requests] == sent


async def test_long_results_are_cut_with_a_marker(pool: ServerPool) -> None:
    run = ScriptedRun([("findCapital", '{"country_name": "Peru"}')], "Lima")
    await ToolLoop(pool, ToolLoopSettings(max_result_chars=10))(SCENARIO, run)
    assert run.events[0].result.endswith("…[cut]")
    assert run.metrics["num_results_cut"] == 1


async def test_a_server_that_dies_fails_that_rollout_and_is_replaced() -> None:
    async with await _pool("ends", ("die", "number", "hang")) as pool:
        loop = ToolLoop(pool)
        with pytest.raises(McpError) as caught:
            await loop(SCENARIO, ScriptedRun([("die", '{"code": 1}')], "never"))
        assert caught.value.reason == "died"
        run = ScriptedRun([("number", "{}")], "done")
        await loop(SCENARIO, run)
        assert not run.events[0].is_error
        assert pool.num_restarts == 1


async def test_a_call_that_hangs_ends_its_rollout_with_a_failure_that_no_judge_scores_and_leaves_the_server_to_others() -> None:
    async with await _pool("ends", ("hang", "number")) as pool:
        loop = ToolLoop(pool, ToolLoopSettings(call_timeout_seconds=0.3))
        run = ScriptedRun([("hang", "")], "never said")
        with pytest.raises(McpError, match=r"'hang'.* 0\.3 s") as caught:
            await loop(SCENARIO, run)
        assert caught.value.reason == "call_timeout"
        assert run.events == []
        assert not Failure(type=type(caught.value).__name__, message=str(caught.value)).is_of_model
        other = ScriptedRun([("number", "{}")], "done")
        await loop(SCENARIO, other)
        assert not other.events[0].is_error
        assert pool.num_restarts == 0


async def test_a_death_in_a_pool_fails_only_the_attempts_on_that_server() -> None:
    async with await _pool("ends", ("die", "number", "hang"), num_shared=2) as pool:
        first, second = await _process(pool), await _process(pool)
        assert first != second
        async with pool.lease() as dying, pool.lease() as other:
            mine = (await other.call("number", {})).text
            with pytest.raises(McpError) as caught:
                await dying.call("die", {"code": 1})
            await pool.replace(dying)
            assert caught.value.reason == "died"
            assert (await other.call("number", {})).text == mine
        after = {await _process(pool), await _process(pool)}
        assert mine in after
        assert len(after - {first, second}) == 1
        assert pool.num_restarts == 1


async def _process(pool: ServerPool, together: asyncio.Barrier | None = None) -> str:
    async with pool.lease() as server:
        if together is not None:
            await together.wait()
        return (await server.call("number", {})).text


async def test_servers_that_only_read_are_shared_and_others_are_not() -> None:
    async with await _pool("ends", ("number",)) as shared:
        assert shared.is_shared
        assert len({await _process(shared), await _process(shared)}) == 1
    async with await _pool("ends", ("number",), isolation="per_rollout") as separate:
        together = asyncio.Barrier(2)
        assert len(set(await asyncio.gather(_process(separate, together), _process(separate, together)))) == 2
    assert not (await _pool("writes", ("create_note",))).is_shared
    assert (await _pool("writes", ("create_note",), isolation="shared")).is_shared
    # Where tools may write and one world is asked for, it is one.
    opened = await _pool("writes", ("create_note",), isolation="shared", num_shared=2)
    async with opened as pool, pool.lease() as one, pool.lease() as other:
        assert one is other


async def test_waiting_for_a_free_place_ends() -> None:
    async with await _pool("ends", ("number",), isolation="per_rollout", max_servers=1, wait_timeout_seconds=0.2) as pool, pool.lease():
        with pytest.raises(WaitTimeoutError) as caught:
            await _process(pool)
    assert caught.value.reason == "no_free_server"


@pytest.mark.parametrize("isolation", ["shared", "per_rollout"])
async def test_neither_getting_a_server_nor_stopping_it_is_the_attempts_time(isolation: Isolation) -> None:
    clock = AttemptClock()
    async with await _pool("ends", ("number",), isolation=isolation) as pool, asyncio.timeout(60.0) as limit:
        with clock.running(limit):
            async with pool.lease() as server:
                to_get = clock.stopped_seconds
                await server.call("number", {})
                assert (clock.stopped_seconds, limit.when() is None) == (to_get, False)
    assert to_get > 0
    assert pool.is_shared or clock.stopped_seconds > to_get


async def test_concurrency_follows_from_one_setting() -> None:
    assert [(await _pool("ends", ("number",), isolation=one)).max_concurrent for one in ("shared", "per_rollout")] == [64, 8]
    assert [(await _pool("ends", ("number",), isolation=one, max_servers=5)).max_concurrent for one in ("shared", "per_rollout")] == [5, 5]
    with pytest.raises(SettingError):
        await _pool("ends", ("number",), max_servers=0)


async def test_a_queue_that_moves_is_waited_for_as_long_as_it_takes() -> None:
    quick = McpTarget(command=(sys.executable, str(SERVER.with_name("raw_server.py")), "pages"))
    async with ServerPool(quick, [], "per_rollout", max_servers=1, wait_timeout_seconds=3.0) as pool:
        seats = [AsyncExitStack() for _ in range(3)]
        await seats[0].enter_async_context(pool.lease())
        waiting = [asyncio.create_task(stack.enter_async_context(pool.lease())) for stack in seats[1:]]
        for before, task in zip(seats, waiting, strict=False):
            await asyncio.wait([task], timeout=1.6)  # together longer than the limit, none alone
            assert not task.done()
            await before.aclose()
            assert (await task).is_alive
        await seats[2].aclose()


async def test_a_server_that_cannot_start_fails_the_lease() -> None:
    target = McpTarget(command=(sys.executable, "-c", "raise SystemExit('no licence')"))
    async with ServerPool(target, []) as pool:
        with pytest.raises(McpError, match="no licence"):
            async with pool.lease():
                pass


def test_a_pool_at_a_url_is_shared_and_warns_of_tools_that_write() -> None:
    from journeyman.mcp.tools import describe_tool

    writes = describe_tool("write", "", None, (False, True))
    pool = ServerPool(McpTarget(url="http://127.0.0.1:1/mcp"), [writes])
    assert pool.is_shared
    assert pool.warning is not None
    with pytest.raises(SettingError):
        ServerPool(McpTarget(url="http://127.0.0.1:1/mcp"), [writes], isolation="per_rollout")


async def test_a_prompt_that_no_longer_fits_ends_the_rollout_as_a_context_failure(pool: ServerPool) -> None:
    from openai import BadRequestError, DefaultHttpxClient

    from journeyman.errors import ContextLengthError

    request = DefaultHttpxClient().build_request("POST", "http://x")
    response: Any = SimpleNamespace(status_code=400, request=request, headers={})
    refusal = BadRequestError("too long", response=response, body={"code": "context_length_exceeded"})

    class Full(ScriptedRun):
        async def _create(self, **request: Any) -> Any:
            raise refusal

    with pytest.raises(ContextLengthError, match="no longer fits"):
        await ToolLoop(pool)(SCENARIO, Full())
