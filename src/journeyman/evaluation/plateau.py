"""How far prompting takes a model, and whether training is worth it: cells (a prompt with so many worked examples), the best of them
without the optimism of having chosen it, and a verdict in words. Not for making the attempts: `recipes/plateau.py`.

The best of several cells looks better than it is: part of its lead is luck on these scenarios. So the scenarios are split into halves; the
best cell of each half is measured on the other one (two-fold cross-fitting, Stone 1974), and the outcomes of both halves together are the
plateau. Every scenario is used, and none to both choose and measure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from journeyman.errors import SettingError, StoreError
from journeyman.evaluation.document import Block, Heading, Lines, Picture, Table, Title, markdown_text, readable, show
from journeyman.evaluation.heldout import VariantResult, compare_measured
from journeyman.evaluation.pictures import GREEN, GREY, RED, Level, draw_bars
from journeyman.evaluation.statistics import Interval, PairedComparison, mean_interval
from journeyman.redaction import redact
from journeyman.types.record import Record

if TYPE_CHECKING:
    from rich.console import Console

VerdictKind = Literal["prompting is enough", "training is worth it", "undecided"]

# Below the first a model cannot call tools; below the second its calls are what fails; from the third on attempts differ enough for RL.
_CANNOT_CALL, _CALLS_FAIL, _SOME_SUCCESS = 0.10, 0.50, 0.05
_WANTED_HALF_WIDTH = 0.05


class PlateauCell(Record):
    """One prompt with so many worked examples before each task. `prompt_tokens` are a mean per attempt, over all its model calls; None
    where the model's server does not tell tokens."""

    prompt: str
    num_shots: int
    result: VariantResult
    prompt_tokens: float | None = None

    @property
    def name(self) -> str:
        return cell_name(self.prompt, self.num_shots)


class CrossFit(Record):
    """What choosing a cell on one half of the scenarios gives on the other.

    Attributes:
        chosen: the cell chosen on the first half, and on the second.
        successes: per scenario, of the cell chosen without it; None where its outcome is missing.
        interval: of their mean: the plateau.
    """

    chosen: tuple[str, str]
    successes: tuple[float | None, ...]
    interval: Interval

    @property
    def num_measured(self) -> int:
        return sum(success is not None for success in self.successes)


class Plateau(Record):
    """All that was found.

    Attributes:
        model: the prompted model; `server`: what it was tried on; `goal`: the success that is wanted, 0 to 1.
        best: the cell with the highest success on all scenarios: the one to use, not the number to believe.
        plateau: the number to believe.
        trained, gain: the trained variant and its gain over the plateau, paired by scenario, when a run had one.
        verdict, reasons: what to do and why, with the numbers.
    """

    model: str
    server: str
    goal: float
    num_scenarios: int
    scenarios_hash: str
    cells: tuple[PlateauCell, ...]
    best: str
    plateau: CrossFit
    trained: VariantResult | None = None
    gain: PairedComparison | None = None
    verdict: VerdictKind
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


def cell_name(prompt: str, num_shots: int) -> str:
    """ "default, 2 shots"."""
    return f"{prompt}, {num_shots} shot{'' if num_shots == 1 else 's'}"


# Numbers --------------------------------------------------------------------------------------------------------------


