"""Engine processes say what one engine says, keep the protocol, and end with their parent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from tests.engine.local.requests import VOCABULARY, random_ids, request
from tests.tiny import base_of

from journeyman.engine.local.engine import LocalEngine
from journeyman.engine.local.replicas import ReplicatedEngine
from journeyman.errors import AdapterError, ContextLengthError, EngineError, SettingError, WaitTimeoutError
from journeyman.types.sampling import JsonSchemaGrammar, SampleRequest, SamplingParameters

# One event loop and one pair of processes for all: starting them takes seconds.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = random_ids(1, 20)
LONG = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(sharp_model: Path) -> AsyncIterator[ReplicatedEngine]:
    engine = await asyncio.to_thread(ReplicatedEngine.create, base_of(sharp_model), 2, device="cpu", precision="float32")
    yield engine
    processes = [psutil.Process(pid) for pid in engine.process_ids]
    await engine.close()
    await engine.close()
    assert not any(process.is_running() for process in processes)
    with pytest.raises(EngineError, match="closed"):
        await engine.sample(request(PROMPT))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(sharp_model: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.create(base_of(sharp_model), device="cpu", precision="float32")
    yield engine
    await engine.close()


async def test_they_are_the_engine_that_one_process_is_but_for_the_number_of_workers(
    replicas: ReplicatedEngine, single: LocalEngine
) -> None:
    assert replicas.info.num_workers == len(set(replicas.process_ids)) == 2
    assert (replicas.info.base, replicas.info.device, replicas.info.dtype) == ("tiny", "cpu", "float32")
    assert (replicas.info.context_length, replicas.info.vocabulary_size) == (single.info.context_length, VOCABULARY)


async def test_the_same_seeds_give_the_same_samples_in_whichever_process(replicas: ReplicatedEngine, single: LocalEngine) -> None:
    requests = [request(random_ids(group, 30), max_tokens=20, seed=seed) for group in range(6) for seed in range(3)]
    ours = await asyncio.gather(*(replicas.sample(wanted) for wanted in requests))
    theirs = await asyncio.gather(*(single.sample(wanted) for wanted in requests))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.token_ids, mine.finish_reason, mine.adapter) == (other.token_ids, other.finish_reason, other.adapter)
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


async def test_different_prompts_are_spread_over_the_processes(replicas: ReplicatedEngine) -> None:
    streams = [replicas.stream(request(random_ids(seed, 20), max_tokens=LONG)) for seed in range(4)]
    for stream in streams:
        await anext(stream)
    assert [replica.num_unfinished for replica in replicas._replicas] == [2, 2]
    for stream in streams:
        await stream.aclose()
    assert [replica.num_unfinished for replica in replicas._replicas] == [0, 0]


async def test_the_next_turn_goes_where_the_last_was_drawn(replicas: ReplicatedEngine) -> None:
    for seed in range(4):
        wanted = request(random_ids(f"turn {seed}", 20), max_tokens=5)
        sample = await replicas.sample(wanted)
        place = replicas._router.place(wanted.prompt_ids, [0, 0])
        loads = [0, 0]
        loads[place] = 10
        assert replicas._router.place((*wanted.prompt_ids, *sample.token_ids, 5, 6), loads) == place


async def test_streamed_tokens_are_the_sample(replicas: ReplicatedEngine) -> None:
    wanted = request(PROMPT, max_tokens=15, seed=1)
    sample = await replicas.sample(wanted)
    deltas = [delta async for delta in replicas.stream(wanted)]
    assert len(deltas) == 15
    assert tuple(token for delta in deltas for token in delta.token_ids) == sample.token_ids
    assert [delta.finish_reason for delta in deltas] == [None] * 14 + ["length"]


async def test_a_cancelled_sample_frees_its_adapter(replicas: ReplicatedEngine, adapter_folders: dict[str, Path]) -> None:
    await replicas.load_adapter("model@1", adapter_folders["model@1"])
    running = asyncio.create_task(replicas.sample(request(PROMPT, adapter="model@1", max_tokens=LONG)))
    stream = replicas.stream(request(PROMPT, adapter="model@1", max_tokens=LONG))
    await anext(stream)
    with pytest.raises(AdapterError, match="in use by 2"):
        await replicas.unload_adapter("model@1")
    running.cancel()
    await asyncio.wait([running])
    await stream.aclose()
    await replicas.unload_adapter("model@1")
    assert replicas.adapters() == ()


async def test_an_adapter_is_the_same_in_all_processes_and_loaded_once(
    replicas: ReplicatedEngine, single: LocalEngine, adapter_folders: dict[str, Path]
) -> None:
    folder = adapter_folders["model@2"]
    assert await replicas.load_adapter("model@2", folder) == await single.load_adapter("model@2", folder)
    with pytest.raises(AdapterError, match="loaded already"):
        await replicas.load_adapter("model@2", folder)
    requests = [request(random_ids(group, 30), adapter="model@2", max_tokens=10, seed=group) for group in range(4)]
    ours = await asyncio.gather(*(replicas.sample(wanted) for wanted in requests))
    theirs = await asyncio.gather(*(single.sample(wanted) for wanted in requests))
    assert [sample.token_ids for sample in ours] == [sample.token_ids for sample in theirs]
    assert {sample.adapter for sample in ours} == {"model@2"}
    await replicas.unload_adapter("model@2")
    with pytest.raises(AdapterError, match="not loaded"):
        await replicas.sample(requests[0])
    with pytest.raises(AdapterError, match="not loaded"):
        await replicas.unload_adapter("model@2")


async def test_an_adapter_that_cannot_be_loaded_is_loaded_nowhere(
    replicas: ReplicatedEngine, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=str(tmp_path)):
        await replicas.load_adapter("model@3", tmp_path)
    first = replicas._replicas[0]
    await first.call("load_adapter", "model@3", adapter_folders["model@1"], timeout_seconds=60.0)
    with pytest.raises(AdapterError, match="loaded already"):  # says the first process: the second has to give it back
        await replicas.load_adapter("model@3", adapter_folders["model@3"])
    await first.call("unload_adapter", "model@3", timeout_seconds=60.0)
    await replicas.load_adapter("model@3", adapter_folders["model@3"])
    await replicas.unload_adapter("model@3")


async def test_sleep_waits_for_running_requests_and_new_ones_wait_for_wake(replicas: ReplicatedEngine) -> None:
    running = replicas.stream(request(PROMPT, max_tokens=30))
    await anext(running)
    sleeping = asyncio.create_task(replicas.sleep())
    await asyncio.sleep(0)
    late = asyncio.create_task(replicas.sample(request(PROMPT, max_tokens=2)))
    assert len([delta async for delta in running]) == 29
    await sleeping
    assert not late.done()
    await replicas.wake()
    assert len((await late).token_ids) == 2


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_sleep_that_is_given_up_leaves_no_process_asleep(
    replicas: ReplicatedEngine, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replicas._replicas[0]
    asleep, call = asyncio.Event(), first.call

    async def call_and_fail(*arguments: Any, **settings: Any) -> str | None:
        await call(*arguments, **settings)
        asleep.set()
        if how == "cancelled":
            await asyncio.Event().wait()
        raise EngineError("it did not rest", reason="failed")

    with monkeypatch.context() as patch:
        patch.setattr(first, "call", call_and_fail)
        sleeping = asyncio.create_task(replicas.sleep())
        await asyncio.wait_for(asleep.wait(), 60)
        if how == "cancelled":
            sleeping.cancel()
        with pytest.raises((EngineError, asyncio.CancelledError)):
            await sleeping
    wanted = (replicas.sample(request(random_ids(f"awake {number}", 9), max_tokens=2)) for number in range(4))
    assert all(len(sample.token_ids) == 2 for sample in await asyncio.wait_for(asyncio.gather(*wanted), 60))


async def test_errors_come_back_as_what_they_are(replicas: ReplicatedEngine) -> None:
    grammar = JsonSchemaGrammar('{"type": "no such type"}')
    with pytest.raises(SettingError) as caught:
        await replicas.sample(SampleRequest(PROMPT, SamplingParameters(), grammar=grammar))
    assert caught.value.reason == "grammar_refused"
    assert caught.value.hint
    with pytest.raises(ContextLengthError, match="600 tokens"):
        await replicas.sample(request(random_ids(1, 600)))
    with pytest.raises(AdapterError, match="model@7"):
        await replicas.sample(request(PROMPT, adapter="model@7"))


async def test_a_reply_under_a_schema_is_such_json(replicas: ReplicatedEngine, tiny_tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"day": {"enum": ["Monday", "Tuesday"]}}, "required": ["day"], "additionalProperties": False}
    end = tiny_tokenizer.eos_token_id
    wanted = SampleRequest(PROMPT, SamplingParameters(max_tokens=60, seed=1), None, (end,), JsonSchemaGrammar(json.dumps(schema)))
    sample = await replicas.sample(wanted)
    assert json.loads(tiny_tokenizer.decode([token for token in sample.token_ids if token != end]))["day"] in ("Monday", "Tuesday")


async def test_what_cannot_be_sent_to_a_process_fails_alone(replicas: ReplicatedEngine) -> None:
    beside = asyncio.create_task(replicas.sample(request(PROMPT, max_tokens=3)))
    unspeakable: Any = lambda: None  # noqa: E731 - a function of a test cannot be pickled
    with pytest.raises(EngineError):
        await asyncio.wait_for(replicas.sample(SampleRequest(PROMPT, SamplingParameters(), grammar=unspeakable)), 60)
    assert len((await asyncio.wait_for(beside, 60)).token_ids) == 3
    assert len((await asyncio.wait_for(replicas.sample(request(PROMPT, max_tokens=2)), 60)).token_ids) == 2


async def test_loading_that_nobody_waits_for_any_more_ends_all_the_same(
    replicas: ReplicatedEngine, adapter_folders: dict[str, Path]
) -> None:
    loading = asyncio.create_task(replicas.load_adapter("model@4", adapter_folders["model@1"]))
    await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait([loading])
    with pytest.raises(AdapterError):  # known here as there
        await asyncio.wait_for(replicas.load_adapter("model@4", adapter_folders["model@1"]), 60)
    assert "model@4" in replicas.adapters()
    await replicas.unload_adapter("model@4")
    await replicas.load_adapter("model@4", adapter_folders["model@1"])
    await replicas.unload_adapter("model@4")


async def test_an_answer_that_its_asker_cannot_take_keeps_no_other_from_his(replicas: ReplicatedEngine) -> None:
    first = replicas._replicas[0]

    def deliver(item: object) -> None:
        raise OSError("gone")

    first.sample(request(PROMPT, max_tokens=2), deliver, is_streaming=False)
    results = await asyncio.wait_for(asyncio.gather(*(replicas.sample(request(random_ids(n, 9), max_tokens=2)) for n in range(4))), 60)
    assert all(len(one.token_ids) == 2 for one in results)


async def test_a_process_that_does_not_start_in_time_is_named_and_ended(sharp_model: Path) -> None:
    with pytest.raises(WaitTimeoutError, match="process 1 of 1"):
        ReplicatedEngine.create(base_of(sharp_model), 1, device="cpu", timeout_seconds=0.0)
