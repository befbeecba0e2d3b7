"""The report of a run: its data, what it says of them, and its forms on disk and in the terminal. How a form looks: `document.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from journeyman.errors import StoreError
from journeyman.evaluation.document import (
    Block,
    Chart,
    Code,
    Heading,
    Lines,
    Picture,
    Table,
    Title,
    html_page,
    markdown_text,
    readable,
    show,
)
from journeyman.evaluation.heldout import EvaluationSummary
from journeyman.evaluation.pictures import BLUE, GREEN, GREY, Curve, Point, chart_lines, draw_bars, draw_curves
from journeyman.evaluation.transcripts import Example
from journeyman.redaction import redact
from journeyman.types.record import Record
from journeyman.types.runs import StepMetrics

if TYPE_CHECKING:
    from rich.console import Console


class PhaseCost(Record):
    """What one phase of a run cost. Tokens are 0 where none were sampled or trained."""

    name: str
    seconds: float
    sampled_tokens: int = 0
    trained_tokens: int = 0

    def plus(self, other: PhaseCost) -> PhaseCost:
        """Both together, under this name."""
        return PhaseCost(
            name=self.name,
            seconds=self.seconds + other.seconds,
            sampled_tokens=self.sampled_tokens + other.sampled_tokens,
            trained_tokens=self.trained_tokens + other.trained_tokens,
        )


class JudgeCost(Record):
    """What a judging model was asked. `cost_usd` is None where its price is not set."""

    judge: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None

    def minus(self, earlier: JudgeCost) -> JudgeCost:
        """What was used since then."""
        return JudgeCost(
            judge=self.judge,
            calls=self.calls - earlier.calls,
            prompt_tokens=self.prompt_tokens - earlier.prompt_tokens,
            completion_tokens=self.completion_tokens - earlier.completion_tokens,
            cost_usd=None if self.cost_usd is None else self.cost_usd - (earlier.cost_usd or 0.0),
        )

    def text(self) -> str:
        """One line.

        Example:
            >>> JudgeCost(judge="ruler:m", calls=8, prompt_tokens=12000, completion_tokens=900, cost_usd=0.05).text()
            'judge ruler:m: 8 calls, 12,000 prompt and 900 completion tokens, $0.0500'
        """
        price = "its price is not set (judge_options.price)" if self.cost_usd is None else f"${self.cost_usd:.4f}"
        tokens = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        return f"judge {self.judge}: {self.calls:,} calls, {tokens}, {price}"


class Report(Record):
    """All that a run's report shows.

    Attributes:
        target: what was trained on, in words (the server's command).
        judge: its name and what its scores mean.
        evaluations: held-out evaluations, the main one first (greedy, then sampled); variants are named base, warm, trained.
        steps: metrics per step, all phases (`warmup`, `train`), names as in the run's store.
        phases: costs, in order, over all sessions of the run.
        judge_cost: what a judging model was asked, where one was used.
        adapter: folder of the trained adapter.
        serve_command, curl: exact commands that serve the trained model and ask it something.
        machine: what it ran on (processor, cores, memory, versions).
        notes: anything a reader must know (too few scenarios, groups left out, a phase skipped).
    """

    run: str
    title: str
    base: str
    target: str
    judge: str
    created_at: float
    settings: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, str] = Field(default_factory=dict)
    evaluations: tuple[EvaluationSummary, ...] = ()
    steps: tuple[StepMetrics, ...] = ()
    phases: tuple[PhaseCost, ...] = ()
    judge_cost: JudgeCost | None = None
    examples: tuple[Example, ...] = ()
    adapter: str | None = None
    serve_command: str | None = None
    curl: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)


REWARD = ("reward/mean", "reward/low", "reward/high")
SUCCESS = ("reward/success", "reward/success_low", "reward/success_high")
#: What training on examples has: the loss of its steps, and what is measured on held-out ones (phase `eval`).
LOSS, HELDOUT_LOSS, RANKED_RIGHT = (("train/loss", "", ""), ("heldout/loss", "", ""), ("heldout/ranked_right", "", ""))


def series(steps: Sequence[StepMetrics], names: tuple[str, str, str], phase: str = "train") -> list[Point]:
    """A metric over the steps of one phase, in order; steps without it are left out, a step reported twice counts as it was last."""
    value, low, high = names
    points = {
        one.step: Point(one.step, one.metrics[value], one.metrics.get(low), one.metrics.get(high))
        for one in steps
        if one.phase == phase and value in one.metrics
    }
    return [points[step] for step in sorted(points)]


def headline(report: Report) -> str:
    """One sentence: held-out measures before and after, and held-out success of the first and last variant of the main evaluation."""
    parts = [
        _change(report, HELDOUT_LOSS, "held-out loss", "{:.3f}"),
        _change(report, RANKED_RIGHT, "held-out pairs ranked right", "{:.0%}"),
    ]
    parts += [_success(report)] if report.evaluations else []
    return "; ".join(part for part in parts if part) or "no held-out evaluation was made"


def _change(report: Report, names: tuple[str, str, str], what: str, form: str) -> str:
    """Before and after the steps; empty where it was not measured."""
    points = series(report.steps, names, "eval")
    values = [points[0].value, points[-1].value] if len(points) > 1 else [point.value for point in points]
    return f"{what} {' → '.join(form.format(value) for value in values)}" if values else ""


def _success(report: Report) -> str:
    main = report.evaluations[0]
    first, last = main.variants[0], main.variants[-1]
    text = f"held-out success of {last.name}: {last.success.text()}, 95 % interval, {main.num_scenarios} scenarios, {main.sampling}"
    if last.num_missing:
        text += f", {last.num_missing} attempts missing"
    if first is last or not main.has_comparison(first.name, last.name):
        return text
    gain = main.comparison(first.name, last.name).success.difference
    return f"{text}; {first.name}: {first.success.text()}; paired gain {gain.text(as_points=True)}"


def duration_text(seconds: float) -> str:
    """ "42 s", "7 min 05 s", "1 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def variant_rows(evaluation: EvaluationSummary) -> list[list[str]]:
    """A table of the variants, header first: the same in terminal, Markdown and HTML. Has a column `missing` where something is."""
    header = ["", "success [95 % interval]", "score", "turns", "calls", "invalid calls", "tokens", "p50 / p95", "failed"]
    rows = [header]
    for one in evaluation.variants:
        costs = one.costs
        rows.append(
            [
                one.name,
                one.success.text(),
                "–" if one.score is None else f"{one.score.mean:.2f}",
                f"{costs['turns']:.1f}",
                f"{costs['tool_calls']:.1f}",
                f"{100 * costs['invalid_calls']:.0f} %",
                f"{costs['sampled_tokens']:.0f}",
                f"{costs['seconds_p50']:.1f} s / {costs['seconds_p95']:.1f} s",
                str(one.num_failed),
            ]
        )
    if any(one.num_missing for one in evaluation.variants):  # where nothing is, the table keeps its width
        for row, cell in zip(rows, ("missing", *(str(one.num_missing) for one in evaluation.variants)), strict=True):
            row.append(cell)
    return rows


def finding_lines(evaluation: EvaluationSummary) -> list[str]:
    """The paired comparisons, what was left out or is missing, pass@k and the noise floor, one line each."""
    lines = [f"{one.before} → {one.after}: {one.success.text()}" for one in evaluation.comparisons]
    lines += [note for one in evaluation.variants for note in one.notes]
    for one in evaluation.variants:
        if len(one.pass_at) > 1:
            rates = [f"pass@{k} {100 * value:.1f} %" for k, value in one.pass_at.items()]
            rates += [f"pass^{k} {100 * value:.1f} %" for k, value in one.pass_hat.items() if k > 1]
            lines.append(f"{one.name}: {', '.join(rates)} ({evaluation.group_size} attempts each)")
    noise = [one for one in evaluation.variants if one.noise is not None]
    if noise:
        last = noise[-1]
        lines.append(f"noise floor ({last.name} against itself): {last.noise.text() if last.noise else ''}")
    return lines


def cost_rows(report: Report) -> list[list[str]]:
    """Phases with time and tokens, header first, the total last."""
    rows = [["phase", "time", "sampled tokens", "trained tokens"]]
    rows += [[one.name, duration_text(one.seconds), f"{one.sampled_tokens:,}", f"{one.trained_tokens:,}"] for one in report.phases]
    sampled, trained = (sum(getattr(phase, name) for phase in report.phases) for name in ("sampled_tokens", "trained_tokens"))
    return [*rows, ["total", duration_text(report.seconds), f"{sampled:,}", f"{trained:,}"]]


def write_report(report: Report, folder: Path) -> Path:
    """Write report.html, report.md, report.json and the pictures into `folder` (made if needed); returns the path of the HTML page.

    `report.json` reads back with `read_report`. Raises StoreError when the folder cannot be written.
    """
    report = readable(report)
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        blocks = _blocks_of_page(report, _draw_pictures(report, folder))
        (folder / "report.json").write_text(redact(report.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(markdown_text(blocks), encoding="utf-8")
        page.write_text(html_page(blocks), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"the report cannot be written into {folder}: {error}", hint="check that the folder is writable and the disk not full"
        ) from error
    return page


def read_report(folder: Path) -> Report:
    """The report that `write_report` put there. Raises StoreError when there is none."""
    path = folder / "report.json"
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "a run writes it when it ends: go on with it; or evaluate it as it is: journeyman eval RUN"
        raise StoreError(f"there is no readable report in {folder}: {error}", hint=hint) from error


def show_report(report: Report, console: Console) -> None:
    """Print a report: the result first, then curves, two examples, costs, and what to do next."""
    report = readable(report)
    show([*_results(report), *_charts(report), *report.examples[:2], *_costs(report), *_use(report)], console)


def _blocks_of_page(report: Report, pictures: Sequence[Picture]) -> list[Block]:
    title, *results = _results(report)
    made = datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"run": report.run, "made": made, "base model": report.base, "target": report.target, "judge": report.judge}
    items = Lines([f"{name}: {value}" for name, value in (facts | report.machine).items()], "item")
    blocks = [title, items, *results, *pictures]
    if report.examples:
        blocks += [Heading("Examples"), *report.examples]
    blocks += [*_costs(report), *_use(report)]
    if report.settings:
        blocks += [Heading("Settings"), Code(json.dumps(report.settings, indent=2, ensure_ascii=False, default=str), "json")]
    return blocks


def _draw_pictures(report: Report, folder: Path) -> list[Picture]:
    """Reward and success, loss, and held-out success, as far as the run has them."""
    pictures = []
    reward, success = series(report.steps, REWARD), series(report.steps, SUCCESS)
    if reward or success:
        curves = [Curve("reward (mean)", reward, BLUE), Curve("success (share of attempts)", success, GREEN)]
        pictures.append(Picture("Reward and success per training step", folder / "steps.png"))
        y_name = "0 to 1; bands: 95 % interval over scenarios"
        title = f"{report.title}: training attempts per step"
        draw_curves(pictures[-1].path, title, curves, x_name="training step", y_name=y_name, top=1.02)
    if heldout := series(report.steps, HELDOUT_LOSS, "eval"):
        ranked = Curve("held-out pairs ranked right (share)", series(report.steps, RANKED_RIGHT, "eval"), GREEN)
        training = Curve("training loss of the step", series(report.steps, LOSS), GREY)
        pictures.append(Picture("Loss", folder / "loss.png"))
        curves = [training, Curve("held-out loss per token", heldout, BLUE), ranked]
        draw_curves(pictures[-1].path, f"{report.title}: loss", curves, x_name="steps made")
    if report.evaluations:
        groups = [f"{one.sampling}\n{one.num_scenarios} scenarios" for one in report.evaluations]
        names = [one.name for one in report.evaluations[0].variants]
        by_name = [{one.name: one.success for one in evaluation.variants} for evaluation in report.evaluations]
        pictures.append(Picture("Held-out success", folder / "heldout.png"))
        bars = {name: [success.get(name) for success in by_name] for name in names}
        draw_bars(pictures[-1].path, f"{report.title}: held-out success", groups, bars, y_name="success in %, 95 % interval")
    return pictures


def _results(report: Report) -> list[Block]:
    """The headline, what must be known with it, and the numbers."""
    blocks: list[Block] = [Title(report.title, headline(report)), Lines(report.notes, "note")]
    for one in report.evaluations:
        blocks.append(Heading(f"Held-out: {one.sampling}, {one.num_scenarios} scenarios (set {one.scenarios_hash})"))
        blocks += [Table(variant_rows(one)), Lines(finding_lines(one), "item")]
    return blocks


def _charts(report: Report) -> list[Block]:
    """Reward and success; the loss of a run that has no rewards."""
    kinds = [(REWARD, "train", "reward per step (mean, 0 to 1)"), (SUCCESS, "train", "success per step (share of attempts, 0 to 1)")]
    if not series(report.steps, REWARD):
        kinds += [(LOSS, "train", "loss per step"), (HELDOUT_LOSS, "eval", "held-out loss, by steps made")]
    blocks: list[Block] = []
    for names, phase, title in kinds:
        points = series(report.steps, names, phase)
        top = max((point.value for point in points), default=1.0) if names in (LOSS, HELDOUT_LOSS) else 1.0
        blocks += [Chart(title, chart_lines(points, width=60, height=6, top=top))] if points else []
    return blocks


def _costs(report: Report) -> list[Block]:
    blocks: list[Block] = [Heading("Cost"), Table(cost_rows(report))] if report.phases else []
    return [*blocks, Lines([report.judge_cost.text()])] if report.judge_cost else blocks


def _use(report: Report) -> list[Block]:
    blocks: list[Block] = [Lines([f"The adapter is in {report.adapter}"])] if report.adapter else []
    if report.serve_command:
        blocks.append(Code("\n".join(filter(None, (report.serve_command, report.curl))), "sh"))
    return [Heading("Use it"), *blocks] if blocks else []
