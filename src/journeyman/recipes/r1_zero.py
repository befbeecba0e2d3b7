"""Reasoning from rewards alone, after DeepSeek-R1-Zero (2501.12948), at a size that a CPU learns: sums, and countdown with small numbers.

    python -m journeyman.recipes.r1_zero

The model is shown the form twice, `<think>...</think><answer>...</answer>`, and is never trained on a solution. Two rules score what it
tries: is the answer right (checked by computing it), and was the form kept. `journeyman train r1_zero.yaml` is the same with settings, a
held-out evaluation and a report.

What differs from DeepSeek's R1-Zero: the form is shown by two demonstrations in the prompt (there it is described in words only), since a
135M model does not follow a description; the sums are of two numbers up to 15, and countdown has two numbers and + or -, where its usual
form has three to six and all four operations. What is the same: no solution is imitated, and rules alone score answer and form.

What to expect: a 135M model keeps the form in one of four attempts at first, and knows most one-digit sums; it learns the form within
ten steps and some of the arithmetic later. It does not discover long reasoning: that takes larger models, harder tasks and more steps.
"""

from __future__ import annotations

import ast
import asyncio
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


async def main(steps: int = 24) -> None:
    judge = jm.Rubric([(accuracy, 2.0), (form, 1.0)])
    async with jm.local(base="smollm2-135m") as backend:
        model = await backend.model("r1-zero")
        async for batch in jm.iterate(scenarios(), groups_per_step=6, epochs=steps, start=model.step):
            if model.step >= steps:
                break
            groups = await judge.score(await jm.gather(rollout, batch, model=model, group_size=8))
            result = await model.train(groups, jm.Grpo(learning_rate=2e-4))
            checks = [attempt.verdict.checks for group in groups for attempt in group if attempt.verdict]
            right, kept = (sum(one[name] for one in checks) / len(checks) for name in ("accuracy", "form"))
            print(f"step {result.step:2}  right {right:.0%}  form kept {kept:.0%}")


if __name__ == "__main__":
    asyncio.run(main())
