"""A prompt that stands in a column of its own and once more at the beginning of the answers: it is taken once.

Where only some of the answers repeat it, or they begin with another prompt, nobody can know what was meant: the row is refused.
Not for pairs without a prompt column: `preferences.py` finds what both sides begin with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width, normalize

from journeyman.errors import InputError
from journeyman.types.json_text import parse_json
from journeyman.types.messages import Message

_HINT = "let all of them repeat the whole prompt, or none of them"
_MIN_COLUMNS = 12  # a shorter text of one word may begin an answer by chance; some scripts have no blanks between words


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
    repeats = [name for name, rest in rests.items() if asked and _begins(rest, asked)]
    if repeats and len(repeats) < len(rests):
        others = " and ".join(name for name in rests if name not in repeats)
        raise InputError(f"{repeats[0]} begins with the prompt, {others} does not", hint=_HINT, reason="prompt_in_some_answers")
    if not repeats:
        for name, rest in rests.items():
            _refuse_other_prompt(name, asked, rest, bool(heads[name][0]))
    given = [*next(iter(systems.values()), ()), *asked]
    return given, [list(rest[len(asked) :] if repeats else rest) for rest in rests.values()]


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
        if len(repeats) < len(answers):
            others = " and ".join(name for name in answers if name not in repeats)
            raise InputError(f"{repeats[0]} begins with the prompt, {others} does not", hint=_HINT, reason="prompt_in_some_answers")
        prompt = start
    return prompt, [text[len(prompt) :] for text in answers.values()]


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


def refuse_two_questions(given: Sequence[Message], answers: Mapping[str, Sequence[Message]]) -> None:
    """Refuse answers to two questions: what is given ends before a user speaks who does not say the same in all answers."""
    if given and given[-1].role == "assistant":
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


def _begins(messages: Sequence[Message], start: Sequence[Message]) -> bool:
    return same_beginning(messages, start) == len(start)


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
