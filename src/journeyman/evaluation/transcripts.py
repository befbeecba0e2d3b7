"""Readable transcripts of attempts: task, calls, results, answer, score; and which ones a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from journeyman.evaluation.heldout import success_of
from journeyman.redaction import redact
from journeyman.rewards.attempt_text import conversation, cut_middle
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.trajectory import Group, Trajectory

LineKind = Literal["task", "call", "result", "error", "says", "end"]
Outcome = Literal["gained", "lost", "both", "neither"]

LINE_NAMES: dict[LineKind, str] = {
    "task": "task",
    "call": "calls",
    "result": "gets",
    "error": "error",
    "says": "says",
    "end": "end",
}

_MAX_CHARACTERS = 600
_OUTCOMES: dict[tuple[bool, bool], Outcome] = {
    (False, True): "gained",
    (True, False): "lost",
    (True, True): "both",
    (False, False): "neither",
}


class TranscriptLine(Record):
    """One thing that happened. `says` is text of the model, `end` how the attempt ended when not by an answer."""

    kind: LineKind
    text: str


class Transcript(Record):
    """One attempt, readable."""

    trajectory_id: str
    model: str
    lines: tuple[TranscriptLine, ...]
    score: float | None
    is_success: bool
    explanation: str


class Example(Record):
    """The same task before and after training, and how it came out: gained, lost, both, neither."""

    scenario_id: str
    task: str
    outcome: Outcome
    before: Transcript
    after: Transcript


def read_transcript(scenario: Scenario, trajectory: Trajectory) -> Transcript:
    """What the model and the tools said, without system prompt and tool schemas; long texts cut in the middle."""
    lines = [TranscriptLine(kind="task", text=scenario.task)]
    failed = {event.call_id for event in trajectory.tool_events if event.is_error}
    for message in conversation(trajectory):
        text = _shortened((message.content or "").strip())
        if message.role == "assistant":
            if text:
                lines.append(TranscriptLine(kind="says", text=text))
            calls = [f"{call.function.name}({call.function.arguments})" for call in message.tool_calls]
            lines += [TranscriptLine(kind="call", text=_shortened(call)) for call in calls]
        elif message.role == "tool":
            lines.append(TranscriptLine(kind="error" if message.tool_call_id in failed else "result", text=text))
    if ending := _ending(trajectory):
        lines.append(TranscriptLine(kind="end", text=ending))
    verdict = trajectory.verdict
    return Transcript(
        trajectory_id=trajectory.id,
        model=trajectory.model,
        lines=tuple(lines),
        score=verdict.score if verdict else None,
        is_success=success_of(trajectory) == 1.0,
        explanation=verdict.explanation if verdict else "",
    )


def transcript_text(transcript: Transcript) -> str:
    """Plain text, a line for each thing that happened: `  calls   convert({"amount": 5})`; the score last."""
    lines = []
    for line in transcript.lines:
        head, *rest = line.text.splitlines() or [""]
        lines.append(f"  {LINE_NAMES[line.kind]:<7} {head}")
        lines += [f"          {more}" for more in rest]
    return "\n".join([*lines, f"  {score_text(transcript)}"])


def score_text(transcript: Transcript) -> str:
    """ "score 0.55: 1 of 1 needed calls made; no final answer"."""
    mark = "success, " if transcript.is_success else ""
    score = "not scored" if transcript.score is None else f"{mark}score {transcript.score:.2f}"
    return f"{score}: {transcript.explanation}" if transcript.explanation else score


def pick_examples(before: Sequence[Group], after: Sequence[Group], count: int = 4) -> tuple[Example, ...]:
    """First attempts at the same scenarios by two variants: mostly gained ones, but a lost and an unsolved one whenever there are
    any, so that the examples do not flatter."""
    found: dict[Outcome, list[Example]] = {"gained": [], "lost": [], "neither": [], "both": []}
    later = {group.scenario.id: group for group in after}
    for group in before:
        other = later.get(group.scenario.id)
        if other is None or not group.trajectories or not other.trajectories:
            continue
        if success_of(group.trajectories[0]) is None or success_of(other.trajectories[0]) is None:
            continue  # an outcome that is missing is neither gained nor lost
        example = _example(group.scenario, group.trajectories[0], other.trajectories[0])
        found[example.outcome].append(example)
    shown = found["lost"][:1] + found["neither"][:1]
    rest = found["gained"] + found["both"] + found["neither"][1:] + found["lost"][1:]
    return tuple((rest[: max(0, count - len(shown))] + shown)[:count])


def _example(scenario: Scenario, before: Trajectory, after: Trajectory) -> Example:
    left, right = read_transcript(scenario, before), read_transcript(scenario, after)
    outcome = _OUTCOMES[left.is_success, right.is_success]
    return Example(scenario_id=scenario.id, task=scenario.task, outcome=outcome, before=left, after=right)


def _shortened(text: str) -> str:
    return cut_middle(redact(text), _MAX_CHARACTERS)  # half a secret would not be known


def _ending(trajectory: Trajectory) -> str:
    if trajectory.error is not None:
        return f"{trajectory.error.type}: {cut_middle(trajectory.error.message, 200)}"
    if not trajectory.turns:
        return "no model call was made"
    if trajectory.turns[-1].finish_reason == "length":
        return "cut off at the token limit"
    return "" if trajectory.answer is not None else "no final answer"
