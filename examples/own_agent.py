"""An agent of your own, trained through the public names of `journeyman` alone.

    python examples/own_agent.py            # SmolLM2-135M on this machine; --base, --steps

The agent is plain Python: it lets the model draft a reply and then shorten it, two calls to an OpenAI-compatible endpoint that are
recorded as one attempt. Any framework that takes a base URL and a key (`run.base_url`, `run.api_key`) does as well. The reward is set by
hand here; a judge can score the groups instead: `groups = await jm.Ruler("openai/gpt-5-mini").score(groups)`.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import journeyman as jm

TOPICS = ("a late train", "a lost key", "a broken lamp", "a closed road", "a missing bill", "a wet floor", "a full car park", "an old map")
GROUPS_PER_STEP, GROUP_SIZE = 2, 4
NUM_HELDOUT = 2


async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
    """One attempt: draft, shorten, and say how good it is."""
    client = run.openai()
    messages: list[Any] = [{"role": "user", "content": scenario.task}]
    draft = await client.chat.completions.create(model=run.model, messages=messages, max_tokens=24)
    messages += [{"role": "assistant", "content": draft.choices[0].message.content or ""}, {"role": "user", "content": "Say it shorter."}]
    final = await client.chat.completions.create(model=run.model, messages=messages, max_tokens=24)
    length = len(final.choices[0].message.content or "")
    run.reward = 1 / (1 + length)
    run.metrics["num_characters"] = length


def mean_reward(groups: list[jm.Group]) -> float:
    rewards = [attempt.reward for group in groups for attempt in group if attempt.reward is not None]
    return sum(rewards) / len(rewards) if rewards else 0.0


async def main(base: str, steps: int) -> None:
    scenarios = [jm.Scenario(id=topic, task=f"Tell people about {topic}.") for topic in TOPICS]
    heldout, train = scenarios[:NUM_HELDOUT], scenarios[NUM_HELDOUT:]
    async with jm.local(base=base) as backend:
        model = await backend.model("short-notes")  # goes on where it stopped, if it was trained before
        async for batch in jm.iterate(train, groups_per_step=GROUPS_PER_STEP, epochs=steps, start=model.step):
            if model.step >= steps:
                break
            groups = await jm.gather(agent, batch, model=model, group_size=GROUP_SIZE)
            result = await model.train(groups, jm.Grpo(learning_rate=1e-4))
            print(f"step {result.step}: mean reward {mean_reward(groups):.4f}, adapter {result.adapter}")
        for name, tried in (("base", backend.base_model()), ("trained", model)):
            groups = await jm.gather(agent, heldout, model=tried, group_size=GROUP_SIZE)
            print(f"{name} on unseen topics: mean reward {mean_reward(groups):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train an agent to write short notes.")
    parser.add_argument("--base", default="smollm2-135m", help="a known name, a folder or a Hugging Face id [%(default)s]")
    parser.add_argument("--steps", type=int, default=12, help="[%(default)s]")
    given = parser.parse_args()
    asyncio.run(main(given.base, given.steps))
