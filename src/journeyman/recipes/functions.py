"""Functions of the user's own, named in a settings file by dotted path: `package.module.function` or `package.module:function`.

The current folder is importable, so `my_rewards.is_polite` names a function of the file `my_rewards.py` beside you. Not for running them
apart: what is named here runs in this process, with your rights.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from journeyman.errors import SettingError, stops_everything


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
    function = find_function(path, setting=setting)
    try:
        signature = inspect.signature(function)
    except ValueError:
        return function  # functions written in C may not say theirs
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise SettingError(
            f"{setting}: {path} cannot be called as {_name(path)}({', '.join(parameters)}): it is {_name(path)}{signature} ({error})",
            hint=f"give it these parameters: {', '.join(parameters) or 'none'}",
            reason="other_parameters",
        ) from error
    return function


def find_function(path: str, *, setting: str) -> Callable[..., Any]:
    """The function at a dotted path, whatever its parameters. Raises SettingError."""
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    if not module_name or not name:
        hint = "write it as module.function, e.g. my_rewards.is_polite"
        raise SettingError(f"{setting}: {path!r} is not a dotted path", hint=hint, reason="no_dotted_path")
    function = getattr(_module(module_name, path, setting), name, None)
    if function is None:
        raise SettingError(
            f"{setting}: {_missing(sys.modules[module_name], name)}", hint="name a function of that module", reason="no_function"
        )
    if not callable(function):
        raise SettingError(f"{setting}: {path} is a {type(function).__name__}, not a function", reason="no_function")
    return function  # type: ignore[no-any-return]


def accepted(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Of `values`, those by keyword that the function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return values
    names = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return {name: value for name, value in values.items() if name in names}


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
                reason="no_module",
            ) from error
        raise SettingError(f"{setting}: importing {name} failed: {error}", hint="install what it needs", reason="import_failed") from error
    except BaseException as error:  # whatever a module of the user's does when it is imported, `sys.exit` included
        if stops_everything(error):
            raise
        text = f"{setting}: importing {name} failed: {type(error).__name__}: {error}"
        raise SettingError(text, hint=f"mend {name}", reason="import_failed") from error


def _missing(module: ModuleType, name: str) -> str:
    public = sorted(one for one in vars(module) if not one.startswith("_"))
    nearest = difflib.get_close_matches(name, public, n=1, cutoff=0.5)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the module {module.__name__} ({getattr(module, '__file__', 'built in')}) has no {name!r}{advice}"


def _name(path: str) -> str:
    return path.replace(":", ".").rpartition(".")[2]
