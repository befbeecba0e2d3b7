"""Turns in the shapes that data sets have them in, as messages: OpenAI's `role`/`content` and ShareGPT's `from`/`value`.

Not for choosing columns: see `examples.py`. Every function raises InputError with the reason when what it is given cannot be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from unicodedata import east_asian_width, normalize

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
_MIN_COLUMNS = 12  # a shorter text of one word may begin an answer by chance; some scripts have no blanks between words
_HINT = "let all of them repeat the whole prompt, or none of them"


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
            raise InputError(f"{what}: a list of messages is needed, this is {kind_of(entries)}", reason="no_messages")
        for number, entry in enumerate(entries[num_skipped:], start=num_skipped + 1):
            try:
                self._take(entry)
            except InputError as error:
                raise error.at(f"{what}, message {number}") from error

    def begin_with_system(self, text: str) -> None:
        """Put a system message in front, where it is not. Raises InputError (other_system) when there is another one."""
        present = [message.content or "" for message in self.messages[:1] if message.role == "system"]
        if present:
            if present[0].strip() != text.strip():
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
            raise InputError(f"{silent}: nothing to learn", reason="nothing_to_learn")
        if flags[0]:
            raise begins_with_assistant("the conversation")
        examples: list[SftExample] = []
        start = num_given
        replies = [number for number, role in enumerate(roles) if role == "assistant" and number >= num_given]
        for reply, following in zip(replies, [*replies[1:], None], strict=True):
            if flags[reply] and (following is None or not flags[following]):
                end = len(roles) if following is None else reply + 1
                examples.append(SftExample(messages=tuple(self.messages[:end]), tools=tools, num_given=start))
            if not flags[reply]:
                start = reply + 1
        return examples

    def _take(self, entry: object) -> None:
        if not isinstance(entry, Mapping):
            raise InputError(f"a JSON object is needed, this is {kind_of(entry)}", reason="no_object")
        speaker = entry.get("role") or entry.get("from")
        role = _ROLES.get(str(speaker).lower())
        if role is None:
            raise InputError(f"the role is {speaker!r}; known are {', '.join(_ROLES)}", reason="unknown_role")
        content = entry.get("value") if entry.get("content") is None else entry["content"]
        _refuse_other_content(entry)
        is_call = str(speaker).lower() in _CALL_ROLES
        calls = _calls(content if is_call else entry.get("tool_calls"), "value" if is_call else "tool_calls")
        message = self._message(role, None if is_call else content, calls, entry)
        self.messages.append(message)
        self.is_trained.append(_flag(entry, role) and role == "assistant")
        if self.is_trained[-1] and not (message.content or message.tool_calls or message.reasoning_content):
            raise InputError("the assistant says nothing and calls nothing", reason="says_nothing")

    def _message(self, role: str, content: object, calls: Sequence[tuple[object, FunctionCall]], entry: Mapping[str, Any]) -> Message:
        # Nine letters and digits: some templates insist on it.
        minted = [str(ident or f"call{len(self.messages):03d}{number:02d}") for number, (ident, _) in enumerate(calls)]
        answers = entry.get("tool_call_id")
        if role == "tool":
            answers = answers or (self._unanswered[0] if self._unanswered else None)
            self._unanswered = [waiting for waiting in self._unanswered if waiting != answers]
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
            raise InputError(first_fault(error), reason="wrong_message") from error


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
        raise InputError(f"tools: a list is needed, this is {kind_of(entries)}", reason="no_tools")
    tools = []
    for number, entry in enumerate(entries, start=1):
        entry = parsed(entry, f"tool {number}")
        function = entry.get("function", entry) if isinstance(entry, Mapping) else entry
        if isinstance(function, Mapping) and isinstance(function.get("parameters"), str):
            function = {**function, "parameters": parsed(function["parameters"], f"tool {number}, parameters")}
        try:
            tools.append(Tool.model_validate({"function": function}))
        except ValidationError as error:
            raise InputError(f"tool {number}: {first_fault(error)}", reason="no_tools") from error
    return tuple(tools)


def parsed(value: object, what: str) -> Any:
    """`value`; if it is a text that must be JSON, what it says."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return parse_json(value)
    except InputError as error:
        raise error.at(what) from error


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
        messages = parse_json(value)
    except InputError as error:
        hint = "write the cell with json.dumps; str() of a list is no JSON, and spreadsheets cut long cells off"
        raise InputError(f"a list of messages stands in a cell: {error.message}", hint=error.hint or hint, reason=error.reason) from error
    return messages if all(isinstance(message, Mapping) and _has_role(message) for message in messages) else value


