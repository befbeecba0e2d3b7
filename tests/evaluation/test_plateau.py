"""The plateau of prompting: choosing without optimism, and what the verdict says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from journeyman.errors import SettingError
from journeyman.evaluation.heldout import ItemResult, VariantResult
from journeyman.evaluation.plateau import (
    Plateau,
    PlateauCell,
    assess,
    best_cell,
    cell_rows,
    cross_fit,
    decide,
    headline,
    num_scenarios_for,
    show_plateau,
    write_plateau,
)
from journeyman.evaluation.statistics import Interval, mean_interval

COSTS = {"turns": 2.0, "tool_calls": 1.0, "sampled_tokens": 40.0, "seconds": 1.0}


def variant(outcomes: Sequence[float], *, name: str = "v", called: float = 1.0, executed: float = 1.0) -> VariantResult:
    items = tuple(ItemResult(scenario_id=f"s{number}", successes=(float(value),), scores=(None,)) for number, value in enumerate(outcomes))
    return VariantResult(
        name=name,
        model="m",
        items=items,
        success=mean_interval([float(value) for value in outcomes]),
        score=None,
        num_failed=0,
        pass_at={},
        pass_hat={},
        noise=None,
        costs=COSTS,
        checks={"called": called, "executed": executed, "calls_right": executed},
        seconds=float(len(items)),
    )


def cell(
    outcomes: Sequence[float],
    prompt: str = "default",
    num_shots: int = 0,
    *,
    tokens: float | None = None,
    called: float = 1.0,
    executed: float = 1.0,
) -> PlateauCell:
    result = variant(outcomes, called=called, executed=executed)
    return PlateauCell(prompt=prompt, num_shots=num_shots, result=result, prompt_tokens=tokens)


def assessed(cells: Sequence[PlateauCell], goal: float = 0.9, **given: object) -> Plateau:
    return assess(cells, model="m", server="python server.py", scenarios_hash="0" * 12, goal=goal, **given)  # type: ignore[arg-type]


def some(share: float, count: int = 64) -> list[float]:
    return [float(number < share * count) for number in range(count)]


class TestChoosing:
    def test_of_cells_that_are_pure_luck_the_plateau_is_not_the_lucky_ones_number(self) -> None:
        rng = random.Random(3)
        naive, honest = [], []
        for _ in range(200):
            cells = [cell([float(rng.random() < 0.3) for _ in range(32)], prompt=f"p{number}") for number in range(9)]
            best = best_cell(cells, range(32))
            naive.append(best.result.success.mean)
            honest.append(cross_fit(cells, seed=rng.randrange(1000)).interval.mean)
        assert sum(naive) / 200 > 0.40  # the best of nine looks ten points better than any of them is
        assert abs(sum(honest) / 200 - 0.30) < 0.02

    def test_a_cell_that_is_really_better_is_chosen_on_both_halves(self) -> None:
        found = cross_fit([cell(some(0.2)), cell(some(0.8), num_shots=2)])
        assert found.chosen == ("default, 2 shots", "default, 2 shots")
        assert found.successes == tuple(some(0.8))
        assert found.interval == mean_interval(some(0.8))

    def test_each_scenario_is_measured_by_the_cell_chosen_without_it(self) -> None:
        evens = [float(number % 2 == 0) for number in range(20)]
        odds = [1.0 - value for value in evens]
        found = cross_fit([cell(evens, "a"), cell(odds, "b")], seed=1)
        by_name = {"a, 0 shots": evens, "b, 0 shots": odds}
        order = random.Random("halves/1").sample(range(20), 20)
        for half, chosen in ((order[:10], found.chosen[1]), (order[10:], found.chosen[0])):
            assert [found.successes[place] for place in half] == [by_name[chosen][place] for place in half]

    def test_of_equally_good_cells_the_one_with_fewer_shots_is_taken(self) -> None:
        cells = [cell(some(0.5), "a", 4), cell(some(0.5), "b", 0), cell(some(0.5), "c", 0)]
        assert best_cell(cells, range(64)).name == "b, 0 shots"

    def test_cells_of_different_scenarios_are_refused(self) -> None:
        with pytest.raises(SettingError, match="different scenarios"):
            cross_fit([cell([1, 0, 1]), cell([1, 0])])
        with pytest.raises(SettingError, match="at least two"):
            cross_fit([cell([1])])


class TestMissing:
    """Outcomes that are not known: they are told, and count neither way."""

    def lossy(self, outcomes: Sequence[float | None], **given: str) -> VariantResult:
        known = [value for value in outcomes if value is not None]
        items = tuple(ItemResult(scenario_id=f"s{place}", successes=(value,), scores=(None,)) for place, value in enumerate(outcomes))
        missing = {"McpError": len(outcomes) - len(known)}
        return variant(known, **given).model_copy(update={"items": items, "missing": missing})  # type: ignore[arg-type]

    def test_what_is_missing_of_a_cell_is_among_the_notes(self) -> None:
        result = self.lossy([1.0, None, 0.0, None], name="default, 0 shots")
        found = assessed([PlateauCell(prompt="default", num_shots=0, result=result)], notes=("before",))
        assert (found.plateau.num_measured, found.plateau.interval) == (2, mean_interval([1.0, 0.0]))
        assert found.notes == ("before", *result.notes)
        assert "2 x McpError" in found.notes[1]

    def test_a_trained_model_that_was_measured_on_other_scenarios_only_gets_no_gain(self) -> None:
        result = self.lossy([None, None, 0.0, 1.0], name="v")
        trained = self.lossy([1.0, 1.0, None, None], name="agent@9")
        found = assessed([PlateauCell(prompt="default", num_shots=0, result=result)], trained=trained)
        assert (found.gain, found.trained) == (None, trained)


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [(0.9, 1.0, "prompting is enough"), (0.85, 0.97, "undecided"), (0.7, 0.9, "undecided"), (0.7, 0.89, "training is worth it")],
    )
    def test_only_an_interval_on_one_side_of_the_goal_decides(self, low: float, high: float, verdict: str) -> None:
        assert decide(Interval(mean=(low + high) / 2, low=low, high=high), 0.9) == verdict

    def test_a_model_that_cannot_call_is_told_to_begin_with_examples(self) -> None:
        found = assessed([cell(some(0.0), called=0.05, executed=0.0), cell(some(0.0), num_shots=2, called=0.0, executed=0.0)])
        text = "\n".join(found.reasons)
        assert found.verdict == "training is worth it"
        assert "it cannot call tools (at its best 5 % of attempts call a tool" in text
        assert "begin with examples" in text
        assert "at least 84 points are missing" in text

    def test_a_model_that_succeeds_now_and_then_can_learn_from_comparing(self) -> None:
        text = "\n".join(assessed([cell(some(0.3))]).reasons)
        assert "it can call tools" in text
        assert "something to compare from the start" in text

    def test_calls_that_do_not_run_are_named(self) -> None:
        assert any("mostly do not run" in reason for reason in assessed([cell(some(0.0), called=0.9, executed=0.2)]).reasons)

    def test_a_prompt_that_reaches_the_goal_says_to_use_it_and_nothing_of_training(self) -> None:
        found = assessed([cell(some(1.0))])
        assert found.verdict == "prompting is enough"
        assert not any("reinforcement" in reason for reason in found.reasons)

    def test_an_undecided_verdict_says_how_many_scenarios_would_decide(self) -> None:
        found = assessed([cell(some(0.9))])
        assert found.verdict == "undecided"
        assert any(f"about {num_scenarios_for(found.plateau.interval.mean)} would tell" in reason for reason in found.reasons)

    def test_a_trained_model_is_compared_with_the_plateau_scenario_by_scenario(self) -> None:
        found = assessed([cell(some(0.25))], trained=variant(some(0.75), name="agent@9"))
        assert found.gain is not None
        assert (found.gain.won, found.gain.lost, found.gain.both) == (32, 0, 16)
        assert any("training beat prompting: +50.0 points" in reason for reason in found.reasons)
        with pytest.raises(SettingError, match="other scenarios"):
            assessed([cell(some(0.25))], trained=variant([1, 0]))

    def test_what_worked_examples_cost_on_every_task_is_said(self) -> None:
        cells = [cell(some(0.1), tokens=100.0), cell(some(0.5), num_shots=2, tokens=450.0)]
        assert any("350 of them are its worked examples" in reason for reason in assessed(cells).reasons)

    def test_a_model_that_cannot_be_trained_here_gets_no_advice_on_how(self) -> None:
        assert not any("reinforcement" in reason for reason in assessed([cell(some(0.3))], can_be_trained=False).reasons)


class TestView:
    @pytest.fixture
    def plateau(self) -> Plateau:
        cells = [cell(some(0.1), "default", 0, tokens=90.0), cell(some(0.3), "default", 2, tokens=300.0), cell(some(0.2), "terse", 0)]
        return assessed(cells, trained=variant(some(0.8), name="agent@9"), notes=("few scenarios",))

    def test_the_table_marks_the_best_cell_and_leaves_gaps_where_nothing_was_measured(self, plateau: Plateau) -> None:
        rows = cell_rows(plateau)
        assert rows[0] == ["prompt", "0 shots", "2 shots"]
        assert rows[1][2].endswith("*")
        assert rows[2][2] == "–"

    def test_terminal_markdown_and_picture_show_the_same_verdict(self, plateau: Plateau, tmp_path: Path) -> None:
        console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
        show_plateau(plateau, console, tmp_path)
        console.file.close()
        shown = console.export_text()
        assert "training is worth it: prompting m reaches" in shown
        assert "few scenarios" in shown
        write_plateau(plateau, tmp_path / "deep" / "er")
        assert headline(plateau) in (tmp_path / "deep" / "er" / "plateau.md").read_text()
        assert (tmp_path / "deep" / "er" / "plateau.png").read_bytes().startswith(b"\x89PNG")
        assert Plateau.model_validate_json((tmp_path / "deep" / "er" / "plateau.json").read_text()) == plateau
