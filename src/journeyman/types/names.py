"""Names of runs, models and their versions: each becomes a folder's name and a part of a URL. One rule for every door.

Not for names of base models: those are known names, folders or Hugging Face ids (`modeling/base_models.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator

from journeyman.errors import InputError

#: What `/v1` calls the untrained base model; its own name means it too.
BASE: Final = "base"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION: Final = re.compile(r"([^@]+)@(0|[1-9][0-9]{0,17})")
_RULE: Final = "1 to 64 letters (a to z), digits, dots, dashes and underscores, the first of them a letter or a digit"
_MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Version:
    """A trained model as it was after a step; step 0 is its untrained adapter. `str()` is its name: on the wire, of its folder, to the
    engine.

    Example:
        >>> str(Version("agent", 3)), Version.parse("agent@3"), Version.parse("agent"), Version.parse("base")
        ('agent@3', Version(model='agent', step=3), None, None)
    """

    model: str
    step: int

    def __str__(self) -> str:
        return f"{self.model}@{self.step}"

    @classmethod
    def parse(cls, name: str | None) -> Version | None:
        """The version of that name; None for what names none: the base, or a model without a step."""
        match = _VERSION.fullmatch(name or "")
        return None if match is None else cls(match[1], int(match[2]))


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