def cross_fit(cells: Sequence[PlateauCell], *, seed: int = 0) -> CrossFit:
    """Choose on one half, measure on the other, both ways. Of cells that are equally good the one with fewer shots, then the earlier one.

    Raises SettingError when the cells attempted different scenarios, or fewer than two.
    """
    ids = [item.scenario_id for item in cells[0].result.items]
    if any([item.scenario_id for item in cell.result.items] != ids for cell in cells):
        raise SettingError("the cells attempted different scenarios: they cannot be compared")
    if len(ids) < 2:
        raise SettingError("choosing a prompt needs at least two scenarios", hint="raise --limit")
    order = random.Random(f"halves/{seed}").sample(range(len(ids)), len(ids))
    halves = (order[: len(ids) // 2], order[len(ids) // 2 :])
    chosen = [best_cell(cells, half) for half in halves]
    successes = {place: chosen[1 - number].result.items[place].success for number, half in enumerate(halves) for place in half}
    ordered = tuple(successes[place] for place in range(len(ids)))
    measured = [success for success in ordered if success is not None]
    if not measured:
        raise SettingError("the chosen cells have no scenario whose outcome is known", hint="raise --limit")
    return CrossFit(chosen=(chosen[0].name, chosen[1].name), successes=ordered, interval=mean_interval(measured))


def best_cell(cells: Sequence[PlateauCell], places: Sequence[int]) -> PlateauCell:
    """The cell with the most success on the items at `places`, of those that were measured."""

    def success(cell: PlateauCell) -> float:
        measured = [value for place in places if (value := cell.result.items[place].success) is not None]
        return math.fsum(measured) / len(measured) if measured else -math.inf

    return max(cells, key=lambda cell: (success(cell), -cell.num_shots, -cells.index(cell)))


def decide(plateau: Interval, goal: float) -> VerdictKind:
    """Only an interval that lies on one side of the goal decides.

    Example:
        >>> decide(Interval(mean=0.3, low=0.2, high=0.4), 0.9)
        'training is worth it'
    """
    if plateau.low >= goal:
        return "prompting is enough"
    return "training is worth it" if plateau.high < goal else "undecided"


def paired_gain(like: VariantResult, plateau: CrossFit, trained: VariantResult) -> PairedComparison | None:
    """The trained variant against the plateau, scenario by scenario; None when no scenario was measured on both sides.

    Raises SettingError for different scenarios.
    """
    after = {item.scenario_id: item.success for item in trained.items}
    ids = [item.scenario_id for item in like.items]
    if set(after) != set(ids):
        raise SettingError("the trained variant attempted other scenarios than the prompts: they cannot be paired")
    return compare_measured(plateau.successes, [after[name] for name in ids])


def num_scenarios_for(share: float, half_width: float = _WANTED_HALF_WIDTH) -> int:
    """Scenarios after which a 95 % interval around `share` is about `half_width` to each side.

    Example:
        >>> num_scenarios_for(0.9)
        139
    """
    return math.ceil(1.96**2 * share * (1 - share) / half_width**2)


def assess(
    cells: Sequence[PlateauCell],
    *,
    model: str,
    server: str,
    scenarios_hash: str,
    goal: float,
    trained: VariantResult | None = None,
    can_be_trained: bool = True,
    uses_tools: bool = True,
    notes: Sequence[str] = (),
) -> Plateau:
    """The plateau of measured cells and what follows from it.

    Args:
        trained: a trained variant on the same scenarios.
        can_be_trained: whether the prompted model is one that could be trained here.
        uses_tools: whether attempts call tools and succeed or not; False where rewards score a reply from 0 to 1.

    Raises SettingError for cells that cannot be compared.
    """
    plateau = cross_fit(cells)
    best = best_cell(cells, range(len(cells[0].result.items)))
    gain = None if trained is None else paired_gain(cells[0].result, plateau, trained)
    verdict = decide(plateau.interval, goal)
    reasons = [_plateau_line(cells, best, plateau, "" if uses_tools else "the reward on "), _goal_line(verdict, plateau.interval, goal)]
    reasons.append(_tools_line(cells) if uses_tools else _rewards_line(best))
    if can_be_trained and verdict != "prompting is enough":
        reasons.append(_beginning_line(cells, uses_tools))
    if trained is not None and gain is not None:
        reasons.append(_trained_line(trained, gain))
    if best.prompt_tokens is not None:
        reasons.append(_tokens_line(cells, best, best.prompt_tokens))
    results = [cell.result for cell in cells] + ([] if trained is None else [trained])
    return Plateau(
        model=model,
        server=server,
        goal=goal,
        num_scenarios=len(cells[0].result.items),
        scenarios_hash=scenarios_hash,
        cells=tuple(cells),
        best=best.name,
        plateau=plateau,
        trained=trained,
        gain=gain,
        verdict=verdict,
        reasons=tuple(reasons),
        notes=(*notes, *dict.fromkeys(line for result in results for line in result.notes)),
    )


# Words ----------------------------------------------------------------------------------------------------------------


def _plateau_line(cells: Sequence[PlateauCell], best: PlateauCell, plateau: CrossFit, share_of: str) -> str:
    optimism = best.result.success.mean - plateau.interval.mean
    return (
        f"prompting reaches {plateau.interval.text()} of {share_of}{plateau.num_measured} held-out scenarios: "
        f"the best of {len(cells)} cells, chosen on one half of the scenarios and measured on the other, both ways "
        f"(chosen: {' and '.join(dict.fromkeys(plateau.chosen))}). "
        f"The best cell on all of them, {best.name}, shows {best.result.success.text()}: "
        f"{100 * optimism:+.1f} points from having been chosen"
    )


def _goal_line(verdict: VerdictKind, plateau: Interval, goal: float) -> str:
    wanted = f"{100 * goal:.0f} %"
    if verdict == "prompting is enough":
        return f"the whole interval is at or above the goal of {wanted}: use the prompt, training has little to add"
    if verdict == "training is worth it":
        return f"the whole interval is below the goal of {wanted}: at least {100 * (goal - plateau.high):.0f} points are missing"
    needed = num_scenarios_for(min(max(plateau.mean, 0.05), 0.95))
    return f"the goal of {wanted} lies inside the interval: these scenarios do not decide; about {needed} would tell it to within 5 points"


def _tools_line(cells: Sequence[PlateauCell]) -> str:
    """What the model can do with tools at its best."""
    called, executed, right = (max(cell.result.checks.get(name, 0.0) for cell in cells) for name in ("called", "executed", "calls_right"))
    ability = "it can call tools" if executed >= _CALLS_FAIL else "it calls tools, but the calls mostly do not run"
    return (
        f"{'it cannot call tools' if called < _CANNOT_CALL else ability} "
        f"(at its best {_share(called)} of attempts call a tool, {_share(executed)} of calls run, {_share(right)} are the right ones)"
    )


def _rewards_line(best: PlateauCell) -> str:
    """What each reward says of the best cell."""
    rewards = ", ".join(f"{name} {value:.2f}" for name, value in best.result.checks.items())
    return f"mean rewards of the best cell: {rewards or 'none, no reward applies'}; {_share(best.result.costs['truncated'])} cut off"


def _beginning_line(cells: Sequence[PlateauCell], uses_tools: bool) -> str:
    """How training would have to begin."""
    if max(cell.result.success.mean for cell in cells) >= _SOME_SUCCESS:
        return "some attempts succeed already: reinforcement learning has something to compare from the start"
    drills = ", or the drills with which `journeyman mcp train` begins by itself" if uses_tools else ""
    return (
        "hardly an attempt succeeds, so comparing attempts teaches nothing yet: "
        f"begin with examples (SFT{drills}), then reinforcement learning"
    )


def _trained_line(trained: VariantResult, gain: PairedComparison) -> str:
    if gain.difference.low > 0:
        result = "training beat prompting"
    else:
        result = "prompting beat training" if gain.difference.high < 0 else "no difference is shown"
    return f"the trained model reaches {trained.success.text()}; {result}: {gain.text()}"


def _tokens_line(cells: Sequence[PlateauCell], best: PlateauCell, prompt_tokens: float) -> str:
    sampled = best.result.costs["sampled_tokens"]
    line = f"a task costs {prompt_tokens:,.0f} prompt and {sampled:,.0f} sampled tokens with the best cell"
    bare = next((cell.prompt_tokens for cell in cells if cell.prompt == best.prompt and cell.num_shots == 0), None)
    if bare is None or not best.num_shots:
        return line
    return f"{line}; {prompt_tokens - bare:,.0f} of them are its worked examples, which training would save on every task"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


# Forms ----------------------------------------------------------------------------------------------------------------


def headline(plateau: Plateau) -> str:
    """The verdict in one line."""
    return f"{plateau.verdict}: prompting {plateau.model} reaches {plateau.plateau.interval.text()} on {plateau.server}"


def show_plateau(plateau: Plateau, console: Console, folder: Path) -> None:
    """Print the verdict, the table, the reasons, and where the files are."""
    show(_blocks(readable(plateau)), console)
    show([Lines([f"written to {folder}: plateau.json, plateau.md, plateau.png"])], console)


def write_plateau(plateau: Plateau, folder: Path) -> None:
    """Write plateau.json, plateau.md and plateau.png. Raises StoreError when the folder cannot be written."""
    plateau = readable(plateau)
    picture = Picture("Success of each prompt", folder / "plateau.png")
    blocks = [*_blocks(plateau), picture, Heading("What each cell costs, per attempt"), Table(_cost_rows(plateau))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _draw(plateau, picture.path)
        (folder / "plateau.json").write_text(redact(plateau.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        (folder / "plateau.md").write_text(markdown_text(blocks), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the plateau cannot be written into {folder}: {error}", hint="give another folder with --out") from error


def _blocks(plateau: Plateau) -> list[Block]:
    return [
        Title(f"Prompting {plateau.model} on {plateau.server}", headline(plateau)),
        Heading(f"{plateau.num_scenarios} held-out scenarios (set {plateau.scenarios_hash}), greedy, 95 % intervals"),
        Table(cell_rows(plateau)),
        Lines(["*: the best cell on all scenarios, to use and not to believe: its lead over the others is part luck"]),
        Lines(plateau.reasons, "item"),
        Lines(plateau.notes, "note"),
    ]


def cell_rows(plateau: Plateau) -> list[list[str]]:
    """A table of prompts by worked examples, header first; the best cell is marked with *."""
    found = {(cell.prompt, cell.num_shots): cell for cell in plateau.cells}
    prompts, counts = _axes(plateau)

    def text(cell: PlateauCell | None) -> str:
        return "–" if cell is None else cell.result.success.text() + (" *" if cell.name == plateau.best else "")

    rows = [[prompt, *[text(found.get((prompt, count))) for count in counts]] for prompt in prompts]
    return [["prompt", *[f"{count} shots" for count in counts]], *rows]


def _cost_rows(plateau: Plateau) -> list[list[str]]:
    rows = [["cell", "success", "turns", "calls", "prompt tokens", "sampled tokens", "failed"]]
    for cell in plateau.cells:
        costs, is_known = cell.result.costs, cell.prompt_tokens is not None
        tokens = [f"{cell.prompt_tokens:,.0f}", f"{costs['sampled_tokens']:.0f}"] if is_known else ["–", "–"]
        counts = [f"{costs['turns']:.1f}", f"{costs['tool_calls']:.1f}"]
        rows.append([cell.name, cell.result.success.text(), *counts, *tokens, str(cell.result.num_failed)])
    return rows


def _axes(plateau: Plateau) -> tuple[list[str], list[int]]:
    """The prompts and the numbers of worked examples of its cells."""
    return list(dict.fromkeys(cell.prompt for cell in plateau.cells)), sorted({cell.num_shots for cell in plateau.cells})


def _draw(plateau: Plateau, path: Path) -> None:
    """Success of each cell with its interval, the plateau as a band, the goal as a line, the trained model where there is one."""
    prompts, counts = _axes(plateau)
    success = {(cell.prompt, cell.num_shots): cell.result.success for cell in plateau.cells}
    levels = [
        Level("plateau, 95 % interval", plateau.plateau.interval.mean, RED, plateau.plateau.interval),
        Level(f"goal {100 * plateau.goal:.0f} %", plateau.goal, GREY),
    ]
    if plateau.trained is not None:
        levels.append(Level("trained", plateau.trained.success.mean, GREEN))
    draw_bars(
        path,
        f"Prompting {plateau.model}: {plateau.num_scenarios} scenarios",
        [f"{count} shots" for count in counts],
        {prompt: [success.get((prompt, count)) for count in counts] for prompt in prompts},
        y_name="held-out success in %, 95 % interval",
        levels=levels,
    )
