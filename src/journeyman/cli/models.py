"""`journeyman models`: the base models that work without a hub, and fetching one ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer

from journeyman.cli.options import JsonOption
from journeyman.config import cache_folder

models = typer.Typer(help="Base models: which are here, and fetching one ahead of time.", no_args_is_help=True)


@models.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """Base models that need no hub, and whether they are in the cache. Any folder or Hugging Face id works too."""
    from rich.table import Table

    from journeyman.cli.console import output, styled, write_json
    from journeyman.modeling.base_models import known_names, missing_parts

    rows = []
    for name in known_names():
        folder = cache_folder() / "models" / name
        rows.append({"name": name, "folder": str(folder), "is_here": not missing_parts(folder)})
    if as_json:
        write_json(rows)
        return
    table = Table("base model", "", "folder", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        state = styled(("here", "green") if row["is_here"] else ("not fetched yet", "yellow"))
        table.add_row(str(row["name"]), state, str(row["folder"]))
    output().print(table)


@models.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A known name, a folder, or a Hugging Face id.")] = "smollm2-135m",
) -> None:
    """Put a base model into the cache, or check that it is complete."""
    from journeyman.cli.console import output
    from journeyman.modeling.base_models import resolve_base

    console = output()
    base = resolve_base(name, note=lambda text: console.print(text))
    console.print(f"{base.name} is in {base.folder}")
