"""Names of runs and models: each becomes a folder's name, a part of a URL and of `model@step`. One rule for every door.

Not for names of base models: those are known names, folders or Hugging Face ids (`modeling/base_models.py`).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator

from journeyman.errors import InputError

#: What `/v1` calls the untrained base model; its own name means it too.
BASE: Final = "base"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RULE: Final = "1 to 64 letters (a to z), digits, dots, dashes and underscores, the first of them a letter or a digit"
_MAX_SHOWN: Final = 80


def is_name(text: str) -> bool:
    """Whether a run or a model may be called so.

    Example:
        >>> is_name("time-agent.2"), is_name("../x"), is_name("my run"), is_name("agent@3"), is_name("")
        (True, False, False, False, False)
    """
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """The name itself. Raises InputError for one that cannot be used; `what` says what it is of."""
    if not is_name(text):
        shown = repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…")
        raise InputError(f"{what} cannot be {shown}", hint=_RULE, reason="invalid_name")
    return text


def check_model_name(text: str, base: str = BASE) -> str:
    """The name of a trained model, beside the base model of that name. Raises InputError also for one that means the base already."""
    if text in (BASE, base):
        raise InputError(
            f"a model cannot be called {text!r}: that name means the untrained base model",
            hint="give it another name (`name` in a settings file)",
            reason="reserved_name",
        )
    return check_name(text, "the name of a model")


RunName = Annotated[str, AfterValidator(partial(check_name, what="the id of a run"))]
ModelName = Annotated[str, AfterValidator(check_model_name)]
