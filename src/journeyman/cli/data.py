"""`journeyman data preview`: what a data file is read as, and which of its tokens would be trained."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer

from journeyman.cli.options import BaseOption, ColumnOption, JsonOption, SkipBadOption, columns_of

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
    from journeyman.cli.console import failures, output, write_json
    from journeyman.cli.data_preview import render_all
    from journeyman.cli.data_view import as_record, show
    from journeyman.data import examples_or_pairs, read_rows
    from journeyman.local import DEFAULT_BASE, open_renderer

    found = read_rows(source, split)
    loaded = examples_or_pairs(islice(found, limit) if limit else found, format, columns_of(column), skip_bad)
    name = base or DEFAULT_BASE
    renderer = open_renderer(name, note=lambda text: failures().print(text))
    preview = render_all(loaded, renderer, name)
    if as_json:
        write_json(as_record(preview, rows))
        return
    is_cut = bool(limit) and loaded.num_rows == limit
    show(output(), preview, source, num_shown=rows, is_cut=is_cut, by_token=tokens, is_full=full)
