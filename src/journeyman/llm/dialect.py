"""Which parameters a model's endpoint takes: learnt from its refusals, so that each is made once. Not for what a value may be.

Only a parameter that is *unsupported* is left out. A value that is out of range is the caller's error: without the parameter the model
would answer with another policy than was asked for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)

_OPTIONAL = (
    "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "top_logprobs", "logprobs", "stream_options",
)  # fmt: skip
_LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_TOGETHER = {"logprobs": "top_logprobs", "top_logprobs": "logprobs"}
# Values that whoever takes the parameter at all takes too.
_ORDINARY = {"temperature": (0.0, 1.0), "top_p": (0.01, 1.0), "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0)}

_UNSUPPORTED_CODES = {"unsupported_parameter", "unknown_parameter", "unrecognized_parameter", "extra_forbidden"}
_VALUE_CODE = re.compile(r"invalid_(value|type)|(above|below)_(max|min)|out_of_range|too_(large|small|high|low)")
_UNSUPPORTED = re.compile(
    r"unsupported|(not|n't)( \w+)? (support|permitt|allow|availab|recogni|accept)|unknown|unrecogni[sz]ed|unexpected|deprecated"
    r"|extra[_ ](inputs|fields|forbidden)|cannot find field",
    re.IGNORECASE,
)
_ONLY_DEFAULT = re.compile(r"\bonly\b[^.\n]{0,40}(\bdefault\b|\b1(\.0+)?\b(?!\.?\d))", re.IGNORECASE)
_RANGE = re.compile(
    r"\b(between|range|maximum|minimum|max|min|at most|at least|up to|less than|greater than|more than|lower than|higher than|exceeds?"
    r"|too (high|low|large|small|big)|must (not )?be (?!omitted|unset|absent)|should be)\b|[<>≤≥]|\[\s*-?[\d.]+\s*,",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.;!?])\s+|\n")


class Dialect:
    """What one model at one endpoint is found not to take (reasoning models take no temperature, for one, and another name of the limit).

    Example:
        >>> dialect = Dialect("gpt-x at http://box/v1")
        >>> asked = {"model": "gpt-x", "max_tokens": 9, "temperature": 0.5}
        >>> dialect.learn("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", asked)
        True
        >>> dialect.body(asked)
        {'model': 'gpt-x', 'max_completion_tokens': 9, 'temperature': 0.5}
        >>> dialect.learn("temperature must be between 1 and 2", asked)
        False
    """

    def __init__(self, where: str = "the model") -> None:
        self.where = where
        self._without: dict[str, None] = {}
        self._renamed: set[str] = set()

    @property
    def omitted(self) -> tuple[str, ...]:
        """The parameters of sampling that are left out, in the order they were refused."""
        return tuple(name for name in self._without if name != "stream_options")

    def body(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A request as the endpoint takes it; what is None is left out."""
        return {self._name(name): value for name, value in wanted.items() if value is not None and name not in self._without}

    def learn(self, message: str, sent: Mapping[str, Any], *, code: object = None, param: object = None) -> bool:
        """Whether the refusal of `sent` calls a parameter of it unsupported: then the call is worth another try without it.

        What was learnt meanwhile from another call counts too: of several calls at the same time each is refused once.

        Args:
            code, param: as OpenAI's error object has them; they say more than the message where they are there.
        """
        for name in (name for name in (*_LIMITS, *_OPTIONAL) if name in sent):
            if not _is_unsupported(name, sent[name], message, code, param):
                continue
            if name in _LIMITS:
                return self._rename(name)
            for one in (name, _TOGETHER.get(name, name)):
                self._leave_out(one)
            return True
        return False

    def _leave_out(self, name: str) -> None:
        if name not in self._without:
            self._without[name] = None
            _log.warning("%s does not take %s: left out from now on", self.where, name)

    def _rename(self, name: str) -> bool:
        """A limit is never left out: replies would have another length. Its other name is tried once."""
        if _LIMITS[name] in self._renamed:
            return False
        self._renamed.add(name)
        return True

    def _name(self, name: str) -> str:
        return _LIMITS[name] if name in self._renamed else name


def refused_parameter(message: str, param: object, sent: Mapping[str, Any]) -> str | None:
    """The parameter of `sent` that a refusal is about; None when it is about something else."""
    names = [name for name in (*_LIMITS, *_OPTIONAL) if name in sent]
    if isinstance(param, str) and param:
        return next((name for name in names if _is_named(param, name)), None)
    return next((name for name in names if _about(name, message) is not None), None)


def _is_named(param: str, name: str) -> bool:
    return re.split(r"[./]", param)[-1] == name


def _is_unsupported(name: str, value: object, message: str, code: object, param: object) -> bool:
    """Whether a refusal says that the endpoint does not take the parameter, whatever its value."""
    code = code if isinstance(code, str) else ""
    said = _about(name, message)
    if isinstance(param, str) and param:
        if not _is_named(param, name):
            return False
        said = message
    elif said is None:
        return False
    if code in _UNSUPPORTED_CODES:
        return True
    if _VALUE_CODE.search(code) or _RANGE.search(said):
        return False
    if name in _LIMITS and re.search(rf"\buse\b.{{0,12}}\b{_LIMITS[name]}\b", said, re.IGNORECASE):
        return True
    if _ONLY_DEFAULT.search(said):
        return True
    is_refused = code == "unsupported_value" or _UNSUPPORTED.search(said) is not None
    return is_refused and _is_ordinary(name, value)


def _about(name: str, message: str) -> str | None:
    """The sentence that names the parameter, and the one after it; None when there is none. Others may repeat the whole request."""
    sentences = _SENTENCE.split(message)
    for place, sentence in enumerate(sentences):
        if re.search(rf"\b{name}\b", sentence):
            return " ".join(sentences[place : place + 2])
    return None


def _is_ordinary(name: str, value: object) -> bool:
    low, high = _ORDINARY.get(name, (float("-inf"), float("inf")))
    return isinstance(value, bool) or not isinstance(value, int | float) or low <= value <= high
