"""Every exception Journeyman raises on purpose, in one tree.

    JourneymanError                     anything we raise on purpose; `exit_code` is the command line's
    ├── InputError                      the user gave something unusable (exit code 2)
    │   ├── SettingError                a setting that is unknown, out of range or not supported here
    │   ├── ModelNotFoundError          a base model that cannot be resolved or is incomplete
    │   ├── ContextLengthError          a prompt that does not fit the model's context
    │   └── NotFoundError               an unknown run, rollout, model, scenario
    ├── McpError                        an MCP server could not be used; `reason` is a stable code
    ├── JudgeError                      a judge could not score a group
    ├── LlmError                        a call to an OpenAI-compatible model failed
    │   ├── LlmOutageError              the server is down or busy, and stayed so through all retries
    │   ├── LlmRefusalError             it answered, but with nothing that can be used
    │   └── LlmSettingError             it can never answer as it is set up: key, address, name, parameter (exit code 2)
    ├── EngineError                     the engine failed
    │   └── AdapterError                an adapter could not be loaded, or is not the one that was trained
    ├── TrainingError                   a step could not be computed
    │   └── NothingToLearnError         no group had any spread for several steps
    ├── StoreError                      the home folder or the database cannot be used
    ├── ServiceError                    the HTTP service answered with an error, or not at all
    └── WaitTimeoutError                a wait ran out of time; says what it waited for

A message says what was wrong, what was given, and what to do; secrets are hidden in it. Errors of other libraries are mapped once, where
they enter, with `raise ... from`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from journeyman.redaction import redact


class JourneymanError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what was wrong and what was given.
        hint: what to do about it; shown on its own line.
        reason: a stable word for what was wrong, finer than the class (`malformed_key`, `unknown_host`). Programs and tests compare it;
            it crosses the wire. The message may change, the reason may not.
    """

    exit_code = 1  # set on one error where its cause is input and its class does not say so

    def __init__(self, message: str, *, hint: str | None = None, reason: str | None = None) -> None:
        super().__init__(redact(message))
        self.message = redact(message)
        self.hint = None if hint is None else redact(hint)
        self.reason = reason

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}{_HINT_MARK}{self.hint}"


class InputError(JourneymanError):
    """The user gave something unusable."""

    exit_code = 2

    def at(self, place: str) -> InputError:
        """The same error with the place of what is unusable: a file, a line, a field.

        Example:
            >>> InputError("no JSON", reason="no_json").at("a.jsonl, line 7").message
            'a.jsonl, line 7: no JSON'
        """
        return InputError(f"{place}: {self.message}", hint=self.hint, reason=self.reason)


class SettingError(InputError):
    """A setting is unknown, out of range, or not supported here. A setting is honoured or refused, never ignored."""


class ModelNotFoundError(InputError):
    """A base model cannot be resolved, or its folder is incomplete."""


class ContextLengthError(InputError):
    """A prompt does not fit the model's context; it is refused, not truncated."""


class NotFoundError(InputError):
    """An unknown run, rollout, model or scenario."""


class McpError(JourneymanError):
    """An MCP server could not be used.

    `reason` is one of: command_not_found, exited_at_start, handshake_timeout, junk_on_stdout, connection_refused, unauthorized,
    wrong_path, redirected, no_tools, only_write_tools, invalid_schema, no_feasible_scenarios, call_timeout, died, failed.
    """

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, reason=reason)


#: The reason of a JudgeError about one group alone: a function of the user's failed at it. Any other says that the judge is out of service.
REWARD_FAILED: Final = "reward_failed"


class JudgeError(JourneymanError):
    """A judge could not score a group; the group is excluded and counted, never given reward 0."""


class LlmError(JourneymanError):
    """A call to an OpenAI-compatible model failed after its retries."""


class LlmOutageError(LlmError):
    """The server cannot be reached, is overloaded or broken, and stayed so through all retries: it may pass."""


class LlmRefusalError(LlmError):
    """The model answered and nothing of it can be used: a refusal, or replies that stay faulty. `usage` is what they cost, if known."""

    def __init__(self, message: str, *, hint: str | None = None, reason: str | None = None, usage: object = None) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.usage = usage


class LlmSettingError(LlmError, SettingError):
    """The model cannot answer the way it is set up: its key, address, name or a parameter is wrong. Trying again does not help."""


class EngineError(JourneymanError):
    """The engine failed."""


class AdapterError(EngineError):
    """An adapter could not be loaded, or the engine serves another one than was trained."""


class TrainingError(JourneymanError):
    """A training step could not be computed."""


class NothingToLearnError(TrainingError):
    """No group had any spread for several steps: there is nothing to learn from."""


class StoreError(JourneymanError):
    """The home folder or its database cannot be used."""


class ServiceError(JourneymanError):
    """The HTTP service answered with an error, or did not answer."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, hint: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.status = status
        self.code = code


class WaitTimeoutError(JourneymanError):
    """A wait ran out of time. The message names what was waited for and for how long."""


# The `code` of an error on the wire (`{"error": {"code": ...}}`, `JobStatus.error_code`). Both sides share this table, so that the
# client raises the class the server raised. "context_length_exceeded" is OpenAI's own word: agent frameworks act on it.
_CLASS_OF_CODE: dict[str, type[JourneymanError]] = {
    "invalid_input": InputError,
    "invalid_setting": SettingError,
    "model_not_found": ModelNotFoundError,
    "context_length_exceeded": ContextLengthError,
    "not_found": NotFoundError,
    "judge_failed": JudgeError,
    "llm_failed": LlmError,
    "engine_failed": EngineError,
    "adapter_failed": AdapterError,
    "training_failed": TrainingError,
    "nothing_to_learn": NothingToLearnError,
    "store_failed": StoreError,
    "wait_timeout": WaitTimeoutError,
    "failed": JourneymanError,
}
_CODE_OF_CLASS = {kind: code for code, kind in _CLASS_OF_CODE.items()}
_HINT_MARK = "\n  what to do: "


def error_code(error: JourneymanError) -> str:
    """The stable code of an error on the wire: that of its class, or of the nearest class above it."""
    if isinstance(error, ServiceError) and error.code is not None:
        return error.code
    return next(_CODE_OF_CLASS[kind] for kind in type(error).__mro__ if kind in _CODE_OF_CLASS)


def error_from_code(code: str, text: str, reason: str | None = None) -> JourneymanError | None:
    """The error that `str(error)`, `error_code(error)` and `error.reason` describe, or None when the code is not one of ours."""
    kind = _CLASS_OF_CODE.get(code)
    if kind is None:
        return None
    message, _, hint = text.partition(_HINT_MARK)
    return kind(message, hint=hint or None, reason=reason)


def stops_everything(error: BaseException) -> bool:
    """Whether an exception out of the user's code is meant for everybody: Ctrl-C, or a cancel of this very task.

    Any other is a failure of what that code was asked for: a library inside it may let a cancel of its own escape, and `sys.exit` in an
    agent ends that agent.

    Example:
        >>> stops_everything(KeyboardInterrupt()), stops_everything(ExceptionGroup("two", [ValueError(), OSError()]))
        (True, False)
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(stops_everything, error.exceptions))
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a group is about: one that is meant for everybody before others, else its first."""
    error = next(filter(stops_everything, group.exceptions), group.exceptions[0])
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
