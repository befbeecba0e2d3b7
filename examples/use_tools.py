"""The main job in one page: a small model learns to use the tools of an MCP server.

    python examples/use_tools.py

The server's tools are tried out, and every call that worked becomes a task whose answer is known to exist. Each step lets the model try
some tasks several times. While few attempts succeed, comparing them teaches little, so such a step is a warm start: the model imitates
drills, calls made up from the tools' schemas, with made-up results. From then on a step compares: the evidence judge scores what was
really called, returned and said, and GRPO makes the better attempts of each task likelier. In the end the base model and the trained one
try tasks that neither was trained on.

`journeyman train mcp.yaml` is the same with settings, a finer end of the warm start, smaller steps where few groups differ, and a report
with intervals; what that came to is in docs/results.md. A run takes tens of minutes on a CPU. Named for what is learned.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import journeyman as jm

SERVER = "python -m mcp_server_time"
FOLDER = Path(".journeyman/use-tools")
NUM_TRAIN, NUM_HELDOUT = 96, 32
GROUPS_PER_STEP, GROUP_SIZE = 8, 6
MAX_TURNS, MAX_TOKENS = 3, 112
DRILLS_PER_STEP = 64
# A step drills while fewer of its attempts succeed, but not for ever.
ENOUGH_SUCCESS, MOST_DRILL_STEPS = 0.3, 6


def kept_tasks() -> jm.ScenarioSet | None:
    """Those that were made before: a run that goes on must not hold out what it was trained on."""
    return jm.ScenarioSet.load(FOLDER) if FOLDER.exists() else None


async def make_tasks(backend: jm.Connection, target: jm.McpTarget) -> jm.ScenarioSet:
    """Try the server's tools, and make tasks of the calls that worked."""
    # The base model offers values for free text ("a time zone"); the server decides which of them are any good.
    proposer = jm.CompletionProposer(backend.openai_url, backend.api_key)
    async with jm.open_server(target) as server:
        settings = jm.ScenarioSettings(num_train=NUM_TRAIN, num_heldout=NUM_HELDOUT)
        tasks = await jm.build_scenarios(server, settings, proposer=proposer)
    await proposer.close()
    tasks.save(FOLDER)
    return tasks


def success(groups: Sequence[jm.Group]) -> float:
    """The share of attempts that did what was asked for."""
    told = [attempt.verdict is not None and attempt.verdict.is_success is True for group in groups for attempt in group]
    return sum(told) / len(told)


async def main(steps: int = 16) -> None:
    target, judge = jm.McpTarget.parse(SERVER), jm.EvidenceJudge()
    async with jm.local(base="smollm2-135m") as backend:
        tasks = kept_tasks() or await make_tasks(backend, target)
        async with jm.ServerPool(target, tasks.tools) as servers:
            agent = jm.ToolLoop(servers, jm.ToolLoopSettings(max_turns=MAX_TURNS, max_tokens=MAX_TOKENS))
            model = await backend.model("tool-user")
            # A model that was trained before goes on where it stopped.
            async for batch in jm.iterate(tasks.train, groups_per_step=GROUPS_PER_STEP, epochs=steps, start=model.step):
                if model.step >= steps:
                    break
                groups = await judge.score(await jm.gather(agent, batch, model=model, group_size=GROUP_SIZE))
                if success(groups) < ENOUGH_SUCCESS and model.step < MOST_DRILL_STEPS:
                    made = jm.drills(tasks, random.Random(model.step), DRILLS_PER_STEP)
                    examples = [agent.example(drill) for drill in made]
                    result = await model.train_sft(examples, jm.Sft(learning_rate=5e-4, batch_size=8, when_too_long="drop"))
                    word = "drilled"
                else:
                    result = await model.train(groups, jm.Grpo(learning_rate=3e-4, min_spread=0.05))
                    word = "compared"
                print(f"step {result.step:2}  {success(groups):.0%} of attempts succeed, then {word}")

            greedy = jm.ToolLoop(servers, jm.ToolLoopSettings(max_turns=MAX_TURNS, max_tokens=MAX_TOKENS, temperature=0.0))
            for name, tried in (("base", backend.base_model()), ("trained", model)):
                groups = await judge.score(await jm.gather(greedy, tasks.heldout, model=tried, group_size=1))
                print(f"{name}: {success(groups):.0%} of {len(groups)} unseen tasks, e.g. {groups[0].trajectories[0].answer!r}")


if __name__ == "__main__":
    asyncio.run(main())
