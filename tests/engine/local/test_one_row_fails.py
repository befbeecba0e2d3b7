"""What is wrong with one row, one caller or one callback is its own error: the rows beside it end as they would have, and nobody hangs."""

from __future__ import annotations

import asyncio
import json
import math
import queue
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engine.local.conftest import MakeEngine
from tests.engine.local.requests import VOCABULARY, random_ids, request
from tests.engine.local.test_worker import TIMEOUT, Answer, Watched, hold_first_round

from journeyman.engine.local.cache import PrefixCache
from journeyman.engine.local.engine import LocalEngine
from journeyman.engine.local.rows import Row
from journeyman.errors import AdapterError, ContextLengthError, EngineError, JourneymanError, SettingError
from journeyman.modeling.lora import WEIGHTS_FILE
from journeyman.types.sampling import LarkGrammar, SampleDelta, SampleRequest, SamplingParameters

NAN_TOKEN, POISON = 7, 8
GOOD = [random_ids(f"good-{seed}", 20 + seed) for seed in range(3)]


class Panic(BaseException):
    """As the panics of compiled extensions: no Exception."""


class Guide:
    """A grammar that fails where it is told to."""

    is_finished = False

    def __init__(self, where: str, error: BaseException) -> None:
        self.where, self.error, self.num_masks = where, error, 0

    def mask(self) -> torch.Tensor:
        self.num_masks += 1
        if self.where == "mask" and self.num_masks == 3:
            raise self.error
        return torch.ones(VOCABULARY, dtype=torch.bool)

    def advance(self, token_id: int) -> None:
        if self.where == "advance" and self.num_masks == 2:
            raise self.error


@pytest.fixture
def watched(sharp_model: Path) -> Iterator[Watched]:
    watched = Watched(sharp_model, max_rows=4)
    embeddings = watched.module.get_input_embeddings()  # type: ignore[operator]

    def spoil(module: Any, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        if (args[0] == POISON).any():
            raise RuntimeError("a poisoned prompt")
        return output.masked_fill((args[0] == NAN_TOKEN)[..., None], math.nan)

    embeddings.register_forward_hook(spoil)
    yield watched
    watched.worker.close()


def without(ids: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(9 if token in (NAN_TOKEN, POISON) else token for token in ids)


def guided(where: str, error: BaseException) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row.guide = Guide(where, error)  # type: ignore[assignment]

    return change


def deaf(row: Row) -> None:
    """Its callback raises at the second token."""
    hear, heard = row.deliver, []

    def deliver(item: SampleDelta | Exception) -> None:
        heard.append(item)
        if len(heard) == 2:
            raise OSError("gone")
        hear(item)

    row.deliver, row.is_streaming = deliver, True


def nothing(row: Row) -> None:
    return


PROMPT = without(random_ids("bad", 25))
STOPS_AT_A_NUMBER = SamplingParameters(max_tokens=30).model_copy(update={"stop": (3,)})
BAD: dict[str, tuple[SampleRequest, Callable[[Row], None], type[JourneymanError]]] = {
    "a grammar that fails": (request(PROMPT, max_tokens=30), guided("mask", EngineError("dead end")), EngineError),
    "a grammar whose code panics": (request(PROMPT, max_tokens=30), guided("mask", Panic("unreachable")), EngineError),
    "a token outside the grammar": (request(PROMPT, max_tokens=30), guided("advance", ValueError("no")), EngineError),
    "a stop that is no text": (
        SampleRequest(PROMPT, SamplingParameters().model_copy(update={"max_tokens": 30, "stop": (3,)})),
        nothing,
        EngineError,
    ),
    "a callback that raises": (request(PROMPT, max_tokens=30), deaf, EngineError),
    "numbers that are none": (request((*PROMPT, NAN_TOKEN), max_tokens=30), nothing, EngineError),
    "numbers that were none long ago": (request((NAN_TOKEN, *PROMPT * 8), max_tokens=30), nothing, EngineError),
    "a pass that raises": (request((*PROMPT, POISON, 5), max_tokens=30), nothing, EngineError),
    "a token outside the vocabulary": (request((*PROMPT, 9999), max_tokens=30), nothing, EngineError),
    "a prompt too long": (request(PROMPT * 30, max_tokens=30), nothing, ContextLengthError),
    "no prompt": (request((), max_tokens=30), nothing, ContextLengthError),
    "no such adapter": (request(PROMPT, adapter="gone@1", max_tokens=30), nothing, AdapterError),
}


def batch(watched: Watched, bad: tuple[SampleRequest, Callable[[Row], None]] | None) -> tuple[list[Answer], Answer | None]:
    """The answers of good rows that ran with a bad one among them, in one batch."""
    answers: list[queue.Queue[Answer]] = []
    told: queue.Queue[Answer] = queue.Queue()

    def rest() -> None:
        answers.append(watched.submit(without(GOOD[1]), max_tokens=12)[1])
        if bad is not None:
            row = Row(bad[0], told.put, random.Random(0))
            bad[1](row)
            watched.worker.submit(row)
        answers.append(watched.submit(without(GOOD[2]), max_tokens=12)[1])

    hold_first_round(watched, rest)
    answers.insert(0, watched.submit(without(GOOD[0]), max_tokens=12)[1])
    found = [answers.pop(0).get(timeout=TIMEOUT) for _ in range(3)]
    last: Answer | None = None
    while bad is not None and not isinstance(last, Exception):
        last = told.get(timeout=TIMEOUT)
    return found, last


@pytest.mark.parametrize("kind", BAD)
def test_one_row_fails_alone_and_the_others_end_as_without_it(watched: Watched, kind: str) -> None:
    wanted, change, error = BAD[kind]
    expected, _ = batch(watched, None)
    watched.worker.rest()
    found, failure = batch(watched, (wanted, change))
    assert type(failure) is error
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, SampleDelta)
        assert isinstance(other, SampleDelta)
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)  # as everywhere: rounding depends on the size of the batch
    assert watched.worker.num_unfinished == 0
    # Nothing of it is left in the place that it had, nor in what is kept for others.
    assert [one.token_ids for one in batch(watched, None)[0] if isinstance(one, SampleDelta)] == [
        one.token_ids for one in expected if isinstance(one, SampleDelta)
    ]


