"""Reasoning from rewards alone, after DeepSeek-R1-Zero (2501.12948), at a size that a CPU learns: sums, and countdown with small numbers.

    python examples/r1_zero.py

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

import asyncio

import journeyman as jm
from journeyman.recipes.r1_zero import accuracy, form, rollout, scenarios


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
