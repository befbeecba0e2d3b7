"""Reading tool results: the value at a path, and whether a text copies a result's structure instead of answering in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from journeyman.mcp.results import parse_result
from journeyman.types.messages import Tool
from journeyman.types.scenarios import ExpectedAnswer, Witness

Value = str | float | int | bool

_QUOTED_KEY = re.compile(r"[\"'“][^\"'“”\n]{1,60}[\"'”]\s*:")
_BRACKETED = re.compile(r"^\s*(?:\{.*\}|\[.*\])\s*\.?\s*$", re.DOTALL)
_MARKUP = re.compile(r"```|</?tool_(?:call|response)|</?function", re.IGNORECASE)
# Fewer copied keys than this may be plain words ("The total: 5").
_MIN_COPIED_KEYS = 2
# Shorter words, and these, stand in any text.
_MIN_TELLING = 4
_COMMON_WORDS = frozenset(
    "about above after again also although because been before being between both could does each either even ever every from have here "
    "into just like made make many more most much must never only other over same some such than that their them then there these they "
    "this those through under until very were what when where which while will with within without would your".split()
)


def value_at(text: str, path: Sequence[str | int]) -> Value | None:
    """The leaf at `path` of a result's text; an empty path is the whole text. None when there is no such leaf."""
    if not path:
        return text.strip()
    node: Any = parse_result(text)
    for key in path:
        try:
            node = node[key] if not isinstance(node, str) else None
        except (KeyError, IndexError, TypeError):
            return None
    return node if isinstance(node, str | float | int | bool) else None


def expected_values(answer: ExpectedAnswer, witness: Witness, results: Sequence[str]) -> list[Value]:
    """What a right answer may say, given the results of the rollout's own executions of the witness call (latest last).

    A value computed from several results (it is not what stands at `path` in the witness's own result) is taken as stored.
    """
    if not 0 <= answer.call < len(witness.calls):
        return [answer.value]
    stored = value_at(witness.calls[answer.call].result, answer.path)
    if stored is None or str(stored).strip() != str(answer.value).strip():
        return [answer.value]
    seen = [value for result in reversed(results) if (value := value_at(result, answer.path)) is not None]
    return seen or [answer.value]


def rivals_of(answer: ExpectedAnswer, results: Sequence[str], tools: Sequence[Tool]) -> list[str]:
    """The texts known to stand in the place of an expected one: seen there before, beside it in a list of records, or in its enumeration.

    Example:
        >>> orders = '{"orders": [{"state": "open"}, {"state": "closed"}]}'
        >>> rivals_of(ExpectedAnswer(path=("orders", 0, "state"), value="open"), [orders], [])
        ['closed']
    """
    key = next((key for key in reversed(answer.path) if isinstance(key, str)), None)
    found = list(answer.seen)
    for result in results:
        found += [text for at, text in _keyed_texts(parse_result(result), None) if at == key and key is not None]
    for tool in tools:
        found += [text for values in _enumerations(tool.function.parameters) if answer.value in values for text in values]
    return [text for text in dict.fromkeys(found) if text != answer.value]


def _keyed_texts(node: Any, key: str | None) -> Iterator[tuple[str | None, str]]:
    """Texts at the leaves with the last name on their path; the items of a list have the list's."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _keyed_texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _keyed_texts(value, key)
    elif isinstance(node, str):
        yield key, node


def _enumerations(schema: Any) -> Iterator[list[str]]:
    if isinstance(schema, dict):
        values = schema.get("enum")
        if isinstance(values, list):
            yield [value for value in values if isinstance(value, str)]
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _enumerations(inner)


def leaf_texts(text: str) -> list[str]:
    """All texts at the leaves of a JSON result; nothing for plain text."""
    node = parse_result(text)
    return [leaf for _, leaf in _keyed_texts(node, None)] if isinstance(node, dict | list) else []


def is_structure_copied(answer: str, results: Sequence[str]) -> bool:
    """Whether the answer is JSON, markup, or lines of keys and values taken over from a result.

    Example:
        >>> is_structure_copied('{"day": "Monday"}', []), is_structure_copied("It is Monday.", ['{"day": "Monday"}'])
        (True, False)
    """
    if _QUOTED_KEY.search(answer) or _MARKUP.search(answer):
        return True
    if _BRACKETED.match(answer):
        return True
    keys = {key for result in results for key in _keys(parse_result(result))}
    copied = {key: len(re.findall(rf"(?<!\w){re.escape(key)}[\"'*`]*\s*[:=]", answer)) for key in keys}
    # A key that is an identifier (day_of_week, dayOfWeek) is never a plain word.
    is_identifier = any(num and ("_" in key or re.search(r"[a-z][A-Z]", key)) for key, num in copied.items())
    return sum(copied.values()) >= _MIN_COPIED_KEYS or is_identifier


def is_grounded(answer: str, results: Sequence[str], question: str) -> bool:
    """Whether an answer says anything of the results that the question did not say: for tasks with no single value to check.

    One telling word or number is enough; results that hold none cannot be asked for one.

    Example:
        >>> text = "Harbor lights were first kindled in 1823 by the keepers of Ostrava."
        >>> is_grounded("It began in 1823.", [text], "Tell me of it."), is_grounded("The moon is made of cheese.", [text], "Tell me of it.")
        (True, False)
    """
    telling = {word for result in results for word in _telling_words(result)} - _telling_words(question)
    return not telling or not telling.isdisjoint(_telling_words(answer))


def _telling_words(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", text.casefold())
    return {word for word in words if (len(word) >= _MIN_TELLING or word[0].isdigit()) and word not in _COMMON_WORDS}


def _keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from _keys(value)
