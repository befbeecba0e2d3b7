"""Scenarios written backwards: from calls that were executed, and what they really returned. Calls no tools itself.

The question asks for one leaf of the result that cannot be guessed: no echo of an argument, no value that most calls share.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from journeyman.mcp.results import Leaf, Path, leaves
from journeyman.mcp.tools import McpTool
from journeyman.scenarios.explore import ExecutedCall
from journeyman.scenarios.wording import Wording, gives_away, spoken
from journeyman.types.scenarios import ExpectedAnswer, Scenario, Split, Witness, WitnessCall

_MAX_LEAVES = 6
_MIN_PRESENT = 0.6
_MAX_COMMON = 0.5
_UNIFORM = 0.5
_DRAWS = 12
_MAX_SEEN, _MAX_SEEN_CHARS = 40, 60
_WORDINGS_PER_CALL = 3

ONE_CALL, TWO_CALLS, COMPARISON, TWO_TOOLS = "one call", "two calls", "comparison", "two tools"


@dataclass(frozen=True, slots=True)
class Draft:
    """A scenario before it has an id: its calls, what is asked of each, and the task."""

    kind: str
    calls: tuple[ExecutedCall, ...]
    answers: tuple[ExpectedAnswer, ...]
    task: str

    @property
    def key(self) -> str:
        asked = "|".join(f"{answer.call}{answer.path}" for answer in self.answers)
        return f"{self.kind} {asked} " + " ".join(call.key for call in self.calls)

    def scenario(self, split: Split, number: int) -> Scenario:
        calls = tuple(WitnessCall(tool=call.tool, arguments=call.arguments, result=call.result) for call in self.calls)
        num_values = max(len(call.arguments) for call in self.calls)
        more_calls = 2 * (len(calls) > 1) + (self.kind == TWO_TOOLS)
        return Scenario(
            id=f"{split}-{number:03d}",
            task=self.task,
            split=split,
            difficulty=min(5, 1 + (num_values > 1) + (num_values > 3) + more_calls),
            witness=Witness(calls=calls, answers=self.answers),
            data={"kind": self.kind, "tool": self.calls[0].tool},
        )


def drop_uniform(calls: Sequence[ExecutedCall]) -> list[ExecutedCall]:
    """Leave out results that are the same text for most of many different calls: a failure message, or nothing worth asking for."""
    if len(calls) < _MAX_LEAVES or share_of_commonest([call.result for call in calls]) <= _UNIFORM:
        return list(calls)
    texts = [call.result for call in calls]
    commonest = max(set(texts), key=texts.count)
    return [call for call in calls if call.result != commonest]


def askable_leaves(calls: Sequence[ExecutedCall]) -> tuple[Path, ...]:
    """Paths a question may ask for, those that are hardest to guess first; the strictest rule that leaves any is used."""
    by_path: dict[Path, list[Leaf]] = {}
    echoes: dict[Path, int] = {}
    for call in calls:
        for path, value in leaves(call.result):
            by_path.setdefault(path, []).append(value)
            echoes[path] = echoes.get(path, 0) + is_echo(value, call.arguments)
    kept = {
        path: values
        for path, values in by_path.items()
        if len(values) >= _MIN_PRESENT * len(calls) and echoes[path] <= _MAX_COMMON * len(values)
    }
    few = len(calls) < 4
    for limit, flags in ((_MAX_COMMON, False), (0.8, False), (0.8, True), (1.0, True)):
        chosen = [
            path
            for path, values in kept.items()
            if (few or share_of_commonest(values) <= limit) and (flags or not all(isinstance(value, bool) for value in values))
        ]
        if chosen:
            ranked = sorted(chosen, key=lambda path: (share_of_commonest(kept[path]) > 0.2, len(path)))
            return tuple(ranked[:_MAX_LEAVES])
    return ()


def comparable_leaves(calls: Sequence[ExecutedCall]) -> tuple[Path, ...]:
    """Paths whose values are sometimes the same and sometimes not: "the same or different?" is a real question there."""
    by_path: dict[Path, list[Leaf]] = {}
    for call in calls:
        for path, value in leaves(call.result):
            if path and not is_echo(value, call.arguments):
                by_path.setdefault(path, []).append(value)
    return tuple(path for path, values in by_path.items() if len(values) >= 4 and 0.3 <= share_of_commonest(values) <= 0.8)


def is_echo(value: Leaf, arguments: dict[str, Any]) -> bool:
    """Whether a leaf only gives back an argument, or holds one as a whole."""
    text = spoken(value).casefold()
    for argument in arguments.values():
        said = spoken(argument).casefold()
        if text == said or (len(said) >= 3 and said in text) or (len(text) >= 3 and text in said):
            return True
    return False


def share_of_commonest(values: Sequence[Any]) -> float:
    """Share of the value that a guess would name; 1.0 when there are none."""
    if not values:
        return 1.0
    return Counter(map(str, values)).most_common(1)[0][1] / len(values)


def leaf_at(call: ExecutedCall, path: Path) -> Leaf | None:
    """The value at a path; None when it is absent or only echoes an argument."""
    value = dict(leaves(call.result)).get(path)
    return None if value is None or is_echo(value, call.arguments) else value


def _is_word_like(text: str) -> bool:
    """A name or a state rather than a number, a time or a paragraph."""
    return len(text) <= _MAX_SEEN_CHARS and 2 * sum(char.isalpha() for char in text) > len(text)


@dataclass(slots=True)
class Author:
    """Writes the drafts of one split from its calls.

    Attributes:
        calls: executed calls per tool, each used in at most a few drafts.
        leaves: per tool, what may be asked for.
        comparable: per tool, leaves for "the same or different?"; empty for tools whose results change by themselves.
    """

    tools: Mapping[str, McpTool]
    calls: Mapping[str, Sequence[ExecutedCall]]
    leaves: Mapping[str, tuple[Path, ...]]
    comparable: Mapping[str, tuple[Path, ...]]
    wording: Wording
    rng: random.Random
    two_call_share: float
    seen: set[str] = field(default_factory=set)

    def write(self, count: int) -> list[Draft]:
        """At most `count` drafts, tools in equal parts as far as their calls go."""
        num_two = round(count * self.two_call_share)
        drafts = self._round_robin(self._two, num_two)
        # Calls are few for some tools: the same one may be asked for again in other words, never twice in the same.
        for _ in range(_WORDINGS_PER_CALL):
            drafts += self._round_robin(self._one, count - len(drafts))
        self.rng.shuffle(drafts)
        return drafts

    def join(self, count: int) -> list[Draft]:
        """At most `count` drafts that ask something of two different tools. Their words are two requests, for a writer to make one of."""
        names = [name for name, calls in self.calls.items() if calls and self.leaves.get(name)]
        queues = {name: self._shuffled(name) for name in names}
        pairs = list(itertools.permutations(names, 2))
        self.rng.shuffle(pairs)
        drafts: list[Draft] = []
        while pairs and len(drafts) < count:
            first, second = pairs.pop(0)
            if queues[first] and queues[second]:
                pairs.append((first, second))
                draft = self._joined((first, *queues[first].pop()), (second, *queues[second].pop()))
                if draft is not None and self._is_new(draft):
                    drafts.append(draft)
        return drafts

    def _joined(self, *parts: tuple[str, ExecutedCall, Path | None]) -> Draft | None:
        answers, tasks = [], []
        for number, (name, call, path) in enumerate(parts):
            value = None if path is None else leaf_at(call, path)
            task = self._worded(partial(self.wording.task, self.tools[name], call.arguments, path, self.rng), call.arguments)
            if path is None or value is None or task is None:
                return None
            answers.append(self._answer(number, call, path, value))
            tasks.append(task)
        return Draft(TWO_TOOLS, tuple(call for _, call, _ in parts), tuple(answers), " ".join(tasks))

    def _answer(self, number: int, call: ExecutedCall, path: Path, value: Leaf) -> ExpectedAnswer:
        """What is expected of the call with this number, with what else was seen in its place where that is a name or a state."""
        seen = dict.fromkeys(
            leaf for other in self.calls[call.tool] if isinstance(leaf := leaf_at(other, path), str) and _is_word_like(leaf)
        )
        rivals = tuple(leaf for leaf in seen if leaf != value)[:_MAX_SEEN] if isinstance(value, str) and _is_word_like(value) else ()
        return ExpectedAnswer(call=number, path=path, value=value, seen=rivals)

    def _round_robin(self, make: object, count: int) -> list[Draft]:
        assert callable(make)
        drafts: list[Draft] = []
        queues = {name: self._shuffled(name) for name in self.calls}
        while len(drafts) < count and any(queues.values()):
            for name, queue in queues.items():
                if queue and len(drafts) < count:
                    draft = make(self.tools[name], queue)
                    if draft is not None and self._is_new(draft):
                        drafts.append(draft)
        return drafts

    def _shuffled(self, name: str) -> list[tuple[ExecutedCall, Path | None]]:
        """Every call with every leaf it can be asked for, calls without repetition first."""
        paths: Sequence[Path | None] = self.leaves.get(name) or (None,)
        calls = list(self.calls[name])
        self.rng.shuffle(calls)
        turns = [[(call, paths[(index + turn) % len(paths)]) for index, call in enumerate(calls)] for turn in range(len(paths))]
        return [pair for turn in reversed(turns) for pair in turn]

    def _is_new(self, draft: Draft) -> bool:
        if draft.task.casefold() in self.seen or (len(draft.calls) > 1 and draft.key in self.seen):
            return False
        self.seen.update((draft.key, draft.task.casefold()))
        return True

    def _one(self, tool: McpTool, queue: list[tuple[ExecutedCall, Path | None]]) -> Draft | None:
        call, path = queue.pop()
        answers: tuple[ExpectedAnswer, ...] = ()
        if path is not None:
            value = leaf_at(call, path)
            if value is None:
                return None
            answers = (self._answer(0, call, path, value),)
        task = self._worded(lambda: self.wording.task(tool, call.arguments, path, self.rng), call.arguments)
        return None if task is None else Draft(ONE_CALL, (call,), answers, task)

    def _worded(self, draw: Callable[[], str], *arguments: Mapping[str, Any]) -> str | None:
        """A wording that names no tool and no parameter; None when none of some draws is one."""
        tools = list(self.tools.values())
        return next((task for _ in range(_DRAWS) if gives_away(task := draw(), tools, *arguments) is None), None)

    def _two(self, tool: McpTool, queue: list[tuple[ExecutedCall, Path | None]]) -> Draft | None:
        if len(queue) < 2 or not tool.required:
            queue.clear()
            return None
        (first, path), (second, _) = queue.pop(), queue.pop()
        comparable = self.comparable.get(tool.name, ())
        if first.key == second.key:
            return None
        if comparable and self.rng.random() < 0.4:
            return self._comparison(tool, first, second, self.rng.choice(comparable))
        if path is None or (first_value := leaf_at(first, path)) is None or (second_value := leaf_at(second, path)) is None:
            return None
        task = self._worded_two(tool, first, second, path)
        if task is None:
            return None
        answers = (self._answer(0, first, path, first_value), self._answer(1, second, path, second_value))
        return Draft(TWO_CALLS, (first, second), answers, task)

    def _worded_two(self, tool: McpTool, first: ExecutedCall, second: ExecutedCall, path: Path, *, compare: bool = False) -> str | None:
        arguments = (first.arguments, second.arguments)
        return self._worded(lambda: self.wording.task_of_two(tool, *arguments, path, self.rng, compare=compare), *arguments)

    def _comparison(self, tool: McpTool, first: ExecutedCall, second: ExecutedCall, path: Path) -> Draft | None:
        first_value, second_value = leaf_at(first, path), leaf_at(second, path)
        if first_value is None or second_value is None:
            return None
        task = self._worded_two(tool, first, second, path, compare=True)
        if task is None:
            return None
        answer = ExpectedAnswer(call=0, path=path, value="same" if first_value == second_value else "different")
        return Draft(COMPARISON, (first, second), (answer,), task)
