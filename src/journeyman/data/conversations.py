"""Turns in the shapes that data sets have them in, as messages: OpenAI's `role`/`content` and ShareGPT's `from`/`value`.

Not for choosing columns: see `examples.py`. Every function raises InputError with the reason when what it is given cannot be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json
from journeyman.types.messages import FunctionCall, Message, Tool, ToolCall, other_content
from journeyman.types.training import SftExample

_ROLES = {
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_CALL_ROLES = ("function_call", "tool_call")
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']""")
_FLAGS = ("train", "training", "weight")


class Turns:
    """A conversation: its messages, and for each whether it is to be trained (assistant messages that are not switched off)."""

    def __init__(self, turns: object, what: str = "messages") -> None:
        self.messages: list[Message] = []
        self.is_trained: list[bool] = []
        self._unanswered: list[str] = []  # ids of calls whose result has not come yet
        self.add(turns, what)

    def add(self, turns: object, what: str, *, num_skipped: int = 0) -> None:
        """Go on with these turns, but for the first `num_skipped`: a list of them, such a list as JSON text, or one."""
        entries = parsed(turns, what)
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise InputError(f"{what}: a list of messages is needed, this is {kind_of(entries)}")
        for number, entry in enumerate(entries[num_skipped:], start=num_skipped + 1):
            try:
                self._take(entry)
            except InputError as error:
                raise InputError(f"{what}, message {number}: {error.message}", hint=error.hint, reason=error.reason) from error

    def begin_with_system(self, text: str) -> None:
        """Put a system message in front, where it is not. Raises InputError (other_system) when there is another one."""
        given = [message.content or "" for message in self.messages[:1] if message.role == "system"]
        if given:
            if given[0].strip() != text.strip():
                raise InputError("the conversation begins with another system message", hint="keep one of them", reason="other_system")
            return
        self.messages.insert(0, Message(role="system", content=text))
        self.is_trained.insert(0, False)

    def examples(self, tools: tuple[Tool, ...], num_given: int = 0) -> list[SftExample]:
        """One example; or several of one conversation, each trained on its last replies, when earlier ones are switched off.

        Raises InputError when there is nothing to train.
        """
        flags = [is_trained and number >= num_given for number, is_trained in enumerate(self.is_trained)]
        roles = [message.role for message in self.messages]
        if not any(flags):
            silent = "every assistant message is switched off" if "assistant" in roles[num_given:] else "no assistant message"
            raise InputError(f"{silent}: nothing to learn")
        if flags[0]:
            raise begins_with_assistant("the conversation")
        found: list[SftExample] = []
        start = num_given
        replies = [number for number, role in enumerate(roles) if role == "assistant" and number >= num_given]
        for reply, following in zip(replies, [*replies[1:], None], strict=True):
            if flags[reply] and (following is None or not flags[following]):
                end = len(roles) if following is None else reply + 1
                found.append(SftExample(messages=tuple(self.messages[:end]), tools=tools, num_given=start))
            if not flags[reply]:
                start = reply + 1
        return found

    def _take(self, entry: object) -> None:
        if not isinstance(entry, Mapping):
            raise InputError(f"a JSON object is needed, this is {kind_of(entry)}")
        given = entry.get("role") or entry.get("from")
        role = _ROLES.get(str(given).lower())
        if role is None:
            raise InputError(f"the role is {given!r}; known are {', '.join(_ROLES)}")
        content = entry.get("value") if entry.get("content") is None else entry["content"]
        _refuse_other_content(entry)
        is_call = str(given).lower() in _CALL_ROLES
        calls = _calls(content if is_call else entry.get("tool_calls"), "value" if is_call else "tool_calls")
        message = self._message(role, None if is_call else content, calls, entry)
        self.messages.append(message)
        self.is_trained.append(_flag(entry, role) and role == "assistant")
        if self.is_trained[-1] and not (message.content or message.tool_calls or message.reasoning_content):
            raise InputError("the assistant says nothing and calls nothing")

    def _message(self, role: str, content: object, calls: Sequence[tuple[object, FunctionCall]], entry: Mapping[str, Any]) -> Message:
        # Nine letters and digits: some templates insist on it.
        minted = [str(given or f"call{len(self.messages):03d}{number:02d}") for number, (given, _) in enumerate(calls)]
        answers = entry.get("tool_call_id")
        if role == "tool":
            answers = answers or (self._unanswered[0] if self._unanswered else None)
            self._unanswered = [one for one in self._unanswered if one != answers]
        self._unanswered += minted
        try:
            return Message(
                role=role,
                content=content,  # type: ignore[arg-type]  # checked by the record
                tool_calls=tuple(ToolCall(id=name, function=call) for name, (_, call) in zip(minted, calls, strict=True)),
                tool_call_id=answers,
                name=entry.get("name"),
                reasoning_content=entry.get("reasoning_content") or entry.get("reasoning") or entry.get("thinking"),
            )
        except ValidationError as error:
            fault = error.errors()[0]
            if fault["type"] == "unsupported_part":
                what = f"it has a part of the type {fault['ctx']['kind']!r}; only text can be trained"
                raise InputError(what, reason=fault["type"]) from error
            raise InputError(first_fault(error)) from error


