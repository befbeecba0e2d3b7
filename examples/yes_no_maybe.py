"""The smallest task there is: asked to reply with yes, no or maybe, learn to say maybe. A run takes three minutes on a CPU.

    python examples/yes_no_maybe.py

A reply of "maybe" is worth 1, "no" 0.75, "yes" 0.5, anything else 0 (the task of OpenPipe's ART). Nothing in the prompt says so: the
model finds out by trying. It tells at once whether learning works at all, and where it gets stuck: on "no", when all attempts say so.
`journeyman train yes_no_maybe.yaml` is the same with settings, a held-out evaluation and a report. Not a benchmark of models.
"""

from __future__ import annotations

import asyncio
from typing import Any

import journeyman as jm
from journeyman.recipes.yes_no_maybe import reward, scenarios


async def rollout(scenario: jm.Scenario, run: jm.Rollout) -> None:
    """One attempt: ask, and score the reply."""
    messages: Any = [{"role": "user", "content": scenario.task}]
    await run.openai().chat.completions.create(model=run.model, messages=messages, max_tokens=4)


async def main(steps: int = 16) -> None:
    judge = jm.Rubric([reward])
    tasks = scenarios()
    async with jm.local(base="smollm2-135m") as backend:
        model = await backend.model("yes-no-maybe", lora=jm.LoraSettings(rank=8, alpha=16.0))
        # A model that was trained before goes on where it stopped.
        async for batch in jm.iterate(tasks, groups_per_step=4, epochs=steps, start=model.step):
            if model.step >= steps:
                break
            groups = await judge.score(await jm.gather(rollout, batch, model=model, group_size=8))
            result = await model.train(groups, jm.Grpo(learning_rate=5e-4))
            replies = [(attempt.answer or "").strip() for group in groups for attempt in group]
            mean = sum(attempt.reward or 0.0 for group in groups for attempt in group) / len(replies)
            print(f"step {result.step:2}  mean reward {mean:.2f}  e.g. {replies[0]!r}, {replies[-1]!r}")


if __name__ == "__main__":
    asyncio.run(main())