def _has_role(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("role", entry.get("from"))).lower() in _ROLES


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
            raise InputError(f"call {number} has no function name", reason="no_calls")
        arguments = function.get("arguments", function.get("parameters"))
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, str | Mapping):
            raise InputError(
                f"call {number}: arguments must be an object or JSON text, this is {kind_of(arguments)}", reason="no_arguments"
            )
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        if not isinstance(parsed(text or "{}", f"call {number}, arguments"), dict):
            raise InputError(f"call {number}: arguments must be an object, this is {text}", reason="no_arguments")
        calls.append((entry.get("id"), FunctionCall(name=function["name"], arguments=text)))
    return calls


def _flag(entry: Mapping[str, Any], role: str) -> bool:
    """Whether a message says that it is to be trained (assistant messages are, unless they say no)."""
    flags = {name: entry[name] for name in _FLAGS if entry.get(name) is not None}
    for name, value in flags.items():
        if value not in (0, 1):
            raise InputError(f"{name} is {value!r}; it switches a message on or off: 1 or 0, true or false", reason="wrong_flag")
        if value and role != "assistant" and name != "weight":
            raise InputError(
                f"{name} is true, but only assistant messages can be trained and this one is of the {role}", reason="wrong_flag"
            )
    return all(flags.values())


def _refuse_other_content(entry: Mapping[str, Any]) -> None:
    for name in other_content(entry):
        advice = "write calls as tool_calls" if name == "function_call" else "only text can be trained"
        raise InputError(f"it has {name}; {advice}", reason="unsupported_field")


# A prompt that stands in a column of its own and once more at the beginning of the answers: it is taken once. Where only some of the
# answers repeat it, or they begin with another prompt, nobody can know what was meant: the row is refused.


def without_prompt(prompt: Sequence[Message], answers: Mapping[str, Sequence[Message]]) -> tuple[list[Message], list[list[Message]]]:
    """(what is given, the answers after it).

    Messages are equal when their role, calls and text are, but for blanks around a text that is not the assistant's. A system message
    may stand in either place alone.

    Raises InputError: prompt_in_some_answers, other_prompt.

    Example:
        >>> hi, hello = Message(role="user", content="hi"), Message(role="assistant", content="hello")
        >>> given, (answer,) = without_prompt([hi], {"completion": [hi, hello]})
        >>> len(given), len(answer)
        (1, 1)
    """
    system, asked = _split(prompt)
    heads = {name: _split(answer) for name, answer in answers.items()}
    systems = {tuple(map(_essence, head)): head for head in (system, *(head for head, _ in heads.values())) if head}
    if len(systems) > 1:
        raise InputError(f"prompt, {' and '.join(answers)} begin with different system messages", hint="keep one", reason="other_prompt")
    rests = {name: rest for name, (_, rest) in heads.items()}
    repeats = [name for name, rest in rests.items() if asked and same_beginning(rest, asked) == len(asked)]
    _refuse_repeated_by_some(repeats, rests)
    if not repeats:
        for name, rest in rests.items():
            _refuse_other_prompt(name, asked, rest, bool(heads[name][0]))
    context = [*next(iter(systems.values()), ()), *asked]
    return context, [list(rest[len(asked) :] if repeats else rest) for rest in rests.values()]


