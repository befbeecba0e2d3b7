"""`journeyman data preview`: what a data file is read as, and which of its tokens would be trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from statistics import median, quantiles
from typing import TYPE_CHECKING, Annotated, Any

import typer

from journeyman.cli.options import BaseOption, ColumnOption, JsonOption, SkipBadOption, columns_of
from journeyman.redaction import printable

if TYPE_CHECKING:
    from rich.text import Text

    from journeyman.chat.renderer import Renderer
    from journeyman.cli.console import Terminal
    from journeyman.data import Loaded

data = typer.Typer(help="Training data: look at it before anything is trained.", no_args_is_help=True)

SourceArgument = Annotated[
    str, typer.Argument(help="A file (.jsonl, .json, .csv, .tsv, .parquet), a folder, or ORG/NAME of the Hugging Face hub.", metavar="FILE")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        help="auto (by the columns), messages, sharegpt, prompt_completion, alpaca, text, preference, sharegpt_preference, "
        "alpaca_preference.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Split of a folder or data set \\[default: the only one, or train].", show_default=False)
]

_GIVEN, _TRAINED, _STOP = "dim", "bold green", "bold white on green"
_REJECTED, _REJECTED_STOP = "bold red", "bold white on red"
_MARKS = ("⟦", "⟧")  # stand around what is trained where there are no colours
_LONGEST_GIVEN = 600  # characters of one given text, unless all is asked for
_NUM_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Rendered:
    """The tokens of an example, or of one side of a pair (`side`); `is_trained` has the length of `token_ids`."""

    number: int
    side: str
    token_ids: tuple[int, ...]
    is_trained: tuple[bool, ...]

    def spans(self) -> Iterator[tuple[bool, list[int]]]:
        """Runs of tokens that are all trained, or all given."""
        for is_trained, group in groupby(zip(self.is_trained, self.token_ids, strict=True), lambda pair: pair[0]):
            yield is_trained, [token for _, token in group]


@data.command("preview")
def preview(
    source: SourceArgument,
    base: BaseOption = None,
    format: FormatOption = "auto",
    column: ColumnOption = None,
    split: SplitOption = None,
    skip_bad: SkipBadOption = False,
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many examples to show.")] = 3,
    limit: Annotated[int, typer.Option("--limit", min=0, max=sys.maxsize, help="Rows to read; 0 reads all.")] = 2000,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show where each token ends.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long given texts whole.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a data file is read as, how long its examples are, and which tokens are trained. Trains nothing, loads no weights."""
    from journeyman.cli.console import failures, output, styled, write_json
    from journeyman.data import examples_or_pairs, read_rows
    from journeyman.local import DEFAULT_BASE, open_renderer

    all_rows = read_rows(source, split)
    loaded = examples_or_pairs(islice(all_rows, limit) if limit else all_rows, format, columns_of(column), skip_bad)
    renderer = open_renderer(base or DEFAULT_BASE, note=lambda text: failures().print(text))
    rendered, faults = render_all(loaded, renderer)
    figures = {"base": base or DEFAULT_BASE, **figures_of(loaded, renderer, rendered), "faults": [*loaded.faults, *faults]}
    if as_json:
        write_json(figures | {"examples": [_record(example, renderer) for example in rendered if example.number <= rows]})
        return
    console = output()
    console.print(styled((source, "bold"), f": {loaded.note}"))
    if limit and loaded.num_rows == limit:
        console.print(styled((f"only the first {limit} rows were read", "yellow"), " (--limit 0 reads all)"))
    show_figures(console, figures, num_left_out=len(loaded.faults))
    show_examples(console, [example for example in rendered if example.number <= rows], renderer, by_token=tokens, is_full=full)


def render_all(loaded: Loaded[Any], renderer: Renderer) -> tuple[list[Rendered], list[str]]:
    """Every example as tokens; and why some cannot be rendered, or would be refused."""
    from journeyman.errors import InputError

    rendered: list[Rendered] = []
    faults: list[str] = []
    for number, (example, place) in enumerate(zip(loaded.examples, loaded.places, strict=True), start=1):
        try:
            sides = [Rendered(number, side, *tokens) for side, tokens in _sides(example, renderer).items()]
        except InputError as error:
            faults.append(f"{place}: {error.message}")
            continue
        rendered += sides
        longest = max(len(side.token_ids) for side in sides)
        if longest > renderer.context_length:
            faults.append(f"{place}: {longest} tokens, and the model's context is {renderer.context_length}")
    return rendered, faults


def _sides(example: Any, renderer: Renderer) -> dict[str, tuple[tuple[int, ...], tuple[bool, ...]]]:
    from journeyman.types.training import SftExample, TextExample, TextPair

    if isinstance(example, TextExample):
        return {"": renderer.render_text(example.text, example.prompt)}
    if isinstance(example, SftExample):
        return {"": renderer.render_example(example.messages, example.tools, example.num_given)}
    sides = {"chosen": example.chosen, "rejected": example.rejected}
    if isinstance(example, TextPair):
        return {side: renderer.render_text(text, example.prompt) for side, text in sides.items()}
    prompt, tools = example.prompt, example.tools
    return {side: renderer.render_example((*prompt, *answer), tools, len(prompt)) for side, answer in sides.items()}


