"""One door to all methods: settings in, the report and `result.json` out. What `journeyman train` calls.

settings = load_recipe(find_file(Path("yes_no_maybe.yaml")), ["seed=1"])
report = await train(settings, SilentProgress(), home=Path(".journeyman"), run="first")
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from journeyman.errors import SettingError
from journeyman.evaluation import Report
from journeyman.mcp.target import McpTarget
from journeyman.observe.progress import Progress
from journeyman.recipes import dpo, grpo, mcp, sft
from journeyman.recipes.data import Examples, dpo_data, sft_data
from journeyman.recipes.loop import reward_functions
from journeyman.recipes.methods import McpFile, Settings
from journeyman.recipes.run import run_id_of
from journeyman.recipes.settings import DpoTrain, SftTrain
from journeyman.store import Store


def new_run_id(settings: Settings) -> str:
    """The name and the time."""
    return run_id_of(mcp.slug(settings) if isinstance(settings, McpFile) else settings.name)


def check(settings: Settings, home: Path) -> str:
    """What a run would work on, in a few words. Loads no weights; raises SettingError and InputError for what would stop it."""
    if isinstance(settings, McpFile):
        return f"server {settings.target.label} (not started)"
    if isinstance(settings, SftTrain | DpoTrain):
        return _check_data(settings, home)
    reward_functions(settings.rewards)
    scenarios = grpo.check(settings)
    heldout = sum(one.split == "heldout" for one in scenarios)
    return f"{len(scenarios) - heldout} training and {heldout} held-out tasks"


async def train(
    settings: Settings,
    progress: Progress,
    *,
    home: Path,
    run: str,
    is_resumed: bool = False,
    allow_changed_settings: bool = False,
) -> Report:
    """Train as the settings say, in a new run of that id or, `is_resumed`, the one there is. Errors as the method's own program."""
    changed = allow_changed_settings
    if isinstance(settings, McpFile):
        plain, resume = settings.without_method(), run if is_resumed else None
        return await mcp.train(plain, progress, home=home, run=run, resume=resume, allow_changed_settings=changed)
    if isinstance(settings, SftTrain):
        return await sft.train(settings, progress, home=home, run=run, is_resumed=is_resumed, allow_changed_settings=changed)
    if isinstance(settings, DpoTrain):
        return await dpo.train(settings, progress, home=home, run=run, is_resumed=is_resumed, allow_changed_settings=changed)
    resume = run if is_resumed else None
    return await grpo.train(settings, progress, home=home, run=run, resume=resume, allow_changed_settings=changed)


async def evaluate(
    run: str,
    *,
    home: Path,
    progress: Progress,
    attempts: int = 4,
    limit: int | None = None,
    judge: str | None = None,
    target: McpTarget | None = None,
) -> Report:
    """Evaluate a run again on its held-out tasks, as its method does. Raises SettingError for a run without tasks to attempt.

    `target`: the MCP server of a run that has one, with the secrets that the run did not keep.
    """
    kind = await asyncio.to_thread(_kind, run, home)
    if kind == "mcp":
        return await mcp.evaluate(run, home=home, progress=progress, attempts=attempts, limit=limit, judge=judge, target=target)
    if kind != "grpo":
        hint = f"what was measured is in its report: journeyman runs show {run}"
        raise SettingError(f"run {run!r} ({kind}) has no tasks to attempt again", hint=hint, reason="no_tasks")
    if judge is not None:
        hint = "leave it out: this run's own rewards score the attempts"
        raise SettingError("--judge compares runs of `journeyman mcp train`", hint=hint, reason="no_judge")
    return await grpo.evaluate(run, home=home, progress=progress, attempts=attempts, limit=limit)


def _kind(run: str, home: Path) -> str:
    with Store.open(home) as store:
        return store.runs.get(run).kind


def _check_data(settings: SftTrain | DpoTrain, home: Path) -> str:
    data: Examples[Any] = sft_data(settings, home) if isinstance(settings, SftTrain) else dpo_data(settings, home)
    num_steps = sft.in_steps(settings, data).num_steps
    line = f"{data.note}; {len(data.train)} to train on in {num_steps} steps, {len(data.heldout)} held out"
    return "\n  left out: ".join((line, *data.faults))
