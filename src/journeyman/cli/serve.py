"""`journeyman serve`: an OpenAI-compatible server for a base model, or for what a run trained."""

from __future__ import annotations

from typing import Annotated

import typer

from journeyman.cli.options import BaseOption, HomeOption


def serve(
    run: Annotated[str | None, typer.Option("--run", help="Serve the newest adapter of this run.", metavar="RUN")] = None,
    base: BaseOption = None,
    home: HomeOption = None,
    host: Annotated[str, typer.Option(help="Address to bind; any but loopback requires --api-key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8100,
    api_key: Annotated[str | None, typer.Option(help="Require this key as bearer token.", envvar="JOURNEYMAN_API_KEY")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker threads [default: measured].", show_default=False)] = None,
) -> None:
    """Serve a model on an OpenAI-compatible address until Ctrl-C."""
    raise NotImplementedError
