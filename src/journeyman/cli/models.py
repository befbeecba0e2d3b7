"""`journeyman models`: the base models that work without a hub, and fetching one ahead of time."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from journeyman.cli.options import JsonOption

models = typer.Typer(help="Base models: which are here, and fetching one ahead of time.", no_args_is_help=True)


@models.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """Base models that need no hub, and whether they are in the cache. Any folder or Hugging Face id works too."""
    from rich.table import Table

    from journeyman.cli.console import output
    from journeyman.modeling.base_models import default_cache, known_names, missing_parts

    rows = []
    for name in known_names():
        folder = default_cache() / "models" / name
        rows.append({"name": name, "folder": str(folder), "is_here": not missing_parts(folder)})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("base model", "", "folder", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        state = "[green]here[/]" if row["is_here"] else "[yellow]not fetched yet[/]"
        table.add_row(str(row["name"]), state, str(row["folder"]))
    output().print(table)


@models.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a Hugging Face id.")] = "smollm2-135m",
) -> None:
    """Put a base model into the cache, or check that it is complete."""
    from rich.markup import escape

    from journeyman.cli.console import output
    from journeyman.modeling.base_models import resolve_base

    console = output()
    base = resolve_base(name, note=lambda text: console.print(escape(text), highlight=False))
    console.print(f"{escape(base.name)} is in {escape(str(base.folder))}", highlight=False, soft_wrap=True)
