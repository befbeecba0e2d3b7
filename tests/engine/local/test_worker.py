"""A worker computes only what is new, frees the rows of cancelled requests, and survives what goes wrong in a round."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.local.requests import random_ids, request

from journeyman.engine.local.cache import CacheShape
from journeyman.engine.local.rows import Row
from journeyman.engine.local.variants import Variants
from journeyman.engine.local.worker import Worker
from journeyman.errors import EngineError
from journeyman.modeling.weights import load_module
from journeyman.types.sampling import SampleDelta

Answer = SampleDelta | Exception
Submit = Callable[..., "tuple[Row, queue.Queue[Answer]]"]
TIMEOUT = 30.0


class Watched:
    """A worker whose forward passes are counted; `before` runs before each of them, in the worker's thread."""

    def __init__(self, folder: Path, max_rows: int) -> None:
        self.num_tokens: list[int] = []
        self.before: Callable[[], None] = lambda: None
        module = load_module(folder)
        module.get_decoder().register_forward_pre_hook(self._count, with_kwargs=True)  # type: ignore[operator]
        self.module = module
        shape = CacheShape(2, 2, 8, torch.float32, "cpu")
        self.worker = Worker(Variants(module), shape, context_length=512, max_rows=max_rows, cache_bytes=1 << 24, decode=str)

    def _count(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        self.num_tokens.append(kwargs["input_ids"].shape[1])
        self.before()

    def submit(self, prompt: tuple[int, ...], *, is_streaming: bool = False, **parameters: Any) -> tuple[Row, queue.Queue[Answer]]:
        answers: queue.Queue[Answer] = queue.Queue()
        row = Row(request(prompt, **parameters), answers.put, random.Random(0), is_streaming=is_streaming)
        self.worker.submit(row)
        return row, answers

    def sample(self, prompt: tuple[int, ...], **parameters: Any) -> tuple[int, ...]:
        answer = self.submit(prompt, **parameters)[1].get(timeout=TIMEOUT)
        assert isinstance(answer, SampleDelta)
        return answer.token_ids


@pytest.fixture
def watched(sharp_model: Path) -> Iterator[Watched]:
    watched = Watched(sharp_model, max_rows=4)
    yield watched
    watched.worker.close()


def hold_first_round(watched: Watched, submit_rest: Callable[[], None]) -> None:
    """Let `submit_rest` run while the worker is in its next forward pass, so that all it submits arrives at once."""

    def once() -> None:
        watched.before = lambda: None
        submit_rest()

    watched.before = once


def test_the_next_turn_computes_only_what_is_new(watched: Watched) -> None:
    prompt = random_ids(1, 50)
    reply = watched.sample(prompt, max_tokens=6)
    assert watched.num_tokens == [50, 1, 1, 1, 1, 1]
    watched.num_tokens.clear()
    watched.sample((*prompt, *reply, *random_ids(2, 7)), max_tokens=1)
    assert watched.num_tokens == [8], "the last sampled token and the seven new ones"


def test_a_group_computes_its_prompt_once(watched: Watched) -> None:
    prompt = random_ids(3, 60)
    answers: list[queue.Queue[Answer]] = []
    hold_first_round(watched, lambda: answers.extend(watched.submit(prompt, max_tokens=3)[1] for _ in range(3)))
    answers.append(watched.submit(prompt, max_tokens=3)[1])
    for _ in range(4):
        assert isinstance(answers.pop().get(timeout=TIMEOUT), SampleDelta)
    assert watched.num_tokens[0] == 60
    assert sum(watched.num_tokens[1:]) <= 4 * 3, "each sibling computes the prompt's last token and its own"


def test_prompts_that_begin_alike_share_the_beginning(watched: Watched) -> None:
    start = random_ids(4, 40)
    watched.sample((*start, *random_ids(5, 20)), max_tokens=1)
    watched.sample((*start, *random_ids(6, 30)), max_tokens=1)
    assert watched.num_tokens == [60, 30]


def test_forgetting_computes_again(watched: Watched) -> None:
    prompt = random_ids(7, 50)
    watched.sample(prompt, max_tokens=1)
    watched.worker.call(lambda cache: cache.forget(everything=True))
    watched.sample(prompt, max_tokens=1)
    assert watched.num_tokens == [50, 50]


def test_a_cancelled_row_leaves_in_the_next_round(watched: Watched) -> None:
    row, answers = watched.submit(random_ids(8, 20), is_streaming=True, max_tokens=400)

    def cancel() -> None:
        row.is_cancelled = True

    watched.before = cancel
    seen = []
    while not seen or seen[-1].finish_reason is None:
        answer = answers.get(timeout=TIMEOUT)
        assert isinstance(answer, SampleDelta)
        seen.append(answer)
    assert seen[-1].finish_reason == "cancelled"
    assert len(watched.num_tokens) < 400
    assert watched.worker.num_unfinished == 0


def test_a_request_cancelled_while_it_waits_is_never_computed(watched: Watched) -> None:
    waiting: list[tuple[Row, queue.Queue[Answer]]] = []

    def submit_cancelled() -> None:
        waiting.append(watched.submit(random_ids(9, 99), max_tokens=5))
        waiting[0][0].is_cancelled = True

    hold_first_round(watched, submit_cancelled)
    watched.sample(random_ids(10, 20), max_tokens=5)
    answer = waiting[0][1].get(timeout=TIMEOUT)
    assert isinstance(answer, SampleDelta)
    assert (answer.token_ids, answer.finish_reason) == ((), "cancelled")
    assert 99 not in watched.num_tokens


def test_an_error_in_a_round_fails_all_its_requests_and_the_worker_goes_on(watched: Watched) -> None:
    prompt = random_ids(11, 30)
    expected = watched.sample(prompt, max_tokens=5)
    answers: list[queue.Queue[Answer]] = []

    def fail_later() -> None:
        answers.extend(watched.submit(random_ids(seed, 20), max_tokens=200)[1] for seed in range(5))
        watched.before = fail

    def fail() -> None:
        if len(watched.num_tokens) > 12:
            watched.before = lambda: None
            raise RuntimeError("out of memory")

    watched.before = fail_later
    _, first = watched.submit(random_ids("first", 20), max_tokens=200)
    assert isinstance(first.get(timeout=TIMEOUT), EngineError)
    assert len(answers) == 5
    for queued in answers:
        answer = queued.get(timeout=TIMEOUT)
        assert isinstance(answer, EngineError)
        assert "out of memory" in str(answer)
    assert watched.sample(prompt, max_tokens=5) == expected
    assert watched.worker.num_unfinished == 0


def test_predictions_that_are_not_numbers_are_an_error_and_spoil_nothing_else(watched: Watched) -> None:
    prompt = random_ids(12, 30)
    expected = watched.sample(prompt, max_tokens=5)
    layer = watched.module.get_submodule("model.layers.0.self_attn.v_proj")
    good = layer.weight
    layer.weight = torch.nn.Parameter(torch.full_like(good, float("nan")), requires_grad=False)  # type: ignore[arg-type]
    answer = watched.submit(random_ids(13, 60), max_tokens=5)[1].get(timeout=TIMEOUT)
    assert isinstance(answer, EngineError)
    assert "not numbers" in str(answer)
    layer.weight = good
    assert watched.sample(prompt, max_tokens=5) == expected


def test_closing_fails_what_is_unfinished_and_refuses_what_comes(watched: Watched) -> None:
    _, running = watched.submit(random_ids(14, 20), max_tokens=490)
    watched.worker.close()
    _, late = watched.submit(random_ids(15, 20))
    for answers in (running, late):
        answer = answers.get(timeout=TIMEOUT)
        assert isinstance(answer, EngineError)
        assert "closed" in str(answer)
    with pytest.raises(EngineError, match="closed"):
        watched.worker.call(lambda cache: cache.forget(everything=True))


def test_rest_that_comes_too_late_leaves_a_running_row_its_numbers(watched: Watched) -> None:
    prompt, count = random_ids(9, 40), 40
    expected = watched.submit(prompt, max_tokens=count)[1].get(timeout=TIMEOUT)
    watched.worker.rest()
    watched.num_tokens.clear()
    rested_after: list[int] = []

    def rest() -> None:
        watched.worker.rest()
        rested_after.append(len(watched.num_tokens))

    resting = threading.Thread(target=rest)

    def before() -> None:
        if len(watched.num_tokens) == 3:
            resting.start()
        if len(watched.num_tokens) >= 3:
            resting.join(0.05)  # it rests between two rounds, never in one

    watched.before = before
    found = watched.submit(prompt, max_tokens=count)[1].get(timeout=TIMEOUT)
    resting.join(TIMEOUT)
    assert 3 <= rested_after[0] < count
    assert found == expected
