"""EvidenceJudge: scores attempts by what really happened. Needs no model; the default offline.

It compares the tool calls of a rollout with the scenario's witness (calls that were executed when the scenario was built) and
the final answer with the values found in the rollout's own results. It cannot judge scenarios without a witness, nor style: it
abstains there.

How a score is made up, each step a visible gain over the one before (call_match.py holds the numbers of the first line):

    no call 0 · not parseable .05 · parsed .10 · right tool .20 · valid arguments .30 · executed .40 · the witness's arguments .55
    (the mean over the witness's calls), then for a final answer, in proportion to how far the calls got:
    a copy of the result's JSON +.05 · words +.05 · words that state a value of the kind asked for +.20 · the right values 1.0
    less .02 for each wasted call and for rambling, at most .10
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.rewards.agreement import compare, is_question_echo, words_of
from journeyman.rewards.call_match import AGREES, CallMatch, match_calls, tool_key
from journeyman.rewards.listing import Agreement
from journeyman.rewards.results import Value, expected_values, is_grounded, is_structure_copied, leaf_texts, rivals_of
from journeyman.types.messages import Tool
from journeyman.types.scenarios import Scenario, Witness
from journeyman.types.trajectory import Failure, Group, Trajectory, Verdict

_COPY, _WORDS, _VALUE_OF_KIND = 0.05, 0.05, 0.20
_COST, _MAX_COST = 0.02, 0.10
_MAX_WORDS = 60
_WRITTEN_OUT_CALL = 0.05
_NAMED_TOOL = 0.03

# Failures that are the model's own doing; any other (a server that died, a timeout, a bug in the agent) says nothing about it.
_MODEL_FAILURE_TYPES = frozenset({"ContextLengthError", "MaxTurnsError", "TooManyTurnsError", "LengthFinishReasonError"})
_QUOTES_OTHERS = frozenset({"McpError"})  # its message holds what a server logged
_MODEL_FAILURE_TEXT = re.compile(r"context_length_exceeded|maximum context|max_turns|too many turns", re.IGNORECASE)


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
        doubtful = [agreement for agreement in self.agreements if not agreement.is_right]
        return bool(doubtful) and all(agreement.is_undecidable for agreement in doubtful)

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
    if trajectory.error is not None and not is_model_failure(trajectory.error):
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


def is_model_failure(failure: Failure) -> bool:
    """Whether a failure is the model's own doing (it filled its context, it never stopped), to be scored and not excluded."""
    if failure.type in _MODEL_FAILURE_TYPES or failure.type in _QUOTES_OTHERS:
        return failure.type in _MODEL_FAILURE_TYPES
    return _MODEL_FAILURE_TEXT.search(failure.message) is not None


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
        found = tuple(compare(values, answer, scenario.task, beside, pools))
        if not best or sum(item.is_right for item in found) > sum(item.is_right for item in best):
            best = found
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
