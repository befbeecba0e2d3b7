"""Batches are deterministic, resumable, and complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.client.gather import iterate
from journeyman.errors import SettingError
from journeyman.types.scenarios import Scenario


def scenarios(count: int) -> list[Scenario]:
    return [Scenario(id=str(number), task="t") for number in range(count)]


@given(count=st.integers(1, 30), size=st.integers(1, 40), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_scenario_comes_once_an_epoch(count: int, size: int, epochs: int, seed: int) -> None:
    batches = list(iterate(scenarios(count), groups_per_step=size, epochs=epochs, seed=seed))
    for epoch in range(epochs):
        ids = [scenario.id for batch in batches if batch.epoch == epoch for scenario in batch]
        assert sorted(ids, key=int) == [str(number) for number in range(count)]
    assert [batch.step for batch in batches] == list(range(len(batches)))


@given(count=st.integers(1, 20), size=st.integers(1, 8), start=st.integers(0, 30))
def test_a_resumed_iteration_gives_the_same_batches(count: int, size: int, start: int) -> None:
    whole = list(iterate(scenarios(count), groups_per_step=size, epochs=3, seed=7))
    resumed = iterate(scenarios(count), groups_per_step=size, epochs=3, seed=7, start=start)
    assert list(resumed) == whole[start:]
    assert len(resumed) == len(whole[start:])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = iterate(scenarios(20), groups_per_step=20, epochs=2)
    (other,) = iterate(scenarios(20), groups_per_step=20, seed=1)
    assert len({tuple(scenario.id for scenario in batch) for batch in (first, second, other)}) == 3


def test_more_groups_than_scenarios_make_a_batch_of_each_epoch() -> None:
    batches = list(iterate(scenarios(3), groups_per_step=8, epochs=2))
    assert [(len(batch), batch.epoch, batch.step) for batch in batches] == [(3, 0, 0), (3, 1, 1)]


@given(count=st.integers(2, 40), size=st.integers(1, 9), seed=st.integers(0, 5), share=st.floats(0.1, 0.9))
def test_every_stretch_of_an_epoch_holds_the_kinds_in_the_proportions_of_the_whole(count: int, size: int, seed: int, share: float) -> None:
    rare = {str(number) for number in range(max(1, int(share * count)))}
    batches = list(iterate(scenarios(count), groups_per_step=size, seed=seed, kind=lambda scenario: scenario.id in rare))
    assert sorted((scenario.id for batch in batches for scenario in batch), key=int) == [str(number) for number in range(count)]
    seen = 0
    for number, batch in enumerate(batches, start=1):
        seen += sum(scenario.id in rare for scenario in batch)
        # Both kinds lie at even distances, so of any first stretch neither has more than two places too many or too few.
        assert abs(seen - len(rare) * min(number * size, count) / count) <= 2


async def test_batches_can_be_iterated_asynchronously() -> None:
    batches = [batch async for batch in iterate(scenarios(4), groups_per_step=2)]
    assert [len(batch) for batch in batches] == [2, 2]
    assert batches[0][0] == batches[0].scenarios[0]
    assert batches[0][:1] == batches[0].scenarios[:1]


@pytest.mark.parametrize("bad", [{"groups_per_step": 0}, {"epochs": 0}, {"start": -1}])
def test_unusable_numbers_are_refused_by_name(bad: dict[str, int]) -> None:
    with pytest.raises(SettingError, match=next(iter(bad))):
        iterate(scenarios(3), **{"groups_per_step": 1, **bad})


def test_no_scenarios_are_refused() -> None:
    with pytest.raises(SettingError, match="no scenarios"):
        iterate([], groups_per_step=1)
