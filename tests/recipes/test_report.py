"""What phases of a run cost, and that it is kept over sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from journeyman.errors import StoreError
from journeyman.recipes.report import Costs


class Drawer:
    """An engine that counts what it has drawn."""

    def __init__(self) -> None:
        self.num_sampled = 0

    def costs(self) -> Costs:
        costs = Costs()
        costs.count_tokens(lambda: self.num_sampled)
        return costs


def tokens(costs: Costs) -> dict[str, int]:
    return {phase.name: phase.sampled_tokens for phase in costs.phases}


async def test_a_phase_costs_the_tokens_that_were_drawn_in_it_and_phases_of_one_name_add_up() -> None:
    drawer = Drawer()
    costs = drawer.costs()
    for name, count in (("probe", 3), ("evaluate", 5), ("probe", 4)):
        async with costs.phase(name):
            drawer.num_sampled += count
        drawer.num_sampled += 100
    assert tokens(costs) == {"probe": 7, "evaluate": 5}


async def test_a_run_that_goes_on_adds_to_what_its_earlier_sessions_cost(tmp_path: Path) -> None:
    path = tmp_path / "run" / "costs.json"
    first, drawer = Drawer(), Drawer()
    drawer.num_sampled = 1000
    costs = first.costs()
    async with costs.phase("start"):
        first.num_sampled += 1
    costs.keep_in(path)

    async def be_stopped() -> None:
        async with costs.phase("probe"):
            first.num_sampled += 2
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await be_stopped()
    again = drawer.costs()
    async with again.phase("start"):
        drawer.num_sampled += 10
    again.keep_in(path)
    async with again.phase("probe"):
        drawer.num_sampled += 20
    assert tokens(again) == {"start": 11, "probe": 22}
    seconds = {phase.name: phase.seconds for phase in costs.phases}
    assert all(phase.seconds > seconds[phase.name] for phase in again.phases)
    third = Costs()
    third.keep_in(path)
    assert third.phases == again.phases


async def test_a_damaged_file_is_named_and_what_ended_a_phase_is_not_hidden_by_one_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_text("[{")
    with pytest.raises(StoreError, match=r"damaged\.json") as caught:
        Costs().keep_in(tmp_path / "damaged.json")
    assert "delete the file" in str(caught.value.hint)
    costs = Costs()
    costs.keep_in(tmp_path / "run" / "costs.json")
    (tmp_path / "run" / "costs.json").unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(ZeroDivisionError):
        async with costs.phase("probe"):
            raise ZeroDivisionError
    with pytest.raises(StoreError, match="cannot be kept"):
        async with costs.phase("probe"):
            pass