def text_without_prompt(prompt: str, answers: Mapping[str, str]) -> tuple[str, list[str]]:
    """As `without_prompt`, for texts. A prompt of one short word is never taken for repeated; blanks at its end need not be repeated.

    Raises InputError (other_prompt) also where an answer begins with the prompt but for its blanks and line ends.

    Example:
        >>> text_without_prompt("Q: hi A: ", {"chosen": "Q: hi A: yes", "rejected": "Q: hi A: no"})
        ('Q: hi A: ', ['yes', 'no'])
    """
    if _is_short_word(prompt):
        return prompt, list(answers.values())
    if not all(text.startswith(prompt) for text in answers.values()):
        start = prompt.rstrip()
        repeats = [name for name, text in answers.items() if text.startswith(start)]
        if not repeats:
            _refuse_other_blanks(prompt, answers)
            return prompt, list(answers.values())
        _refuse_repeated_by_some(repeats, answers)
        prompt = start
    return prompt, [text[len(prompt) :] for text in answers.values()]


def _refuse_repeated_by_some(repeats: Sequence[str], answers: Iterable[str]) -> None:
    others = " and ".join(name for name in answers if name not in repeats)
    if repeats and others:
        raise InputError(f"{repeats[0]} begins with the prompt, {others} does not", hint=_HINT, reason="prompt_in_some_answers")


def _is_short_word(text: str) -> bool:
    columns = sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text.strip())
    return len(text.split()) < 2 and columns < _MIN_COLUMNS


def _refuse_other_blanks(prompt: str, answers: Mapping[str, str]) -> None:
    start = _plain(prompt)
    for name, text in answers.items():
        if _plain(text[: 2 * len(prompt) + len(start)]).startswith(start):
            fault = f"{name} begins with the prompt, but with other blanks, line ends or accents"
            raise InputError(fault, hint=_HINT, reason="other_prompt")


def _plain(text: str) -> str:
    return " ".join(normalize("NFC", text).split())


def same_beginning(left: Sequence[Message], right: Sequence[Message]) -> int:
    """How many messages two conversations have in common at their beginning."""
    length = 0
    for first, second in zip(left, right, strict=False):
        if _essence(first) != _essence(second):
            break
        length += 1
    return length


def refuse_two_questions(context: Sequence[Message], answers: Mapping[str, Sequence[Message]]) -> None:
    """Refuse answers to two questions: what is given ends before a user speaks who does not say the same in all answers."""
    if context and context[-1].role == "assistant":
        return
    for name, answer in answers.items():
        if answer and answer[0].role == "user":
            raise InputError(
                f"{' and '.join(answers)} answer two questions: {name} goes on with a user message",
                hint="a pair is two answers to one prompt",
                reason="other_prompt",
            )


def _refuse_other_prompt(name: str, asked: Sequence[Message], rest: Sequence[Message], has_system: bool) -> None:
    """An answer that does not repeat the prompt begins with the assistant (or a tool's result), or goes on after the assistant."""
    if not asked or not rest:
        return
    goes_on = asked[-1].role == "assistant" and _essence(rest[0]) != _essence(asked[0])
    if has_system or (rest[0].role in ("user", "system") and not goes_on):
        raise InputError(f"{name} begins with a prompt of its own, which is not the column prompt", hint=_HINT, reason="other_prompt")


def _split(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """System messages at the beginning, and the rest."""
    length = next((number for number, message in enumerate(messages) if message.role != "system"), len(messages))
    return messages[:length], messages[length:]


def _essence(message: Message) -> tuple[object, ...]:
    """What makes messages the same; ids of calls may be minted."""
    calls = tuple((call.function.name, _arguments(call.function.arguments)) for call in message.tool_calls)
    content = message.content or ""
    # What the assistant says may differ in blanks alone: that is then what is preferred.
    return message.role, content if message.role == "assistant" else content.strip(), message.reasoning_content, calls


def _arguments(text: str) -> object:
    try:
        return repr(parse_json(text))
    except InputError:
        return text
