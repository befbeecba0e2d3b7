"""`journeyman doctor`: what on this machine is fine, what is not, and what to do. The checks are in `doctor_checks`."""

from __future__ import annotations

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
    from journeyman.cli.console import output, styled, write_json
    from journeyman.cli.doctor_checks import all_checks

    checks = all_checks(home_folder(home), port)
    is_broken = any(check.state == "broken" for check in checks)
    if as_json:
        write_json({"is_fine": not is_broken, "checks": [asdict(check) for check in checks]})
        raise typer.Exit(int(is_broken))
    console = output()
    colours = {"fine": "green", "note": "yellow", "broken": "red"}
    for check in checks:
        line = styled((f"{check.state:<6}", colours[check.state]), f"  {check.name:<12} {check.found}")
        console.print(line, soft_wrap=True)
        if check.advice:
            console.print(f"                      -> {check.advice}", soft_wrap=True)
    if is_broken:
        console.print("Something is missing; see above.", style="red")
    else:
        console.print("This machine can train.", style="green")
    raise typer.Exit(int(is_broken))