def begins_with_assistant(what: str) -> InputError:
    """The error of a conversation whose first message is the assistant's, and is to be learned."""
    return InputError(
        f"{what} begins with the assistant: there is nothing that its first message answers",
        hint='put a system or user message in front of it, or give it "weight": 0 (what comes later is learned, the greeting is not)',
        reason="begins_with_assistant",
    )


def tools_of(value: object) -> tuple[Tool, ...]:
    """Offered tools: a list, or a list as JSON text, of OpenAI's tools or of bare functions (`name`, `description`, `parameters`)."""
    entries = parsed(value, "tools")
    if entries is None or entries == "":
        return ()
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"tools: a list is needed, this is {kind_of(entries)}")
    found = []
    for number, entry in enumerate(entries, start=1):
        entry = parsed(entry, f"tool {number}")
        function = entry.get("function", entry) if isinstance(entry, Mapping) else entry
        if isinstance(function, Mapping) and isinstance(function.get("parameters"), str):
            function = {**function, "parameters": parsed(function["parameters"], f"tool {number}, parameters")}
        try:
            found.append(Tool.model_validate({"function": function}))
        except ValidationError as error:
            raise InputError(f"tool {number}: {first_fault(error)}") from error
    return tuple(found)


def parsed(value: object, what: str) -> Any:
    """`value`; if it is a text that must be JSON, what it says."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return parse_json(value)
    except InputError as error:
        raise InputError(f"{what}: {error.message}", hint=error.hint, reason=error.reason) from error


def spoken(value: object) -> object:
    """A list of messages that stands in one cell as JSON text, as CSV has it, as a list; any other value as it is.

    Raises InputError for what begins like one and is no JSON.

    Example:
        >>> spoken('[{"role": "user", "content": "hi"}]'), spoken('[{"role": "admin"}]')
        ([{'role': 'user', 'content': 'hi'}], '[{"role": "admin"}]')
    """
    if not isinstance(value, str) or not _MESSAGES.match(value):
        return value
    try:
        found = parse_json(value)
    except InputError as error:
        hint = "write the cell with json.dumps; str() of a list is no JSON, and spreadsheets cut long cells off"
        raise InputError(f"a list of messages stands in a cell: {error.message}", hint=error.hint or hint, reason=error.reason) from error
    is_said = all(isinstance(one, Mapping) and str(one.get("role", one.get("from"))).lower() in _ROLES for one in found)
    return found if is_said else value


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if value is None or value == "":
        return "nothing"
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def first_fault(error: ValidationError) -> str:
    """The first complaint of a record, in one line."""
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def _calls(value: object, what: str) -> list[tuple[object, FunctionCall]]:
    """Tool calls of one message, each with the id that it was given: OpenAI's objects or bare ones, arguments an object or JSON text."""
    entries = parsed(value, what)
    if not entries:
        return []
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"{what}: a list of calls is needed, this is {kind_of(entries)}", reason="no_calls")
    calls: list[tuple[object, FunctionCall]] = []
    for number, entry in enumerate(entries, start=1):
        function = entry.get("function", entry) if isinstance(entry, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise InputError(f"call {number} has no function name")
        arguments = function.get("arguments", function.get("parameters"))
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, str | Mapping):
            raise InputError(f"call {number}: arguments must be an object or JSON text, this is {kind_of(arguments)}")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        if not isinstance(parsed(text or "{}", f"call {number}, arguments"), dict):
            raise InputError(f"call {number}: arguments must be an object, this is {text}")
        calls.append((entry.get("id"), FunctionCall(name=function["name"], arguments=text)))
    return calls


def _flag(entry: Mapping[str, Any], role: str) -> bool:
    """Whether a message says that it is to be trained (assistant messages are, unless they say no)."""
    given = {name: entry[name] for name in _FLAGS if entry.get(name) is not None}
    for name, value in given.items():
        if value not in (0, 1):
            raise InputError(f"{name} is {value!r}; it switches a message on or off: 1 or 0, true or false")
        if value and role != "assistant" and name != "weight":
            raise InputError(f"{name} is true, but only assistant messages can be trained and this one is of the {role}")
    return all(given.values())


def _refuse_other_content(entry: Mapping[str, Any]) -> None:
    for name in other_content(entry):
        advice = "write calls as tool_calls" if name == "function_call" else "only text can be trained"
        raise InputError(f"it has {name}; {advice}", reason="unsupported_field")
