"""Tasks in plain words, written from a call: what somebody would ask who does not know the tools. Pure text; no model, English only, and
no server's vocabulary.

A task holds every value exactly as the call needs it, and never the tool's name nor the name of a parameter that is no ordinary word.
Drills (see `drills`) are worded by the same functions, so that what the warm start teaches is what the tasks ask.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.mcp.results import Path
from journeyman.mcp.tools import McpTool, split_identifier

_FROM = frozenset({"source", "from", "origin", "src"})
_TO = frozenset({"target", "to", "destination", "dest", "dst"})
_GENERIC = frozenset({"", "result", "results", "value", "output", "text", "content", "answer", "data", "response"})
# {I} the intent, {W} the values, {L} the leaf asked for.
_WITH_LEAF: tuple[str, ...] = (
    "What is the {L} for {W}?",
    "Tell me the {L} for {W}.",
    "{W}: what is the {L}?",
    "I need the {L} for {W}.",
    "Given {W}, what is the {L}?",
    "Please {I} for {W} and tell me the {L}.",
    "{I}: {W}. What is the {L}?",
    "Can you {I} ({W}) and give me the {L}?",
    "Find the {L} for {W}, please.",
)
_WITH_LEAF_AND_INTENT = tuple(template for template in _WITH_LEAF if "{I}" in template)
_WITHOUT_LEAF: tuple[str, ...] = (
    "What do you get for {W}?",
    "Tell me the result for {W}.",
    "{W}: what is the result?",
    "{I}: {W}.",
    "Please {I}: {W}. What is the result?",
    "Can you {I}: {W}?",
    "I want you to {I}: {W}.",
    "Give me the result for {W}, please.",
)
_WITHOUT_LEAF_AND_INTENT = tuple(template for template in _WITHOUT_LEAF if "{I}" in template)
_NO_VALUES: tuple[str, ...] = ("Please {I}.", "Can you {I}?", "I want you to {I}.", "{I}, please.", "Could you {I} for me?", "{I}.")
_NO_VALUES_LEAF: tuple[str, ...] = (
    "Please {I}. What is the {L}?",
    "What is the {L}? Please {I}.",
    "Can you {I} and tell me the {L}?",
    "{I} and give me the {L}.",
    "I need the {L}: {I}, please.",
    "Tell me the {L}: {I}.",
)
_BOTH: tuple[str, ...] = (
    "What is the {L} for {W} and for {V}?",
    "Tell me the {L} for {W}, and also for {V}.",
    "I need the {L} twice: for {W}, then for {V}.",
    "{W}, and then {V}: what is the {L} of each?",
    "Give me the {L} for {W} and the {L} for {V}.",
    "Find the {L} for both {W} and {V}.",
)
_SAME: tuple[str, ...] = (
    "Is the {L} for {W} the same as for {V}, or different?",
    "Compare {W} with {V}: is the {L} the same or different?",
    "Do {W} and {V} have the same {L}, or a different one?",
)


def humanise(name: str) -> str:
    """An identifier as words: `day_of_week` -> "day of week"."""
    return " ".join(split_identifier(name))


def humanise_path(path: Sequence[str | int]) -> str:
    """A path into a result as words: ("target", "day_of_week") -> "target day of week"; indexes as "first", "second", …"""
    ordinals = ("first", "second", "third", "fourth", "fifth")
    words: list[str] = []
    for part in path:
        if isinstance(part, int):
            words.append(ordinals[part] if part < len(ordinals) else f"number {part + 1}")
        else:
            words.append(humanise(part))
    return " ".join(word for word in words if word)


def is_plain_word(name: str) -> bool:
    """Whether an identifier reads as an ordinary word, so that using it gives nothing away."""
    return re.fullmatch(r"[a-z]+|[A-Z][a-z]*", name) is not None


def intent(description: str, name: str) -> str:
    """What a tool does, as the object of "please …": the first sentence of its description in the imperative, else its name in words.

    Example:
        >>> intent("Calculates/evaluates the given expression. Safe.", "calculate")
        'calculate the given expression'
    """
    first_line = description.strip().split("\n")[0]
    sentence = re.split(r"(?<=[a-z)\]])[.:;](?:\s|$)", first_line)[0].strip(" .:;")
    sentence = re.sub(r"\s*\([^)]*\)", "", sentence)
    words = sentence.split()
    if not words or len(words) > 14:
        return humanise(name)
    words[0] = imperative(words[0].split("/")[0])
    text = " ".join(words)
    # A description that names the tool itself would give it away.
    return humanise(name) if name in text and not is_plain_word(name) else text


def imperative(word: str) -> str:
    """A verb in the third person as an imperative ("Returns" -> "return"); any other word in lower case unless it is an acronym."""
    lower = word.casefold()
    if word.isupper() and len(word) > 1:
        return word
    if len(lower) <= 3 or not lower.endswith("s") or lower.endswith(("ss", "us", "is")):
        return lower
    if lower.endswith(("shes", "ches", "sses", "xes", "zzes")):
        return lower[:-2]
    if lower.endswith("ies"):
        return lower[:-3] + "y"
    return lower[:-1]


def label(parameter: str, schema: dict[str, Any]) -> str:
    """What a parameter is called in a task: its name in words, a trailing number or single letter kept as it is."""
    words = humanise(parameter)
    if len(words) > 2:
        return words
    described = re.split(r"[.,;:(\n]", str(schema.get("description", "")))[0].strip()
    return described.casefold() if 0 < len(described.split()) <= 4 else words


def spoken(value: Any) -> str:
    """A value as it stands in a task: text as it is, numbers and flags plainly, lists joined by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(spoken(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{humanise(key)} {spoken(item)}" for key, item in value.items())
    return str(value)


def join_words(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(parts) <= 1:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


@dataclass(frozen=True, slots=True)
class Wording:
    """How the tools of one server are talked about.

    Attributes:
        intents: per tool, what it does in plain words.
        must_state_intent: tools that the values and the leaf alone do not tell apart from others.
    """

    intents: Mapping[str, str]
    must_state_intent: frozenset[str]

    def task(self, tool: McpTool, arguments: Mapping[str, Any], leaf: Path | None, rng: random.Random) -> str:
        """A request for one call; `leaf` is what of the result is asked for, None for the result as a whole."""
        name = leaf_name(leaf)
        words = values_in_words(tool, arguments, rng)
        if not words:
            templates: Sequence[str] = _NO_VALUES_LEAF if name else _NO_VALUES
        elif tool.name in self.must_state_intent:
            templates = _WITH_LEAF_AND_INTENT if name else _WITHOUT_LEAF_AND_INTENT
        else:
            templates = _WITH_LEAF if name else _WITHOUT_LEAF
        return _fill(rng.choice(templates), I=self.intents[tool.name], W=words, L=name)

    def task_of_two(
        self,
        tool: McpTool,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        leaf: Path | None,
        rng: random.Random,
        *,
        compare: bool = False,
    ) -> str:
        """A request that needs two calls of the tool: the leaf of both, or with `compare` whether it is the same."""
        template = rng.choice(_SAME if compare else _BOTH)
        # Both halves are worded alike.
        state = rng.getstate()
        words = values_in_words(tool, first, rng)
        rng.setstate(state)
        others = values_in_words(tool, second, rng)
        text = _fill(template, W=words, V=others, L=leaf_name(leaf) or "result")
        return f"{_capital(self.intents[tool.name])}. {text}" if tool.name in self.must_state_intent else text


def make_wording(tools: Sequence[McpTool], leaves: Mapping[str, Sequence[Path]]) -> Wording:
    """`leaves`: what is asked of each tool's results; tools that share labels and leaves must be told apart by what they do."""
    intents = {tool.name: intent(tool.description, tool.server_name) for tool in tools}
    signatures: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for tool in tools:
        labels = frozenset(label(name, tool.properties[name]) for name in tool.required)
        names = frozenset(leaf_name(path) for path in leaves.get(tool.name, ())) or frozenset({""})
        signatures[tool.name] = (labels, names)
    alike = {
        one
        for one, (labels, names) in signatures.items()
        for other, (other_labels, other_names) in signatures.items()
        if one != other and (names & other_names) and (len(labels) == len(other_labels) or "" in names & other_names)
    }
    return Wording(intents, frozenset(alike))


def leaf_name(leaf: Path | None) -> str:
    """The leaf in words; "" when it is the whole result or its key says nothing."""
    name = humanise_path(leaf or ())
    return "" if name in _GENERIC else name


def values_in_words(tool: McpTool, arguments: Mapping[str, Any], rng: random.Random) -> str:
    """The values of a call as they stand in a task: one alone, several with what they are, a source and a target as "from … to …"."""
    names = [name for name in tool.properties if name in arguments]
    if not names:
        return ""
    if len(names) == 1:
        value = spoken(arguments[names[0]])
        name = label(names[0], tool.properties[names[0]])
        is_said = name in intent(tool.description, tool.server_name)
        return f"{name} {value}" if isinstance(arguments[names[0]], bool) or (rng.random() < 0.3 and not is_said) else value
    styles: list[Callable[[], str]] = [lambda: _labelled(tool, names, arguments), lambda: _labelled(tool, names, arguments)]
    ends = _ends(names)
    if ends is not None:
        styles.append(lambda: _from_to(tool, names, arguments, ends))
        styles.append(lambda: _from_to(tool, names, arguments, ends))
    return rng.choice(styles)()


def _labelled(tool: McpTool, names: Sequence[str], arguments: Mapping[str, Any]) -> str:
    return join_words([f"{label(name, tool.properties[name])} {spoken(arguments[name])}" for name in names])


def _from_to(tool: McpTool, names: Sequence[str], arguments: Mapping[str, Any], ends: tuple[str, str]) -> str:
    rest = [name for name in names if name not in ends]
    way = f"from {spoken(arguments[ends[0]])} to {spoken(arguments[ends[1]])}"
    if len(rest) == 1:
        return f"{spoken(arguments[rest[0]])} {way}"
    return f"{_labelled(tool, rest, arguments)} {way}".strip()


def _ends(names: Sequence[str]) -> tuple[str, str] | None:
    """The parameters that say where from and where to, when there is exactly one of each."""
    starts = [name for name in names if set(humanise(name).split()) & _FROM]
    stops = [name for name in names if set(humanise(name).split()) & _TO]
    return (starts[0], stops[0]) if len(starts) == len(stops) == 1 and starts != stops else None


def _fill(template: str, **parts: str) -> str:
    text = re.sub(r"\{(\w)\}", lambda match: parts[match.group(1)], template)
    return _capital(text) if template.startswith("{I}") else text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def gives_away(task: str, tools: Sequence[McpTool], *arguments: Mapping[str, Any]) -> str | None:
    """The name of a tool or parameter that a task wrongly contains, None when there is none. Values may contain anything.

    A name that is a plain English word ("calculate", "city") is how people say the thing, and gives nothing away.
    """
    text = task
    for value in sorted({spoken(value) for values in arguments for value in values.values()}, key=len, reverse=True):
        text = text.replace(value, " ")
    for tool in tools:
        for name in (tool.name, tool.server_name, *tool.properties):
            if not is_plain_word(name) and len(name) > 1 and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
                return name
    return None
