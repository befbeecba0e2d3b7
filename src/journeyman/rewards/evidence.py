"""EvidenceJudge: scores attempts by what really happened. Needs no model; the default offline.

It compares the tool calls of a rollout with the scenario's witness (calls that were executed when the scenario was built) and
the final answer with the values found in the rollout's own results. It cannot judge scenarios without a witness, nor style: it
abstains there.

How a score is made up, each step a visible gain over the one before (the numbers of the first line are `call_level`'s):

    no call 0 · not parseable .05 · parsed .10 · right tool .20 · valid arguments .30 · executed .40 · the witness's arguments .55
    (the mean over the witness's calls), then for a final answer, in proportion to how far the calls got:
    a copy of the result's JSON +.05 · words +.05 · words that state a value of the kind asked for +.20 · the right values 1.0
    less .02 for each wasted call and for rambling, at most .10
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.rewards.agreement import compare, is_question_echo, words_of
from journeyman.rewards.results import Value, expected_values, is_grounded, is_structure_copied, leaf_texts, rivals_of
from journeyman.rewards.texts import Agreement
from journeyman.types.messages import Tool
from journeyman.types.scenarios import Scenario, Witness, WitnessCall
from journeyman.types.trajectory import Group, ToolEvent, Trajectory, Verdict

# What each step is worth. Between two steps the share of right arguments counts, so that a group has spread everywhere.
UNPARSED, PARSED, KNOWN_TOOL, RIGHT_TOOL, VALID, EXECUTED, AGREES = 0.05, 0.10, 0.14, 0.20, 0.30, 0.40, 0.55
_SHARE_OF_STEP = 0.8
_COPY, _WORDS, _VALUE_OF_KIND = 0.05, 0.05, 0.20
_COST, _MAX_COST = 0.02, 0.10
_MAX_WORDS = 60
_WRITTEN_OUT_CALL = 0.05
_NAMED_TOOL = 0.03


@dataclass(frozen=True, slots=True)
class _AnswerView:
    """What was found about the final answer. `is_grounded`: it says something of the results; asked where no value is expected."""

    is_final: bool
    is_copy: bool
    agreements: tuple[Agreement, ...]
    num_words: int
    is_grounded: bool = True

    @property
    def is_in_words(self) -> bool:
        return self.is_final and not self.is_copy

    @property
    def is_undecidable(self) -> bool:
        """Not right, and only because what the answer says can be read in two ways."""
        not_right = [agreement for agreement in self.agreements if not agreement.is_right]
        return bool(not_right) and all(agreement.is_undecidable for agreement in not_right)

    @property
    def share_right(self) -> float:
        if not self.agreements:
            return 1.0 if self.is_in_words and self.is_grounded else 0.0
        return sum(agreement.is_right for agreement in self.agreements) / len(self.agreements)


class EvidenceJudge:
    """Graded score from tool events, messages and the witness; reward = score."""

    @property
    def name(self) -> str:
        return "evidence"

    @property
    def description(self) -> str:
        return (
            "0 to 1 from what happened, no model involved: call parsed, right tool, valid arguments, executed, the arguments of a "
            "call known to work, and a final answer in words that states the value the tool returned; wasted calls cost a little"
        )

    async def score(self, groups: Sequence[Group]) -> list[Group]:
        """The same groups with `verdict` and `reward` set on every trajectory."""
        return [self.score_group(group) for group in groups]

    def score_group(self, group: Group) -> Group:
        scored = []
        for trajectory in group.trajectories:
            verdict = judge_trajectory(group.scenario, trajectory)
            scored.append(trajectory.model_copy(update={"verdict": verdict, "reward": verdict.score}))
        return group.model_copy(update={"trajectories": tuple(scored)})


def judge_trajectory(scenario: Scenario, trajectory: Trajectory) -> Verdict:
    """The verdict on one attempt. Score None: no witness to compare with, no model call, or a failure that is not the model's."""
    if scenario.witness is None or not scenario.witness.calls:
        return _abstain("the scenario has no witness calls to compare with; use another judge")
    if trajectory.error is not None and not trajectory.error.is_of_model:
        return _abstain(f"not the model's doing: {trajectory.error.type}: {trajectory.error.message}")
    if not trajectory.turns:
        return _abstain("the rollout made no model call")
    witness, events = scenario.witness, trajectory.tool_events
    matches = match_calls(witness.calls, events, _tools(trajectory))
    view = _view_answer(scenario, witness, trajectory, matches)
    calls = sum(match.level for match in matches) / len(matches)
    num_wasted = len(events) - sum(match.event is not None for match in matches)
    score = calls + _answer_worth(view, calls) if events else _worth_of_prose(witness, trajectory)
    cost = min(_MAX_COST, _COST * (num_wasted + (view.is_final and view.num_words > _MAX_WORDS)))
    is_executed = all(match.agrees for match in matches)
    is_success = is_executed and view.is_in_words and view.share_right == 1.0
    return Verdict(
        judge="evidence",
        score=min(1.0, max(0.0, score - cost)),
        explanation=_explain(matches, view, num_wasted, trajectory),
        checks=_checks(matches, view, trajectory, num_wasted),
        is_success=is_success,
    )


