"""`journeyman export RUN`: a trained version as an adapter folder, merged weights or a GGUF file, checked after writing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.cli.options import HomeOption, given, home_folder
from journeyman.errors import SettingError

if TYPE_CHECKING:
    from journeyman.export.hub import HubRepository
    from journeyman.export.settings import ExportSettings

FormatOption = Annotated[str, typer.Option("--format", help="peft: the adapter; merged: safetensors; gguf: llama.cpp and Ollama.")]
QuantOption = Annotated[
    str | None, typer.Option("--quant", help="Of a GGUF file: f16 or q8_0 \\[default: f16].", metavar="TYPE", show_default=False)
]
DtypeOption = Annotated[
    str | None,
    typer.Option("--dtype", help="Of merged weights: float32 or bfloat16 \\[default: float32].", metavar="TYPE", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to make \\[default: exports/ in the run's folder].", metavar="DIR", show_default=False),
]
StepOption = Annotated[
    int | None, typer.Option("--step", min=0, help="Version to export \\[default: the newest, which is served].", show_default=False)
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Which model, where the run trained several.", metavar="NAME")]
PushOption = Annotated[
    str | None, typer.Option("--push", help="Also upload it to the Hugging Face hub (HF_TOKEN, or hf auth login).", metavar="ORG/NAME")
]
PublicOption = Annotated[bool, typer.Option("--public", help="With --push: a new repository is public, not private.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier export at the same place.")]


def export(
    run: Annotated[str, typer.Argument(help="Id of a run, as `journeyman runs list` shows it.", metavar="RUN")],
    format: FormatOption = "peft",
    quant: QuantOption = None,
    dtype: DtypeOption = None,
    out: OutOption = None,
    step: StepOption = None,
    model: ModelOption = None,
    force: ForceOption = False,
    push: PushOption = None,
    public: PublicOption = False,
    home: HomeOption = None,
) -> None:
    """Export what a run trained; it is loaded again and must answer as the served version does."""
    from journeyman.cli.console import output, styled
    from journeyman.cli.progress import ProgressView
    from journeyman.cli.runs import open_store

    settings = settings_of(format, quant, dtype)
    from journeyman.export.export import export_run  # torch is behind these two: what can be refused without it was
    from journeyman.export.version import find_adapter

    console = output()
    with open_store(home_folder(home), run) as store:
        find_adapter(store, run, model=model, step=step)  # a wrong run or step is found out before anything else
        repository = hub_repository(push, is_public=public)
        with ProgressView(console) as view:
            exported = export_run(
                store, run, settings, out=out, model=model, step=step, may_replace=force, push_to=repository, progress=view
            )
    console.print(styled((exported.version, "bold"), f" is in {exported.folder}"))
    if exported.url is not None:
        console.print(f"uploaded        {exported.url}")
    console.print(f"checked         {exported.agreement.text()}")
    for how, agreement in exported.measured.items():
        console.print(f"{how}: {agreement.text()}")
    for note in exported.notes:
        console.print(f"note            {note}")
    for command in exported.commands:
        console.print(f"\n{command}")


def settings_of(format: str, quant: str | None, dtype: str | None) -> ExportSettings:
    """What to export. Raises SettingError, without torch being loaded."""
    from journeyman.config import load_settings
    from journeyman.export.settings import ExportSettings

    try:
        return load_settings(ExportSettings, given=given(format=format, quant=quant, dtype=dtype))
    except SettingError as error:
        hint = "--format peft, merged or gguf; --quant f16 or q8_0 with gguf; --dtype float32 or bfloat16 with merged"
        raise SettingError(error.message, hint=hint) from error


def hub_repository(name: str | None, *, is_public: bool) -> HubRepository | None:
    """The repository of --push, reached; None without it. Raises SettingError for --public alone."""
    from journeyman.export.hub import HubRepository

    if name is None:
        if is_public:
            raise SettingError("--public says what a new repository on the hub is: give --push ORG/NAME too")
        return None
    return HubRepository.reach(name, is_private=not is_public)
