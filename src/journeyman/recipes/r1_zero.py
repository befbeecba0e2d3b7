"""The tasks, rewards and attempts of `r1_zero.yaml`: sums and countdown, scored by the right answer and by the form.

`examples/r1_zero.py` is a program that trains on them, and says what to expect.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from typing import Any

import journeyman as jm

SYSTEM = "First think, then answer."
# How the form looks, by kind of task; the tasks themselves are never among them.
SHOWN = {
    "sum": (("2 + 6", "2 + 6 = 8", "8"), ("9 + 3", "9 + 3 = 12", "12")),
    "countdown": (("Make 8 from 2, 6", "2 + 6 = 8", "2 + 6"), ("Make 4 from 5, 9", "9 - 5 = 4", "9 - 5")),
}
_SHOWN_TASKS = {task for shown in SHOWN.values() for task, _, _ in shown}
_LARGEST = 15
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def scenarios(count: int = 192, seed: int = 0) -> list[jm.Scenario]:
    """Sums and countdown tasks in equal parts, every one of them once, in an order of `seed`."""
    rng = random.Random(seed)
    found = {one.task: one for pair in zip(_sums(rng), _countdowns(rng), strict=False) for one in pair if one.task not in _SHOWN_TASKS}
    return list(found.values())[:count]


def _sums(rng: random.Random) -> list[jm.Scenario]:
    """`7 + 5`: two numbers up to 15, in one of both orders, so that no sum is held out whose mirror image is trained."""
    pairs = [_shuffled(rng, left, right) for left in range(1, _LARGEST + 1) for right in range(1, left + 1)]
    rng.shuffle(pairs)
    return [_scenario("sum", f"{left} + {right}", left + right) for left, right in pairs]


def _countdowns(rng: random.Random) -> list[jm.Scenario]:
    """`Make 11 from 3, 8`: use each number once, and + or -, to reach the target."""
    pairs = [(left, right) for left in range(1, _LARGEST + 1) for right in range(1, left)]
    made = [(_shuffled(rng, left, right), left + sign * right) for left, right in pairs for sign in (1, -1)]
    rng.shuffle(made)
    return [_scenario("countdown", f"Make {target} from {numbers[0]}, {numbers[1]}", target, numbers) for numbers, target in made]


def _shuffled(rng: random.Random, left: int, right: int) -> tuple[int, int]:
    return (left, right) if rng.random() < 0.5 else (right, left)


def _scenario(kind: str, task: str, target: int, numbers: Sequence[int] = ()) -> jm.Scenario:
    return jm.Scenario(id=task.replace(" ", "-"), task=task, data={"kind": kind, "target": target, "numbers": list(numbers)})


def accuracy(scenario: jm.Scenario, trajectory: jm.Trajectory) -> float:
    """1 when what stands in the answer tags is right."""
    answer = _ANSWER.search(trajectory.answer or "")
    if answer is None:
        return 0.0
    if scenario.data["kind"] == "sum":
        return float(answer[1].strip() == str(scenario.data["target"]))
    return float(is_solution(answer[1], scenario.data["numbers"], scenario.data["target"]))


def form(_scenario: jm.Scenario, trajectory: jm.Trajectory) -> float:
    """1 for a thought in its tags, then an answer in its tags, and nothing else. (The server keeps thoughts apart from content.)"""
    has_thought = bool(trajectory.turns and trajectory.turns[-1].reply.reasoning_content)
    return float(has_thought and _ANSWER.fullmatch((trajectory.answer or "").strip()) is not None)


def is_solution(text: str, numbers: Sequence[int], target: int) -> bool:
    """Whether an expression uses exactly these numbers, each once, with + - *, and comes to the target.

    Example:
        >>> is_solution("9 - 5", [5, 9], 4), is_solution("4", [5, 9], 4), is_solution("9 - 5 + 0", [5, 9], 4)
        (True, False, False)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        used: list[int] = []
        return _value(tree, used) == target and sorted(used) == sorted(numbers)
    except (SyntaxError, ValueError, RecursionError):
        return False


def _value(node: ast.expr, used: list[int]) -> int:
    """The value of an expression of whole numbers; nothing is ever run. Raises ValueError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return node.value
    if not isinstance(node, ast.BinOp):
        raise ValueError("not a sum of numbers")
    left, right = _value(node.left, used), _value(node.right, used)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    if isinstance(node.op, ast.Mult):
        return left * right
    raise ValueError("only + - * are allowed")


async def rollout(scenario: jm.Scenario, run: jm.Rollout) -> None:
    """One attempt: the form shown twice, then the task."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}]
    for task, thought, answer in SHOWN[scenario.data["kind"]]:
        messages.append({"role": "user", "content": task})
        messages.append({"role": "assistant", "content": f"<think>{thought}</think><answer>{answer}</answer>"})
    messages.append({"role": "user", "content": scenario.task})
    await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=32, seed=run.seed)
