"""A DPO job's pairs become samples, each named by its number; what cannot be learned from is refused, or dropped and counted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.reasons import has_reason
from tests.service.house import CREATE, House, attempt, finish
from tests.service.test_samples import trajectory

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.errors import InputError
from journeyman.service.examples import PreferenceBatch, preference_batch
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.settings import Dpo
from journeyman.types.training import AnyPair, DpoJob, PairLossJob, PreferencePair, StoredPair, TextPair, TrainResult
from journeyman.types.trajectory import Trajectory

USER = Message(role="user", content="hi")
TEXTS = TextPair(prompt="one two", chosen=" three", rejected=" four")


def says(text: str) -> Message:
    return Message(role="assistant", content=text)


def conversation(chosen: str = "hello", rejected: str = "go away") -> PreferencePair:
    return PreferencePair(prompt=(USER,), chosen=(says(chosen),), rejected=(says(rejected),))


@pytest.fixture
def renderer(tiny_tokenizer: Any) -> Renderer:
    return Renderer(tiny_tokenizer, 512)


def no_store(trajectory_id: str) -> Trajectory:
    raise AssertionError(f"{trajectory_id} was asked for")


def batch(renderer: Renderer, *pairs: Any, **settings: Any) -> PreferenceBatch:
    return preference_batch(DpoJob(pairs=pairs, settings=Dpo(**settings)), renderer, no_store)


def trained_text(renderer: Renderer, found: PreferenceBatch, number: int = 0) -> tuple[str, str]:
    samples = (found.pairs[number].chosen[0], found.pairs[number].rejected[0])
    return tuple(  # type: ignore[return-value]
        renderer.decode([token for token, sampled in zip(one.token_ids, one.is_sampled, strict=True) if sampled]) for one in samples
    )


class TestRendering:
    def test_only_the_replies_are_compared_with_the_token_that_ends_them(self, renderer: Renderer) -> None:
        found = batch(renderer, conversation(), TEXTS)
        assert trained_text(renderer, found) == ("hello<|im_end|>", "go away<|im_end|>")
        assert trained_text(renderer, found, 1) == (" three<|im_end|>", " four<|im_end|>")
        assert found.metrics == {"num_pairs": 2.0, "num_pairs_equal": 0.0}
        assert [pair.name for pair in found.pairs] == ["pair 0", "pair 1"]
        chosen, rejected = found.pairs[0].samples
        prompt = renderer.render((USER,), ())
        assert chosen.token_ids[: len(prompt)] == rejected.token_ids[: len(prompt)] == prompt

    def test_replies_in_the_prompt_are_given_and_several_in_a_side_are_compared(self, renderer: Renderer) -> None:
        pair = PreferencePair(prompt=(USER, says("before"), USER), chosen=(says("a"), USER, says("b")), rejected=(says("c"),))
        assert trained_text(renderer, batch(renderer, pair)) == ("a<|im_end|>b<|im_end|>", "c<|im_end|>")

    @pytest.mark.parametrize(
        ("pair", "complaint"),
        [
            (PreferencePair(prompt=(USER,), chosen=(), rejected=(says("x"),)), "pair 1 has no assistant message in its chosen side"),
            (PreferencePair(prompt=(USER,), chosen=(says("x"),), rejected=(USER,)), "pair 1: "),
            (TextPair(prompt="a", chosen="b", rejected=""), "pair 1 has no text in its rejected side"),
        ],
    )
    def test_a_side_with_nothing_to_compare_is_refused_by_number(self, renderer: Renderer, pair: Any, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            batch(renderer, conversation(), pair)

    def test_no_pairs_are_refused(self, renderer: Renderer) -> None:
        with pytest.raises(InputError, check=has_reason("nothing_to_train")):
            batch(renderer)


class TestStored:
    def stored(self, renderer: Renderer, *trajectories: Trajectory) -> PreferenceBatch:
        known = {one.id: one for one in trajectories}
        pair = StoredPair(chosen=trajectories[0].id, rejected=trajectories[1].id)
        return preference_batch(DpoJob(pairs=(pair,)), renderer, known.__getitem__)

    def test_every_segment_of_a_trajectory_is_on_its_side(self, renderer: Renderer) -> None:
        (pair,) = self.stored(renderer, trajectory("a", 4, num_segments=3), trajectory("b", 2)).pairs
        assert pair.name == "pair 0 (a over b)"
        assert [sample.trajectory_id for sample in pair.chosen] == ["a"] * 3
        assert [sample.num_sampled for sample in pair.rejected] == [2]

    def test_attempts_at_two_scenarios_are_refused(self, renderer: Renderer) -> None:
        other = trajectory("b", 2).model_copy(update={"scenario_id": "t"})
        with pytest.raises(InputError, check=has_reason("other_scenario")):
            self.stored(renderer, trajectory("a", 4), other)

    def test_a_trajectory_without_sampled_tokens_is_refused(self, renderer: Renderer) -> None:
        with pytest.raises(InputError, check=has_reason("nothing_to_train")):
            self.stored(renderer, trajectory("a", 4), trajectory("b", 0))


class TestEqualSides:
    def test_are_refused_by_number(self, renderer: Renderer) -> None:
        with pytest.raises(InputError, check=has_reason("equal_sides")) as caught:
            batch(renderer, conversation(), conversation("x", "x"), TextPair(prompt="a", chosen="b", rejected="b"))
        assert "pair 1 " in caught.value.message

    def test_are_dropped_counted_and_said_when_asked(self, renderer: Renderer) -> None:
        found = batch(renderer, conversation("x", "x"), conversation(), when_equal="drop")
        assert [pair.name for pair in found.pairs] == ["pair 1"]
        assert found.metrics == {"num_pairs": 1.0, "num_pairs_equal": 1.0}
        assert "1 pairs were dropped" in found.notes[0]

    def test_are_refused_when_there_is_nothing_else(self, renderer: Renderer) -> None:
        with pytest.raises(InputError, check=has_reason("equal_sides")):
            batch(renderer, conversation("x", "x"), when_equal="drop")

    def test_calls_with_other_arguments_are_not_equal(self, renderer: Renderer) -> None:
        sides = [
            Message(role="assistant", tool_calls=(ToolCall(function=FunctionCall(name="get", arguments=f'{{"a": {value}}}')),))
            for value in (1, 2)
        ]
        found = batch(renderer, PreferencePair(prompt=(USER,), chosen=(sides[0],), rejected=(sides[1],)))
        assert len(found.pairs) == 1


@pytest.mark.parametrize("pair", [conversation(), TEXTS, StoredPair(chosen="a", rejected="b")])
def test_every_pair_survives_the_wire(pair: AnyPair) -> None:
    job = DpoJob(pairs=(pair,), settings=Dpo(loss="simpo", gamma=1.0))
    assert DpoJob.model_validate_json(job.model_dump_json()) == job


def test_a_misspelt_field_of_a_pair_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        DpoJob.model_validate({"pairs": [{"prompt": "a", "chosen": "b", "rejetced": "c"}]})
    assert {error["loc"][-1] for error in caught.value.errors()} == {"rejected", "rejetced"}


async def train(house: House, *pairs: Any, **settings: Any) -> TrainResult:
    backend = house.open[0]
    status = await finish(backend, backend.train("m", DpoJob(pairs=pairs, settings=Dpo(**settings))))
    assert status.result is not None, status.error
    return status.result


class TestJobs:
    async def test_a_step_publishes_the_next_version_and_logs_its_numbers(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        result = await train(house, conversation(), TEXTS)
        assert (result.step, result.adapter) == (1, "m@1")
        assert (result.metrics["train/loss"], result.metrics["train/num_pairs"], result.notes) == (0.75, 2.0, ())
        assert [(row.phase, row.step) for row in backend.store.runs.steps("r")] == [("train", 1)]
        assert len(house.trainer.seen[0]) == 2

    async def test_stored_trajectories_are_compared_by_the_tokens_that_were_drawn(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        ids = [await attempt(backend, seed=seed) for seed in range(2)]
        # The fake engine says the same whatever the seed: both sides are equal.
        status = await finish(backend, backend.train("m", DpoJob(pairs=(StoredPair(chosen=ids[0], rejected=ids[1]),))))
        assert status.error is not None
        assert f"pair 0 ({ids[0]} over {ids[1]})" in status.error
        assert isinstance(backend.engine, FakeEngine)
        backend.engine.script = lambda _: "good bye"
        other = await attempt(backend)
        await train(house, StoredPair(chosen=other, rejected=ids[0]))
        ((chosen, rejected),) = house.trainer.seen[0]
        for sample, trajectory_id in ((chosen, other), (rejected, ids[0])):
            (turn,) = backend.store.rollouts.trajectory(trajectory_id).turns
            assert sample.token_ids == (*turn.prompt_ids, *turn.sampled_ids)
            assert sample.num_sampled == len(turn.sampled_ids)

    async def test_a_chosen_that_falls_is_warned_of(self, house: House) -> None:
        await house.start().create_model(CREATE)
        first = await train(house, conversation())
        house.trainer.chosen_change = -0.4
        second = await train(house, conversation())
        assert first.notes == ()
        assert "chosen_falling: the chosen replies are 0.40 nats per token less likely" in second.notes[0]

    async def test_pairs_are_measured_without_training(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        await train(house, conversation())
        weight = house.trainer.weight
        status = await finish(backend, backend.train("m", PairLossJob(pairs=(conversation(), TEXTS))))
        assert status.result is not None
        assert (status.result.step, status.result.adapter) == (1, "m@1")
        assert status.result.metrics == {"loss": 0.375 + weight, "ranked_right": 0.5, "num_pairs": 2.0, "num_pairs_equal": 0.0}
        assert (house.trainer.step, house.trainer.weight, len(backend.store.runs.steps("r"))) == (1, weight, 1)
        status = await finish(backend, backend.train("m", PairLossJob(pairs=(conversation("x", "x"),))))
        assert status.error is not None
        assert "pair 0" in status.error

    async def test_a_failed_step_leaves_everything_as_it_was(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        house.trainer.fail_with = MemoryError("no memory")
        status = await finish(backend, backend.train("m", DpoJob(pairs=(conversation(),))))
        assert (status.state, status.error_code) == ("failed", "training_failed")
        assert (house.trainer.step, house.trainer.weight, backend.model_info("m").adapter) == (0, 0.0, "m@0")

    async def test_an_unknown_trajectory_fails_before_anything_is_computed(self, house: House) -> None:
        backend = house.start()
        await backend.create_model(CREATE)
        status = await finish(backend, backend.train("m", DpoJob(pairs=(StoredPair(chosen="no", rejected="no"),))))
        assert (status.error_code, house.trainer.seen) == ("not_found", [])