def test_an_error_of_a_control_call_is_its_callers_and_the_worker_goes_on(watched: Watched) -> None:
    def fail(error: BaseException) -> Callable[[PrefixCache], None]:
        def function(cache: PrefixCache) -> None:
            raise error

        return function

    before = watched.sample(without(GOOD[0]), max_tokens=5)
    for error, kind in ((AdapterError("own"), AdapterError), (KeyError("x"), EngineError), (Panic("y"), EngineError)):
        with pytest.raises(kind):
            watched.worker.call(fail(error))
    with pytest.raises(EngineError):
        watched.worker.call(fail(TimeoutError("the function's own")))
    assert watched.sample(without(GOOD[0]), max_tokens=5) == before


@pytest.mark.parametrize("error", [SystemExit(1), Panic("unreachable"), KeyboardInterrupt()], ids=repr)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_worker_dies_all_who_wait_and_all_who_come_are_told(watched: Watched, error: BaseException) -> None:
    waiting: list[queue.Queue[Answer]] = []
    told: queue.Queue[BaseException | None] = queue.Queue()

    def ask() -> None:
        try:
            watched.worker.call(lambda cache: None)
        except EngineError as ended:
            told.put(ended)
        else:
            told.put(None)

    caller = threading.Thread(target=ask)

    def die() -> None:
        waiting.extend(watched.submit(without(prompt), max_tokens=5)[1] for prompt in GOOD)
        caller.start()
        raise error

    watched.before = die
    waiting.append(watched.submit(without(PROMPT), max_tokens=5)[1])
    while len(waiting) < 4:
        caller.join(0.01) if caller.is_alive() else None
    for answers in waiting:
        answer = answers.get(timeout=TIMEOUT)
        assert isinstance(answer, EngineError)
        assert answer.reason == "worker_died"
    ended = told.get(timeout=TIMEOUT)
    assert isinstance(ended, EngineError)
    assert ended.reason == "worker_died"
    late = watched.submit(without(PROMPT))[1].get(timeout=TIMEOUT)
    assert isinstance(late, EngineError)
    assert late.reason == "worker_died"
    for ask_again in (watched.worker.rest, watched.worker.check, lambda: watched.worker.call(lambda cache: None)):
        with pytest.raises(EngineError) as caught:
            ask_again()
        assert caught.value.reason == "worker_died"
    assert watched.worker.num_unfinished == 0


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda tensors: {name: value[:, :1] if "lora_B" in name else value for name, value in tensors.items()}, {}),
        (lambda tensors: {name: value[0] for name, value in tensors.items()}, {}),
        (lambda tensors: {name: value[:4] for name, value in tensors.items()}, {}),
        (lambda tensors: tensors, {"r": 0}),
        (lambda tensors: tensors, {"r": "four"}),
        (lambda tensors: tensors, {"lora_alpha": None}),
        (lambda tensors: dict(list(tensors.items())[1:]), {}),
    ],
)
async def test_an_adapter_that_does_not_fit_is_refused_by_name_and_the_engine_goes_on(
    engine: LocalEngine, adapter_folders: dict[str, Path], tmp_path: Path, change: Any, settings: dict[str, Any]
) -> None:
    source = adapter_folders["model@1"]
    config = json.loads((source / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    save_file({name: value.contiguous() for name, value in change(load_file(source / WEIGHTS_FILE)).items()}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(AdapterError):
        await engine.load_adapter("model@9", tmp_path)
    assert engine.adapters() == ()
    assert len((await engine.sample(request(PROMPT, max_tokens=2))).token_ids) == 2
    await engine.load_adapter("model@9", source)


async def test_an_adapter_of_nan_fails_its_own_requests_and_no_others(
    engine: LocalEngine, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    source = adapter_folders["model@1"]
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    save_file({name: torch.full_like(value, math.nan) for name, value in load_file(source / WEIGHTS_FILE).items()}, tmp_path / WEIGHTS_FILE)
    await engine.load_adapter("model@9", tmp_path)
    await engine.load_adapter("model@1", source)
    names = [None, "model@9", "model@1", "model@9", None]
    alone = [await engine.sample(request(PROMPT, adapter=name, max_tokens=6, seed=1)) for name in (None, "model@1")]
    together = await asyncio.gather(
        *(engine.sample(request(PROMPT, adapter=name, max_tokens=6, seed=1)) for name in names), return_exceptions=True
    )
    for name, found in zip(names, together, strict=True):
        if name == "model@9":
            assert isinstance(found, EngineError)
            assert found.reason == "not_numbers"
        else:
            assert not isinstance(found, BaseException)
            assert found.token_ids == alone[name is not None].token_ids


@pytest.mark.parametrize("grammar", ["start: (", "start: missing", "", "start: /(/", "\x00"])
async def test_a_grammar_that_cannot_be_used_is_that_requests_error(engine: LocalEngine, grammar: str) -> None:
    beside = asyncio.create_task(engine.sample(request(PROMPT, max_tokens=5)))
    with pytest.raises(SettingError) as caught:
        await engine.sample(SampleRequest(PROMPT, SamplingParameters(max_tokens=5), grammar=LarkGrammar(grammar)))
    assert caught.value.reason == "grammar_refused"
    assert len((await beside).token_ids) == 5


async def test_a_grammar_that_leads_nowhere_is_that_requests_error(engine: LocalEngine) -> None:
    beside = asyncio.create_task(engine.sample(request(PROMPT, max_tokens=5)))
    with pytest.raises(SettingError) as caught:
        await engine.sample(SampleRequest(PROMPT, SamplingParameters(max_tokens=5), grammar=LarkGrammar("start: start")))
    assert caught.value.reason == "grammar_dead_end"
    assert len((await beside).token_ids) == 5


async def test_a_sleep_that_is_given_up_leaves_the_engine_awake(engine: LocalEngine) -> None:
    running = engine.stream(request(PROMPT, max_tokens=400))
    await anext(running)
    sleeping = asyncio.create_task(engine.sleep())
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    assert len((await asyncio.wait_for(engine.sample(request(PROMPT, max_tokens=2)), TIMEOUT)).token_ids) == 2
    await running.aclose()  # type: ignore[attr-defined]


async def test_who_waits_for_a_sleeping_engine_is_told_when_it_closes(make_engine: MakeEngine) -> None:
    engine = make_engine()
    await engine.sleep()
    waiting = asyncio.create_task(engine.sample(request(PROMPT)))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineError) as caught:
        await asyncio.wait_for(waiting, TIMEOUT)
    assert caught.value.reason == "closed"
