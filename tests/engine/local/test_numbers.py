"""Whatever is shared, kept, batched or interleaved: tokens and log-probabilities are those of the plain model."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.local.conftest import MakeEngine
from tests.engine.local.requests import assert_logprobs_of, random_ids, request
from tests.tiny import LORA, base_of, build_model, make_sample, plain_model, write_adapter

from journeyman.trainer.trainer import LoraTrainer


def test_greedy_samples_equal_generate(sharp_model: Path) -> None:
    """In its own event loop: generate() takes no part in it."""

    async def ours() -> list[tuple[int, ...]]:
        from journeyman.engine.local.engine import LocalEngine

        engine = LocalEngine.create(base_of(sharp_model), num_workers=1, precision="float32")
        prompts = [random_ids(seed, 5 + seed) for seed in range(4)]
        samples = await asyncio.gather(*(engine.sample(request(prompt, temperature=0.0, max_tokens=24)) for prompt in prompts))
        await engine.close()
        return [sample.token_ids for sample in samples]

    model = plain_model(sharp_model)
    model.generation_config.eos_token_id = None
    for seed, ids in enumerate(asyncio.run(ours())):
        row = torch.tensor([random_ids(seed, 5 + seed)])
        out = model.generate(row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=24)
        assert tuple(out[0, row.shape[1] :].tolist()) == ids


@pytest.mark.parametrize("num_prompt", [1, 2, 16, 17, 60])
async def test_a_group_shares_its_prompt_and_continues_it_over_turns(make_engine: MakeEngine, sharp_model: Path, num_prompt: int) -> None:
    engine, model = make_engine(), plain_model(sharp_model)
    prompts = [random_ids(num_prompt, num_prompt)] * 8
    for turn in range(3):
        samples = await asyncio.gather(
            *(engine.sample(request(prompt, max_tokens=3 + number, seed=number)) for number, prompt in enumerate(prompts))
        )
        for prompt, sample in zip(prompts, samples, strict=True):
            assert_logprobs_of(model, prompt, sample)
        assert len({sample.token_ids for sample in samples}) > 1
        results = [random_ids(f"{turn} {number}", 1 + 5 * number) for number in range(8)]
        prompts = [(*prompt, *sample.token_ids, *result) for prompt, sample, result in zip(prompts, samples, results, strict=True)]


@pytest.mark.parametrize("name", [None, "model@1"])
async def test_log_probabilities_are_the_trainers(
    make_engine: MakeEngine, sharp_model: Path, adapter_folders: dict[str, Path], tmp_path: Path, name: str | None
) -> None:
    engine = make_engine()
    trainer = LoraTrainer(base_of(sharp_model), LORA, 1, precision="float32")
    if name is not None:
        trainer.save_state(tmp_path)
        write_adapter(sharp_model, tmp_path / "adapter", seed=1)
        trainer.load_state(tmp_path)
        assert await engine.load_adapter(name, adapter_folders[name]) == trainer.fingerprint()
    prompt = random_ids(1, 30)
    first = await asyncio.gather(*(engine.sample(request(prompt, adapter=name, max_tokens=8, seed=seed)) for seed in range(4)))
    second_prompts = [(*prompt, *sample.token_ids, *random_ids(seed, 5)) for seed, sample in enumerate(first)]
    second = await asyncio.gather(*(engine.sample(request(ids, adapter=name, max_tokens=8, seed=9)) for ids in second_prompts))
    samples = [make_sample((*prompt, *sample.token_ids), len(prompt)) for sample in first]
    samples += [make_sample((*ids, *sample.token_ids), len(ids)) for ids, sample in zip(second_prompts, second, strict=True)]
    for sampled, logprobs in zip([*first, *second], trainer.logprobs(samples), strict=True):
        assert list(sampled.logprobs) == pytest.approx(logprobs, abs=1e-4)
        assert sampled.adapter == name
    trainer.close()


@pytest.mark.parametrize(("num_workers", "max_rows"), [(1, 32), (1, 3), (2, 2)])
async def test_random_traffic_of_several_adapters_is_right(
    make_engine: MakeEngine, sharp_model: Path, adapter_folders: dict[str, Path], num_workers: int, max_rows: int
) -> None:
    """Conversations of different lengths, adapters and starts, far more than there are rows; the cache is small, so it forgets."""
    engine = make_engine(num_workers=num_workers, max_rows=max_rows, cache_gigabytes=2e-4)
    models: dict[str | None, Any] = {None: plain_model(sharp_model)}
    for name, folder in adapter_folders.items():
        await engine.load_adapter(name, folder)
        models[name] = plain_model(sharp_model, folder)

    async def converse(seed: int) -> None:
        uniform = random.Random(seed)
        adapter = uniform.choice(list(models))
        prompt = random_ids(seed % 3, 40)[: uniform.randrange(1, 41)] + random_ids(seed, uniform.randrange(20))
        for turn in range(uniform.randrange(1, 4)):
            sample = await engine.sample(request(prompt, adapter=adapter, max_tokens=uniform.randrange(1, 14), seed=turn))
            assert_logprobs_of(models[adapter], prompt, sample)
            assert sample.adapter == adapter
            prompt = (*prompt, *sample.token_ids, *random_ids(f"{seed} {turn}", uniform.randrange(25)))

    await asyncio.gather(*(converse(seed) for seed in range(40)))


async def test_many_more_requests_than_rows_are_all_answered(make_engine: MakeEngine, sharp_model: Path) -> None:
    engine, model = make_engine(max_rows=3), plain_model(sharp_model)
    prompts = [random_ids(seed, 3 + seed % 7) for seed in range(25)]
    samples = await asyncio.gather(*(engine.sample(request(ids, max_tokens=1 + n % 9, seed=n)) for n, ids in enumerate(prompts)))
    for prompt, sample in zip(prompts, samples, strict=True):
        assert_logprobs_of(model, prompt, sample)
    assert [len(sample.token_ids) for sample in samples] == [1 + number % 9 for number in range(25)]


async def test_a_row_may_outgrow_the_places_there_were(make_engine: MakeEngine, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from journeyman.engine.local.worker import INITIAL_CAPACITY

    folder = build_model(tmp_path, tiny_tokenizer, num_positions=4 * INITIAL_CAPACITY)
    engine, model = make_engine(folder, max_rows=4), plain_model(folder)
    lengths = [INITIAL_CAPACITY - 20, INITIAL_CAPACITY - 20, 30, 2 * INITIAL_CAPACITY + 50]
    prompts = [random_ids(min(length, INITIAL_CAPACITY), length) for length in lengths]
    samples = await asyncio.gather(*(engine.sample(request(ids, max_tokens=40, seed=n)) for n, ids in enumerate(prompts)))
    for prompt, sample in zip(prompts, samples, strict=True):
        assert_logprobs_of(model, prompt, sample)


async def test_a_seed_repeats_a_sample_whatever_runs_beside_it(make_engine: MakeEngine) -> None:
    engine = make_engine()
    prompt = random_ids(5, 30)
    alone = await engine.sample(request(prompt, max_tokens=20, seed=3))
    crowd = [engine.sample(request(random_ids(seed, 20 + seed), max_tokens=25, seed=seed)) for seed in range(6)]
    again, other, *_ = await asyncio.gather(
        engine.sample(request(prompt, max_tokens=20, seed=3)), engine.sample(request(prompt, max_tokens=20, seed=4)), *crowd
    )
    assert again.token_ids == alone.token_ids
    assert other.token_ids != alone.token_ids
    unseeded = [await engine.sample(request(prompt, max_tokens=20)) for _ in range(2)]
    assert unseeded[0].token_ids != unseeded[1].token_ids


async def test_a_new_version_does_not_use_what_an_old_one_computed(
    make_engine: MakeEngine, sharp_model: Path, adapter_folders: dict[str, Path]
) -> None:
    engine = make_engine()
    prompt = random_ids(7, 40)
    for name in (*adapter_folders, None):
        if name is not None:
            await engine.load_adapter(name, adapter_folders[name])
        sample = await engine.sample(request(prompt, adapter=name, max_tokens=5, seed=0))
        assert_logprobs_of(plain_model(sharp_model, adapter_folders.get(name or "")), prompt, sample)


async def test_a_name_that_was_unloaded_may_serve_other_weights(
    make_engine: MakeEngine, sharp_model: Path, adapter_folders: dict[str, Path]
) -> None:
    engine = make_engine()
    prompt = random_ids(8, 40)
    for folder in list(adapter_folders.values())[:2]:
        await engine.load_adapter("model@9", folder)
        sample = await engine.sample(request(prompt, adapter="model@9", max_tokens=5, seed=0))
        assert_logprobs_of(plain_model(sharp_model, folder), prompt, sample)
        await engine.unload_adapter("model@9")