def _abstain(reason: str) -> Verdict:
    return Verdict(judge="evidence", score=None, explanation=reason)


def _tools(trajectory: Trajectory) -> tuple[Tool, ...]:
    return next((turn.tools for turn in trajectory.turns if turn.tools), ())


def _view_answer(scenario: Scenario, witness: Witness, trajectory: Trajectory, matches: Sequence[CallMatch]) -> _AnswerView:
    answer = trajectory.answer
    results = [event.result for event in trajectory.tool_events]
    if answer is None or not answer.strip():
        return _AnswerView(False, False, (), 0)
    is_copy = is_structure_copied(answer, results) or is_question_echo(answer, scenario.task)
    expected = [_expected(index, witness, matches) for index in range(len(witness.answers))]
    others = [leaf for result in results for leaf in leaf_texts(result) if leaf.casefold() not in scenario.task.casefold()]
    pools = [rivals_of(one, results, _tools(trajectory)) for one in witness.answers]
    # The results of repeated calls may differ (a clock): an answer from any of them is right.
    num_readings = max((len(values) for values in expected), default=0)
    best: tuple[Agreement, ...] = ()
    for reading in range(num_readings):
        values = [values[min(reading, len(values) - 1)] for values in expected]
        asked_for = {str(value) for value in values}
        beside = [other for other in others if other not in asked_for]
        agreements = tuple(compare(values, answer, scenario.task, beside, pools))
        if not best or sum(item.is_right for item in agreements) > sum(item.is_right for item in best):
            best = agreements
    # A right value without the call that yields it is a guess.
    kept = tuple(
        agreement if _is_backed(index, witness, matches) else Agreement(False, agreement.states_kind, "not backed by the call")
        for index, agreement in enumerate(best)
    )
    return _AnswerView(True, is_copy, kept, len(words_of(answer)), bool(expected) or is_grounded(answer, results, scenario.task))


def _expected(index: int, witness: Witness, matches: Sequence[CallMatch]) -> list[Value]:
    answer = witness.answers[index]
    results = matches[answer.call].results if 0 <= answer.call < len(matches) else ()
    return expected_values(answer, witness, results)


def _is_backed(index: int, witness: Witness, matches: Sequence[CallMatch]) -> bool:
    call = witness.answers[index].call
    return matches[call].agrees if 0 <= call < len(matches) else False


def _answer_worth(view: _AnswerView, calls: float) -> float:
    """What the final answer adds to the calls' worth, in proportion to how far the calls got."""
    if not view.is_final:
        return 0.0
    if view.is_copy:
        return _COPY * calls / AGREES
    worth = _WORDS
    states_kind = any(agreement.states_kind for agreement in view.agreements) if view.agreements else view.is_grounded
    if states_kind:
        worth = _VALUE_OF_KIND
    return worth * calls / AGREES + (1.0 - AGREES - _VALUE_OF_KIND) * view.share_right


def _worth_of_prose(witness: Witness, trajectory: Trajectory) -> float:
    """No tool was called: only an attempt at a call that could not even be recognised as one is worth a little."""
    text = "\n".join(turn.reply.content or "" for turn in trajectory.turns)
    if re.search(r"<tool_call|\"(?:name|function)\"\s*:", text):
        return _WRITTEN_OUT_CALL
    named = any(re.search(rf"(?<!\w){re.escape(tool_key(call.tool))}(?!\w)", text) for call in witness.calls)
    return _NAMED_TOOL if named else 0.0


