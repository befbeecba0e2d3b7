"""`journeyman doctor`: what on this machine is fine, what is not, and what to do. The checks are in `doctor_checks`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from journeyman.cli.options import HomeOption, JsonOption, home_folder


def doctor(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port that `journeyman serve` would take; 0 is any free one.")] = 8100,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, torch, device, threads, memory, disk, model cache, ports, proxies."""
    from rich.markup import escape

    from journeyman.cli.console import output
    from journeyman.cli.doctor_checks import all_checks

    checks = all_checks(home_folder(home), port)
    is_broken = any(check.state == "broken" for check in checks)
    if as_json:
        print(json.dumps({"is_fine": not is_broken, "checks": [asdict(check) for check in checks]}, indent=2))
        raise typer.Exit(int(is_broken))
    console = output()
    signs = {"fine": "[green]fine  [/]", "note": "[yellow]note  [/]", "broken": "[red]broken[/]"}
    for check in checks:
        console.print(f"{signs[check.state]}  {check.name:<12} {escape(check.found)}", highlight=False, soft_wrap=True)
        if check.advice:
            console.print(f"                      -> {escape(check.advice)}", highlight=False, soft_wrap=True)
    console.print("[red]Something is missing; see above.[/]" if is_broken else "[green]This machine can train.[/]")
    raise typer.Exit(int(is_broken))
