"""A plateau for people: table and verdict in the terminal and as Markdown, a picture of the cells. Not for the numbers: `plateau.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.errors import StoreError
from journeyman.evaluation.markdown import escaped
from journeyman.evaluation.pictures import label, new_figure, save_figure, set_title
from journeyman.evaluation.plateau import Plateau, PlateauCell
from journeyman.evaluation.report import readable
from journeyman.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = ("#8a8f98", "#2563a8", "#d08a2e", "#2e8b57", "#7b4fa3", "#b3402f")


def headline(plateau: Plateau) -> str:
    """The verdict in one line."""
    return f"{plateau.verdict}: prompting {plateau.model} reaches {plateau.plateau.interval.text()} on {plateau.server}"


def cell_rows(plateau: Plateau) -> list[list[str]]:
    """A table of prompts by worked examples, header first; the best cell is marked with *."""
    counts = sorted({cell.num_shots for cell in plateau.cells})
    prompts = list(dict.fromkeys(cell.prompt for cell in plateau.cells))
    found = {(cell.prompt, cell.num_shots): cell for cell in plateau.cells}
    rows = [["prompt", *[f"{count} shots" for count in counts]]]
    return rows + [[prompt, *[_cell_text(plateau, found.get((prompt, count))) for count in counts]] for prompt in prompts]


def _cell_text(plateau: Plateau, cell: PlateauCell | None) -> str:
    if cell is None:
        return "–"
    return cell.result.success.text() + (" *" if cell.name == plateau.best else "")


def show_plateau(plateau: Plateau, console: Console, folder: Path) -> None:
    """Print the verdict, the table, the reasons, and where the files are."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    plateau = readable(plateau)  # whole: a secret that is broken over two lines would not be known
    colour = {"prompting is enough": "green", "training is worth it": "cyan", "undecided": "yellow"}[plateau.verdict]
    console.print(Panel(Text(headline(plateau), style="bold"), border_style=colour))
    header, *body = cell_rows(plateau)
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in header:
        table.add_column(Text(name))
    for row in body:
        table.add_row(*[Text(cell, "bold" if cell.endswith("*") else "") for cell in row])
    console.print(table)
    console.print(
        f"{plateau.num_scenarios} held-out scenarios, greedy, 95 % intervals; * the best cell, to use and not to believe", style="dim"
    )
    for reason in plateau.reasons:
        console.print(Text(f"• {reason}"))
    for note in plateau.notes:
        console.print(Text(f"! {note}", "yellow"))
    console.print(Text(f"written to {folder}: plateau.json, plateau.md, plateau.png", "dim"), soft_wrap=True)


def plateau_markdown(plateau: Plateau, picture: str | None) -> str:
    """The same as Markdown; `picture` is a file name relative to it."""
    header, *body = cell_rows(plateau)
    header, *body = [[escaped(cell) for cell in row] for row in (header, *body)]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *[f"| {' | '.join(row)} |" for row in body]]
    costs = ["| cell | success | turns | calls | prompt tokens | sampled tokens | failed |", "|" + "---|" * 7]
    costs += [f"| {' | '.join(map(escaped, _cost_cells(cell)))} |" for cell in plateau.cells]
    parts = [
        f"# Prompting {escaped(plateau.model)} on {escaped(plateau.server)}",
        f"**{escaped(headline(plateau))}**",
        "\n".join(f"- {escaped(reason)}" for reason in plateau.reasons),
        *[f"> {escaped(note)}" for note in plateau.notes],
        f"## Success of each prompt, {plateau.num_scenarios} held-out scenarios (set {plateau.scenarios_hash})",
        "\n".join(lines),
        "`*`: the best cell on all scenarios. Its lead over the others is part luck; the number to believe is the one in the first line.",
        *([f"![Success of each prompt]({picture})"] if picture else []),
        "## What each cell costs, per attempt",
        "\n".join(costs),
    ]
    return "\n\n".join(parts) + "\n"


def _cost_cells(cell: PlateauCell) -> list[str]:
    costs = cell.result.costs
    return [
        cell.name,
        cell.result.success.text(),
        f"{costs['turns']:.1f}",
        f"{costs['tool_calls']:.1f}",
        "–" if cell.prompt_tokens is None else f"{cell.prompt_tokens:,.0f}",
        "–" if cell.prompt_tokens is None else f"{costs['sampled_tokens']:.0f}",
        str(cell.result.num_failed),
    ]


def draw_plateau(plateau: Plateau, path: Path) -> Path:
    """Success of each cell with its interval, the plateau as a band, the goal as a line, the trained model where there is one."""
    figure, axes = new_figure()
    counts = sorted({cell.num_shots for cell in plateau.cells})
    prompts = list(dict.fromkeys(cell.prompt for cell in plateau.cells))
    width = 0.8 / len(prompts)
    for number, prompt in enumerate(prompts):
        cells = [cell for cell in plateau.cells if cell.prompt == prompt]
        places = [counts.index(cell.num_shots) + (number - (len(prompts) - 1) / 2) * width for cell in cells]
        _draw_bars(axes, places, cells, width, _COLOURS[number % len(_COLOURS)], label(prompt))
    interval = plateau.plateau.interval
    axes.axhspan(100 * interval.low, 100 * interval.high, color="#b3402f", alpha=0.12, linewidth=0, label="plateau, 95 % interval")
    axes.axhline(100 * interval.mean, color="#b3402f", linewidth=1.0)
    axes.axhline(100 * plateau.goal, color="#222222", linewidth=1.2, linestyle="--", label=f"goal {100 * plateau.goal:.0f} %")
    if plateau.trained is not None:
        axes.axhline(100 * plateau.trained.success.mean, color="#2e8b57", linewidth=2.0, label="trained")
    axes.set_xticks(range(len(counts)), [f"{count} shots" for count in counts])
    axes.set_ylim(0.0, 104.0)
    axes.set_ylabel("held-out success in %, 95 % interval")
    set_title(axes, f"Prompting {plateau.model}: {plateau.num_scenarios} scenarios")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False, fontsize=9)
    return save_figure(figure, path)


def _draw_bars(axes: Any, places: Sequence[float], cells: Sequence[PlateauCell], width: float, colour: str, name: str) -> None:
    means = [100 * cell.result.success.mean for cell in cells]
    below = [max(0.0, 100 * (cell.result.success.mean - cell.result.success.low)) for cell in cells]
    above = [max(0.0, 100 * (cell.result.success.high - cell.result.success.mean)) for cell in cells]
    axes.bar(places, means, width * 0.9, color=colour, label=name)
    axes.errorbar(places, means, yerr=[below, above], fmt="none", ecolor="#222222", capsize=3, linewidth=1.0)


def write_plateau(plateau: Plateau, folder: Path) -> None:
    """Write plateau.json, plateau.md and plateau.png. Raises StoreError when the folder cannot be written."""
    plateau = readable(plateau)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = draw_plateau(plateau, folder / "plateau.png")
        (folder / "plateau.json").write_text(redact(plateau.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        (folder / "plateau.md").write_text(redact(plateau_markdown(plateau, picture.name)), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the plateau cannot be written into {folder}: {error}", hint="give another folder with --out") from error