def _checks(matches: Sequence[CallMatch], view: _AnswerView, trajectory: Trajectory, num_wasted: int) -> dict[str, float]:
    events = trajectory.tool_events
    return {
        "called": float(bool(events)),
        "parsed": _share([event.arguments is not None for event in events]),
        "known_tool": _share([event.is_known for event in events]),
        "valid": _share([event.is_valid for event in events]),
        "executed": _share([not event.is_error for event in events]),
        "calls": sum(match.level for match in matches) / len(matches) / AGREES,
        "calls_right": _share([match.agrees for match in matches]),
        "answered": float(view.is_final),
        "in_words": float(view.is_in_words),
        "copied": float(view.is_copy),
        "undecidable": float(view.is_undecidable),
        "answer_right": view.share_right if view.is_final else 0.0,
        "wasted_calls": float(num_wasted),
        "truncated": float(trajectory.turns[-1].finish_reason == "length"),
    }


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _explain(matches: Sequence[CallMatch], view: _AnswerView, num_wasted: int, trajectory: Trajectory) -> str:
    parts = [f"{sum(match.agrees for match in matches)} of {len(matches)} needed calls made"]
    if trajectory.turns[-1].finish_reason == "length":
        parts.append("cut off at the token limit")
    elif not view.is_final:
        parts.append("no final answer")
    elif view.is_copy:
        parts.append("the answer copies the result or the question instead of saying it in words")
    else:
        parts += [f"answer {'undecidable: ' if one.is_undecidable else ''}{one.reason}" for one in view.agreements]
        if not view.is_grounded:
            parts.append("the answer says nothing that the tools returned")
    if num_wasted > 0:
        parts.append(f"{num_wasted} wasted calls")
    if trajectory.error is not None:
        parts.append(f"ended by {trajectory.error.type}")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class CallMatch:
    """The best of the rollout's calls for one witness call. `event` is its index, None when nothing was left to match.

    `results` holds what every agreeing execution returned (latest last): it counts as the truth for the answer.
    """

    level: float
    event: int | None
    results: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return self.level >= AGREES


def match_calls(witness: Sequence[WitnessCall], events: Sequence[ToolEvent], tools: Sequence[Tool]) -> list[CallMatch]:
    """For each witness call the event that got furthest; an event counts for one call only, the best pairs first."""
    defaults = {tool_key(tool.function.name): _defaults(tool) for tool in tools}
    levels = [[call_level(call, event, defaults.get(tool_key(call.tool), {})) for event in events] for call in witness]
    out: list[CallMatch | None] = [None] * len(witness)
    free = set(range(len(events)))
    # Best pairs first; ties go to the earlier call and event, so that the result does not depend on anything else.
    pairs = sorted((-levels[i][j], i, j) for i in range(len(witness)) for j in range(len(events)))
    for negative_level, i, j in pairs:
        if out[i] is None and j in free:
            results = tuple(events[k].result for k in range(len(events)) if levels[i][k] >= AGREES)
            out[i] = CallMatch(-negative_level, j, results)
            free.discard(j)
    return [match or CallMatch(0.0, None) for match in out]


def call_level(call: WitnessCall, event: ToolEvent, defaults: Mapping[str, Any]) -> float:
    """How far one event got towards one witness call, in [0, AGREES]."""
    is_right_tool = tool_key(event.name) == tool_key(call.tool)
    if event.arguments is None:
        return UNPARSED + (0.03 if is_right_tool else 0.0)
    if not is_right_tool:
        return KNOWN_TOOL if event.is_known else PARSED
    share = share_of_arguments(call.arguments, event.arguments, defaults)
    if not event.is_valid:
        return RIGHT_TOOL + share * _SHARE_OF_STEP * (VALID - RIGHT_TOOL)
    if event.is_error:
        return VALID + share * _SHARE_OF_STEP * (EXECUTED - VALID)
    if share == 1.0:
        return AGREES
    return EXECUTED + share * _SHARE_OF_STEP * (AGREES - EXECUTED)


def tool_key(name: str) -> str:
    """Tool names as OpenAI's charset allows them: what a client offers may be a mapped form of the server's own name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def share_of_arguments(expected: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> float:
    """Share of arguments that agree; an argument left out, or added, agrees when it is null or the schema's default."""
    names = sorted({*expected, *given})
    if not names:
        return 1.0

    def value(source: Mapping[str, Any], name: str) -> Any:
        found = source.get(name)
        return defaults.get(name) if found is None else found

    same = [name for name in names if normalise(value(expected, name)) == normalise(value(given, name))]
    return len(same) / len(names)


def normalise(value: Any) -> Any:
    """A form in which arguments that mean the same are equal: numbers by value (also as text), text without case and blanks."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, int | float):
        return ("number", float(value))
    if isinstance(value, Mapping):
        return ("object", tuple((key, normalise(value[key])) for key in sorted(value) if value[key] is not None))
    if isinstance(value, list | tuple):
        return ("list", tuple(normalise(item) for item in value))
    text = re.sub(r"\s+", "", str(value)).casefold()
    if re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", text):
        return ("number", float(text))
    # "9:05" and "09:05" are the same clock time.
    return ("text", re.sub(r"(?<![\d.:])0+(?=\d:\d)", "", text))


def _defaults(tool: Tool) -> dict[str, Any]:
    properties = tool.function.parameters.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: spec["default"] for name, spec in properties.items() if isinstance(spec, dict) and "default" in spec}
