"""Base against trained, as a judging model sees it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.llm_server import serve
from tests.rewards.attempts import GOOD, attempt
from tests.rewards.test_ruler import judge_by, reply, ruler, shown

from journeyman.errors import SettingError
from journeyman.evaluation.pairwise import prefer
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Failure, Group, Verdict


def groups(*answers: str, name: str) -> list[Group]:
    return [
        Group(scenario=Scenario(id=f"s{at}", task="t"), trajectories=(attempt(answer, GOOD, id=f"{name}{at}"),))
        for at, answer in enumerate(answers)
    ]


async def test_wins_ties_and_losses_are_counted_over_both_orders() -> None:
    with serve(judge_by(lambda text: 0.9 if "fine" in text else 0.5 if "so so" in text else 0.1)) as server:
        judge = ruler(server.base_url)
        before = groups("poor", "poor", "fine", "so so, this way", "the same", name="b")
        after = groups("fine", "fine", "poor", "so so, that way", "the same", name="a")
        result = await prefer(judge, ("base", before), ("trained", after))
        await judge.close()
        assert len(server.requests) == 2 * 4
    assert (result.wins, result.ties, result.losses, result.num_abstained) == (2, 2, 1, 0)
    assert result.win_rate.mean == pytest.approx(0.6)
    assert result.win_rate.low < 0.6 < result.win_rate.high
    assert result.agreement == 1.0
    assert "2 won, 2 tied, 1 lost" in result.text()
    assert result.warning == ""


async def test_a_judge_that_goes_by_place_ties_everything() -> None:
    with serve(lambda request: reply({label: 1.0 - place / 2 for place, label in enumerate(shown(request))})) as server:
        judge = ruler(server.base_url)
        result = await prefer(judge, ("base", groups("a", "b", name="b")), ("trained", groups("c", "d", name="a")), is_training_judge=True)
        await judge.close()
    assert (result.wins, result.ties, result.losses, result.agreement) == (0, 2, 0, 0.0)
    assert "compare with another judge" in result.warning


class LikesTheLast:
    name = "own"
    description = "never abstains"

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        return [
            group.model_copy(
                update={
                    "trajectories": tuple(
                        one.model_copy(update={"verdict": Verdict(judge=self.name, score=float(place)), "reward": float(place)})
                        for place, one in enumerate(group)
                    )
                }
            )
            for group in groups
        ]


async def test_a_pair_with_an_attempt_whose_server_died_is_won_by_nobody() -> None:
    before, after = groups("a", "b", "c", name="b"), groups("d", "e", "f", name="a")
    died = Failure(type="McpError", message="the server exited")
    before[0] = before[0].model_copy(update={"trajectories": (before[0].trajectories[0].model_copy(update={"error": died}),)})
    after[1] = after[1].model_copy(update={"trajectories": (after[1].trajectories[0].model_copy(update={"error": died}),)})
    result = await prefer(LikesTheLast(), ("base", before), ("trained", after))
    assert (result.wins, result.ties, result.losses, result.num_abstained) == (1, 0, 0, 2)


async def test_variants_of_different_scenarios_are_refused() -> None:
    judge = ruler("http://127.0.0.1:9/v1")
    with pytest.raises(SettingError, match="different scenarios"):
        await prefer(judge, ("base", groups("a", name="b")), ("trained", groups("a", "b", name="a")))
