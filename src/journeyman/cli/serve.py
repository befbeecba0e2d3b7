"""`journeyman serve`: an OpenAI-compatible server for a base model, or for what a run trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from journeyman.cli.options import BaseOption, HomeOption, checked_key_option, home_folder
from journeyman.errors import SettingError
from journeyman.types.names import BASE

RunOption = Annotated[str | None, typer.Option("--run", help="Serve what this run trained.", metavar="RUN")]
HostOption = Annotated[str, typer.Option("--host", help="Address to bind; any but loopback requires --api-key.")]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        help="A further name to be called by, e.g. behind a proxy or in Docker; repeatable. Loopback, --host and IP addresses need none.",
        metavar="NAME",
        show_default=False,
    ),
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="Require this key as bearer token.", envvar="JOURNEYMAN_API_KEY", callback=checked_key_option),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Threads that compute \\[default: measured].", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="What of clients' runs stays on disk, e.g. retention.adapters=4; repeatable.", metavar="NAME=VALUE"),
]
ExpiryOption = Annotated[
    float | None,
    typer.Option(
        "--rollout-expiry",
        min=1.0,
        help="Seconds without a call after which an open rollout is sealed \\[default: 7200].",
        show_default=False,
    ),
]


def serve(
    run: RunOption = None,
    base: BaseOption = None,
    home: HomeOption = None,
    host: HostOption = "127.0.0.1",
    allow_host: AllowHostOption = None,
    port: PortOption = 8100,
    api_key: KeyOption = None,
    workers: WorkersOption = None,
    rollout_expiry: ExpiryOption = None,
    settings: SetOption = None,
) -> None:
    """Serve a model on an OpenAI-compatible address until Ctrl-C; clients may also train through it."""
    from journeyman.cli.console import output
    from journeyman.config import load_settings
    from journeyman.local import open_backend
    from journeyman.observe.logs import set_up_logging
    from journeyman.server.app import Server, bind, create_app
    from journeyman.server.auth import AllowedHosts, check_bind
    from journeyman.types.settings import ServerSettings

    chosen = load_settings(ServerSettings, overrides=settings or ())
    where = home_folder(home)
    base = base_of(run, base, where)
    check_bind(host, api_key)
    AllowedHosts(host, allow_host or ())  # a name that is none is found out before the model is loaded
    if port:
        bind(host, port).close()  # a taken port is found out before the model is loaded
    set_up_logging()
    console = output()
    console.print(f"loading {base} ...")
    backend = open_backend(
        base,
        home=where,
        num_workers=workers,
        note=lambda text: console.print(text),
        rollout_expiry_seconds=rollout_expiry,
        retention=chosen.retention,
    )
    names = backend.serve_run(run) if run else ()
    app = create_app(backend, api_key=api_key, host=host, allowed_hosts=allow_host or ())
    try:
        with Server(app, host=host, port=port, api_key=api_key) as server:
            for line in greeting(server.url, names[-1] if names else BASE, has_key=api_key is not None):
                console.print(line)
            server.wait()
    except KeyboardInterrupt:
        console.print("stopped")


def base_of(run: str | None, base: str | None, home: Path) -> str:
    """The base model to load: the run's, or the one given. Raises SettingError when they differ, when neither is given, or when the run
    has trained nothing."""
    from journeyman.cli.runs import open_store
    from journeyman.config import command_line

    if run is None:
        if base is None:
            hint = "give --run RUN (see journeyman runs list) or --base smollm2-135m"
            raise SettingError("nothing to serve was given", hint=hint, reason="no_model")
        return base
    with open_store(home, run) as store:
        info = store.runs.get(run)
        has_model = bool(store.models.list(run))
    if not has_model:
        hint = f"see how to go on with it: {command_line('runs', 'show', run, '--home', home)}"
        raise SettingError(f"run {run!r} has no trained model yet", hint=hint, reason="not_trained")
    if base is not None and base != info.base:
        raise SettingError(f"run {run!r} was trained from {info.base!r}, not from {base!r}", hint="leave --base out", reason="other_base")
    return info.base


def greeting(url: str, model: str, *, has_key: bool) -> list[str]:
    """What is said once requests are answered: the address, and a curl line to copy."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 64})
    key = ' -H "Authorization: Bearer $JOURNEYMAN_API_KEY"' if has_key else ""
    return [
        f"serving {model} on {url}/v1 (Ctrl-C stops)",
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}",
    ]
