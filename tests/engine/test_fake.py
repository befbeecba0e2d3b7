"""The fake engine follows the engine protocol, so that what is tested with it holds for real ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from journeyman.engine.base import Engine
from journeyman.engine.fake import FakeEngine, folder_fingerprint
from journeyman.errors import AdapterError, ContextLengthError
from journeyman.types.sampling import SampleRequest, SamplingParameters


def request(tokenizer: Any, prompt: str = "hi", **changes: Any) -> SampleRequest:
    parameters = SamplingParameters(max_tokens=changes.pop("max_tokens", 64), stop=changes.pop("stop", ()))
    ids = tuple(tokenizer.encode(prompt, add_special_tokens=False))
    return SampleRequest(ids, parameters, stop_token_ids=(tokenizer.eos_token_id,), **changes)


@pytest.fixture
def engine(tiny_tokenizer: Any) -> FakeEngine:
    return FakeEngine(lambda prompt: f"you said {prompt}", tiny_tokenizer, context_length=64)


async def test_it_answers_as_scripted_with_one_logprob_a_token(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    typed: Engine = engine
    sample = await typed.sample(request(tiny_tokenizer))
    assert tiny_tokenizer.decode(sample.token_ids) == "you said hi<|im_end|>"
    assert sample.finish_reason == "stop"
    assert len(sample.logprobs) == len(sample.token_ids)
    assert sample == await typed.sample(request(tiny_tokenizer)), "the same request gives the same sample"


async def test_max_tokens_and_stop_strings_end_a_sample(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    assert (await engine.sample(request(tiny_tokenizer, max_tokens=2))).finish_reason == "length"
    stopped = await engine.sample(request(tiny_tokenizer, stop=("said",)))
    assert stopped.finish_reason == "stop"
    assert tiny_tokenizer.decode(stopped.token_ids).endswith("said")


async def test_a_prompt_that_fills_the_context_is_refused(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    with pytest.raises(ContextLengthError, match="64"):
        await engine.sample(request(tiny_tokenizer, "x" * 64))


async def test_an_adapter_name_is_loaded_once_and_must_be_known(engine: FakeEngine, tiny_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    assert await engine.load_adapter("m@1", tmp_path) == folder_fingerprint(tmp_path)
    with pytest.raises(AdapterError, match="m@1"):
        await engine.load_adapter("m@1", tmp_path)
    with pytest.raises(AdapterError, match="m@2"):
        await engine.sample(request(tiny_tokenizer, adapter="m@2"))
    base = await engine.sample(request(tiny_tokenizer))
    tuned = await engine.sample(request(tiny_tokenizer, adapter="m@1"))
    assert tuned.adapter == "m@1"
    assert tuned.logprobs != base.logprobs


async def test_an_adapter_in_use_is_unloaded_only_when_its_request_ends(engine: FakeEngine, tiny_tokenizer: Any, tmp_path: Path) -> None:
    await engine.load_adapter("m@1", tmp_path)
    engine.hold()
    running = asyncio.create_task(engine.sample(request(tiny_tokenizer, adapter="m@1")))
    await engine.until_running(1)
    unloading = asyncio.create_task(engine.unload_adapter("m@1"))
    await _settle()
    assert engine.adapters() == ("m@1",)
    engine.release()
    await unloading
    assert (await running).finish_reason == "stop"
    assert engine.adapters() == ()


async def test_cancelling_frees_its_place(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    engine.hold()
    running = asyncio.create_task(engine.sample(request(tiny_tokenizer)))
    await engine.until_running(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.num_running == 0
    assert engine.num_cancelled == 1


async def test_sleep_waits_for_running_requests_and_holds_new_ones_until_wake(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    await engine.sleep()
    waiting = asyncio.create_task(engine.sample(request(tiny_tokenizer)))
    await _settle()
    assert not waiting.done()
    await engine.wake()
    assert (await waiting).finish_reason == "stop"


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_has_deltas_of_the_sizes_asked_for_and_can_be_held_midway(engine: FakeEngine, tiny_tokenizer: Any) -> None:
    engine.delta_sizes = (2, 1)
    whole = await engine.sample(request(tiny_tokenizer))
    engine.hold(after_tokens=3)
    deltas = engine.stream(request(tiny_tokenizer))
    begun = [await anext(deltas), await anext(deltas)]
    assert [len(delta.token_ids) for delta in begun] == [2, 1]
    engine.release()
    rest = [delta async for delta in deltas]
    assert tuple(token for delta in [*begun, *rest] for token in delta.token_ids) == whole.token_ids
    assert [delta.finish_reason for delta in [*begun, *rest]].index("stop") == len(begun) + len(rest) - 1