def figures_of(loaded: Loaded[Any], renderer: Renderer, rendered: list[Rendered]) -> dict[str, Any]:
    """What can be said of all examples, as JSON values. Lengths are in tokens, of an example or of one side of a pair."""
    from journeyman.types.training import PreferencePair, SftExample

    lengths = sorted(len(example.token_ids) for example in rendered) or [0]
    template = "the model's own chat template" if renderer.template.is_own else "ChatML, with tools in Hermes' manner"
    if not any(isinstance(example, SftExample | PreferencePair) for example in loaded.examples):
        template = "no chat template: texts are taken as they are"
    return {
        "format": loaded.format,
        "used": loaded.used,
        "unused": loaded.unused,
        "num_rows": loaded.num_rows,
        "num_bad": loaded.num_bad,
        "num_examples": len(loaded.examples),
        "template": template,
        "context_length": renderer.context_length,
        "num_tokens": sum(lengths),
        "num_trained_tokens": sum(sum(example.is_trained) for example in rendered),
        "length_min": lengths[0],
        "length_median": median(lengths),
        "length_90_percent": quantiles(lengths, n=10, method="inclusive")[-1] if len(lengths) > 1 else lengths[0],
        "length_max": lengths[-1],
    }


def _record(example: Rendered, renderer: Renderer) -> dict[str, Any]:
    spans = [{"text": renderer.decode(ids), "is_trained": is_trained} for is_trained, ids in example.spans()]
    return {
        "number": example.number,
        "side": example.side,
        "token_ids": example.token_ids,
        "is_trained": example.is_trained,
        "spans": spans,
    }


def show_figures(console: Terminal, figures: dict[str, Any], *, num_left_out: int) -> None:
    """Print what was left out, how long the examples are, and what would be refused."""
    from journeyman.cli.console import styled

    left_out, refused = figures["faults"][:num_left_out], figures["faults"][num_left_out:]
    for fault in left_out:
        console.print(f"  {fault}", style="red")
    console.print(styled("as tokens of ", (figures["base"], "bold"), f", {figures['template']}, context {figures['context_length']}"))
    if figures["num_tokens"]:
        trained = figures["num_trained_tokens"]
        console.print(f"{figures['num_tokens']:,} tokens, {trained:,} of them trained ({trained / figures['num_tokens']:.1%})")
        names = {"length_min": "shortest", "length_median": "median", "length_90_percent": "nine of ten up to", "length_max": "longest"}
        console.print(f"tokens of one: {', '.join(f'{word} {figures[name]:,.0f}' for name, word in names.items())}")
    for fault in refused[:_NUM_FAULTS]:
        console.print(styled(("would be refused:", "red"), f" {fault}"))
    if len(refused) > _NUM_FAULTS:
        console.print(f"and {len(refused) - _NUM_FAULTS} more would be refused", style="red")


def show_examples(console: Terminal, examples: list[Rendered], renderer: Renderer, *, by_token: bool, is_full: bool) -> None:
    """Print examples: trained tokens in colour, or between marks where there is none; given ones faint."""
    from rich.rule import Rule
    from rich.text import Text

    from journeyman.cli.console import styled

    has_colour = console.color_system is not None and not console.no_color
    if examples:
        words = [("given", _GIVEN), ("trained", _TRAINED), ("the token that ends a reply", _STOP)]
        if examples[0].side:
            words[1:2] = [("made likelier", _TRAINED), ("made less likely", _REJECTED)]
        marks = Text(f"{_MARKS[0]}trained{_MARKS[1]}, the rest is given")
        console.print()
        console.print(Text("  ").join([Text(*word) for word in words]) if has_colour else marks)
    for example in examples:
        title = f"pair {example.number}, {example.side}" if example.side else f"example {example.number}"
        heading = styled((title, "bold"), f": {len(example.token_ids)} tokens, {sum(example.is_trained)} trained")
        console.print()
        console.print(Rule(heading, align="left", style="dim"))
        console.print(_text(example, renderer, marks=("", "") if has_colour else _MARKS, by_token=by_token, is_full=is_full))


def _text(example: Rendered, renderer: Renderer, *, marks: tuple[str, str], by_token: bool, is_full: bool) -> Text:
    from rich.text import Text

    text = Text()
    for is_trained, span in example.spans():
        text.append(marks[0] if is_trained else "")
        for ids, style in _styled(span, example.side, renderer.stop_token_ids) if is_trained else [(span, _GIVEN)]:
            if by_token:
                for token in ids:
                    text.append(printable(renderer.decode([token])).replace(" ", "·").replace("\t", "→").replace("\n", "⏎\n"), style)
                    text.append("│", "dim cyan")
            else:
                spelt = printable(renderer.decode(ids))
                text.append(spelt if is_trained or is_full else _shortened(spelt), style)
        text.append(marks[1] if is_trained else "")
    return text


def _styled(ids: list[int], side: str, stop_token_ids: tuple[int, ...]) -> Iterator[tuple[list[int], str]]:
    """Trained tokens in runs of one style."""
    style, stop_style = (_REJECTED, _REJECTED_STOP) if side == "rejected" else (_TRAINED, _STOP)
    for is_stop, group in groupby(ids, stop_token_ids.__contains__):
        yield list(group), stop_style if is_stop else style


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_GIVEN:
        return text
    half = _LONGEST_GIVEN // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"
