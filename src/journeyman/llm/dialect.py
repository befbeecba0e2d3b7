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
_OTHERS = ("response_format", "tools", "tool_choice")  # a refusal that names one of these is about that
# Values that whoever takes the parameter at all takes too.
_ORDINARY = {
    "temperature": (0.0, 1.0),
    "top_p": (0.01, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "top_k": (1, 64),
}

_UNSUPPORTED_CODES = {"unsupported_parameter", "unknown_parameter", "unrecognized_parameter", "extra_forbidden"}
_OTHER_CODE = re.compile(
    r"invalid_(value|type)|(above|below)_(max|min)|out_of_range|too_(large|small|high|low)|(less|greater)_than|content|context"
)
_GIVEN = r"(set(?! to)|used|changed|modified|adjusted|specified|provided|present|given|passed|sent|included|supplied)\b"
_GONE = r"(omitted|unset|absent|removed|dropped|left out)\b"
_UNSUPPORTED = re.compile(
    r"unsupported|(not|n't)( \w+){0,2} (support|permitt|allow|availab|recogni|accept|applicab|enabled|implemented|configurable)"
    rf"|((not|n't) be|cannot be|can't be) {_GIVEN}|be {_GONE}|not (part of|a (valid|known) (parameter|argument|field|property|option|key))"
    r"|unknown|unrecogni[sz]ed|unexpected|deprecated|ignore[sd]?\b|extra[_ ](inputs|fields|forbidden)|extraneous|additional propert"
    r"|cannot find field|\b(has|have|is|there is) no (such )?(parameter|argument|field|property|option)\b",
    re.IGNORECASE,
)
# One number and no more: not "1 or less", "1 to 2", "1 decimal place".
_ONE = r"(?<![\w.-])\d+(\.\d+)?(?=[^\w\s]*(\s*$|[.;!?](\s|$)|\)| (value )?(is|for|when|with|on)\b))"
_ONLY_ONE = re.compile(
    rf"\bonly\b[^.\n\d\[]{{0,40}}?(\bdefault\b|{_ONE})|\b(must|has to|should) (be (set to |equal to )?|equal ){_ONE}|\bfixed (at|to)\b",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(between|range|maximum|minimum|at most|at least|up to|above|below|within|outside|exceeds?|one of|from -?\d"
    r"|(less|greater|more|lower|higher|smaller|larger) than|or (more|less|greater|lower|higher)"
    r"|(non-?)?(positive|negative)|non-?zero|too (high|low|large|small|big)|(unknown|unexpected) (error|value|type)"
    rf"|(supported|allowed|valid|accepted|possible|permitted) values?|(must|should|has to) (be (?!{_GONE})|not be (?!{_GIVEN})))\b"
    r"|(?<![\w-])(max|min)(?![\w-])|[<>≤≥]=? ?-?\d|[\[(]\s*-?[\d.]+\s*,",
    re.IGNORECASE,
)
# Parameters that exclude each other: which of them the caller wants, nobody else knows.
_TOGETHER_ONLY = re.compile(r"\b(together|both|either|simultaneous(ly)?|same time|combin(e|ed|ation)|exclusive|only one)\b", re.IGNORECASE)
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
            if not _is_unsupported(name, sent, message, code, param):
                continue
            if name in _LIMITS:
                return self._rename(name)
            for refused in (name, _TOGETHER.get(name, name)):
                self._leave_out(refused)
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
    return re.fullmatch(_pattern(name), re.split(r"[./]", param)[-1], re.IGNORECASE) is not None


def _is_unsupported(name: str, sent: Mapping[str, Any], message: str, code: object, param: object) -> bool:
    """Whether a refusal says that the endpoint does not take the parameter, whatever its value."""
    code = code if isinstance(code, str) else ""
    message = _without_name_of_model(message, sent.get("model"))
    said = _about(name, message)
    if isinstance(param, str) and param:
        if not _is_named(param, name):
            return False
        said = message
    elif said is None or any(_names(said, other) for other in sent if other in _OTHERS):
        return False
    if code in _UNSUPPORTED_CODES:
        return True
    if _OTHER_CODE.search(code):
        return False
    if name in _LIMITS and re.search(rf"\buse\b.{{0,12}}\b{_LIMITS[name]}\b", said, re.IGNORECASE):
        return True
    if _depends_on_another(said):
        return False
    if name not in _LIMITS and _ONLY_ONE.search(said):
        return True
    if _VALUE.search(said) or _TOGETHER_ONLY.search(said):
        return False
    is_refused = code == "unsupported_value" or _UNSUPPORTED.search(said) is not None
    return is_refused and _is_ordinary(name, sent[name])


def _about(name: str, message: str) -> str | None:
    """The sentence that names the parameter, and the one after it; None when there is none. Others may repeat the whole request."""
    sentences = _SENTENCE.split(message)
    return next((" ".join(sentences[place : place + 2]) for place, sentence in enumerate(sentences) if _names(sentence, name)), None)


def _names(text: str, name: str) -> bool:
    """Whether a text has the parameter's name, also as topP, top-p or Temperature."""
    return re.search(_pattern(name), text, re.IGNORECASE) is not None


def _pattern(name: str) -> str:
    return rf"(?<![\w-]){name.replace('_', '[_ -]?')}(?![\w-])"


def _depends_on_another(said: str) -> bool:
    """Whether it is "X is not supported when temperature is 0", or "without logprobs": about what goes with each other."""
    return re.search(rf"\b(when|if|while|unless|without)\W+(the )?({'|'.join(map(_pattern, _OPTIONAL))})", said, re.IGNORECASE) is not None


def _without_name_of_model(message: str, model: object) -> str:
    """Models are called seed-1.6 and qwen-max."""
    name = str(model).rpartition("/")[2]
    return re.sub(rf"(?<!\w)([\w.-]+/)*{re.escape(name)}(?![\w-])", "the model", message) if name else message


def _is_ordinary(name: str, value: object) -> bool:
    low, high = _ORDINARY.get(name, (float("-inf"), float("inf")))
    return isinstance(value, bool) or not isinstance(value, int | float) or low <= value <= high
