"""Functions of the user's own, named in a settings file by dotted path (`package.module.function` or `package.module:function`), and the
judge that is made of reward functions, a model, both, or neither.

The current folder is importable, so `my_rewards.is_polite` names a function of the file `my_rewards.py` beside you. Not for running them
apart: what is named here runs in this process, with your rights.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from journeyman.errors import REWARD_FAILED, JudgeError, SettingError, stops_everything
from journeyman.observe.progress import Progress
from journeyman.recipes.settings import GrpoTrain, ModelJudge
from journeyman.rewards import Rubric, Ruler, RulerOptions
from journeyman.rewards.judge import Judge, Part, RewardFunction
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory, Verdict


def load_function(path: str, *, setting: str, parameters: Sequence[str]) -> Callable[..., Any]:
    """The function at a dotted path, which must accept `parameters` by position.

    Args:
        setting: which setting names it, for the message.
        parameters: what it will be called with, as words for the message: `("scenario", "trajectory")`.

    Raises SettingError, naming the path and what was found there instead.

    Example:
        >>> load_function("math.gcd", setting="rewards", parameters=("a", "b"))(4, 6)
        2
    """
    found = find_function(path, setting=setting)
    try:
        signature = inspect.signature(found)
    except ValueError:
        return found  # functions written in C need not tell theirs
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise SettingError(
            f"{setting}: {path} cannot be called as {_name(path)}({', '.join(parameters)}): it is {_name(path)}{signature} ({error})",
            hint=f"give it these parameters: {', '.join(parameters) or 'none'}",
        ) from error
    return found


def find_function(path: str, *, setting: str) -> Callable[..., Any]:
    """The function at a dotted path, whatever its parameters. Raises SettingError."""
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    if not module_name or not name:
        raise SettingError(f"{setting}: {path!r} is not a dotted path", hint="write it as module.function, e.g. my_rewards.is_polite")
    found = getattr(_module(module_name, path, setting), name, None)
    if found is None:
        raise SettingError(f"{setting}: {_missing(sys.modules[module_name], name)}", hint="name a function of that module")
    if not callable(found):
        raise SettingError(f"{setting}: {path} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Of `given`, the keywords that the function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return given
    names = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return {name: value for name, value in given.items() if name in names}


def _module(name: str, path: str, setting: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SettingError(
                f"{setting}: there is no module {error.name!r} (looked for {path}, also in {here})",
                hint="give the path from the current folder, with dots and without .py, or install the package",
            ) from error
        raise SettingError(f"{setting}: importing {name} failed: {error}", hint="install what it needs") from error
    except BaseException as error:  # whatever a module of the user's does when it is imported, `sys.exit` included
        if stops_everything(error):
            raise
        raise SettingError(f"{setting}: importing {name} failed: {type(error).__name__}: {error}", hint=f"mend {name}") from error


def _missing(module: ModuleType, name: str) -> str:
    public = sorted(one for one in vars(module) if not one.startswith("_"))
    nearest = difflib.get_close_matches(name, public, n=1, cutoff=0.5)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the module {module.__name__} ({getattr(module, '__file__', 'built in')}) has no {name!r}{advice}"


def _name(path: str) -> str:
    return path.replace(":", ".").rpartition(".")[2]


class OwnReward:
    """Takes the reward that the rollout function set on its run; an attempt without one is left out."""

    name = "rollout"
    description = "0 to 1, as the rollout function sets run.reward"

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        """A reward outside 0 to 1 is missing at that attempt. Raises JudgeError (`reward_failed`) where all that were set are."""
        own = [one.reward for group in groups for one in group if one.error is None and one.reward is not None]
        wrong = [reward for reward in own if not 0.0 <= reward <= 1.0]
        if wrong and len(wrong) == len(own):
            raise JudgeError(_out_of_range(wrong[0]), hint="set run.reward to a number from 0 to 1", reason=REWARD_FAILED)
        return [group.model_copy(update={"trajectories": tuple(_with_own_reward(one) for one in group)}) for group in groups]


def reward_functions(rewards: Mapping[str, float]) -> list[tuple[RewardFunction, float]]:
    """The functions at these dotted paths with their weights. Raises SettingError for one that cannot be used."""
    return [
        (_of_ended(load_function(path, setting="rewards", parameters=("scenario", "trajectory"))), weight)
        for path, weight in rewards.items()
    ]


def make_judge(settings: GrpoTrain, *, run: str, home: Path, progress: Progress) -> tuple[Judge, Ruler | None]:
    """Who scores, and the model among it, which must be closed. Raises SettingError, LlmError as `Ruler` does."""
    ruler = None if settings.judge is None else _ruler(settings.judge, run, home, progress)
    functions = reward_functions(settings.rewards)
    if not functions:
        return ruler or OwnReward(), ruler
    parts: list[tuple[Part, float]] = [*functions]
    return Rubric(parts if ruler is None else [(ruler, 1.0), *parts]), ruler


def _ruler(judge: ModelJudge, run: str, home: Path, progress: Progress) -> Ruler:
    options = RulerOptions(rubric=judge.rubric, budget=judge.budget)
    return Ruler(judge.model, options=options, home=home, run=run, warn=progress.warn)


def _of_ended(function: Callable[..., Any]) -> RewardFunction:
    """The function, told only of attempts that ended by themselves."""

    @functools.wraps(function)
    async def reward(scenario: Scenario, trajectory: Trajectory) -> float | None:
        # What broke the attempt (a server, a time limit) is no judgement of the model: without reward it is left out and counted.
        if trajectory.error is not None:
            return None
        value = function(scenario, trajectory)
        return await value if inspect.isawaitable(value) else value  # type: ignore[no-any-return]

    return reward


def _with_own_reward(attempt: Trajectory) -> Trajectory:
    reward = attempt.reward if attempt.error is None else None
    explanation = ""
    if reward is None:
        explanation = "the rollout set no reward" if attempt.error is None else f"the attempt failed: {attempt.error.type}"
    elif not 0.0 <= reward <= 1.0:
        explanation, reward = _out_of_range(reward), None
    return attempt.model_copy(update={"reward": reward, "verdict": Verdict(judge="rollout", score=reward, explanation=explanation)})


def _out_of_range(reward: float) -> str:
    return f"the rollout set the reward {reward:g}, which is not from 0 to 1"
