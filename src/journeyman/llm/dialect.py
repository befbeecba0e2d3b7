"""Which parameters an endpoint takes: learnt from its refusals, so that each is made once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPTIONAL = ("temperature", "seed", "top_logprobs", "logprobs", "stream_options")


class Dialect:
    """What one endpoint is found not to take (reasoning models take no temperature, for one, and another name of the token limit).

    Example:
        >>> dialect = Dialect()
        >>> dialect.learn("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {"max_tokens": 9})
        True
        >>> dialect.body({"model": "m", "max_tokens": 9, "temperature": None})
        {'model': 'm', 'max_completion_tokens': 9}
    """

    def __init__(self) -> None:
        self._without: set[str] = set()
        self._renames_max_tokens = False

    def body(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """A request as the endpoint takes it; what is None is left out."""
        return {self._name(name): value for name, value in wanted.items() if value is not None and name not in self._without}

    def learn(self, message: str, sent: Mapping[str, Any]) -> bool:
        """Whether the refusal of `sent` names a parameter of it that can be left out or renamed: then the call is worth another try.

        What was learnt meanwhile from another call counts too: of several calls at the same time each is refused once.
        """
        if "max_tokens" in sent and "max_completion_tokens" in message:
            self._renames_max_tokens = True
            return True
        for parameter in _OPTIONAL:
            if parameter in message and parameter in sent:
                self._without.add(parameter)
                return True
        return False

    def _name(self, name: str) -> str:
        return "max_completion_tokens" if name == "max_tokens" and self._renames_max_tokens else name
