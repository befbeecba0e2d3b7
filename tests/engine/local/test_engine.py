"""The engine keeps the protocol: stopping, streaming, cancelling, sleeping, adapters, and errors that reach who asked."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine.local.conftest import MakeEngine
from tests.engine.local.requests import VOCABULARY, assert_logprobs_of, random_ids, request
from tests.tiny import plain_model

from journeyman.engine.local.engine import LocalEngine
from journeyman.errors import AdapterError, ContextLengthError, EngineError
from journeyman.types.sampling import JsonSchemaGrammar, SampleDelta, SampleRequest, SamplingParameters

PROMPT = random_ids(1, 20)
LONG = 10_000


async def test_it_says_what_it_is(engine: LocalEngine) -> None:
    assert engine.info.base == "tiny"
    assert (engine.info.context_length, engine.info.vocabulary_size, engine.info.num_workers) == (512, VOCABULARY, 1)
    assert (engine.info.device, engine.info.dtype) == ("cpu", "float32")


async def test_a_stop_token_ends_the_sample_and_is_its_last(engine: LocalEngine) -> None:
    free = await engine.sample(request(PROMPT, max_tokens=20, seed=1))
    assert (free.finish_reason, len(free.token_ids)) == ("length", 20)
    stop = free.token_ids[6]
    end = free.token_ids.index(stop) + 1
    stopped = await engine.sample(request(PROMPT, max_tokens=20, seed=1, stop_token_ids=(VOCABULARY - 1, stop)))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[:end]
    assert stopped.logprobs == pytest.approx(free.logprobs[:end], abs=1e-4)


async def test_a_stop_string_ends_the_sample_at_the_token_that_completes_it(engine: LocalEngine, tiny_tokenizer: Any) -> None:
    free = await engine.sample(request(PROMPT, max_tokens=20, seed=2))
    texts = [tiny_tokenizer.decode(free.token_ids[: count + 1]) for count in range(20)]
    stop = tiny_tokenizer.decode(free.token_ids[5:8])
    end = next((number for number, text in enumerate(texts) if stop in text), None)
    assert end is not None, "choose another seed: the stop string does not decode alone as it does in its place"
    stopped = await engine.sample(request(PROMPT, max_tokens=20, seed=2, stop=("never this", stop)))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: end + 1]


@pytest.mark.parametrize("seed", [1, 2])
async def test_streamed_tokens_are_the_sample(engine: LocalEngine, seed: int) -> None:
    wanted = request(PROMPT, max_tokens=15, seed=seed)
    sample = await engine.sample(wanted)
    deltas = [delta async for delta in engine.stream(wanted)]
    assert len(deltas) == 15
    assert tuple(token for delta in deltas for token in delta.token_ids) == sample.token_ids
    assert [value for delta in deltas for value in delta.logprobs] == pytest.approx(sample.logprobs, abs=1e-4)
    assert [delta.finish_reason for delta in deltas] == [None] * 14 + ["length"]


async def test_a_closed_stream_frees_its_place(make_engine: MakeEngine) -> None:
    engine = make_engine(max_rows=1)
    stream = engine.stream(request(PROMPT, max_tokens=LONG))
    assert isinstance(await anext(stream), SampleDelta)
    waiting = asyncio.create_task(engine.sample(request(PROMPT, max_tokens=2)))
    await stream.aclose()  # type: ignore[attr-defined]
    assert len((await waiting).token_ids) == 2
    await engine.sleep()


async def test_a_cancelled_sample_frees_its_place_and_its_adapter(make_engine: MakeEngine, adapter_folders: dict[str, Path]) -> None:
    engine = make_engine(max_rows=1)
    await engine.load_adapter("model@1", adapter_folders["model@1"])
    running = asyncio.create_task(engine.sample(request(PROMPT, adapter="model@1", max_tokens=LONG)))
    queued = asyncio.create_task(engine.sample(request(PROMPT, adapter="model@1", max_tokens=LONG)))
    await asyncio.sleep(0)
    for task in (running, queued):
        task.cancel()
    await asyncio.wait([running, queued])
    assert running.cancelled()
    assert queued.cancelled()
    await engine.unload_adapter("model@1")
    assert len((await engine.sample(request(PROMPT, max_tokens=2))).token_ids) == 2


async def test_sleep_waits_for_running_requests_and_new_ones_wait_for_wake(engine: LocalEngine) -> None:
    running = engine.stream(request(PROMPT, max_tokens=30))
    await anext(running)
    sleeping = asyncio.create_task(engine.sleep())
    await asyncio.sleep(0)
    late = asyncio.create_task(engine.sample(request(PROMPT, max_tokens=2)))
    await asyncio.sleep(0)
    assert not sleeping.done()
    assert len([delta async for delta in running]) == 29
    await sleeping
    for _ in range(20):
        await asyncio.sleep(0)
    assert not late.done()
    await engine.wake()
    assert len((await late).token_ids) == 2


async def test_a_request_that_slept_notices_that_its_adapter_is_gone(engine: LocalEngine, adapter_folders: dict[str, Path]) -> None:
    await engine.load_adapter("model@1", adapter_folders["model@1"])
    await engine.sleep()
    late = asyncio.create_task(engine.sample(request(PROMPT, adapter="model@1")))
    await asyncio.sleep(0)
    await engine.unload_adapter("model@1")
    await engine.wake()
    with pytest.raises(AdapterError, match="not loaded"):
        await late


async def test_an_adapter_in_use_is_not_unloaded(engine: LocalEngine, adapter_folders: dict[str, Path]) -> None:
    await engine.load_adapter("model@1", adapter_folders["model@1"])
    stream = engine.stream(request(PROMPT, adapter="model@1", max_tokens=10))
    await anext(stream)
    with pytest.raises(AdapterError, match="in use by 1"):
        await engine.unload_adapter("model@1")
    assert [delta async for delta in stream][-1].finish_reason == "length"
    await engine.sample(request(PROMPT, adapter="model@1", max_tokens=1))
    await engine.unload_adapter("model@1")
    assert engine.adapters() == ()


async def test_a_name_is_loaded_once(engine: LocalEngine, adapter_folders: dict[str, Path]) -> None:
    await engine.load_adapter("model@1", adapter_folders["model@1"])
    with pytest.raises(AdapterError, match="loaded already"):
        await engine.load_adapter("model@1", adapter_folders["model@2"])
    assert engine.adapters() == ("model@1",)


async def test_an_unknown_adapter_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(AdapterError, match="model@7"):
        await engine.sample(request(PROMPT, adapter="model@7"))
    with pytest.raises(AdapterError, match="model@7"):
        await engine.unload_adapter("model@7")


async def test_a_prompt_that_leaves_no_room_is_refused_and_a_reply_ends_with_the_context(engine: LocalEngine, sharp_model: Path) -> None:
    for length in (512, 600):
        with pytest.raises(ContextLengthError, match=f"{length} tokens"):
            await engine.sample(request(random_ids(1, length)))
    with pytest.raises(EngineError, match="empty"):
        await engine.sample(request(()))
    model = plain_model(sharp_model)
    for room in (1, 4):
        prompt = random_ids(room, 512 - room)
        sample = await engine.sample(request(prompt, max_tokens=LONG, seed=1))
        assert (sample.finish_reason, len(sample.token_ids)) == ("length", room)
        assert_logprobs_of(model, prompt, sample)


async def test_a_reply_under_a_schema_is_such_json_and_keeps_the_free_log_probabilities(
    engine: LocalEngine, sharp_model: Path, tiny_tokenizer: Any
) -> None:
    properties = {"day": {"enum": ["Monday", "Tuesday"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}}
    schema = {"type": "object", "properties": properties, "required": ["day", "count"], "additionalProperties": False}
    end = tiny_tokenizer.eos_token_id
    model = plain_model(sharp_model)

    def constrained(seed: int) -> SampleRequest:
        parameters = SamplingParameters(max_tokens=100, seed=seed, temperature=seed % 2)
        return SampleRequest(PROMPT, parameters, None, (end,), JsonSchemaGrammar(json.dumps(schema)))

    free = engine.sample(request(PROMPT, max_tokens=20, seed=1))
    *samples, beside = await asyncio.gather(*(engine.sample(constrained(seed)) for seed in range(6)), free)
    for sample in samples:
        assert sample.finish_reason == "stop"
        value = json.loads(tiny_tokenizer.decode([token for token in sample.token_ids if token != end]))
        assert value["day"] in ("Monday", "Tuesday")
        assert 0 <= value["count"] <= 99
        assert_logprobs_of(model, PROMPT, sample)
    assert_logprobs_of(model, PROMPT, beside)


async def test_an_error_in_a_worker_reaches_its_requests_and_the_engine_goes_on(engine: LocalEngine, sharp_model: Path) -> None:
    outside_the_vocabulary = (10 * VOCABULARY,)
    with pytest.raises(EngineError, match="outside the vocabulary"):
        await engine.sample(request(outside_the_vocabulary))
    checked = engine._info
    engine._info = dataclasses.replace(checked, vocabulary_size=100 * VOCABULARY)  # let it through, so that the worker stumbles
    with pytest.raises(EngineError, match="the engine failed"):
        await engine.sample(request(outside_the_vocabulary))
    engine._info = checked
    sample = await engine.sample(request(PROMPT, max_tokens=5))
    assert_logprobs_of(plain_model(sharp_model), PROMPT, sample)
    await engine.sleep()


async def test_a_closed_engine_fails_what_runs_and_what_comes(make_engine: MakeEngine) -> None:
    engine = make_engine(max_rows=1)
    running = engine.stream(request(PROMPT, max_tokens=LONG))
    await anext(running)
    queued = asyncio.create_task(engine.sample(request(PROMPT)))
    await asyncio.sleep(0)
    await engine.close()
    for unfinished in (queued, engine.sample(request(PROMPT))):
        with pytest.raises(EngineError, match="closed"):
            await unfinished
    with pytest.raises(EngineError, match="closed"):
        [delta async for delta in running]
    await engine.close()


async def test_different_prompts_are_spread_over_the_workers(make_engine: MakeEngine) -> None:
    engine = make_engine(num_workers=2)
    streams = [engine.stream(request(random_ids(seed, 20), max_tokens=50)) for seed in range(4)]
    for stream in streams:
        await anext(stream)
    assert engine.info.num_workers == 2
    assert [worker.num_unfinished for worker in engine._workers] == [2, 2]
    for stream in streams:
        assert len([delta async for delta in stream]) == 49
